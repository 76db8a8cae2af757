//! The table of keys.

use haechi_ebpf::program::Step;
use haechi_signatures::exceptions::Exception;

use super::yaml::{Bad, Node};
use super::{Config, suggest};
use crate::servers;
use crate::sinks::{Format, KINDS, Spec};

/// One key.
pub struct Key {
    /// Its path, as `limits.processes`.
    pub path: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What it takes, for the docs.
    pub takes: &'static str,
    pub(super) set: fn(&mut Config, &Node) -> Result<(), Bad>,
    pub(super) show: fn(&Config) -> String,
}

/// All keys, those of a section together.
pub const KEYS: &[Key] = &[
    Key {
        path: "events",
        doc: "Events to show besides findings: names, tags and filters, as `--events` takes them.",
        takes: "list of texts",
        set: |c, n| n.texts().map(|v| c.events = v),
        show: |c| texts(&c.events),
    },
    Key {
        path: "scope",
        doc: "What is watched at all, for events and rules alike, as `--scope` takes it.",
        takes: "list of texts",
        set: |c, n| n.texts().map(|v| c.scope = v),
        show: |c| texts(&c.scope),
    },
    Key {
        path: "sinks",
        doc: "Where findings and events go: `type` (stdout, file), `format` (pretty, json) and, for files, `path`.",
        takes: "list of maps",
        set: |c, n| n.list()?.iter().map(sink).collect::<Result<_, _>>().map(|v| c.sinks = v),
        show: |c| list(c.sinks.iter().map(show_sink)),
    },
    Key {
        path: "log",
        doc: "What the agent says about itself on standard error: error, warn, info, debug or trace.",
        takes: "text",
        set: |c, n| one_of(n, &["error", "warn", "info", "debug", "trace"]).map(|v| c.log = v),
        show: |c| text(&c.log),
    },
    Key {
        path: "rules.builtin",
        doc: "Whether the built-in rules are on.",
        takes: "true or false",
        set: |c, n| n.truth().map(|v| c.rules.builtin = v),
        show: |c| c.rules.builtin.to_string(),
    },
    Key {
        path: "rules.dirs",
        doc: "Directories with rules of your own (*.rego). They are watched: changes take effect at once.",
        takes: "list of paths",
        set: |c, n| n.texts().map(|v| c.rules.dirs = v.into_iter().map(Into::into).collect()),
        show: |c| list(c.rules.dirs.iter().map(|d| text(&d.display().to_string()))),
    },
    Key {
        path: "rules.disabled",
        doc: "Rules that are off, by name.",
        takes: "list of texts",
        set: |c, n| n.texts().map(|v| c.rules.disabled = v),
        show: |c| texts(&c.rules.disabled),
    },
    Key {
        path: "rules.allow",
        doc: "Programs that may do what a rule looks for: for each rule a list of paths, which may end in `*`.",
        takes: "map of lists of paths",
        set: |c, n| {
            for (rule, paths) in n.map()? {
                c.rules.rules.entry(rule.name.clone()).or_default().allow = paths.texts()?;
            }
            Ok(())
        },
        show: |c| {
            let some = c.rules.rules.iter().filter(|(_, r)| !r.allow.is_empty());
            let items: Vec<_> = some.map(|(rule, r)| format!("{}: {}", text(rule), texts(&r.allow))).collect();
            format!("{{{}}}", items.join(", "))
        },
    },
    Key {
        path: "rules.exceptions",
        doc: "Who may do what a rule looks for: `rule`, and any of `exe`, `parent`, `below`, `path`, `uid`,\n\
              `container`, all of which must hold; a text may end in `*`.",
        takes: "list of maps",
        set: exceptions,
        show: |c| {
            let of = |(rule, e): (&String, &Exception)| show_exception(rule, e);
            list(c.rules.rules.iter().flat_map(|(rule, r)| r.exceptions.iter().map(move |e| (rule, e))).map(of))
        },
    },
    Key {
        path: "rules.dedup_window",
        doc: "Seconds in which the same rule, process and target is one finding with a count; 0 shows every one.",
        takes: "number",
        set: |c, n| n.number(0, 86_400).map(|v| c.rules.window_seconds = v),
        show: |c| c.rules.window_seconds.to_string(),
    },
    Key {
        path: "kernel.critical_ring_bytes",
        doc: "Bytes of the ring for processes and cgroups, which the agent's own knowledge rests on; a power of two.",
        takes: "number",
        set: |c, n| ring(n).map(|v| c.critical_ring_bytes = v),
        show: |c| c.critical_ring_bytes.to_string(),
    },
    Key {
        path: "kernel.bulk_ring_bytes",
        doc: "Bytes of the ring for everything else; a power of two.",
        takes: "number",
        set: |c, n| ring(n).map(|v| c.bulk_ring_bytes = v),
        show: |c| c.bulk_ring_bytes.to_string(),
    },
    Key {
        path: "kernel.flow_ring_bytes",
        doc: "Bytes of the ring for connections; a power of two.",
        takes: "number",
        set: |c, n| ring(n).map(|v| c.flow_ring_bytes = v),
        show: |c| c.flow_ring_bytes.to_string(),
    },
    Key {
        path: "kernel.env",
        doc: "Variables of a new program's environment that are shown; none: the environment is not read at all.",
        takes: "list of texts",
        set: |c, n| n.texts().map(|v| c.env = v),
        show: |c| texts(&c.env),
    },
    Key {
        path: "kernel.without",
        doc: "Kinds of hook that must not be used, by their names in `haechi check`.",
        takes: "list of texts",
        set: |c, n| n.list()?.iter().map(step).collect::<Result<_, _>>().map(|v| c.without = v),
        show: |c| list(c.without.iter().map(|s| text(s.name()))),
    },
    Key {
        path: "kernel.debug_log",
        doc: "Print what the kernel programs log. Slow.",
        takes: "true or false",
        set: |c, n| n.truth().map(|v| c.debug_log = v),
        show: |c| c.debug_log.to_string(),
    },
    Key {
        path: "flows.enabled",
        doc: "Whether connections are watched, for metrics and for the event `net_flow`.",
        takes: "true or false",
        set: |c, n| n.truth().map(|v| c.flows = v),
        show: |c| c.flows.to_string(),
    },
    Key {
        path: "flows.poll_seconds",
        doc: "Seconds between two looks at all connections that live; the totals of those that end come at once.",
        takes: "number",
        set: |c, n| n.number(1, 3600).map(|v| c.flow_seconds = v),
        show: |c| c.flow_seconds.to_string(),
    },
    Key {
        path: "flows.metric_names",
        doc: "Programs that metrics of connections show by name; the others are `other`.",
        takes: "number",
        set: |c, n| n.number(1, 10_000).map(|v| c.flow_names = v as usize),
        show: |c| c.flow_names.to_string(),
    },
    Key {
        path: "serve.enabled",
        doc: "Whether others may watch by gRPC, as `haechi watch` does; `--serve` turns it on.",
        takes: "true or false",
        set: |c, n| n.truth().map(|v| c.serve = v),
        show: |c| c.serve.to_string(),
    },
    Key {
        path: "serve.address",
        doc: "Where: unix:PATH, a socket that only its owner may use; or tcp:ADDRESS:PORT, which everybody on this host may.\n\
              Addresses that other hosts can reach are refused.",
        takes: "text",
        set: |c, n| {
            let text = n.text()?;
            c.server.address =
                text.parse().map_err(|e: servers::address::Error| Bad { line: n.line, problem: e.to_string() })?;
            Ok(())
        },
        show: |c| text(&c.server.address.to_string()),
    },
    Key {
        path: "serve.events",
        doc: "Events to serve besides those in `events`, in the same form.",
        takes: "list of texts",
        set: |c, n| n.texts().map(|v| c.serve_events = v),
        show: |c| texts(&c.serve_events),
    },
    Key {
        path: "serve.ring_bytes",
        doc: "Bytes of the newest findings that are kept for those who come later or are slow, and of events as much again.",
        takes: "number",
        set: |c, n| n.number(64 << 10, 1 << 32).map(|v| c.server.ring_bytes = v as usize),
        show: |c| c.server.ring_bytes.to_string(),
    },
    Key {
        path: "serve.flow_ring_bytes",
        doc: "The same for connections: the default holds 10 seconds of 5,000 connections a second, both ends.",
        takes: "number",
        set: |c, n| n.number(64 << 10, 1 << 32).map(|v| c.server.flow_ring_bytes = v as usize),
        show: |c| c.server.flow_ring_bytes.to_string(),
    },
    Key {
        path: "serve.watchers",
        doc: "Streams that are watched at a time; one more is refused.",
        takes: "number",
        set: |c, n| n.number(1, 1 << 16).map(|v| c.server.watchers = v as usize),
        show: |c| c.server.watchers.to_string(),
    },
    Key {
        path: "enrich.executable_hash",
        doc: "Add the SHA-256 of the program to findings.",
        takes: "true or false",
        set: |c, n| n.truth().map(|v| c.executable_hash = v),
        show: |c| c.executable_hash.to_string(),
    },
    Key {
        path: "enrich.decoded_data",
        doc: "Spell flags, types and the like in JSON events instead of giving their numbers.",
        takes: "true or false",
        set: |c, n| n.truth().map(|v| c.decoded = v),
        show: |c| c.decoded.to_string(),
    },
    Key {
        path: "limits.processes",
        doc: "Processes known at a time.",
        takes: "number",
        set: |c, n| n.number(16, 1 << 24).map(|v| c.processes = v as usize),
        show: |c| c.processes.to_string(),
    },
    Key {
        path: "limits.connections",
        doc: "Connections known at a time.",
        takes: "number",
        set: |c, n| n.number(16, 1 << 24).map(|v| c.connections = v as usize),
        show: |c| c.connections.to_string(),
    },
    Key {
        path: "limits.queue_bytes",
        doc: "Bytes of records that may wait for the rules. Records of processes and cgroups have as much room again.",
        takes: "number",
        set: |c, n| n.number(64 << 10, 1 << 32).map(|v| c.queue_bytes = v as usize),
        show: |c| c.queue_bytes.to_string(),
    },
    Key {
        path: "limits.sink_queue",
        doc: "Events and findings that may wait for each sink.",
        takes: "number",
        set: |c, n| n.number(1, 1 << 24).map(|v| c.sink_queue = v as usize),
        show: |c| c.sink_queue.to_string(),
    },
    Key {
        path: "limits.rule_instructions",
        doc: "Instructions that a Rego rule may take for one event.",
        takes: "number",
        set: |c, n| n.number(100, 1 << 32).map(|v| c.rules.limits.instructions = v as usize),
        show: |c| c.rules.limits.instructions.to_string(),
    },
    Key {
        path: "limits.rule_milliseconds",
        doc: "Milliseconds that a rule may take for one event; not measured while recording.",
        takes: "number",
        set: |c, n| n.number(1, 60_000).map(|v| c.rules.limits.milliseconds = v),
        show: |c| c.rules.limits.milliseconds.to_string(),
    },
    Key {
        path: "limits.rule_failures",
        doc: "Failures of a rule after which it is put aside for a while.",
        takes: "number",
        set: |c, n| n.number(1, 1 << 20).map(|v| c.rules.limits.failures = v as u32),
        show: |c| c.rules.limits.failures.to_string(),
    },
    Key {
        path: "limits.rule_aside_seconds",
        doc: "Seconds for which a failing rule is put aside.",
        takes: "number",
        set: |c, n| n.number(1, 86_400).map(|v| c.rules.limits.aside_seconds = v),
        show: |c| c.rules.limits.aside_seconds.to_string(),
    },
];

/// What a mistyped key below `prefix` may have been: a neighbour first, else the same word elsewhere.
pub(super) fn hint(prefix: &str, name: &str) -> String {
    let within = |k: &'static Key| {
        let rest = if prefix.is_empty() { k.path } else { k.path.strip_prefix(prefix)?.strip_prefix('.')? };
        Some(rest.split('.').next().unwrap_or(rest))
    };
    let near = suggest::hint(name, KEYS.iter().filter_map(within));
    if !near.is_empty() {
        return near;
    }
    let elsewhere = KEYS.iter().find(|k| k.path.rsplit('.').next() == Some(name));
    elsewhere.map_or_else(String::new, |k| format!("; did you mean `{}`?", k.path))
}

/// Reads a map whose keys are fixed: each must be one of `names`.
fn fields<'a>(node: &'a Node, names: &[&str]) -> Result<Vec<(&'a str, &'a Node)>, Bad> {
    node.map()?
        .iter()
        .map(|(key, value)| {
            if names.contains(&key.name.as_str()) {
                return Ok((key.name.as_str(), value));
            }
            let hint = suggest::hint(&key.name, names.iter().copied());
            Err(Bad { line: key.line, problem: format!("unknown key `{}`{hint}", key.name) })
        })
        .collect()
}

fn one_of(node: &Node, names: &[&str]) -> Result<String, Bad> {
    let text = node.text()?;
    if names.contains(&text.as_str()) {
        return Ok(text);
    }
    let hint = suggest::hint(&text, names.iter().copied());
    Err(Bad { line: node.line, problem: format!("`{text}` is none of {}{hint}", names.join(", ")) })
}

fn ring(node: &Node) -> Result<u32, Bad> {
    let bytes = node.number(64 << 10, 1 << 30)?;
    if bytes.is_power_of_two() {
        return Ok(bytes as u32);
    }
    Err(Bad { line: node.line, problem: format!("{bytes} is no power of two") })
}

fn step(node: &Node) -> Result<Step, Bad> {
    let name = one_of(node, &Step::ALL.map(Step::name))?;
    Step::ALL
        .into_iter()
        .find(|s| s.name() == name)
        .ok_or_else(|| Bad { line: node.line, problem: format!("`{name}` is no step") })
}

fn sink(node: &Node) -> Result<Spec, Bad> {
    let (mut kind, mut format, mut path) = (None, None, None);
    for (key, value) in fields(node, &["type", "format", "path"])? {
        match key {
            "type" => kind = Some(one_of(value, &KINDS.iter().map(|k| k.name).collect::<Vec<_>>())?),
            "format" => format = Some(one_of(value, &Format::NAMES.iter().map(|f| f.0).collect::<Vec<_>>())?),
            _ => path = Some(value.text()?.into()),
        }
    }
    let kind = kind.ok_or_else(|| Bad { line: node.line, problem: "`type` is missing".into() })?;
    if path.is_none() && KINDS.iter().any(|k| k.name == kind && k.needs_path) {
        return Err(Bad { line: node.line, problem: format!("sink `{kind}` needs a `path`") });
    }
    let named = Format::NAMES.iter().find(|f| Some(f.0) == format.as_deref()).map(|f| f.1);
    let usual = if kind == "stdout" { Format::Pretty } else { Format::Json };
    Ok(Spec { kind, format: named.unwrap_or(usual), path })
}

fn exceptions(config: &mut Config, node: &Node) -> Result<(), Bad> {
    for item in node.list()? {
        let (mut rule, mut exception) = (None, Exception::default());
        for (key, value) in fields(item, &["rule", "exe", "parent", "below", "path", "uid", "container"])? {
            match key {
                "rule" => rule = Some(value.text()?),
                "exe" => exception.exe = Some(value.text()?),
                "parent" => exception.parent = Some(value.text()?),
                "below" => exception.below = Some(value.text()?),
                "path" => exception.path = Some(value.text()?),
                "uid" => exception.uid = Some(value.number(0, u64::from(u32::MAX))? as u32),
                _ => exception.container = Some(value.text()?),
            }
        }
        let missing = |problem: &str| Bad { line: item.line, problem: problem.into() };
        let rule = rule.ok_or_else(|| missing("`rule` is missing"))?;
        if exception.is_empty() {
            return Err(missing(
                "an exception that sets nothing would silence the rule; `rules.disabled` turns it off",
            ));
        }
        config.rules.rules.entry(rule).or_default().exceptions.push(exception);
    }
    Ok(())
}

/// A text as YAML: JSON strings are YAML.
fn text(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-'))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !matches!(text, "true" | "false" | "null");
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn texts(items: &[String]) -> String {
    list(items.iter().map(|t| text(t)))
}

fn show_sink(spec: &Spec) -> String {
    let path = spec.path.as_ref().map(|p| format!(", path: {}", text(&p.display().to_string()))).unwrap_or_default();
    format!("{{type: {}, format: {}{path}}}", text(&spec.kind), spec.format.name())
}

fn show_exception(rule: &str, exception: &Exception) -> String {
    let Exception { exe, parent, below, path, uid, container } = exception;
    let mut out = format!("{{rule: {}", text(rule));
    for (key, value) in [("exe", exe), ("parent", parent), ("below", below), ("path", path), ("container", container)] {
        if let Some(value) = value {
            out += &format!(", {key}: {}", text(value));
        }
    }
    if let Some(uid) = uid {
        out += &format!(", uid: {uid}");
    }
    out + "}"
}

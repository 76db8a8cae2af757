//! The pages that are made from tables: events, hooks, rules, metrics, configuration. They say nothing that the tables do
//! not; `cargo xtask docs` writes them, and a check fails when they are stale.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use haechi_ebpf::event::{EVENTS, Ring, by_id};
use haechi_ebpf::program::{Hook, PLANS, PROGRAMS};
use haechi_signatures::engine;
use haechi_signatures::exceptions::Excuse;
use haechi_signatures::flat::Host;
use haechi_signatures::model::About;
use haechi_signatures::sources::Sources;

use crate::config::{Config, KEYS};
use crate::filter;
use crate::metrics::METRICS;
use crate::sinks::KINDS;

/// A page: its file, its title, what it is for, and what writes the rest.
type Page = (&'static str, &'static str, &'static str, fn(&mut String) -> std::fmt::Result);

/// All pages.
const PAGES: &[Page] = &[
    (
        "events.md",
        "Events",
        "What Haechi can see, and the fields of each event. Any other system call can be asked for by its name.",
        events,
    ),
    (
        "hooks.md",
        "Hooks",
        "The ways to see each event, best first. `haechi check` says which one a host allows, and why not a better one; \
         `hook` in a line of JSON, which one saw the event.",
        hooks,
    ),
    (
        "signatures.md",
        "Rules",
        "The rules that come with Haechi: what it means that one fires, and what to do.",
        signatures,
    ),
    ("metrics.md", "Metrics", "The counters that `haechi run --metrics-file` writes.", metrics),
    (
        "configuration.md",
        "Configuration",
        "The settings in `/etc/haechi/haechi.yaml`, or the file named with `--config`. A key that is not known is an error. \
         SIGHUP reads the section `rules` again; the others are read at the start.",
        configuration,
    ),
];

/// Writes all pages into `dir`.
///
/// # Errors
/// When one cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    for (file, title, about, body) in PAGES {
        let mut page = format!("# {title}\n\n<!-- Generated from the tables by `cargo xtask docs`. -->\n\n{about}\n");
        body(&mut page).map_err(io::Error::other)?;
        fs::write(dir.join(file), page)?;
    }
    Ok(())
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}

fn events(page: &mut String) -> std::fmt::Result {
    writeln!(page, "\n| event | tags | |\n|---|---|---|")?;
    for event in EVENTS {
        writeln!(page, "| [{0}](#{0}) | {1} | {2} |", event.name, event.tags.join(", "), cell(event.doc))?;
    }
    for event in EVENTS {
        writeln!(page, "\n## {}\n\n{}\n", event.name, event.doc.trim())?;
        let ring = match event.ring {
            Ring::Critical => "Carried by the critical ring: lost last.",
            Ring::Bulk => "Carried by the bulk ring.",
            Ring::Flow => "Carried by the ring of flows.",
            Ring::None => "Made by the agent.",
        };
        writeln!(page, "{ring}\n\n| field | type | |\n|---|---|---|")?;
        for field in event.fields {
            writeln!(page, "| {} | {} | {} |", field.name, cell(field.ty.c_name()), cell(field.doc))?;
        }
    }
    Ok(())
}

fn hooks(page: &mut String) -> std::fmt::Result {
    for plans in PLANS {
        let name = by_id(plans.event).map_or("?", |d| d.name);
        writeln!(page, "\n## {name}\n\n| way | programs | more, where allowed | does not see |\n|---|---|---|---|")?;
        for plan in plans.plans {
            let (programs, optional) = (plan.programs.join(", "), plan.optional.join(", "));
            writeln!(page, "| {} | {programs} | {optional} | {} |", plan.step.name(), cell(plan.blind))?;
        }
    }
    writeln!(page, "\n## Programs\n\n| program | attaches to |\n|---|---|")?;
    for program in PROGRAMS {
        writeln!(page, "| {} | {} |", program.name, cell(&hook(&program.hook)))?;
    }
    Ok(())
}

fn hook(hook: &Hook) -> String {
    let list = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ");
    match hook {
        Hook::TpBtf(name) => format!("BTF tracepoint `{name}`"),
        Hook::Fexit(names) => format!("fexit of {}", list(names)),
        Hook::Lsm(name) => format!("LSM hook `{name}`"),
        Hook::Kprobe(names) => format!("kprobe at {}", list(names)),
        Hook::Kretprobe(names) => format!("kretprobe at {}", list(names)),
        Hook::Tracepoint(category, name) => format!("tracepoint `{category}:{name}`"),
        Hook::Iter(name) => format!("iterator `{name}`"),
        Hook::SysExit => "nothing: `sys_exit` hands over to it".into(),
    }
}

fn signatures(page: &mut String) -> std::fmt::Result {
    let config = engine::Config { dirs: Vec::new(), ..engine::Config::default() };
    let built = config.build(Host::default(), &Sources::default());
    let mut rules: Vec<About> =
        built.map(|(engine, _)| engine.catalogue().into_iter().cloned().collect()).unwrap_or_default();
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    writeln!(page, "\n| rule | id | severity | MITRE ATT&CK | |\n|---|---|---|---|---|")?;
    for about in &rules {
        let (name, title) = (&about.name, cell(&about.title));
        writeln!(page, "| [{name}](#{name}) | {} | {} | {} | {title} |", about.id, about.severity, about.mitre.id)?;
    }
    for about in &rules {
        let mitre = &about.mitre;
        writeln!(page, "\n## {}\n\n{}\n", about.name, about.title.trim())?;
        writeln!(page, "{}: {} {}\n", mitre.tactic, mitre.id, mitre.technique)?;
        writeln!(page, "{}\n\n**What to do.** {}", about.description.trim(), about.remedy.trim())?;
        if !about.excuses.is_empty() {
            writeln!(page, "\n**Left alone.**\n")?;
        }
        for excuse in &about.excuses {
            writeln!(page, "- {}", excused(excuse))?;
        }
    }
    Ok(())
}

/// An excuse in words.
pub(crate) fn excused(excuse: &Excuse) -> String {
    let parts = [("", &excuse.exes), ("what runs as or below ", &excuse.below), ("paths from ", &excuse.paths)];
    let parts = parts.into_iter().filter(|(_, list)| !list.is_empty());
    let words: Vec<_> = parts.map(|(what, list)| format!("{what}`{}`", list.join("` `"))).collect();
    format!("{}: {}", words.join(", "), excuse.why.trim())
}

fn metrics(page: &mut String) -> std::fmt::Result {
    writeln!(page, "\n| metric | kind | labels | |\n|---|---|---|---|")?;
    for metric in METRICS {
        writeln!(page, "| {} | {} | {} | {} |", metric.name, metric.kind, metric.labels.join(", "), cell(metric.help))?;
    }
    Ok(())
}

fn configuration(page: &mut String) -> std::fmt::Result {
    writeln!(page, "\n| key | takes | |\n|---|---|---|")?;
    for key in KEYS {
        writeln!(page, "| `{}` | {} | {} |", key.path, key.takes, cell(key.doc))?;
    }
    writeln!(page, "\n## Sinks\n\n| type | |\n|---|---|")?;
    for kind in KINDS {
        writeln!(page, "| {} | {} |", kind.name, cell(kind.doc))?;
    }
    writeln!(
        page,
        "\n## Filters\n\n\
         `events` (and `--events`) takes names of events, system calls and tags, separated by commas; `-name` leaves one out. \
         A filter narrows one event: `name.data.<field>=value`, `name.retval<0`, `name.scope.<scope>=value`. Operators are \
         `=`, `!=` and, for numbers, `<`, `<=`, `>`, `>=`. Values separated by commas are alternatives; a text may be `x*`, \
         `*x` or `*x*`. Different filters of one event must all hold.\n\n\
         `scope` (and `--scope`) takes `<scope>=value` in the same form, besides `container` and `not-container`. What is \
         outside is not watched at all, by rules neither.\n\n| scope | |\n|---|---|"
    )?;
    for (name, doc) in filter::scopes() {
        writeln!(page, "| {name} | {} |", cell(doc))?;
    }
    writeln!(page, "\n## All defaults\n\n```yaml\n{}```", Config::default().show())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_every_table_is_on_its_page() {
        let text = |body: fn(&mut String) -> std::fmt::Result| {
            let mut page = String::new();
            body(&mut page).expect("a string takes everything");
            page
        };
        let all: String = PAGES.iter().map(|(.., body)| text(*body)).collect();
        let names = EVENTS.iter().map(|e| e.name).chain(PROGRAMS.iter().map(|p| p.name));
        let names = names.chain(METRICS.iter().map(|m| m.name)).chain(KEYS.iter().map(|k| k.path));
        for name in names.chain(["fileless_execution", "anti_debugging"]) {
            assert!(all.contains(name), "{name}");
        }
        for line in all.lines().filter(|l| l.starts_with('|')) {
            assert!(line.ends_with('|'), "{line}");
        }
    }
}

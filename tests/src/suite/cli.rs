//! The other commands: what they print, and how they refuse.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Context, Test};

pub(super) const TESTS: &[Test] = &[
    ("cli::version", version),
    ("cli::events_are_those_of_the_table", events),
    ("cli::signatures", signatures),
    ("cli::signatures_cost", signatures_cost),
    ("cli::defaults_are_a_valid_configuration", defaults),
    ("cli::unknown_key_names_file_and_line", unknown_key),
    ("cli::unknown_event_suggests", unknown_event),
    ("cli::flags_are_spelled", spelled),
    ("cli::pretty_has_no_colour_in_a_pipe", pretty),
];

pub(super) fn haechi(context: &Context, args: &[&str]) -> Result<Output> {
    Command::new(&context.haechi).args(args).output().context("haechi")
}

fn good(context: &Context, args: &[&str]) -> Result<String> {
    let out = haechi(context, args)?;
    ensure!(out.status.success(), "{args:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

fn version(context: &Context) -> Result<()> {
    let text = good(context, &["version"])?;
    ensure!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    Ok(())
}

fn events(context: &Context) -> Result<()> {
    let text = good(context, &["events"])?;
    for event in haechi_ebpf::event::EVENTS {
        ensure!(text.contains(event.name), "{} is not listed", event.name);
    }
    Ok(())
}

fn signatures(context: &Context) -> Result<()> {
    let rules = [
        "fileless_execution",
        "anti_debugging",
        "ptrace_code_injection",
        "stdio_over_socket",
        "sensitive_credential_read",
    ];
    let text = good(context, &["signatures"])?;
    for rule in rules {
        ensure!(text.contains(rule), "{rule} is not listed");
        let shown = good(context, &["signatures", "show", rule])?;
        ensure!(shown.contains("T1") && shown.len() > 200, "what does {rule} mean? {shown}");
    }
    let out = haechi(context, &["signatures", "show", "fileless_executoin"])?;
    ensure!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("fileless_execution"), "{out:?}");
    Ok(())
}

/// Every rule is in it, and one that saw something has been timed.
fn signatures_cost(context: &Context) -> Result<()> {
    let busy = context.busy_actor(&["opens", "path=/etc/shadow", "every=500"])?;
    let text = good(context, &["signatures", "--json", "cost", "--duration", "1s"])?;
    busy.stop()?;
    let rules: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    ensure!(rules.len() >= 23, "{text}");
    let of = |rule: &str, counter: &str| {
        let found = rules.iter().find(|r| r["rule"] == rule);
        found.and_then(|r| r["counters"][counter].as_u64()).unwrap_or_default()
    };
    let rule = "sensitive_credential_read";
    ensure!(of(rule, "evaluated") > 0 && of(rule, "ns") > 0, "{text}");
    ensure!(of(rule, "seen") >= of(rule, "evaluated") + of(rule, "prefiltered"), "{text}");
    Ok(())
}

fn defaults(context: &Context) -> Result<()> {
    let printed = good(context, &["config"])?;
    let path = context.file("defaults.yaml", &printed)?;
    good(context, &["config", "--check", &path])?;
    // Run with them, the agent comes to watch.
    let spec =
        crate::harness::Spec { command: Some(vec!["run".into(), "--config".into(), path]), ..Default::default() };
    context.agent(&spec)?.stop()?;
    Ok(())
}

fn unknown_key(context: &Context) -> Result<()> {
    let path = context.file("wrong.yaml", "\nkernel:\n  bulk_rign_bytes: 4096\n")?;
    let out = haechi(context, &["config", "--check", &path])?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(!out.status.success(), "an unknown key was taken");
    ensure!(words.contains("wrong.yaml:3") || (words.contains("wrong.yaml") && words.contains("line 3")), "{words}");
    ensure!(words.contains("bulk_rign_bytes") && words.contains("bulk_ring_bytes"), "no suggestion: {words}");
    Ok(())
}

fn unknown_event(context: &Context) -> Result<()> {
    let out = haechi(context, &["run", "--events", "security_file_opne"])?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(!out.status.success() && words.contains("security_file_open"), "{words}");
    Ok(())
}

/// Without a configuration, numbers that have names are shown by them.
fn spelled(context: &Context) -> Result<()> {
    let path = format!("{}/new", context.dir("spelled")?);
    let open = format!("security_file_open.data.pathname={path}");
    let others = "ptrace,memfd_create,security_socket_connect";
    let command = ["run", "--output", "json", "--events", &open, "--events", others].map(str::to_owned).to_vec();
    let agent = context.agent(&crate::harness::Spec { command: Some(command), ..Default::default() })?;
    let flags = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR).to_string();
    let open = context.actor(&["open", "how=openat", &format!("path={path}"), &format!("flags={flags}")])?;
    let ptrace = context.actor(&["ptrace", "what=attach"])?;
    let memfd = context.actor(&["memfd", "name=x", "flags=3"])?;
    let connect = context.actor(&["connect", "to=inet"])?;
    let stopped = agent.stop()?;
    for (event, pid, field, want) in [
        ("security_file_open", open.me.pid, "flags", "O_RDWR|O_CREAT|O_EXCL"),
        ("security_file_open", open.me.pid, "inode_mode", "S_IFREG"),
        ("ptrace", ptrace.me.pid, "request", "PTRACE_ATTACH"),
        ("memfd_create", memfd.me.pid, "flags", "MFD_CLOEXEC|MFD_ALLOW_SEALING"),
        ("security_socket_connect", connect.me.pid, "type", "SOCK_STREAM"),
        ("security_socket_connect", connect.me.pid, "family", "AF_INET"),
    ] {
        let line = stopped.by(event, pid).into_iter().next().with_context(|| format!("no {event}"))?;
        let shown = line.data(field);
        let shown = shown.as_str().map(|s| s.replace("|O_LARGEFILE", ""));
        ensure!(shown.as_deref() == Some(want), "{field} is {shown:?}, not {want}: {}", line.0);
    }
    Ok(())
}

/// One readable line an alert: when, how bad, what, who; and nothing that only a terminal understands.
fn pretty(context: &Context) -> Result<()> {
    let spec = crate::harness::Spec { command: Some(vec!["run".into()]), ..Default::default() };
    let agent = context.agent(&spec)?;
    let did = context.actor(&["open", "how=openat", "path=/etc/shadow"])?;
    let stopped = agent.stop()?;
    let lines: Vec<String> = stopped.lines.iter().filter_map(|l| l.0.as_str().map(str::to_owned)).collect();
    let alerts: Vec<_> = lines.iter().filter(|l| l.contains("sensitive_credential_read")).collect();
    let ours = alerts.iter().find(|l| l.contains(&did.me.pid.to_string())).context(lines.join("\n"))?;
    ensure!(ours.contains("/etc/shadow") && ours.to_lowercase().contains("high"), "{ours}");
    ensure!(!lines.iter().any(|l| l.contains('\u{1b}')), "colour in a pipe: {lines:?}");
    Ok(())
}

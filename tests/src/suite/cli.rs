//! The other commands: what they print, and how they refuse.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Context, Test};

pub(super) const TESTS: &[Test] = &[
    ("cli::version", version),
    ("cli::events_are_those_of_the_table", events),
    ("cli::signatures", signatures),
    ("cli::defaults_are_a_valid_configuration", defaults),
    ("cli::unknown_key_names_file_and_line", unknown_key),
    ("cli::unknown_event_suggests", unknown_event),
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

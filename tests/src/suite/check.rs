//! `haechi check`: what it foretells is what is then attached, whatever the machine refuses and whatever is dropped.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::program;
use serde::Deserialize;

use crate::harness::{Context, Skip, Spec, Test};

pub(super) const TESTS: &[Test] = &[
    ("check::steps_are_those_of_the_table", steps),
    ("check::foretells_what_is_attached", |c| foretells(c, &[])),
    ("check::foretells_without_each_step", without_each_step),
    ("check::foretells_without_each_capability", without_each_capability),
    ("check::says_what_is_missing", missing),
    ("check::default_rules_leave_all_calls_alone", cheap),
];

/// What it says of an event.
#[derive(Debug, Deserialize)]
struct Choice {
    event: String,
    step: Option<String>,
    programs: Vec<String>,
    #[serde(default)]
    refused: Vec<Refused>,
}

#[derive(Debug, Deserialize)]
struct Refused {
    step: String,
    reason: String,
    remedy: String,
}

fn choices(context: &Context, wrapper: &[&str], config: &str, more: &[&str]) -> Result<Vec<Choice>> {
    let mut words: Vec<String> = wrapper.iter().map(|w| (*w).to_owned()).collect();
    words.push(context.haechi.display().to_string());
    words.extend(["check", "--json", "--config", &context.config(config)?].map(str::to_owned));
    words.extend(more.iter().map(|w| (*w).to_owned()));
    let out = Command::new(&words[0]).args(&words[1..]).output()?;
    let text = String::from_utf8(out.stdout)?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .with_context(|| format!("{words:?}: {text} {}", String::from_utf8_lossy(&out.stderr)))?;
    serde_json::from_value(value["events"].clone()).with_context(|| text)
}

fn steps(context: &Context) -> Result<()> {
    let all: Vec<&str> = context.machine.steps.iter().map(|s| s.0).collect();
    let all = all.join(",").replace("syscall", "getppid");
    let choices = choices(context, &[], "", &["--events", &all])?;
    let mut wrong = Vec::new();
    for (event, step) in context.machine.steps {
        let found = choices.iter().find(|c| c.event == *event);
        if found.and_then(|c| c.step.as_deref()) != Some(step) {
            wrong.push(format!("{event}: {:?}, not {step}", found.map(|c| &c.step)));
        }
    }
    ensure!(wrong.is_empty(), "{}\n  all: {choices:?}", wrong.join("\n  "));
    for refused in choices.iter().flat_map(|c| &c.refused) {
        ensure!(!refused.reason.is_empty() && !refused.remedy.is_empty(), "{}: no reason or remedy", refused.step);
    }
    Ok(())
}

/// Where a better way is there, nothing that the rules ask for by default makes every system call slower.
fn cheap(context: &Context) -> Result<()> {
    if context.machine.step("security_file_open") == Some("raw-syscall") {
        return Err(Skip::because("there is no better way here"));
    }
    let choices = choices(context, &[], "", &[])?;
    ensure!(choices.len() > 4, "{choices:?}");
    for choice in &choices {
        let dear = choice.programs.iter().any(|p| p == "sys_enter" || p == "sys_exit");
        ensure!(!dear, "{} attaches to every call: {choice:?}", choice.event);
    }
    Ok(())
}

/// The kernel keeps 15 bytes of a name.
fn kept(name: &str) -> String {
    name.chars().take(15).collect()
}

fn foretells(context: &Context, wrapper: &[&str]) -> Result<()> {
    foretells_with(context, wrapper, "")
}

fn foretells_with(context: &Context, wrapper: &[&str], config: &str) -> Result<()> {
    let choices = choices(context, wrapper, config, &[])?;
    // Those that look once at what was there before hang nowhere afterwards, and those that sys_exit hands over to never.
    let nowhere = [program::Hook::Iter("task_file"), program::Hook::SysExit];
    let hangs = |p: &&String| program::by_name(p).is_some_and(|d| !nowhere.contains(&d.hook));
    let want: BTreeSet<String> = choices.iter().flat_map(|c| &c.programs).filter(hangs).map(|p| kept(p)).collect();
    let agent = context.start(&Spec::run(&[]).config(config).behind(wrapper))?;
    let came = agent.wait_ready();
    if came.is_err() {
        let stopped = agent.end()?;
        let none = choices.iter().all(|c| c.step.is_none());
        ensure!(none, "it foretold {want:?} and then said: {}", stopped.words.join("\n"));
        ensure!(!stopped.status.success() && !stopped.words.is_empty(), "it ended without a word");
        return Ok(());
    }
    let ours = agent.held()?;
    agent.stop()?;
    let have: BTreeSet<String> = ours.attached().map(kept).collect();
    ensure!(have == want, "attached {have:?}, foretold {want:?}");
    Ok(())
}

fn without_each_step(context: &Context) -> Result<()> {
    for step in program::Step::ALL {
        let config = format!("kernel:\n  without: [{}]\n", step.name());
        foretells_with(context, &[], &config).with_context(|| format!("without {}", step.name()))?;
    }
    Ok(())
}

fn without_each_capability(context: &Context) -> Result<()> {
    if Command::new("setpriv").arg("--version").output().is_err() {
        return Err(Skip::because("setpriv is not installed"));
    }
    let drops = ["bpf", "perfmon", "sys_admin", "sys_ptrace", "sys_resource", "net_admin", "dac_read_search", "syslog"];
    for drop in drops {
        let bounding = format!("--bounding-set=-{drop}");
        foretells(context, &["setpriv", &bounding]).with_context(|| format!("without {drop}"))?;
    }
    foretells(context, &["setpriv", "--bounding-set=-bpf,-sys_admin"]).context("without bpf and sys_admin")
}

/// A capability that is missing is named, with what to do.
fn missing(context: &Context) -> Result<()> {
    let out = Command::new("setpriv")
        .args(["--bounding-set=-bpf,-sys_admin,-perfmon"])
        .arg(&context.haechi)
        .arg("check")
        .output()
        .context("setpriv")?;
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(text.contains("CAP_BPF"), "the missing capability is not named: {text}");
    Ok(())
}

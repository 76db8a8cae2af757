//! Rules are changed while events pour in: no program is loaded anew, no record is missed, the new rule works at once.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Context, Line, Spec, Test};

pub(super) const TESTS: &[Test] = &[
    ("reload::under_load", under_load),
    ("reload::a_removed_rule_is_silent", removed),
    ("reload::a_broken_file_changes_nothing", broken),
    ("reload::settings_of_rules_at_sighup", settings),
];

/// A rule in Rego that fires when `path` is opened.
pub(super) fn rule(name: &str, path: &str) -> String {
    format!(
        r#"package tracee.{name}

__rego_metadoc__ := {{
    "id": "TST-{name}", "version": "1.0.0", "name": "{name}", "eventName": "{name}",
    "description": "A file of the tests was opened", "tags": ["test"],
    "properties": {{ "Severity": 2, "MITRE ATT&CK": "Credential Access: OS Credential Dumping" }},
}}

tracee_selected_events[eventSelector] {{
    eventSelector := {{ "source": "tracee", "name": "security_file_open", "origin": "*" }}
}}

tracee_match = res {{
    input.eventName == "security_file_open"
    arg := input.args[_]
    arg.name == "pathname"
    arg.value == "{path}"
    res := {{ "path": arg.value }}
}}
"#
    )
}

/// An agent with rules of its own.
pub(super) fn watching(rules: &str) -> Spec {
    Spec::run(&[]).config(format!("rules:\n  dirs: [{rules}]\n"))
}

fn of(line: &Line, name: &str, pid: u32) -> bool {
    line.name() == name && line.pid() == u64::from(pid)
}

fn under_load(context: &Context) -> Result<()> {
    let rules = context.dir("rules")?;
    let (first, second) = (context.file("first", "x")?, context.file("second", "x")?);
    std::fs::write(format!("{rules}/first.rego"), rule("opened_first", &first))?;
    let agent = context.agent(&watching(&rules))?;
    let did = context.actor(&["open", "how=openat", &format!("path={first}")])?;
    agent.wait_for("the first rule's finding", |l| of(l, "opened_first", did.me.pid))?;

    let attached = agent.held()?;
    // Ten thousand a second, which the agent must keep up with in any build.
    let busy = context.busy_actor(&["opens", &format!("path={second}"), "every=100"])?;
    std::fs::write(format!("{rules}/second.rego"), rule("opened_second", &second))?;
    let written = Instant::now();
    agent.wait_for("the second rule's finding", |l| of(l, "opened_second", busy.pid()))?;
    let took = written.elapsed();
    println!("         the new rule fired after {} ms", took.as_millis());
    ensure!(agent.held()? == attached, "programs or links changed");
    let did = busy.stop()?;
    ensure!(did.number("/n")? > 0, "there was no load");
    let stopped = agent.stop()?;
    let gaps: Vec<_> = stopped.lines.iter().filter(|l| l.name() == "lost_events").collect();
    ensure!(gaps.is_empty(), "records were lost: {gaps:?}");
    Ok(())
}

fn removed(context: &Context) -> Result<()> {
    let rules = context.dir("rules-removed")?;
    let (path, other) = (context.file("watched", "x")?, context.file("other", "x")?);
    std::fs::write(format!("{rules}/a.rego"), rule("opened_a", &path))?;
    let agent = context.agent(&watching(&rules))?;
    let before = context.actor(&["open", "how=openat", &format!("path={path}")])?;
    agent.wait_for("the finding", |l| of(l, "opened_a", before.me.pid))?;
    // The new file's finding shows that the directory was read again.
    std::fs::remove_file(format!("{rules}/a.rego"))?;
    std::fs::write(format!("{rules}/b.rego"), rule("opened_b", &other))?;
    let busy = context.busy_actor(&["opens", &format!("path={other}")])?;
    agent.wait_for("the other finding", |l| of(l, "opened_b", busy.pid()))?;
    busy.stop()?;
    let after = context.actor(&["open", "how=openat", &format!("path={path}")])?;
    let stopped = agent.stop()?;
    ensure!(stopped.by("opened_a", after.me.pid).is_empty(), "the rule that is gone fired");
    Ok(())
}

fn broken(context: &Context) -> Result<()> {
    let rules = context.dir("rules-broken")?;
    let path = context.file("still-watched", "x")?;
    std::fs::write(format!("{rules}/good.rego"), rule("still_good", &path))?;
    let agent = context.agent(&watching(&rules))?;
    std::fs::write(format!("{rules}/bad.rego"), "package tracee.bad\n\ntracee_match {\n  x := [\n}\n")?;
    let words = agent.wait_for_words("bad.rego").context("the broken file is not named")?;
    ensure!(words.contains("bad.rego:"), "no line is named: {words}");
    let did = context.actor(&["open", "how=openat", &format!("path={path}")])?;
    agent.wait_for("the good rule's finding", |l| of(l, "still_good", did.me.pid))?;
    agent.stop()?;
    Ok(())
}

/// A new exception needs no restart; a configuration that is broken meanwhile changes nothing.
fn settings(context: &Context) -> Result<()> {
    const RULE: &str = "sensitive_credential_read";
    let config = context.config("log: info\n")?;
    let command = ["run", "--output", "json", "--config", &config].map(str::to_owned).to_vec();
    let agent = context.agent(&Spec { command: Some(command), ..Spec::default() })?;
    let before = context.actor(&["open", "how=openat", "path=/etc/shadow"])?;
    agent.wait_for("a finding", |l| of(l, RULE, before.me.pid))?;
    let attached = agent.held()?;

    let exe = context.actor.display();
    std::fs::write(&config, format!("rules:\n  allow:\n    {RULE}: [{exe}]\n"))?;
    agent.signal(libc::SIGHUP)?;
    agent.wait_for_words("rules were loaded anew")?;
    let mut allowed = Vec::new();
    for broken in [false, true] {
        if broken {
            std::fs::write(&config, "rules:\n  alow: {}\n")?;
            agent.signal(libc::SIGHUP)?;
            agent.wait_for_words("unknown key `rules.alow`")?;
        }
        allowed.push(context.actor(&["open", "how=openat", "path=/etc/shadow"])?.me.pid);
        let control = context.actor(&["ptrace", "what=poketext"])?;
        agent.wait_for("another rule's finding", |l| of(l, "ptrace_code_injection", control.me.pid))?;
    }
    ensure!(agent.held()? == attached, "programs or links changed");
    let stopped = agent.stop()?;
    ensure!(allowed.iter().all(|pid| stopped.by(RULE, *pid).is_empty()), "the exception does not hold");
    Ok(())
}

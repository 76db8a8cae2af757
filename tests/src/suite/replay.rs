//! What was recorded is judged again in the same way: by nobody, elsewhere, without a kernel.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::reload::rule;
use crate::harness::{Context, Line, Spec, Test};

pub(super) const TESTS: &[Test] =
    &[("replay::findings_are_byte_identical", identical), ("replay::cut_recording_is_told", cut)];

/// A run with processes that were there before, losses, and a reload; its recording and its findings.
fn recorded(context: &Context, name: &str) -> Result<(String, String, Vec<String>)> {
    let dir = context.dir(name)?;
    let rules = context.dir(&format!("{name}-rules"))?;
    let recording = format!("{dir}/run.haechi");
    let watched = context.file(&format!("{name}-watched"), "x")?;
    let config = format!("rules:\n  dirs: [{rules}]\nkernel:\n  bulk_ring_bytes: 65536\n");
    // There before the agent: known only from the seed of the process tree.
    let mut elder = context.busy_actor(&["opens", &format!("path={watched}")])?;
    let spec = Spec::run(&["--record", &recording]).config(config);
    let agent = context.agent(&spec)?;
    let first = context.actor(&["open", "how=openat", "path=/etc/shadow"])?;
    let found = |name: &'static str, pid: u32| move |l: &Line| l.name() == name && l.pid() == u64::from(pid);
    agent.wait_for("a finding", found("sensitive_credential_read", first.me.pid))?;
    std::fs::write(format!("{rules}/late.rego"), rule("opened_late", &watched))?;
    agent.wait_for("a finding of the late rule", found("opened_late", elder.pid()))?;
    context.actor(&["ptrace", "what=poketext"])?;
    context.actor(&["fileless", "from=memfd"])?;
    let pid = elder.pid();
    elder = {
        elder.stop()?;
        context.busy_actor(&["wait"])?
    };
    elder.hear()?;
    elder.stop()?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}: {}", stopped.status, stopped.words.join("\n"));
    ensure!(stopped.lines.iter().any(|l| l.name() == "lost_events"), "nothing was lost: the test does not test");
    ensure!(stopped.lines.iter().any(|l| l.pid() == u64::from(pid)), "nothing of the process that was there before");
    let findings = stopped.lines.iter().filter(|l| l.is_finding()).map(|l| l.text().to_owned()).collect();
    Ok((recording, rules, findings))
}

fn identical(context: &Context) -> Result<()> {
    let (recording, _, live) = recorded(context, "replay")?;
    ensure!(live.len() >= 4, "only {} findings", live.len());
    // Nobody must be able to read it: not through root's rights.
    for path in [context.scratch.path(), std::path::Path::new(&recording)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    let replay = |wrapper: &[&str]| -> Result<Vec<u8>> {
        let mut words: Vec<&str> = wrapper.to_vec();
        let haechi = context.haechi.display().to_string();
        words.extend([haechi.as_str(), "replay", "--output", "json", &recording]);
        let out = Command::new(words[0]).args(&words[1..]).env("LC_ALL", "C").output().context("replay")?;
        ensure!(out.status.success(), "{words:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        Ok(out.stdout)
    };
    let here = replay(&["env"])?;
    let elsewhere = replay(&[
        "unshare",
        "--uts",
        "sh",
        "-c",
        "hostname elsewhere && exec env TZ=Asia/Seoul setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"",
        "sh",
    ])?;
    ensure!(here == elsewhere, "two replays differ: {} and {} bytes", here.len(), elsewhere.len());
    let findings = |bytes: &[u8]| -> Result<Vec<String>> {
        let text = String::from_utf8(bytes.to_vec())?;
        let lines: Vec<Line> = text.lines().map(|l| Line::new(l.to_owned())).collect();
        Ok(lines.iter().filter(|l| l.is_finding()).map(|l| l.text().to_owned()).collect())
    };
    let again = findings(&here)?;
    ensure!(again == live, "live and replayed findings differ:\n  {}\n  {}", live.join("\n  "), again.join("\n  "));
    Ok(())
}

/// A recording that was cut short is replayed up to there, and the reader is told.
fn cut(context: &Context) -> Result<()> {
    let (recording, _, _) = recorded(context, "cut")?;
    let whole = std::fs::read(&recording)?;
    for keep in [0, 7, whole.len() / 2, whole.len() - 1] {
        let path = context.file("cut.haechi", &whole[..keep])?;
        let out = Command::new(&context.haechi).args(["replay", "--output", "json", &path]).output()?;
        ensure!(!out.stderr.is_empty(), "{keep} of {} bytes: not a word", whole.len());
        ensure!(out.status.code().is_some_and(|c| c < 100), "{keep} of {} bytes: {:?}", whole.len(), out.status);
    }
    Ok(())
}

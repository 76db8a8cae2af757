//! What goes wrong in the field: clear words, a fitting end, nothing left in the kernel.

use anyhow::{Result, ensure};

use super::reload::{rule, watching};
use crate::harness::{Bpf, Context, Out, Scratch, Spec, Stopped, Test, wait_until};

pub(super) const TESTS: &[Test] = &[
    ("fault::not_root", not_root),
    ("fault::no_btf", no_btf),
    ("fault::refused_hook", refused_hook),
    ("fault::broken_rego", broken_rego),
    ("fault::closed_stdout", closed_stdout),
    ("fault::disk_full", disk_full),
    ("fault::sigterm_under_load", |c| ended(c, libc::SIGTERM)),
    ("fault::sigint_under_load", |c| ended(c, libc::SIGINT)),
    ("fault::kill_under_load", |c| ended(c, libc::SIGKILL)),
    ("fault::corrupt_bytes", |_| crate::fuzzing::all(5_000, crate::fuzzing::SEED)),
];

/// Waits until the kernel has nothing more of what an agent held.
fn nothing_left(context: &Context, held: &Bpf) -> Result<()> {
    ensure!(!held.is_empty(), "it held nothing: the test does not test");
    let mut left = Bpf::default();
    let gone = wait_until(context.patience(), || {
        left = held.left()?;
        Ok(left.is_empty())
    })?;
    ensure!(gone, "left in the kernel: {left:?}");
    Ok(())
}

/// It must end by itself, with an error and these words.
fn refuses(context: &Context, spec: &Spec, words: &[&str]) -> Result<Stopped> {
    let stopped = context.start(spec)?.end()?;
    let said = stopped.words.join("\n");
    ensure!(stopped.status.code().is_some_and(|c| c != 0), "{}: {said}", stopped.status);
    ensure!(!said.contains("panicked"), "{said}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not said: {said}");
    }
    Ok(stopped)
}

fn not_root(context: &Context) -> Result<()> {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    refuses(context, &Spec::run(&[]).behind(&nobody), &["CAP_BPF"])?;
    Ok(())
}

/// A kernel that tells nothing about its types.
fn no_btf(context: &Context) -> Result<()> {
    let empty = context.dir("no-btf")?;
    let script = "mount --bind \"$0\" /sys/kernel/btf && exec \"$@\"";
    refuses(context, &Spec::run(&[]).behind(&["unshare", "--mount", "sh", "-c", script, &empty]), &["BTF"])?;
    Ok(())
}

/// The best way is forbidden: the next is taken, and said so.
fn refused_hook(context: &Context) -> Result<()> {
    let path = context.file("still-seen", "x")?;
    let path_arg = format!("path={path}");
    let config = "kernel:\n  without: [fexit, lsm, fexit-syscall, kprobe]\n";
    let spec = Spec::run(&["--events", &format!("security_file_open.data.pathname={path}")]).config(config);
    let (stopped, did) = context.watch_with(&spec, || context.actor(&["open", "how=openat", &path_arg]))?;
    stopped.one("security_file_open", did.me.pid, |l| l.data("pathname") == path.as_str())?;
    Ok(())
}

fn broken_rego(context: &Context) -> Result<()> {
    let rules = context.dir("half-broken")?;
    let path = context.file("half-watched", "x")?;
    std::fs::write(format!("{rules}/bad.rego"), "package tracee.bad\n\ntracee_match {\n  x := [\n}\n")?;
    std::fs::write(format!("{rules}/good.rego"), rule("half_good", &path))?;
    let path_arg = format!("path={path}");
    let act = || context.actor(&["open", "how=openat", &path_arg]);
    let (stopped, did) = context.watch_with(&watching(&rules), act)?;
    ensure!(stopped.words.iter().any(|w| w.contains("bad.rego:")), "file and line are not named: {:?}", stopped.words);
    stopped.one("half_good", did.me.pid, |_| true)?;
    Ok(())
}

/// Whoever read the alerts is gone: the agent says so and ends, or goes on for its other sinks; it never hangs.
fn closed_stdout(context: &Context) -> Result<()> {
    let agent = context.start(&Spec { out: Out::Broken, ..Spec::run(&[]) })?;
    agent.wait_ready()?;
    let held = agent.held()?;
    context.actor(&["open", "how=openat", "path=/etc/shadow"])?;
    agent.wait_for_words("nobody reads the output")?;
    let stopped = agent.end()?;
    let said = stopped.words.join("\n");
    ensure!(!said.contains("panicked"), "{said}");
    ensure!(stopped.status.code().is_some(), "ended by a signal: {}", stopped.status);
    nothing_left(context, &held)
}

/// A full disk under a file of alerts: said, counted, and what was written before is whole.
fn disk_full(context: &Context) -> Result<()> {
    let small = Scratch::with("size=64k")?;
    let file = small.path().join("alerts.json");
    let config = context.config(&format!("sinks:\n  - type: file\n    path: {}\n", file.display()))?;
    let command = ["run", "--config", &config, "--events", "security_file_open"].map(str::to_owned).to_vec();
    let agent = context.start(&Spec { command: Some(command), ..Spec::default() })?;
    agent.wait_ready()?;
    let held = agent.held()?;
    let path = context.file("fills-the-disk", "x")?;
    context.actor(&["opens", &format!("path={path}"), "n=2000"])?;
    let words = agent.wait_for_words("No space left")?;
    let stopped = agent.stop()?;
    ensure!(!stopped.words.join("\n").contains("panicked"), "{words}");
    ensure!(stopped.totals()?.contains("security_file_open (at "), "the loss is not counted: {:?}", stopped.words);
    let text = std::fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() > 1, "nothing was written before the disk was full");
    for line in &lines[..lines.len() - 1] {
        ensure!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "half a line: {line}");
    }
    nothing_left(context, &held)
}

fn ended(context: &Context, signal: i32) -> Result<()> {
    let path = context.file("busy", "x")?;
    // It would show the flood too, twice as much to read as one agent's.
    context.end_shared()?;
    let agent = context.agent(&Spec::run(&["--events", "security_file_open"]))?;
    let held = agent.held()?;
    let every = if context.machine.slow > 1 { "every=200" } else { "every=0" };
    let busy = context.busy_actor(&["opens", &format!("path={path}"), every])?;
    agent.wait_for("the load", |l| l.pid() == u64::from(busy.pid()))?;
    agent.signal(signal)?;
    let stopped = agent.end()?;
    busy.stop()?;
    if signal == libc::SIGKILL {
        ensure!(!stopped.status.success(), "it outlived SIGKILL");
    } else {
        ensure!(stopped.status.success(), "{}: {}", stopped.status, stopped.words.join("\n"));
        stopped.totals()?;
    }
    nothing_left(context, &held)
}

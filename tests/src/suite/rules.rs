//! The built-in rules: each fires for the real thing, once, with what it found; an honest twin does not make it fire.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Context, Line, Spec, Stopped, Test, wait_until};

pub(super) const TESTS: &[Test] = &[
    ("rules::fileless_execution_memfd", |c| fileless(c, "memfd", true)),
    ("rules::fileless_execution_shm", |c| fileless(c, "shm", true)),
    ("rules::fileless_execution_honest", |c| fileless(c, "disk", false)),
    ("rules::anti_debugging", |c| traced(c, "traceme", "anti_debugging", true)),
    ("rules::anti_debugging_honest", |c| traced(c, "attach", "anti_debugging", false)),
    ("rules::ptrace_code_injection_text", |c| traced(c, "poketext", "ptrace_code_injection", true)),
    ("rules::ptrace_code_injection_data", |c| traced(c, "pokedata", "ptrace_code_injection", true)),
    ("rules::ptrace_code_injection_honest", |c| traced(c, "attach", "ptrace_code_injection", false)),
    ("rules::stdio_over_socket", |c| stdio(c, "inet", "fd=0", true)),
    ("rules::stdio_over_socket_inet6", |c| stdio(c, "inet6", "fd=2", true)),
    ("rules::stdio_over_socket_honest", |c| stdio(c, "inet", "n=1", false)),
    ("rules::stdio_over_socket_honest_unix", |c| stdio(c, "unix", "fd=0", false)),
    ("rules::sensitive_credential_read", credentials),
    ("rules::findings_have_the_hash_of_the_program", hashed),
    ("rules::sensitive_credential_read_ssh_key", ssh_key),
    ("rules::sensitive_credential_read_honest", honest_reader),
    ("rules::same_finding_is_counted", counted),
];

/// MITRE technique, severity, of each rule.
const ABOUT: &[(&str, &str, u64)] = &[
    ("fileless_execution", "T1620", 3),
    ("anti_debugging", "T1622", 1),
    ("ptrace_code_injection", "T1055.008", 3),
    ("stdio_over_socket", "T1059.004", 3),
    ("sensitive_credential_read", "T1003.008 T1552.004", 3),
    ("sudoers_modification", "T1548.003", 2),
    ("scheduled_task_mod", "T1053.003", 2),
    ("rcd_modification", "T1037.004", 2),
    ("default_loader_mod", "T1574", 3),
    ("authorized_keys_modification", "T1098.004", 2),
    ("core_pattern_modification", "T1611", 3),
    ("log_wiping", "T1070.002", 2),
    ("agent_tampering", "T1562.001", 3),
    ("ld_preload", "T1574", 2),
    ("illegitimate_shell", "T1190", 2),
    ("reverse_shell", "T1059.004", 3),
    ("proc_mem_access", "T1003.007", 3),
    ("proc_mem_code_injection", "T1055.009", 3),
    ("aslr_inspection", "T1068", 0),
    ("docker_abuse", "T1068", 2),
    ("process_vm_write_inject", "T1055", 3),
];

/// Checks that the rule fired once for this process, or not at all.
pub(super) fn fired<'a>(stopped: &'a Stopped, rule: &str, pid: u32, wanted: bool) -> Result<Option<&'a Line>> {
    if !wanted {
        let found = stopped.by(rule, pid);
        ensure!(found.is_empty(), "it fired for an honest deed: {}", found[0].0);
        return Ok(None);
    }
    let line = stopped.one(rule, pid, |_| true)?;
    let (_, technique, severity) = ABOUT.iter().find(|a| a.0 == rule).context("no such rule")?;
    // What was read decides between passwords and keys; `ssh_key` says which is which.
    let told = line.at("/threat/mitre/technique/id");
    ensure!(technique.split(' ').any(|t| told == t), "technique: {}", line.0);
    ensure!(line.at("/threat/severity") == *severity, "severity: {}", line.0);
    for part in ["/threat/name", "/threat/description", "/threat/properties/remedy", "/detected_from/name"] {
        ensure!(line.at(part).as_str().is_some_and(|s| !s.is_empty()), "{part} says nothing: {}", line.0);
    }
    let ancestors = line.at("/workload/process/ancestors");
    let parent = ancestors.pointer("/0/host_pid").and_then(serde_json::Value::as_u64);
    ensure!(parent.is_some_and(|p| p > 0), "no ancestors: {}", line.0);
    Ok(Some(line))
}

fn fileless(context: &Context, from: &str, wanted: bool) -> Result<()> {
    let (from, dir) = (format!("from={from}"), format!("dir={}", context.scratch.path().display()));
    let (stopped, said) = context.watch(&[], || context.actor_lines(&["fileless", &from, &dir]))?;
    let did = said.last().context("the actor said nothing")?;
    let path: String = did.part("/path")?;
    if let Some(line) = fired(&stopped, "fileless_execution", did.part("/child")?, wanted)? {
        ensure!(line.0.to_string().contains(&path), "the path is not in the finding: {}", line.0);
        let parent = line.at("/workload/process/ancestors/0/host_pid");
        ensure!(parent == did.me.pid, "parent is {parent}, not {}", did.me.pid);
    }
    Ok(())
}

fn traced(context: &Context, what: &str, rule: &str, wanted: bool) -> Result<()> {
    let what_arg = format!("what={what}");
    let (stopped, did) = context.watch(&[], || context.actor(&["ptrace", &what_arg]))?;
    let child: u32 = did.part("/child/pid")?;
    fired(&stopped, rule, if what == "traceme" { child } else { did.me.pid }, wanted)?;
    Ok(())
}

fn stdio(context: &Context, to: &str, fd: &str, wanted: bool) -> Result<()> {
    let path = context.scratch.path().join("stdio-socket");
    // A socket file stays when its listener goes.
    let _first_time = std::fs::remove_file(&path);
    let (to, path) = (format!("to={to}"), format!("path={}", path.display()));
    let (stopped, did) = context.watch(&[], || context.actor(&["connect", &to, fd, &path]))?;
    if let Some(line) = fired(&stopped, "stdio_over_socket", did.me.pid, wanted)? {
        let shown: String = did.part("/shown")?;
        let port = shown.rsplit(':').next().unwrap_or_default();
        ensure!(line.0.to_string().contains(port), "the address {shown} is not in the finding: {}", line.0);
    }
    Ok(())
}

fn credentials(context: &Context) -> Result<()> {
    let (stopped, did) = context.watch(&[], || context.actor(&["open", "how=openat", "path=/etc/shadow"]))?;
    let line = fired(&stopped, "sensitive_credential_read", did.me.pid, true)?.context("it fired")?;
    ensure!(line.at("/target") == "/etc/shadow", "target: {}", line.0);
    Ok(())
}

/// The hash in a finding is the one that sha256sum gives of the actor. A finding does not wait long for it: the first
/// may come without.
fn hashed(context: &Context) -> Result<()> {
    let out = Command::new("sha256sum").arg(&context.actor).output()?;
    let text = String::from_utf8(out.stdout)?;
    let want = text.split_whitespace().next().context("sha256sum said nothing")?;
    let agent = context.agent(&Spec::default())?;
    let found = wait_until(context.patience(), || {
        let did = context.actor(&["open", "how=openat", "path=/etc/shadow"])?;
        let ours = |l: &Line| l.name() == "sensitive_credential_read" && l.pid() == u64::from(did.me.pid);
        let hash = agent.wait_for("the finding", ours)?.at("/workload/process/executable/sha256");
        ensure!(hash.is_null() || hash == want, "{hash}, not {want}");
        Ok(!hash.is_null())
    })?;
    ensure!(found, "no finding has a hash");
    agent.stop()?;
    Ok(())
}

/// Below a home directory of the test's own: no key of anybody is touched.
fn ssh_key(context: &Context) -> Result<()> {
    let home = context.dir("home-of-somebody")?;
    std::fs::create_dir(format!("{home}/.ssh"))?;
    let key = format!("{home}/.ssh/id_ed25519");
    std::fs::write(&key, "no key")?;
    let key_arg = format!("path={key}");
    let (stopped, did) = context.watch(&[], || context.actor(&["open", "how=openat", &key_arg]))?;
    let line = fired(&stopped, "sensitive_credential_read", did.me.pid, true)?.context("it fired")?;
    ensure!(line.at("/target") == key.as_str(), "target: {}", line.0);
    ensure!(line.at("/threat/mitre/technique/id") == "T1552.004", "technique: {}", line.0);
    Ok(())
}

/// A program whose business it is, and a file that only sounds alike.
fn honest_reader(context: &Context) -> Result<()> {
    let (stopped, pids) = context.watch(&[], || {
        let mut child =
            Command::new("/usr/bin/passwd").args(["--status", "root"]).stdout(std::process::Stdio::null()).spawn()?;
        ensure!(child.wait()?.success(), "passwd --status root failed");
        let other = context.actor(&["open", "how=openat", "path=/etc/passwd"])?;
        Ok([child.id(), other.me.pid])
    })?;
    for pid in pids {
        fired(&stopped, "sensitive_credential_read", pid, false)?;
    }
    Ok(())
}

/// Many times the same is one finding at once, and a count.
fn counted(context: &Context) -> Result<()> {
    let act = || context.actor(&["open", "how=openat", "path=/etc/shadow", "n=50"]);
    let (stopped, did) = context.watch_with(&Spec::default(), act)?;
    let found = stopped.by("sensitive_credential_read", did.me.pid);
    ensure!(!found.is_empty() && found.len() <= 2, "{} findings for one deed done again", found.len());
    let counts: u64 = found.iter().map(|l| l.at("/count").as_u64().unwrap_or(1)).max().unwrap_or(0);
    ensure!(counts == 50, "counted {counts} times, not 50: {found:?}");
    Ok(())
}

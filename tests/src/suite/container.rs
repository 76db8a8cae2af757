//! Containers by the form of their cgroup's path, from the first exec on; no runtime is needed for that.

use anyhow::{Result, ensure};

use crate::harness::{Cgroup, Context, Did, Test};

pub(super) const TESTS: &[Test] = &[
    ("container::docker", |c| contained(c, &format!("docker-{}.scope", id(1)), "docker", 1)),
    ("container::containerd", |c| contained(c, &format!("cri-containerd-{}.scope", id(2)), "containerd", 2)),
    ("container::crio", |c| contained(c, &format!("crio-{}.scope", id(3)), "crio", 3)),
    ("container::podman", |c| contained(c, &format!("libpod-{}.scope", id(4)), "podman", 4)),
    ("container::host_has_none", host),
    ("container::scope", scope),
];

/// A container id of this run's own.
pub(super) fn id(number: u32) -> String {
    format!("{:0>8x}{number:0>56x}", std::process::id())
}

/// Joins the cgroup, then acts.
pub(super) fn inside(context: &Context, cgroup: &Cgroup, deed: &str) -> Result<Did> {
    let script = format!("echo $$ > \"$0/cgroup.procs\" && exec \"$1\" {deed}");
    let path = cgroup.path().display().to_string();
    context.actor_behind("/bin/sh", &["-c", &script, &path])
}

fn contained(context: &Context, name: &str, runtime: &str, number: u32) -> Result<()> {
    let events = ["--events", "security_file_open,sched_process_exec"];
    let cgroup = Cgroup::made(name)?;
    let (stopped, did) = context.watch(&events, || inside(context, &cgroup, "open how=openat path=/etc/shadow"))?;
    let exec = stopped.one("sched_process_exec", did.me.pid, |l| l.data("pathname") == did.me.exe.as_str())?;
    let open = stopped.one("security_file_open", did.me.pid, |l| l.data("pathname") == "/etc/shadow")?;
    let finding = stopped.one("sensitive_credential_read", did.me.pid, |_| true)?;
    for line in [exec, open, finding] {
        ensure!(line.at("/workload/container/id") == id(number).as_str(), "container: {}", line.0);
        ensure!(line.at("/workload/container/runtime") == runtime, "runtime: {}", line.0);
    }
    Ok(())
}

fn host(context: &Context) -> Result<()> {
    let events = ["--events", "security_file_open"];
    let (stopped, did) = context.watch(&events, || context.actor(&["open", "how=openat", "path=/etc/passwd"]))?;
    let line = stopped.one("security_file_open", did.me.pid, |l| l.data("pathname") == "/etc/passwd")?;
    ensure!(line.at("/workload/container").is_null(), "a container: {}", line.0);
    Ok(())
}

/// `--scope container` shows what is in one, `not-container` the rest.
fn scope(context: &Context) -> Result<()> {
    let cgroup = Cgroup::made(&format!("docker-{}.scope", id(9)))?;
    let path = context.file("contained", "x")?;
    let (deed, path_arg) = (format!("open how=openat path={path}"), format!("path={path}"));
    let events = format!("security_file_open.data.pathname={path}");
    for (scope, shows_inside) in [("container", true), ("not-container", false)] {
        let (stopped, (within, without)) = context.watch(&["--events", &events, "--scope", scope], || {
            Ok((inside(context, &cgroup, &deed)?, context.actor(&["open", "how=openat", &path_arg])?))
        })?;
        let (shown, hidden) = if shows_inside { (&within, &without) } else { (&without, &within) };
        stopped.one("security_file_open", shown.me.pid, |_| true)?;
        ensure!(stopped.by("security_file_open", hidden.me.pid).is_empty(), "{scope} shows the other");
    }
    Ok(())
}

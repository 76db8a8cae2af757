//! Begins and ends tasks, moves them between cgroups.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Args;
use crate::facts::{self, Task};
use crate::sys::{self, Arg, call};

const SIGINFO: usize = 128;

/// Waits until the child has ended, and reads what /proc still shows of it. It stays to be reaped.
pub(super) fn zombie(pid: i32) -> Result<Task> {
    let mut info = [0; SIGINFO];
    let (of_pid, info): (i32, &mut [u8]) = (1, &mut info);
    let flags = libc::WEXITED | libc::WNOWAIT;
    call(libc::SYS_waitid, [of_pid.into(), pid.into(), Arg::Out(info), flags.into(), 0.into()])?;
    Task::of(pid as u32, pid as u32)
}

/// Waits for the end of a child; its status in the form of wait(2).
pub(super) fn reap(pid: i32) -> Result<i32> {
    let mut status = [0; 4];
    let out: &mut [u8] = &mut status;
    call(libc::SYS_wait4, [pid.into(), Arg::Out(out), 0.into(), 0.into()]).context("wait4")?;
    Ok(i32::from_le_bytes(status))
}

/// `[n=] [how=fork|vfork|newpid|spawn]`: children that end at once. `spawn` is posix_spawn, which shares memory until exec.
pub(super) fn fork(args: &Args) -> Result<Value> {
    let flags = match args.get("how").unwrap_or("fork") {
        "fork" => 0,
        "vfork" => libc::CLONE_VFORK,
        "newpid" => libc::CLONE_NEWPID,
        "spawn" => return spawn(args),
        other => bail!("how={other}"),
    };
    let mut children = Vec::new();
    for _ in 0..args.number("n", 1)? {
        let pid = sys::fork(flags, || 7)?;
        let child = zombie(pid)?;
        children.push(json!({ "task": child, "status": reap(pid)? }));
    }
    Ok(json!({ "children": children }))
}

fn spawn(args: &Args) -> Result<Value> {
    let mut children = Vec::new();
    for _ in 0..args.number("n", 1)? {
        let mut child = Command::new("/bin/true").spawn()?;
        let task = zombie(child.id() as i32)?;
        children.push(json!({ "task": task, "status": child.wait()?.into_raw() }));
    }
    Ok(json!({ "children": children }))
}

/// `[n=]`: threads that say who they are and end.
pub(super) fn thread(args: &Args) -> Result<Value> {
    let mut threads = Vec::new();
    for _ in 0..args.number("n", 1)? {
        threads.push(thread::spawn(Task::me).join().map_err(|e| anyhow::anyhow!("a thread died: {e:?}"))??);
    }
    Ok(json!({ "threads": threads }))
}

/// `how=code|signal|group [value=]`: a process ends by exit(2), by a signal, or by exit_group from a thread that is
/// not the leader. `now=` does it; without it a child is made that does.
pub(super) fn exit(args: &Args) -> Result<Value> {
    let (how, value) = (args.need("how")?, args.number("value", 3)? as i32);
    if args.flag("now") {
        super::say(&json!({}))?;
        match how {
            "signal" => drop(call(libc::SYS_kill, [(std::process::id() as i32).into(), value.into()])?),
            "group" => drop(thread::spawn(move || sys::exit_group(value)).join()),
            _ => sys::exit_group(value),
        }
    }
    let own = fs::read_link("/proc/self/exe")?;
    let mut command = Command::new(own);
    command.args(["exit", "now=1", &format!("how={how}"), &format!("value={value}")]);
    let mut child = command.spawn()?;
    let task = zombie(child.id() as i32)?;
    Ok(json!({ "task": task, "status": child.wait()?.into_raw() }))
}

/// `path=`: makes the cgroup, moves a child there, ends the child, removes the cgroup.
pub(super) fn cgroup(args: &Args) -> Result<Value> {
    let path = args.need("path")?;
    fs::create_dir(path).with_context(|| path.to_owned())?;
    let moved = in_cgroup(path);
    fs::remove_dir(path).with_context(|| format!("rmdir {path}"))?;
    moved
}

fn in_cgroup(path: &str) -> Result<Value> {
    let id = facts::File::at(path)?.inode;
    let (mut reader, mut writer) = std::io::pipe()?;
    let pid = sys::fork(0, || i32::from(reader.read_exact(&mut [0]).is_err()))?;
    let moved = fs::write(format!("{path}/cgroup.procs"), pid.to_string()).context("cgroup.procs");
    let child = Task::of(pid as u32, pid as u32);
    writer.write_all(b"x")?;
    reap(pid)?;
    moved?;
    Ok(json!({ "id": id, "path": path, "child": child? }))
}

//! sched_process_fork, sched_process_exit, and the cgroup events.

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::event::{cgroup_attach_task, cgroup_mkdir, cgroup_rmdir, sched_process_exit, sched_process_fork};
use serde::Deserialize;

use crate::facts::Task;
use crate::harness::{Cgroup, Context, Skip, Test, Want, fields, who};

pub(super) const TESTS: &[Test] = &[
    ("fork::fork", |c| forked(c, "fork")),
    ("fork::vfork", |c| forked(c, "vfork")),
    ("fork::posix_spawn", |c| forked(c, "spawn")),
    ("fork::pid_namespace", |c| forked(c, "newpid")),
    ("fork::threads", threads),
    ("exit::code", |c| exited(c, "code", 3)),
    ("exit::signal", |c| exited(c, "signal", libc::SIGTERM)),
    ("exit::group_from_a_thread", |c| exited(c, "group", 5)),
    ("cgroup::life_of_one", |c| cgroup(c, None)),
    ("cgroup::version_1", |c| cgroup(c, Some("/sys/fs/cgroup/pids"))),
];

#[derive(Deserialize)]
struct Child {
    task: Task,
    status: i64,
}

fn fork_fields(parent: &Task, child: &Task) -> Vec<(&'static str, Want)> {
    vec![
        ("parent_tid", parent.tid.into()),
        ("parent_ns_tid", parent.ns_tid.into()),
        ("parent_pid", parent.pid.into()),
        ("parent_ns_pid", parent.ns_pid.into()),
        ("parent_start_time", Want::Ticks(parent.leader_start)),
        ("child_tid", child.tid.into()),
        ("child_ns_tid", child.ns_tid.into()),
        ("child_pid", child.pid.into()),
        ("child_ns_pid", child.ns_pid.into()),
        ("start_time", Want::Ticks(child.start)),
        ("leader_start_time", Want::Ticks(child.leader_start)),
        ("child_pid_ns", child.ns[1].into()),
        // The actor itself was made by one exec after a fork; the number is the same in all its children.
        ("child_exec_id", Want::Fits(|v| v.as_u64().is_some_and(|n| n > 0))),
    ]
}

fn forked(context: &Context, how: &str) -> Result<()> {
    let how = format!("how={how}");
    let (stopped, did) =
        context.watch(&["--events", "sched_process_fork"], || context.actor(&["fork", &how, "n=3"]))?;
    let children: Vec<Child> = did.part("/children")?;
    ensure!(children.len() == 3 && stopped.by("sched_process_fork", did.me.pid).len() == 3, "not three forks");
    for child in &children {
        let line = stopped.one("sched_process_fork", did.me.pid, |l| l.data("child_pid") == child.task.pid)?;
        who(line, &did.me)?;
        fields(line, &sched_process_fork::DEF, &fork_fields(&did.me, &child.task))?;
    }
    Ok(())
}

fn threads(context: &Context) -> Result<()> {
    let (stopped, did) = context.watch(&["--events", "sched_process_fork"], || context.actor(&["thread", "n=3"]))?;
    let threads: Vec<Task> = did.part("/threads")?;
    for thread in &threads {
        let line = stopped.one("sched_process_fork", did.me.pid, |l| l.data("child_tid") == thread.tid)?;
        fields(line, &sched_process_fork::DEF, &fork_fields(&did.me, thread))?;
    }
    Ok(())
}

fn exited(context: &Context, how: &str, value: i32) -> Result<()> {
    let (how, value_arg) = (format!("how={how}"), format!("value={value}"));
    let (stopped, said) =
        context.watch(&["--events", "sched_process_exit"], || context.actor_lines(&["exit", &how, &value_arg]))?;
    let child: Child = said.last().context("the actor said nothing")?.part("")?;
    // A thread's end is told too, since the event itself is asked for; the last one is the end of the process.
    let line = stopped.one("sched_process_exit", child.task.pid, |l| l.data("process_group_exit") == true)?;
    let signal = child.status & 0x7f;
    fields(
        line,
        &sched_process_exit::DEF,
        &[("exit_code", child.status.into()), ("signal_code", signal.into()), ("process_group_exit", true.into())],
    )
}

fn cgroup(context: &Context, hierarchy: Option<&str>) -> Result<()> {
    let name = if hierarchy.is_some() { "v1" } else { "v2" };
    let noted = Cgroup::noted(name);
    let leaf = noted.path().file_name().context("a cgroup has a name")?.to_string_lossy().into_owned();
    let (path, id) = match hierarchy {
        None => (noted.path().display().to_string(), 0),
        Some(root) => (format!("{root}/{leaf}"), hierarchy_id(root)?),
    };
    let path_arg = format!("path={path}");
    let events = "cgroup_mkdir,cgroup_rmdir,cgroup_attach_task";
    let (stopped, did) = context.watch(&["--events", events], || context.actor(&["cgroup", &path_arg]))?;
    let cgroup = format!("/{leaf}");
    let number = did.number("/id")?;
    let common = || [("cgroup_id", number.into()), ("cgroup_path", (&cgroup).into()), ("hierarchy_id", id.into())];
    for (event, def) in [("cgroup_mkdir", &cgroup_mkdir::DEF), ("cgroup_rmdir", &cgroup_rmdir::DEF)] {
        let line = stopped.one(event, did.me.pid, |_| true)?;
        who(line, &did.me)?;
        fields(line, def, &common())?;
    }
    let child: Task = did.part("/child")?;
    let line = stopped.one("cgroup_attach_task", did.me.pid, |_| true)?;
    let mut want = common().to_vec();
    want.extend([
        ("comm", (&child.comm).into()),
        ("pid", child.pid.into()),
        ("start_time", Want::Ticks(child.leader_start)),
    ]);
    fields(line, &cgroup_attach_task::DEF, &want)
}

fn hierarchy_id(root: &str) -> Result<u32> {
    let controller = root.rsplit('/').next().unwrap_or_default();
    let table = std::fs::read_to_string("/proc/cgroups")?;
    let row = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).find(|r| r.first() == Some(&controller));
    let id = row.and_then(|r| r.get(1)?.parse().ok()).filter(|id| *id != 0);
    id.ok_or_else(|| Skip::because(format!("{controller} is in no hierarchy of version 1 here")))
}

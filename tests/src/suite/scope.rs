//! `--scope` and `--events` filters: they show what they name, all of it and nothing else; so the parts of a record that
//! no line prints (namespaces, cgroup) are right too.

use anyhow::{Context as _, Result, ensure};

use crate::facts::Task;
use crate::harness::{Context, Spec, Test};

pub(super) const TESTS: &[Test] = &[
    ("scope::uid", |c| scoped(c, "uid", |t| t.uid[0].to_string())),
    ("scope::pid", |c| scoped(c, "pid", |t| t.pid.to_string())),
    ("scope::tid", |c| scoped(c, "tid", |t| t.tid.to_string())),
    ("scope::ppid", |c| scoped(c, "ppid", |t| t.ppid.to_string())),
    ("scope::tree", |c| scoped(c, "tree", |t| t.ppid.to_string())),
    ("scope::comm", |c| scoped(c, "comm", |t| t.comm.clone())),
    ("scope::exe", |c| scoped(c, "exe", |t| t.exe.clone())),
    ("scope::mntns", |c| scoped(c, "mntns", |t| t.ns[0].to_string())),
    ("scope::pidns", |c| scoped(c, "pidns", |t| t.ns[1].to_string())),
    ("scope::netns", |c| scoped(c, "netns", |t| t.ns[2].to_string())),
    ("scope::cgroup", |c| scoped(c, "cgroup", |t| t.cgroup_id.to_string())),
    ("scope::own_process_is_not_shown", own),
    ("filter::path_prefix", |c| filtered(c, |p| format!("pathname={}*", &p[..p.len() - 1]))),
    ("filter::path_suffix", |c| filtered(c, |p| format!("pathname=*{}", &p[5..]))),
    ("filter::path_whole", |c| filtered(c, |p| format!("pathname={p}"))),
    ("filter::number", |c| {
        let path = c.file("filtered", "x")?;
        let inode = crate::facts::File::at(path)?.inode;
        filtered_by(c, &format!("inode={inode}"))
    }),
];

const NAME: &str = "security_file_open";

/// With `scope=value` an open of a process with that value is shown; with `scope!=value` it is not, while one of
/// another process, where there can be one, is.
fn scoped(context: &Context, scope: &str, value: fn(&Task) -> String) -> Result<()> {
    let path = context.file("scoped", "x")?;
    let busy = context.busy_actor(&["opens", &format!("path={path}"), "every=500"])?;
    let task = Task::of(busy.pid(), busy.pid())?;
    let value = value(&task);
    let only = format!("{scope}={value}");
    let agent = context.agent(&Spec::run(&["--events", NAME, "--scope", &only]))?;
    agent.wait_for("an open in scope", |l| l.pid() == u64::from(task.pid) && l.data("pathname") == path.as_str())?;
    agent.stop()?;

    let not = format!("{scope}!={value}");
    let (stopped, before) = context.watch(&["--events", NAME, "--scope", &not], || {
        // Some thousands of opens out of scope, while others do as they like.
        context.actor(&["opens", &format!("path={path}"), "n=2000"])
    })?;
    busy.stop()?;
    ensure!(before.number("/n")? == 2000, "{}", before.did);
    let shown = stopped.by(NAME, task.pid);
    ensure!(shown.is_empty(), "{} opens out of scope: {}", shown.len(), shown[0].0);
    Ok(())
}

/// The agent's own doings would feed on themselves.
fn own(context: &Context) -> Result<()> {
    let agent = context.agent(&Spec::run(&["--events", NAME]))?;
    let pid = agent.pid();
    context.actor(&["open", "how=openat", "path=/etc/hostname"])?;
    let stopped = agent.stop()?;
    ensure!(!stopped.lines.is_empty(), "nothing was shown at all");
    ensure!(stopped.by(NAME, pid).is_empty(), "it shows its own opens");
    Ok(())
}

fn filtered(context: &Context, filter: fn(&str) -> String) -> Result<()> {
    let path = context.file("filtered", "x")?;
    filtered_by(context, &filter(&path))
}

/// The file that the filter names is shown, its neighbour is not.
fn filtered_by(context: &Context, filter: &str) -> Result<()> {
    let (path, other) = (context.scratch.path().join("filtered"), context.file("neighbour", "x")?);
    let path = path.to_str().context("a path of ours is text")?;
    let events = format!("{NAME}.data.{filter}");
    let (stopped, (did, not)) = context.watch(&["--events", &events], || {
        let not = context.actor(&["open", "how=openat", &format!("path={other}")])?;
        Ok((context.actor(&["open", "how=openat", &format!("path={path}")])?, not))
    })?;
    stopped.one(NAME, did.me.pid, |_| true)?;
    let shown = stopped.by(NAME, not.me.pid);
    ensure!(shown.is_empty(), "shown, though the filter says {filter}: {}", shown[0].0);
    Ok(())
}

//! Any system call by its name: raw arguments and result, attached only when it is asked for.

use anyhow::{Result, ensure};
use haechi_ebpf::event::syscall::DEF;

use crate::harness::{Context, Spec, Test, Want, fields, who};

pub(super) const TESTS: &[Test] = &[
    ("syscall::getppid", getppid),
    ("syscall::compat_is_told_apart", compat),
    ("syscall::nothing_watched_nothing_attached", unwatched),
];

fn getppid(context: &Context) -> Result<()> {
    let (stopped, did) = context.watch(&["--events", "getppid"], || context.actor(&["getppid", "n=10"]))?;
    let lines = stopped.by("getppid", did.me.pid);
    ensure!(lines.len() == 10, "{} of 10: {:?}", lines.len(), stopped.words);
    for line in lines {
        who(line, &did.me)?;
        let any = || Want::Fits(|v| v.as_u64().is_some());
        fields(
            line,
            &DEF,
            &[
                ("nr", (libc::SYS_getppid).into()),
                ("arg0", any()),
                ("arg1", any()),
                ("arg2", any()),
                ("arg3", any()),
                ("arg4", any()),
                ("arg5", any()),
            ],
        )?;
        ensure!(line.ret() == Some(did.number("/ret")?), "returned {:?}: {}", line.ret(), line.0);
    }
    Ok(())
}

/// Number 39 is getpid in one ABI and mkdir in the other: the ABI of the task decides.
fn compat(context: &Context) -> Result<()> {
    let path = context.file("by-number", "x")?;
    let path_arg = format!("path={path}");
    let act = || context.actor(&["open", "how=openat", &path_arg, "compat=1"]);
    let (stopped, did) = context.watch(&["--events", "openat"], act)?;
    let compat: Vec<_> = stopped.by("openat", did.me.pid).into_iter().filter(|l| l.compat()).collect();
    ensure!(compat.len() == 1, "{} 32-bit opens instead of one", compat.len());
    ensure!(compat[0].data("nr") == 295, "number: {}", compat[0].0);
    ensure!(compat[0].ret() == Some(did.number("/fd")?), "returned: {}", compat[0].0);
    Ok(())
}

/// Where other hooks serve, with the default rules too, the raw system call tracepoints are not attached at all.
fn unwatched(context: &Context) -> Result<()> {
    let args = ["--events", "sched_process_exec", "--no-default-rules"];
    let args = if super::open::seen_at_the_end(context) { &args[..] } else { &args[..2] };
    let agent = context.agent(&Spec::run(args))?;
    let ours = agent.held()?;
    agent.stop()?;
    ensure!(!ours.is_empty(), "nothing is attached");
    let raw: Vec<_> = ours.programs.iter().filter(|p| p.1.starts_with("sys_e")).collect();
    ensure!(raw.is_empty(), "attached though nobody asked for a system call: {raw:?}");
    Ok(())
}

//! Nothing is lost in silence: what the actor did equals what came plus what the agent says it lost.

use anyhow::{Result, ensure};

use crate::harness::{Context, Test};

pub(super) const TESTS: &[Test] = &[
    ("account::opens", opens),
    ("account::opens_with_a_tiny_ring", tiny_ring),
    ("account::processes", processes),
    ("account::gap_is_an_event", gap),
];

const TINY: &str = "kernel:\n  ring_bytes: 4096\n";

fn did_and_came(context: &Context, n: u64, more: &[&str]) -> Result<(u64, u64)> {
    let path = context.file("counted", "x")?;
    let (path_arg, n_arg) = (format!("path={path}"), format!("n={n}"));
    let mut args = vec!["--events", "security_file_open"];
    args.extend(more);
    let (stopped, did) = context.watch(&args, || context.actor(&["opens", &path_arg, &n_arg]))?;
    ensure!(did.number("/n")? == n as i64, "the actor did {}", did.did);
    let came =
        stopped.by("security_file_open", did.me.pid).iter().filter(|l| l.data("pathname") == path.as_str()).count();
    Ok((came as u64, stopped.lost("security_file_open")))
}

fn opens(context: &Context) -> Result<()> {
    let n = 50_000 / u64::from(context.machine.slow);
    let (came, lost) = did_and_came(context, n, &["--filter", "comm=actor"])?;
    ensure!(came + lost == n, "did {n}, came {came}, lost {lost}");
    Ok(())
}

/// A ring so small that it must overflow: the sum still holds.
fn tiny_ring(context: &Context) -> Result<()> {
    let config = context.file("tiny.yaml", TINY)?;
    let n = 50_000 / u64::from(context.machine.slow);
    let (came, lost) = did_and_came(context, n, &["--config", &config, "--filter", "comm=actor"])?;
    ensure!(came + lost == n, "did {n}, came {came}, lost {lost}");
    ensure!(lost > 0, "a ring of a page held {n} opens: the test does not test");
    Ok(())
}

/// Forks, execs and exits have a ring of their own.
fn processes(context: &Context) -> Result<()> {
    let n = 300 / u64::from(context.machine.slow);
    let n_arg = format!("n={n}");
    let events = ["--events", "sched_process_fork,sched_process_exec,sched_process_exit"];
    let (stopped, did) = context.watch(&events, || context.actor(&["churn", &n_arg]))?;
    let forks = stopped.by("sched_process_fork", did.me.pid);
    ensure!(forks.len() as u64 == n, "{} forks of {n}", forks.len());
    for fork in forks {
        let child = fork.data("child_pid").as_u64().unwrap_or_default() as u32;
        stopped.one("sched_process_exec", child, |_| true)?;
        stopped.one("sched_process_exit", child, |l| l.data("process_group_exit") == true)?;
    }
    Ok(())
}

/// Who reads the stream sees the hole in it: what, how many, why.
fn gap(context: &Context) -> Result<()> {
    let config = context.file("tiny.yaml", TINY)?;
    let path = context.file("gap", "x")?;
    let path_arg = format!("path={path}");
    let args = ["--events", "security_file_open", "--config", &config];
    let (stopped, _) = context.watch(&args, || context.actor(&["opens", &path_arg, "n=20000"]))?;
    let gaps: Vec<_> = stopped.lines.iter().filter(|l| l.name() == "lost_events").collect();
    ensure!(!gaps.is_empty(), "no gap in the stream: {:?}", stopped.words);
    for gap in gaps {
        let (event, reason) = (gap.data("event"), gap.data("reason"));
        ensure!(event.as_str().is_some_and(|e| !e.is_empty()), "which event? {}", gap.0);
        ensure!(reason.as_str().is_some_and(|r| !r.is_empty()), "why? {}", gap.0);
        ensure!(gap.data("count").as_u64().is_some_and(|n| n > 0), "how many? {}", gap.0);
    }
    Ok(())
}

//! Nothing is lost in silence: what the actor did equals what came plus what the agent says it lost.

use anyhow::{Result, ensure};

use haechi_ebpf::event::{EVENTS, Ring};

use crate::harness::{Context, Spec, Stopped, Test};

pub(super) const TESTS: &[Test] = &[
    ("account::opens", opens),
    ("account::opens_with_a_tiny_ring", tiny_ring),
    ("account::processes", processes),
    ("account::what_was_tried_is_delivered_or_lost", balanced),
    ("account::gap_is_an_event", gap),
    ("account::gap_of_a_slow_sink", slow_sink),
];

/// The smallest ring that can be had.
const TINY: &str = "kernel:\n  bulk_ring_bytes: 65536\n";

/// Opens `n` files, and compares with what came and what was lost; returns the latter.
fn counted(context: &Context, n: u64, config: &str) -> Result<u64> {
    let path = context.file("counted-and-no-other", "x")?;
    let (path_arg, n_arg) = (format!("path={path}"), format!("n={n}"));
    // The name is the filter: the kernel tries these records and no others.
    let spec = Spec::run(&["--events", &format!("security_file_open.data.pathname={path}")]).config(config);
    let (stopped, did) = context.watch_with(&spec, || context.actor(&["opens", &path_arg, &n_arg]))?;
    ensure!(did.number("/n")? == n as i64, "the actor did {}", did.did);
    let came =
        stopped.by("security_file_open", did.me.pid).iter().filter(|l| l.data("pathname") == path.as_str()).count();
    let (came, lost) = (came as u64, stopped.lost("security_file_open")?);
    let certain = lost - stopped.missed("security_file_open")?;
    ensure!(came + certain <= n && n <= came + lost, "did {n}, came {came}, lost {certain} to {lost}");
    Ok(lost)
}

fn opens(context: &Context) -> Result<()> {
    let n = 50_000 / u64::from(context.machine.slow);
    counted(context, n, "").map(drop)
}

/// A ring so small that it must overflow: the sum still holds.
fn tiny_ring(context: &Context) -> Result<()> {
    let n = 50_000 / u64::from(context.machine.slow);
    let lost = counted(context, n, TINY)?;
    ensure!(lost > 0, "so small a ring held {n} opens: the test does not test");
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

/// An agent that ends while processes come and go: of each event, what the kernel tried came or was lost.
fn balanced(context: &Context) -> Result<()> {
    let file = context.dir("metrics")? + "/metrics";
    let events = ["--events", "sched_process_exec", "--metrics-file", &file];
    let agent = context.agent(&Spec::run(&events))?;
    let n = format!("n={}", 3000 / context.machine.slow);
    let churn = context.busy_actor(&["churn", &n])?;
    agent.wait_for("the load", |l| l.name() == "sched_process_exec" && l.data("pathname") == "/usr/bin/true")?;
    agent.stop()?;
    churn.stop()?;
    let text = std::fs::read_to_string(&file)?;
    let sum = |metric: &str, event: &str| -> u64 {
        let start = format!("{metric}{{event=\"{event}\"");
        let lines = text.lines().filter(|l| l.starts_with(&start));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    for event in EVENTS.iter().filter(|e| e.ring != Ring::None) {
        let tried = sum("haechi_events_tried_total", event.name);
        let (came, lost) = (sum("haechi_events_total", event.name), sum("haechi_events_lost_total", event.name));
        ensure!(tried == came + lost, "{}: tried {tried}, came {came}, lost {lost}", event.name);
    }
    ensure!(sum("haechi_events_tried_total", "sched_process_exit") > 0, "nothing ended: the test does not test");
    Ok(())
}

/// Who reads the stream sees the hole in it: what, how many, why.
fn gap(context: &Context) -> Result<()> {
    let path = context.file("gap", "x")?;
    let path_arg = format!("path={path}");
    // Too many for the ring, few enough for the queue of the sink.
    let spec = Spec::run(&["--events", &format!("security_file_open.data.pathname={path}")]).config(TINY);
    let (stopped, _) = context.watch_with(&spec, || context.actor(&["opens", &path_arg, "n=6000"]))?;
    let told = told(&stopped)?;
    ensure!(told.iter().any(|t| t.reason == "ring_full"), "no gap in the stream: {:?}", stopped.words);
    same_as_totals(&stopped, &told)
}

/// A sink that is too slow for what is shown tells of that hole too.
fn slow_sink(context: &Context) -> Result<()> {
    let path = context.file("slow", "x")?;
    let path_arg = format!("path={path}");
    let spec = Spec::run(&["--events", &format!("security_file_open.data.pathname={path}")])
        .config("limits:\n  sink_queue: 16\n");
    let (stopped, _) = context.watch_with(&spec, || context.actor(&["opens", &path_arg, "n=6000"]))?;
    let told = told(&stopped)?;
    ensure!(!told.is_empty(), "no gap in the stream: {:?}", stopped.words);
    same_as_totals(&stopped, &told)
}

struct Told {
    reason: String,
    count: u64,
}

fn told(stopped: &Stopped) -> Result<Vec<Told>> {
    let gaps = stopped.lines.iter().filter(|l| l.name() == "lost_events");
    gaps.map(|gap| {
        let (event, reason) = (gap.data("event"), gap.data("reason"));
        ensure!(event.as_str().is_some_and(|e| !e.is_empty()), "which event? {}", gap.0);
        let reason = reason.as_str().filter(|r| !r.is_empty());
        let count = gap.data("count").as_u64().filter(|n| *n > 0);
        let (Some(reason), Some(count)) = (reason, count) else { anyhow::bail!("why, how many? {}", gap.0) };
        Ok(Told { reason: reason.to_owned(), count })
    })
    .collect()
}

fn same_as_totals(stopped: &Stopped, told: &[Told]) -> Result<()> {
    let told: u64 = told.iter().map(|t| t.count).sum();
    let totals: u64 = EVENTS.iter().map(|e| stopped.lost(e.name)).sum::<Result<u64>>()?;
    ensure!(told == totals, "gaps tell of {told}, the totals of {totals}: {:?}", stopped.words);
    Ok(())
}

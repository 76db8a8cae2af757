//! Bytes cost nothing: a connection that moves ten times as many makes the programs run as often as another.
//!
//! Counted are the runs of the programs that are there for connections: `flow_state`, the accept programs, and one more
//! where `sys_exit` stands in for those. Not counted are `flow_poll`, which runs once for each socket of the machine at
//! each poll whatever was moved; `sys_enter` and `sys_exit` at other calls, which are there for the rules; and programs
//! about processes and files, which run for everybody. All of them are shown.

use anyhow::{Context as _, Result};

use super::super::Bench;
use super::super::agent::{Agent, Lines, settings};
use super::super::bpf::count_runs;
use super::super::floor::programs;
use super::super::loader::Loader;
use super::super::report::Measured;
use super::super::stats::{median, spread};
use super::EVERY_SECOND;
use super::runs::Ran;

/// Sizes, and what their figures are called.
const SIZES: [(u64, [&str; 5]); 2] = [
    (1_000_000_000, ["1gb_runs", "1gb_poll_runs", "1gb_sys_exit_runs", "1gb_sys_enter_runs", "1gb_seconds"]),
    (10_000_000_000, ["10gb_runs", "10gb_poll_runs", "10gb_sys_exit_runs", "10gb_sys_enter_runs", "10gb_seconds"]),
];

pub(in super::super) fn bulk(bench: &Bench) -> Result<Measured> {
    let settings = settings(bench, EVERY_SECOND, &[])?;
    let attached = programs(bench, &settings)?;
    let at_calls = attached.iter().all(|name| !name.starts_with("accept_"));
    let agent = Agent::start(bench, &settings, Lines::Dropped)?;
    let _counting = count_runs().context("counting runs")?;
    let mut measured = Measured::default();
    let mut worst = Vec::new();
    for (bytes, names) in SIZES {
        let mut load = Loader::start(&["tcp-once", &format!("bytes={bytes}")])?;
        let mut samples: Vec<[f64; 5]> = Vec::new();
        let mut last = Ran::default();
        // Others' connections run the same programs: the least is the load's own, when it is found more than once.
        let again = |samples: &[[f64; 5]]| {
            let least = samples.iter().map(|s| s[0]).fold(f64::INFINITY, f64::min);
            samples.iter().filter(|s| s[0] <= least).count() < 2
        };
        for _ in 0..if bench.quick { 3 } else { 12 } {
            if !again(&samples) {
                break;
            }
            bench.gate.wait();
            let before = Ran::of(agent.pid())?;
            let took = load.count(1)?;
            last = Ran::of(agent.pid())?.since(&before);
            let of_flows = |name: &str| name.starts_with("accept_") || name.starts_with("flow_") && name != "flow_poll";
            samples.push([
                last.count(of_flows) + f64::from(u8::from(at_calls)),
                last.count(|n| n == "flow_poll"),
                last.count(|n| n == "sys_exit"),
                last.count(|n| n == "sys_enter"),
                took.mean / 1e9,
            ]);
        }
        samples.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let least = samples.first().context("no sample")?;
        if again(&samples) {
            measured.noisy = "others made connections meanwhile".into();
        }
        measured.extra.extend(names.into_iter().zip(*least));
        worst.push(least[0]);
        measured.rounds = samples.len();
        let counts: Vec<f64> = samples.iter().map(|s| s[0]).collect();
        measured.notes.push(format!("{} GB, median {}: {}", bytes / 1_000_000_000, median(&counts), last.words()));
    }
    agent.stop()?;
    measured.value = worst.iter().copied().fold(0.0, f64::max);
    measured.spread = spread(&worst);
    if at_calls {
        measured.notes.push("accept is seen by sys_exit here, which is one run of those counted".into());
    }
    Ok(measured)
}

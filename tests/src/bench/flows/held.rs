//! An agent, and beside it very many connections that stay open: several processes hold them, because one may not have
//! that many descriptors.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::Bench;
use super::super::agent::{Agent, Lines, settings};
use super::super::child::last_cpu;
use super::super::gate::pause;
use super::super::loader::Loader;
use super::EVERY_SECOND;
use super::metrics::{Metrics, Sample};

/// Connections of one process: two descriptors each, and a process may have 20,000 on some machines.
const EACH: usize = 8400;
/// Longest wait until all are open.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the holders do with their connections meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing.
    Nothing,
    /// Use each of them once a second or more.
    Touch,
    /// Close old ones and open new ones, this many a second in all.
    Churn(usize),
}

/// The agent and the holders.
pub(super) struct Held {
    pub(super) agent: Agent,
    pub(super) metrics: Metrics,
    loads: Vec<Loader>,
    /// Open ends.
    pub(super) sockets: usize,
}

impl Held {
    /// Starts the agent, then opens `sockets` ends or a few more, and waits until the agent knows nearly all.
    pub(super) fn start(bench: &Bench, sockets: usize, doing: Doing) -> Result<(Self, Sample)> {
        let file = bench.place.path().join("metrics.prom");
        let mut metrics = Metrics::new(&file);
        let settings = settings(bench, EVERY_SECOND, &["--metrics-file", &file.display().to_string()])?;
        let agent = Agent::start(bench, &settings, Lines::Dropped)?;
        let (loads, sockets) = open(sockets, doing)?;
        // Those that were just replaced are not known again until the next poll.
        let known = metrics.next(|m| m.live >= 0.97 * sockets as f64)?;
        Ok((Self { agent, metrics, loads, sockets }, known))
    }

    /// Processes that are part of the measurement.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.loads.iter().map(Loader::pid).chain([self.agent.pid()]).collect()
    }

    /// Ends everything; the agent's last word.
    pub(super) fn stop(self) -> Result<String> {
        drop(self.loads);
        self.agent.stop()
    }
}

/// Opens `sockets` ends or a few more.
pub(super) fn open(sockets: usize, doing: Doing) -> Result<(Vec<Loader>, usize)> {
    let processes = sockets.div_ceil(2 * EACH);
    let each = sockets.div_ceil(2 * processes);
    let mut words = vec![format!("held={each}")];
    // Bursts a second.
    let burst = |steps: usize, bursts: usize| [format!("every={}", 1_000_000 / bursts), format!("burst={steps}")];
    words.extend(match doing {
        Doing::Nothing => Vec::new(),
        // A quarter more, as periods are not even.
        Doing::Touch => burst((each * 5).div_ceil(4 * 200), 200).to_vec(),
        Doing::Churn(rate) => burst(rate.div_ceil(processes * 100), 100).to_vec(),
    });
    let kind = if matches!(doing, Doing::Churn(_)) { "tcp-churn" } else { "tcp-touch" };
    let words: Vec<&str> = [kind].into_iter().chain(words.iter().map(String::as_str)).collect();
    let loads: Result<Vec<Loader>> = (0..processes).map(|i| Loader::start_on(i % (last_cpu() + 1), &words)).collect();
    let loads = loads?;
    let end = Instant::now() + PATIENCE;
    while !loads.iter().all(|load| descriptors(load.pid()) >= 2 * each) {
        ensure!(Instant::now() < end, "the connections do not come about");
        ensure!(loads.iter().all(|l| Path::new(&format!("/proc/{}", l.pid())).exists()), "a holder ended");
        pause(Duration::from_millis(50));
    }
    Ok((loads, 2 * each * processes))
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

//! Keeps samples apart from what else the machine does: waits, within a budget, until nobody else traces or computes,
//! and says afterwards how much of the processors went to others.

use std::cell::Cell;
use std::fs;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use super::bpf::tracing_links;

/// The part of one processor that others may use before a sample begins.
const QUIET: f64 = 0.12;
/// How long one look takes.
const LOOK: Duration = Duration::from_millis(150);
/// Seconds in a tick of /proc.
const TICK: f64 = 0.01;
/// Longest wait for one sample, for all of a row, and for that where nobody believes the numbers.
const PATIENCE: Duration = Duration::from_secs(20);
const BUDGET: Duration = Duration::from_secs(240);
const QUICK_BUDGET: Duration = Duration::from_secs(5);

/// The gate, with what is left of its patience.
pub(super) struct Gate {
    /// Tracing programs that are always there.
    resting: usize,
    budget: Cell<Duration>,
    full: Duration,
}

impl Gate {
    /// Sees what the machine looks like at rest.
    pub(super) fn new(quick: bool) -> Self {
        let full = if quick { QUICK_BUDGET } else { BUDGET };
        let gate = Self { resting: 0, budget: Cell::new(full.min(PATIENCE)), full };
        gate.wait();
        Self { resting: tracing_links().unwrap_or(0), budget: Cell::new(full), full }
    }

    /// A new row begins.
    pub(super) fn refill(&self) {
        self.budget.set(self.full);
    }

    /// Whether none but `ours` trace.
    pub(super) fn alone(&self, ours: usize) -> bool {
        tracing_links().is_ok_and(|links| links <= self.resting + ours)
    }

    /// Waits for a quiet moment. Gives up after a while: whoever measures finds out by other means.
    pub(super) fn wait(&self) {
        self.wait_for(|| self.alone(0));
    }

    /// The same, whoever traces.
    pub(super) fn wait_for_processor(&self) {
        self.wait_for(|| true);
    }

    fn wait_for(&self, alone: impl Fn() -> bool) {
        let began = Instant::now();
        let patience = PATIENCE.min(self.budget.get());
        while began.elapsed() < patience {
            let watch = Watch::start(&[]);
            pause(LOOK);
            if watch.others() < QUIET && alone() {
                break;
            }
        }
        self.budget.set(self.budget.get().saturating_sub(began.elapsed()));
    }
}

/// Lets time pass: it is time itself that is wanted.
pub(super) fn pause(how_long: Duration) {
    let end = Instant::now() + how_long;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        park_timeout(left);
    }
}

/// Watches who uses the processors.
pub(super) struct Watch {
    began: Instant,
    busy: f64,
    ours: f64,
    forks: u64,
    pids: Vec<u32>,
}

impl Watch {
    /// Begins, with the processes that are part of the measurement besides this one.
    pub(super) fn start(pids: &[u32]) -> Self {
        let (busy, forks) = machine();
        Self { began: Instant::now(), busy, ours: ours(pids), forks, pids: pids.to_vec() }
    }

    /// The part of one processor that went to others since.
    pub(super) fn others(&self) -> f64 {
        let busy = machine().0 - self.busy - (ours(&self.pids) - self.ours);
        (busy / self.began.elapsed().as_secs_f64()).max(0.0)
    }

    /// Processes and threads made since, a second.
    pub(super) fn forks(&self) -> f64 {
        (machine().1 - self.forks) as f64 / self.began.elapsed().as_secs_f64()
    }

    /// Seconds since.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// Seconds that all processors were busy since boot, and tasks made.
fn machine() -> (f64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    let numbers: Vec<f64> = line("cpu ").split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user, nice, system; what interrupts take is part of whoever they interrupt.
    let busy: f64 = numbers.iter().take(3).sum();
    (busy * TICK, line("processes ").trim().parse().unwrap_or(0))
}

fn ours(pids: &[u32]) -> f64 {
    let of = |pid: u32| cpu_seconds(pid) + children_seconds(pid);
    of(std::process::id()) + pids.iter().map(|p| of(*p)).sum::<f64>()
}

/// Seconds that the threads of a process have run, to the nanosecond; 0 when it is gone.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    cpu_seconds_of(pid, |_| true)
}

/// The same of the threads that are chosen by name.
pub(super) fn cpu_seconds_of(pid: u32, chosen: impl Fn(&str) -> bool) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|t| t.path());
    let threads = threads.filter(|t| chosen(fs::read_to_string(t.join("comm")).unwrap_or_default().trim()));
    let ran = threads.filter_map(|t| fs::read_to_string(t.join("schedstat")).ok());
    ran.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}

/// Seconds that children of a process ran which it has waited for.
fn children_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    // Fields 16 and 17 of the line; the name is the second.
    after_name.split_whitespace().skip(13).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() * TICK
}

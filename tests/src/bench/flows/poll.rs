//! One look at all connections that live: nanoseconds for each end, with a poll every second. By the processor time of
//! the agent's thread that looks, which is the same however busy the machine is; what the agent counts in its metrics,
//! by the clock, stands beside it.

use anyhow::Result;

use super::super::Bench;
use super::super::gate::{Watch, cpu_seconds_of};
use super::super::report::Measured;
use super::super::stats::{median, spread};
use super::held::{Doing, Held};

/// Others may use this part of one processor.
const OTHERS: f64 = 0.25;
/// Ends that are open: few enough for two processes, enough to fall out of the caches.
const WARM: usize = 15_000;
const MANY: usize = 100_000;
/// Connections a second that end and begin meanwhile.
const CHURN: usize = 5000;
/// The thread of the agent that polls.
const THREAD: &str = "haechi-poll";

/// All of the ends were used since the last look, so each is told.
pub(in super::super) fn poll(bench: &Bench) -> Result<Measured> {
    let idle = Polled::measure(bench, WARM, Doing::Nothing)?;
    let told = Polled::measure(bench, WARM, Doing::Touch)?;
    let mut measured = told.measured();
    measured.extra.insert("idle_ns", median(&idle.cpu));
    measured.extra.insert("idle_clock_ns", median(&idle.ns));
    measured.notes.push(format!("{WARM} ends, each used since the last look and told; idle: none of them"));
    Ok(measured)
}

/// Very many, and some of them new each time.
pub(in super::super) fn poll_many(bench: &Bench) -> Result<Measured> {
    let polled = Polled::measure(bench, MANY, Doing::Churn(CHURN))?;
    let mut measured = polled.measured();
    measured.notes.push(format!("{CHURN} connections a second end and begin"));
    Ok(measured)
}

/// Nanoseconds an end and a poll, in each stretch.
#[derive(Debug, Default)]
struct Polled {
    sockets: f64,
    /// By the clock.
    ns: Vec<f64>,
    /// Of processor time.
    cpu: Vec<f64>,
    deferred: f64,
    noisy: usize,
    said: String,
}

impl Polled {
    fn measure(bench: &Bench, sockets: usize, doing: Doing) -> Result<Self> {
        let (mut held, known) = Held::start(bench, sockets, doing)?;
        let mut polled = Self { sockets: held.sockets as f64, ..Self::default() };
        let cpu = |held: &Held| cpu_seconds_of(held.agent.pid(), |name| name == THREAD) * 1e9;
        // The first stretch began before all were open.
        let (mut before, mut used) = (held.metrics.next(|m| m.polls > known.polls)?, cpu(&held));
        for _ in 0..if bench.quick { 1 } else { 4 } {
            let watch = Watch::start(&held.pids());
            let (after, now) = (held.metrics.next(|m| m.polls > before.polls)?, cpu(&held));
            let looks = (after.polls - before.polls) * polled.sockets;
            polled.ns.push((after.ns - before.ns) / looks);
            polled.cpu.push((now - used) / looks);
            polled.deferred += after.deferred - before.deferred;
            polled.noisy += usize::from(watch.others() > OTHERS);
            (before, used) = (after, now);
        }
        polled.said = held.stop()?;
        Ok(polled)
    }

    fn measured(&self) -> Measured {
        let value = median(&self.cpu);
        let mut measured = Measured { value, spread: spread(&self.cpu), rounds: self.cpu.len(), ..Measured::default() };
        if self.noisy > 0 {
            measured.noisy = format!("others used the processors in {} of {} stretches", self.noisy, self.ns.len());
        }
        measured.extra.insert("sockets", self.sockets);
        measured.extra.insert("clock_ns", median(&self.ns));
        measured.extra.insert("deferred", self.deferred);
        measured.extra.insert("core_percent_at_15_s", value * self.sockets / 15e9 * 100.0);
        measured.notes.push(format!("the agent's last word: {}", self.said));
        measured
    }
}

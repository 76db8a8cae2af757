//! Traffic beside itself: in bulk and in small messages, with connections watched, with the same agent not watching
//! them, under empty programs, and bare. Both ends are one thread's, so a call more counts in full.

use anyhow::Result;

use super::super::Bench;
use super::super::agent::settings;
use super::super::contest::{self, Pair, Round};
use super::super::loader::Loader;
use super::super::report::Measured;
use super::OFF;

/// Bytes a second, in writes of 64 KiB.
pub(in super::super) fn throughput(bench: &Bench) -> Result<Measured> {
    compare(bench, "tcp-bulk", "MB/s")
}

/// Exchanges a second of a message of 100 bytes there and one back.
pub(in super::super) fn pingpong(bench: &Bench) -> Result<Measured> {
    compare(bench, "tcp-pingpong", "exchanges/s")
}

/// `unit`: of steps a second; a step in bulk is a megabyte.
fn compare(bench: &Bench, load: &str, unit: &str) -> Result<Measured> {
    let mut load = Loader::start(&[load])?;
    let (on, off) = (settings(bench, "", &[])?, settings(bench, OFF, &[])?);
    let (time, pids) = (if bench.quick { 200 } else { 800 }, [load.pid()]);
    let outcome = contest::run_beside(bench, &on, Some(&off), &pids, &mut |_| Ok(load.time(time)?.median))?;
    // Time bare over time with: the part of the speed that is left.
    let left = |p: Pair| p.bare / p.with;
    let beside_off = |r: &Round| left(r.agent) / r.other.map_or(1.0, left);
    let mut measured = Measured {
        bare: Some(1e9 / outcome.bare()),
        floor: Some(1e9 / outcome.floor()),
        ..outcome.measured(beside_off)
    };
    measured.extra.insert("on", 1e9 / outcome.of(|r| r.agent.with).0);
    measured.extra.insert("off", 1e9 / outcome.of(|r| r.other.map_or(0.0, |o| o.with)).0);
    measured.extra.insert("on_over_bare", outcome.of(|r| left(r.agent)).0);
    measured.extra.insert("off_over_bare", outcome.of(|r| r.other.map_or(0.0, left)).0);
    measured.extra.insert("floor_over_bare", outcome.of(|r| left(r.floor)).0);
    measured.notes.push(format!(
        "bare, floor, on, off: {unit}; floor: {} empty programs on the hooks of `on`, system calls among them",
        outcome.hooks
    ));
    Ok(measured)
}

//! What the agent costs those it watches: system calls nobody asked for, files that no rule looks for, files that are
//! watched and reported.

use anyhow::{Context as _, Result};

use super::Bench;
use super::agent::settings;
use super::contest::{self, Round};
use super::guest;
use super::loader::Loader;
use super::report::Measured;

/// A call that no rule looks for, against empty programs on the same hooks.
pub(super) fn unwatched(bench: &Bench) -> Result<Measured> {
    compare(bench, "syscall-unwatched", &["getppid"], &settings(bench, "", &[])?, over_floor)
}

/// Opens of a file that no rule looks for.
pub(super) fn open_close(bench: &Bench) -> Result<Measured> {
    compare(bench, "open-close", &["open", "path=/etc/hostname"], &settings(bench, "", &[])?, over_bare)
}

/// Opens of a file that is asked for, below eight directories and a mount point.
pub(super) fn open_watched(bench: &Bench) -> Result<Measured> {
    let path = bench.place.deep_file()?;
    let filter = format!("security_file_open.data.pathname={path}");
    let settings = settings(bench, "", &["--events", &filter])?;
    let mut measured = compare(bench, "open-watched", &["open", &format!("path={path}")], &settings, over_bare)?;
    measured.notes.push(format!("{path}, as fast as it goes: what the agent loses is counted"));
    Ok(measured)
}

fn over_bare(round: &Round) -> f64 {
    round.agent.with - round.agent.bare
}

fn over_floor(round: &Round) -> f64 {
    round.agent.with - round.agent.bare - (round.floor.with - round.floor.bare)
}

fn compare(
    bench: &Bench,
    row: &str,
    load: &[&str],
    settings: &[String],
    value: impl Fn(&Round) -> f64,
) -> Result<Measured> {
    let mut loader = Loader::start(load)?;
    let time = if bench.quick { 100 } else { 400 };
    let (pids, mut means) = ([loader.pid()], Vec::new());
    let outcome = contest::run(bench, settings, &pids, &mut |agent| {
        let took = loader.time(time)?;
        if agent.is_some() {
            means.push(took.mean);
        }
        Ok(took.median)
    })
    .context("the comparison")?;
    let mut measured = outcome.measured(value);
    measured.extra.insert("agent", outcome.of(|r| r.agent.with).0);
    measured.extra.insert("agent_over_bare_ratio", outcome.of(|r| r.agent.with / r.agent.bare).0);
    measured.extra.insert("agent_mean", super::stats::median(&means));
    measured.extra.insert("over_floor", outcome.of(over_floor).0);
    measured.extra.insert("floor_over_bare", outcome.of(|r| r.floor.with - r.floor.bare).0);
    measured.notes.push(format!("floor: {} empty programs", outcome.hooks));
    let counted = (!bench.quick).then(|| guest::outside(bench));
    match counted {
        None => {}
        Some(Ok(counted)) => counted.costs(row).for_each(|cost| {
            let plan = if cost.raw { "raw tracepoints" } else { "default plan" };
            let (bare, floor, agent) = (cost.bare, cost.floor - cost.bare, cost.agent - cost.bare);
            measured.notes.push(format!(
                "instructions on 6.1, {plan}: bare {bare:.0}, empty programs +{floor:.0}, the agent +{agent:.0}"
            ));
        }),
        Some(Err(error)) => measured.notes.push(format!("no instructions counted: {error:#}")),
    }
    if let Some(lost) = outcome.losses.last() {
        measured.notes.push(format!("the agent's last word: {lost}"));
    }
    Ok(measured)
}

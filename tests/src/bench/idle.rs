//! What the agent takes when nothing happens: processor time, and memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Bench;
use super::agent::{Agent, Lines, settings};
use super::gate::{Watch, pause};
use super::report::Measured;
use super::stats::{median, spread};

/// Others may use this part of one processor, and make so many processes a second, while nothing is said to happen.
const OTHERS: f64 = 0.05;
const FORKS: f64 = 3.0;

/// The part of a core that the agent uses.
pub(super) fn cpu(bench: &Bench) -> Result<Measured> {
    let agent = Agent::start(bench, &settings(bench, "", &[])?, Lines::Dropped)?;
    let stretch = Duration::from_secs(3);
    let (wanted, tries) = if bench.quick { (2, 4) } else { (10, 80) };
    pause(Duration::from_secs(2));
    let (mut quiet, mut all, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..tries {
        let (watch, before) = (Watch::start(&[agent.pid()]), agent.cpu());
        pause(stretch);
        let used = 100.0 * (agent.cpu() - before) / watch.seconds();
        let (share, forks) = (watch.others(), watch.forks());
        all.push(used);
        if share < OTHERS && forks < FORKS {
            quiet.push(used);
            others.push(100.0 * share);
        }
        if quiet.len() >= wanted {
            break;
        }
    }
    let threads = threads(agent.pid());
    agent.stop()?;
    let enough = quiet.len() >= wanted;
    let taken = if enough { &quiet } else { &all };
    let mut measured = Measured {
        // Its whole time over all the stretches, which are equally long.
        value: taken.iter().sum::<f64>() / taken.len() as f64,
        spread: spread(taken),
        rounds: taken.len(),
        ..Measured::default()
    };
    if !enough {
        measured.noisy = format!("only {} of {} stretches of 3 s were quiet", quiet.len(), all.len());
    }
    measured.extra.insert("others_percent", median(&others));
    measured.notes.push(format!("by thread, ms since the start: {threads}"));
    Ok(measured)
}

fn threads(pid: u32) -> String {
    let mut out = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let ran: f64 = read("schedstat").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
        out.push(format!("{} {:.1}", read("comm").trim(), ran / 1e6));
    }
    out.join(", ")
}

/// Memory that the agent holds.
pub(super) fn memory(bench: &Bench) -> Result<Measured> {
    let agent = Agent::start(bench, &settings(bench, "", &[])?, Lines::Dropped)?;
    // Two looks at its own counters: by then every thread has done what it does when nothing happens.
    pause(Duration::from_secs(3));
    let field = |file: &str, name: &str| -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", agent.pid()))?;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        let line = line.with_context(|| format!("no {name} in {file}"))?;
        let number = line.trim().strip_suffix(" kB").and_then(|n| n.parse::<f64>().ok());
        Ok(number.with_context(|| format!("{name} is {line}"))? * 1024.0 / 1e6)
    };
    let mut measured = Measured { value: field("status", "VmRSS")?, rounds: 1, ..Measured::default() };
    for (name, file, what) in [
        ("peak_mb", "status", "VmHWM"),
        ("anonymous_mb", "status", "RssAnon"),
        ("file_mb", "status", "RssFile"),
        ("shared_mb", "status", "RssShmem"),
        ("pss_mb", "smaps_rollup", "Pss"),
    ] {
        measured.extra.insert(name, field(file, what)?);
    }
    agent.stop()?;
    Ok(measured)
}

//! From the start of the agent to its first line about something that happens every millisecond.

use std::io::{BufRead as _, BufReader};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::Bench;
use super::agent::{Agent, Lines, settings};
use super::loader::Loader;
use super::report::Measured;
use super::stats::{median, spread};

pub(super) fn start(bench: &Bench) -> Result<Measured> {
    let watched = bench.place.deep_file()?;
    let settings = settings(bench, "", &["--events", &format!("security_file_open.data.pathname={watched}")])?;
    let _load = Loader::start(&["open", &format!("path={watched}"), "every=1000"])?;
    let (mut first, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        bench.gate.wait();
        let began = Instant::now();
        let mut agent = Agent::spawn(bench, &settings, Lines::Read)?;
        let mut lines = BufReader::new(agent.lines()?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        first.push(began.elapsed().as_secs_f64());
        ensure!(line.contains(&watched), "the first line is another: {line}");
        // It is ready before, and said so: that it is heard now is no later than the line.
        agent.ready()?;
        ready.push(began.elapsed().as_secs_f64());
        drop(lines);
        drop(agent);
    }
    let mut measured =
        Measured { value: median(&first), spread: spread(&first), rounds: first.len(), ..Measured::default() };
    measured.extra.insert("ready_s", median(&ready));
    Ok(measured)
}

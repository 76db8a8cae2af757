//! The parent's side of a load: starts it, gives orders, reads the answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context as _, Result};

use super::child::{Child, command, last_cpu};

/// A load at work.
pub(super) struct Loader {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What a load did, nanoseconds a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    /// In most stretches.
    pub(super) median: f64,
    /// Over all.
    pub(super) mean: f64,
    /// Processor time of the load and its children.
    pub(super) cpu: f64,
}

impl Loader {
    /// Starts one on the last processor.
    pub(super) fn start(words: &[&str]) -> Result<Self> {
        Self::start_on(last_cpu(), words)
    }

    /// Starts one on this processor.
    pub(super) fn start_on(cpu: usize, words: &[&str]) -> Result<Self> {
        let mut load = command(std::env::current_exe()?);
        load.arg("--load").args(words).arg(format!("cpu={cpu}"));
        let mut child = Child::start(load.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let orders = child.0.stdin.take();
        let answers = BufReader::new(child.0.stdout.take().context("it has a standard output")?);
        Ok(Self { child, orders, answers })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Works for so many milliseconds.
    pub(super) fn time(&mut self, milliseconds: u64) -> Result<Took> {
        self.order(&format!("time {milliseconds}"))
    }

    /// Makes so many steps.
    pub(super) fn count(&mut self, steps: u64) -> Result<Took> {
        self.order(&format!("count {steps}"))
    }

    fn order(&mut self, order: &str) -> Result<Took> {
        let orders = self.orders.as_mut().context("the load takes orders")?;
        writeln!(orders, "{order}").context("the load is gone")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let numbers: Vec<f64> = answer.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [median, mean, cpu, _] = numbers[..] else { anyhow::bail!("the load ended: {answer:?}") };
        Ok(Took { median, mean, cpu })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // It ends with its input; its owner's guard sees to it if not.
        self.orders = None;
        let _ = self.child.wait(std::time::Duration::from_secs(5));
    }
}

//! The agent being measured, started as users start it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::child::{Child, command};
use super::gate::cpu_seconds;

/// What it says when everything is attached.
const READY: &str = "haechi: watching";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent.
pub(super) struct Agent {
    child: Child,
    words: Receiver<String>,
    heard: Vec<String>,
}

/// Where the agent's lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// To nobody.
    Dropped,
    /// To us.
    Read,
}

/// Arguments of the agent: settings of `run` and `check` alike, with a configuration of our own.
pub(super) fn settings(bench: &Bench, yaml: &str, args: &[&str]) -> Result<Vec<String>> {
    // One file for each content: a row may compare several.
    let mut hash = DefaultHasher::new();
    yaml.hash(&mut hash);
    let config = bench.place.file(&format!("config-{:x}.yaml", hash.finish()), format!("log: warn\n{yaml}"))?;
    Ok(["--config", &config].iter().chain(args).map(|a| (*a).to_owned()).collect())
}

impl Agent {
    /// Starts it and waits until it watches.
    pub(super) fn start(bench: &Bench, settings: &[String], lines: Lines) -> Result<Self> {
        let mut agent = Self::spawn(bench, settings, lines)?;
        agent.ready()?;
        Ok(agent)
    }

    /// Starts it.
    pub(super) fn spawn(bench: &Bench, settings: &[String], lines: Lines) -> Result<Self> {
        Self::spawn_by(&bench.haechi, settings, lines)
    }

    /// Starts it through a program that becomes it.
    pub(super) fn spawn_by(program: &Path, settings: &[String], lines: Lines) -> Result<Self> {
        let mut run = command(program);
        run.args(["run", "--output", "json"]).args(settings).stdin(Stdio::null()).stderr(Stdio::piped());
        run.stdout(if lines == Lines::Read { Stdio::piped() } else { Stdio::null() });
        let mut child = Child::start(&mut run)?;
        let errors = child.0.stderr.take().context("it has a standard error")?;
        let (sender, words) = sync_channel(1024);
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, words, heard: Vec::new() })
    }

    /// Waits until everything is attached.
    pub(super) fn ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE * 4;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.words.recv_timeout(left) {
                Ok(line) => {
                    let ready = line.contains(READY);
                    self.heard.push(line);
                    if ready {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("the agent is not ready: {}", self.heard.join("; ")),
                Err(RecvTimeoutError::Disconnected) => bail!("the agent ended: {}", self.heard.join("; ")),
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Its standard output.
    pub(super) fn lines(&mut self) -> Result<ChildStdout> {
        self.child.0.stdout.take().context("its lines are read by nobody or somebody else")
    }

    /// Seconds of processor time it used.
    pub(super) fn cpu(&self) -> f64 {
        cpu_seconds(self.pid())
    }

    /// Ends it; its last word says what it saw and lost.
    pub(super) fn stop(mut self) -> Result<String> {
        self.child.signal(libc::SIGINT);
        let status = self.child.wait(PATIENCE).context("the agent does not end")?;
        let (mut last, mut said) = (String::new(), Vec::new());
        for line in self.heard.drain(..).chain(self.words.iter()) {
            if let Some(rest) = line.strip_prefix("haechi: ").filter(|r| r.contains("lost: ")) {
                rest.clone_into(&mut last);
            }
            said.push(line);
        }
        if !status.success() {
            bail!("the agent ended with {status}: {}", said.join("; "));
        }
        Ok(last)
    }
}

//! Runs an actor and reads what it says it did.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use super::guard::{Netns, Process};
use crate::facts::Task;

/// A line of an actor.
#[derive(Clone, Debug, Deserialize)]
pub struct Did {
    /// Who did it.
    pub me: Task,
    /// What was done.
    pub did: Value,
}

impl Did {
    /// A number in what was done.
    ///
    /// # Errors
    /// When it is not there.
    pub fn number(&self, pointer: &str) -> Result<i64> {
        let value = self.did.pointer(pointer).with_context(|| format!("no {pointer} in {}", self.did))?;
        value.as_i64().with_context(|| format!("{pointer} of {}", self.did))
    }

    /// A part of what was done.
    ///
    /// # Errors
    /// When it is not there or has another form.
    pub fn part<T: serde::de::DeserializeOwned>(&self, pointer: &str) -> Result<T> {
        let value = self.did.pointer(pointer).with_context(|| format!("no {pointer} in {}", self.did))?;
        serde_json::from_value(value.clone()).with_context(|| format!("{pointer} of {}", self.did))
    }
}

impl Context {
    /// Runs an actor to its end; its last line.
    ///
    /// # Errors
    /// When it fails: then nothing was provoked.
    pub fn actor(&self, args: &[&str]) -> Result<Did> {
        self.actor_lines(args)?.pop().context("the actor said nothing")
    }

    /// Runs an actor to its end; all its lines.
    ///
    /// # Errors
    /// When it fails.
    pub fn actor_lines(&self, args: &[&str]) -> Result<Vec<Did>> {
        said(Command::new(&self.actor).args(args))
    }

    /// Runs a program that is told, last of all, where the actor is, and becomes it; the actor's last line.
    ///
    /// # Errors
    /// When it fails.
    pub fn actor_behind(&self, program: &str, args: &[&str]) -> Result<Did> {
        said(Command::new(program).args(args).arg(&self.actor))?.pop().context("the actor said nothing")
    }

    /// Starts an actor that goes on until its standard input ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn busy_actor(&self, args: &[&str]) -> Result<Said> {
        let mut command = Command::new(&self.actor);
        busy(command.args(args))
    }

    /// The same in a network namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn busy_actor_in(&self, netns: &Netns, args: &[&str]) -> Result<Said> {
        // It becomes the actor: same process.
        let mut command = Command::new("/usr/bin/nsenter");
        busy(command.arg(format!("--net={}", netns.path().display())).arg(&self.actor).args(args))
    }
}

fn busy(command: &mut Command) -> Result<Said> {
    let mut child = command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let process = Process::new(child.id());
    let lines = BufReader::new(child.stdout.take().context("no standard output")?);
    let stdin = child.stdin.take();
    Ok(Said { child, process, lines: Box::new(lines), stdin })
}

fn said(command: &mut Command) -> Result<Vec<Did>> {
    // Nobody's environment belongs into a record.
    let out = command.env_clear().stdin(Stdio::null()).output().context("the actor")?;
    let words = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{command:?}: {}: {}", out.status, words.trim());
    String::from_utf8(out.stdout)?.lines().map(|l| serde_json::from_str(l).with_context(|| l.to_owned())).collect()
}

/// An actor at work.
pub struct Said {
    child: std::process::Child,
    process: Process,
    lines: Box<dyn BufRead>,
    stdin: Option<ChildStdin>,
}

impl Said {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it says.
    ///
    /// # Errors
    /// When it says nothing more.
    pub fn hear(&mut self) -> Result<Did> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("an actor said {line:?}"))
    }

    /// Says a line to it.
    ///
    /// # Errors
    /// When it does not listen any more.
    pub fn tell(&mut self, words: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input has ended")?;
        writeln!(stdin, "{words}").with_context(|| words.to_owned())?;
        Ok(stdin.flush()?)
    }

    /// Says a line to it; what it answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&mut self, words: &str) -> Result<Did> {
        self.tell(words)?;
        self.hear().with_context(|| words.to_owned())
    }

    /// Ends it by a signal, as a crash does.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.process.gone();
        Ok(())
    }

    /// Ends its input; its last line.
    ///
    /// # Errors
    /// When it fails.
    pub fn stop(mut self) -> Result<Did> {
        drop(self.stdin.take());
        let last = self.hear()?;
        let status = self.child.wait()?;
        self.process.gone();
        ensure!(status.success(), "the actor: {status}");
        Ok(last)
    }
}

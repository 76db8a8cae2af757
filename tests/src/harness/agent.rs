//! An agent under test: started, read line by line, stopped, and ended by its id whatever happens.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use haechi_ebpf::event::by_name;

use super::guard::Process;
use super::line::Line;
use super::{Bpf, Context, text};
use crate::sys::call;

/// What the agent says on standard error when everything is attached.
const READY: &str = "haechi: watching";

/// Where standard output goes.
#[derive(Clone, Debug, Default)]
pub enum Out {
    /// To the test.
    #[default]
    Piped,
    /// Into a pipe that nobody reads any more.
    Broken,
    /// Into a file.
    File(PathBuf),
}

/// How to start an agent.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Command before the agent's own, as `setpriv ..`.
    pub wrapper: Vec<String>,
    /// Arguments after `run --output json`.
    pub args: Vec<String>,
    /// Configuration, as YAML, besides numbers instead of names for flags.
    pub config: String,
    /// Leave the hash of the program out of findings.
    pub no_hash: bool,
    /// Arguments instead of `run --output json`.
    pub command: Option<Vec<String>>,
    /// Where standard output goes.
    pub out: Out,
    /// Environment besides ours.
    pub env: Vec<(String, String)>,
}

impl Spec {
    /// `haechi run --output json` with these arguments.
    #[must_use]
    pub fn run(args: &[&str]) -> Self {
        Self { args: args.iter().map(|a| (*a).to_owned()).collect(), ..Self::default() }
    }

    /// The same with more configuration.
    #[must_use]
    pub fn config(mut self, yaml: impl Into<String>) -> Self {
        self.config = yaml.into();
        self
    }

    /// The same behind another command.
    #[must_use]
    pub fn behind(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|a| (*a).to_owned()).collect();
        self
    }
}

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<Line>,
    words: Vec<String>,
    readers: u8,
    status: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change(&self, how: impl FnOnce(&mut Seen)) {
        how(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `ask` has an answer; `None` when the time is up.
    fn wait<T>(&self, patience: Duration, mut ask: impl FnMut(&Seen) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut seen = self.lock();
        loop {
            if let Some(answer) = ask(&seen) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    pid: u32,
    process: Process,
    shared: Arc<Shared>,
    patience: Duration,
}

/// What a stopped agent left.
#[derive(Debug)]
pub struct Stopped {
    /// All lines of standard output.
    pub lines: Vec<Line>,
    /// All lines of standard error.
    pub words: Vec<String>,
    /// How it ended.
    pub status: ExitStatus,
}

impl Context {
    /// Starts an agent and waits until it watches.
    ///
    /// # Errors
    /// When it does not come to that; its own words are in the error.
    pub fn agent(&self, spec: &Spec) -> Result<Agent> {
        let agent = self.start(spec)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts an agent that may refuse.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(&self, spec: &Spec) -> Result<Agent> {
        let mut words = spec.wrapper.clone();
        words.push(text(&self.haechi));
        match &spec.command {
            Some(command) => words.extend(command.iter().cloned()),
            None => {
                let hash = if spec.no_hash { "  executable_hash: false\n" } else { "" };
                let config = self.config(&format!("{hash}{}", spec.config))?;
                words.extend(["run", "--output", "json", "--config", &config].map(str::to_owned));
            }
        }
        words.extend(spec.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(spec.env.iter().cloned()).stdin(Stdio::null()).stderr(Stdio::piped());
        match &spec.out {
            Out::Piped => command.stdout(Stdio::piped()),
            Out::Broken => {
                let (reader, writer) = std::io::pipe()?;
                drop(reader);
                command.stdout(writer)
            }
            Out::File(path) => command.stdout(std::fs::File::create(path)?),
        };
        let mut child = command.spawn().with_context(|| words.join(" "))?;
        let (pid, shared) = (child.id(), Arc::new(Shared::default()));
        let process = Process::new(pid);
        let out = child.stdout.take().map(|out| {
            let shared = Arc::clone(&shared);
            shared.change(|s| s.readers += 1);
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let line = Line::new(line);
                    shared.change(|s| s.lines.push(line));
                }
                shared.change(|s| s.readers -= 1);
            })
        });
        let err = child.stderr.take().map(|err| {
            let shared = Arc::clone(&shared);
            shared.change(|s| s.readers += 1);
            thread::spawn(move || {
                for line in BufReader::new(err).lines().map_while(Result::ok) {
                    shared.change(|s| s.words.push(line));
                }
                shared.change(|s| s.readers -= 1);
            })
        });
        drop((out, err));
        let ended = Arc::clone(&shared);
        thread::spawn(move || {
            let status = child.wait();
            ended.change(|s| s.status = status.ok());
        });
        Ok(Agent { pid, process, shared, patience: self.patience() })
    }

    /// A file with this configuration and numbers instead of names for flags: names have a test of their own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn config(&self, yaml: &str) -> Result<String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.file(&format!("config-{number}.yaml"), format!("enrich:\n  decoded_data: false\n{yaml}"))
    }

    /// What an agent sees of `act`. Where `args` are no more than `--events` of the table, the agent is one that all tests
    /// share, since starting one takes long on a slow machine; else it is one of the test's own.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn watch<T>(&self, args: &[&str], act: impl FnOnce() -> Result<T>) -> Result<(Stopped, T)> {
        match args {
            [] => self.watch_shared(act),
            ["--events", names] if names.split(',').all(|n| by_name(n).is_some()) => self.watch_shared(act),
            _ => self.watch_with(&Spec::run(args), act),
        }
    }

    /// Runs an agent around `act`, stops it, and gives what both left. What was done before the stop is in the lines.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn watch_with<T>(&self, spec: &Spec, act: impl FnOnce() -> Result<T>) -> Result<(Stopped, T)> {
        let agent = self.agent(spec)?;
        let acted = act()?;
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "the agent ended with {}: {}", stopped.status, stopped.words.join("\n"));
        Ok((stopped, acted))
    }
}

impl Agent {
    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// When it does not come in time; what came instead is in the error.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&Line) -> bool) -> Result<Line> {
        let mut looked = 0;
        let found = self.shared.wait(self.patience, |seen| {
            let line = seen.lines[looked..].iter().find(|l| wanted(l)).cloned();
            looked = seen.lines.len();
            line
        });
        found.with_context(|| format!("{what} did not come: {}", self.diagnosis()))
    }

    /// The newest line so far that `wanted` takes.
    #[must_use]
    pub fn newest(&self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        self.shared.lock().lines.iter().rev().find(|l| wanted(l)).cloned()
    }

    /// All lines so far that `wanted` takes.
    #[must_use]
    pub fn all(&self, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        self.shared.lock().lines.iter().filter(|l| wanted(l)).cloned().collect()
    }

    /// Waits for words on standard error.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn wait_for_words(&self, wanted: &str) -> Result<String> {
        let found = self.shared.wait(self.patience, |seen| seen.words.iter().find(|w| w.contains(wanted)).cloned());
        found.with_context(|| format!("it did not say {wanted:?}: {}", self.diagnosis()))
    }

    /// Waits until everything is attached.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub fn wait_ready(&self) -> Result<()> {
        let ready = self.shared.wait(self.patience, |seen| {
            let ready = seen.words.iter().any(|w| w.contains(READY));
            (ready || seen.status.is_some()).then_some(ready)
        });
        ensure!(ready == Some(true), "the agent did not come to watch: {}", self.diagnosis());
        // Taken note of; without bpftool the tests that are about it are skipped.
        let _noted = self.held();
        Ok(())
    }

    /// What it holds in the kernel.
    ///
    /// # Errors
    /// [`super::Skip`] without bpftool.
    pub fn held(&self) -> Result<Bpf> {
        Bpf::held_by(self.pid)
    }

    /// Forgets the lines so far.
    pub(super) fn forget(&self) {
        self.shared.change(|s| s.lines.clear());
    }

    /// What it said since, without an end.
    pub(super) fn so_far(&self) -> Stopped {
        let seen = self.shared.lock();
        Stopped { lines: seen.lines.clone(), words: seen.words.clone(), status: ExitStatus::default() }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        call(libc::SYS_kill, [(self.pid as i32).into(), signal.into()]).context("the agent is gone")?;
        Ok(())
    }

    /// Asks it to stop, as Ctrl-C does, and waits for its last word.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(self) -> Result<Stopped> {
        if self.shared.lock().status.is_none() {
            self.signal(libc::SIGINT)?;
        }
        self.end()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end(self) -> Result<Stopped> {
        let status = self.shared.wait(self.patience, |s| s.status.filter(|_| s.readers == 0));
        let Some(status) = status else { bail!("the agent did not end: {}", self.diagnosis()) };
        self.process.gone();
        let mut seen = self.shared.lock();
        Ok(Stopped { lines: std::mem::take(&mut seen.lines), words: std::mem::take(&mut seen.words), status })
    }

    fn diagnosis(&self) -> String {
        let seen = self.shared.lock();
        let lines: Vec<String> = seen.lines.iter().rev().take(5).map(Line::brief).collect();
        format!(
            "status {:?}\n  standard error:\n    {}\n  last of {} lines, newest first:\n    {}",
            seen.status,
            seen.words.join("\n    "),
            seen.lines.len(),
            lines.join("\n    ")
        )
    }
}

impl Stopped {
    /// Its last line: what it delivered and lost.
    ///
    /// # Errors
    /// When it said none.
    pub fn totals(&self) -> Result<&str> {
        let last = self.words.iter().rev().find(|w| w.starts_with("haechi: ") && w.contains("lost: "));
        last.map(String::as_str).with_context(|| format!("no totals: {}", self.words.join("\n")))
    }

    /// How many records of an event it says were lost, for whatever reason: `12 ptrace (ring_full), 1 ptrace (queue)`.
    ///
    /// # Errors
    /// When it said no totals.
    pub fn lost(&self, event: &str) -> Result<u64> {
        self.lost_for(event, "")
    }

    /// How many of those were runs of a program that the kernel skipped. A program that sees every call may have skipped
    /// calls that nobody asked for: so many opens *may* have been lost.
    ///
    /// # Errors
    /// When it said no totals.
    pub fn missed(&self, event: &str) -> Result<u64> {
        self.lost_for(event, "missed")
    }

    fn lost_for(&self, event: &str, cause: &str) -> Result<u64> {
        let losses = self.totals()?.split_once("lost: ").map_or("", |t| t.1);
        let of_event = losses.split(", ").filter_map(|l| l.split_once(&format!(" {event} ({cause}")));
        Ok(of_event.filter_map(|l| l.0.parse::<u64>().ok()).sum())
    }

    /// The lines of one event by one process, in order.
    #[must_use]
    pub fn by(&self, event: &str, pid: u32) -> Vec<&Line> {
        self.lines.iter().filter(|l| l.name() == event && l.pid() == u64::from(pid)).collect()
    }

    /// The only line of one event by one process that `wanted` takes.
    ///
    /// # Errors
    /// When there is none or more than one; what there is, is in the error.
    pub fn one(&self, event: &str, pid: u32, wanted: impl Fn(&Line) -> bool) -> Result<&Line> {
        let all = self.by(event, pid);
        let fit: Vec<_> = all.iter().copied().filter(|l| wanted(l)).collect();
        if let [line] = fit[..] {
            return Ok(line);
        }
        let all: Vec<String> = all.iter().take(20).map(|l| l.brief()).collect();
        bail!(
            "{} fitting {event} by {pid} instead of one; all of its:\n  {}\n  it said: {}",
            fit.len(),
            all.join("\n  "),
            self.words.join("\n  ")
        )
    }
}

//! Processes that the benchmark starts: ended by their id when their owner goes, and by the kernel when the benchmark
//! itself is killed.

use std::ffi::OsStr;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::gate::pause;
use crate::sys::call;

/// A process of ours.
pub(super) struct Child(pub(super) Process);

/// A command whose process dies with us.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The same, kept to one processor.
pub(super) fn pinned(cpu: usize, program: impl AsRef<OsStr>) -> Command {
    let mut words = command("taskset");
    words.args(["--cpu-list", &cpu.to_string()]).arg(program);
    words
}

/// The last processor: loads run there.
pub(super) fn last_cpu() -> usize {
    std::thread::available_parallelism().map_or(0, |n| n.get() - 1)
}

impl Child {
    /// Starts it, quiet unless the command says otherwise.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: i32) {
        // It may have ended by itself; whoever waits finds out.
        let _ = call(libc::SYS_kill, [(self.pid() as i32).into(), signal.into()]);
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            match self.0.try_wait() {
                Ok(None) if Instant::now() < end => pause(Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(libc::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

/// No input and no output.
pub(super) fn silent(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

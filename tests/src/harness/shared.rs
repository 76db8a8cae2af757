//! The agent that tests share. A marker separates them: records come in order of time, so when the marker has come, all
//! that was done before it has.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::event::{EVENTS, Ring};

use super::{Agent, Context, Spec, Stopped};
use crate::sys::call;

/// The agent while there is one.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Option<Agent>>);

impl Context {
    /// Runs `act` under the shared agent, and gives what came of it.
    pub(super) fn watch_shared<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<(Stopped, T)> {
        let mut slot = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = match slot.take() {
            Some(agent) => agent,
            None => self.agent(&shared_spec())?,
        };
        agent.forget();
        let acted = act();
        mark(&agent)?;
        let seen = agent.so_far();
        *slot = Some(agent);
        Ok((seen, acted?))
    }

    /// Ends the shared agent, if there is one.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn end_shared(&self) -> Result<()> {
        let agent = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(agent) = agent else { return Ok(()) };
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "the shared agent ended with {}: {:?}", stopped.status, stopped.words);
        stopped.totals().map(drop)
    }
}

/// All events of the kernel; findings without a hash, since one that waits for its hash comes out of order.
fn shared_spec() -> Spec {
    let names: Vec<&str> =
        EVENTS.iter().filter(|e| e.ring != Ring::None && e.name != "syscall").map(|e| e.name).collect();
    // Whatever else goes on on this machine is not shown.
    let tree = format!("tree={}", std::process::id());
    Spec { no_hash: true, ..Spec::run(&["--events", &names.join(","), "--scope", &tree]) }
}

/// Does something that nobody else does, and waits until the agent has told it.
fn mark(agent: &Agent) -> Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("e2e-marker-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let argument = std::ffi::CString::new(name.as_str())?;
    let fd = call(libc::SYS_memfd_create, [argument.as_c_str().into(), 1.into()]).context("memfd_create")?;
    call(libc::SYS_close, [fd.into()])?;
    let own = u64::from(std::process::id());
    agent.wait_for("the marker", |l| l.pid() == own && l.data("uname") == name.as_str())?;
    Ok(())
}

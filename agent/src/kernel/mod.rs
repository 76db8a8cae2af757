//! The kernel door: the only place that knows aya and bpf(2). Loads the programs, decides the hook plan, fills filters,
//! drains rings, reads counters. It must not know processes, rules or sinks.

use haechi_signatures::demand::Demand;
use serde::Serialize;

use crate::batch::Batch;
use crate::loss::Ledger;

/// How to open the kernel.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is wanted of the kernel.
    pub demands: Vec<Demand>,
    /// Bytes of each ring; a power of two.
    pub ring_bytes: u32,
    /// Bytes of environment copied at exec; 0 for none.
    pub env_bytes: u32,
    /// Print what the kernel programs log.
    pub debug_log: bool,
    /// Steps that must not be used, by name: for tests, and for hosts where one is known to harm.
    pub without: Vec<haechi_ebpf::program::Step>,
}

/// Why the kernel could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something the agent needs is missing; the text names it and the remedy.
    #[error("{0}")]
    Unusable(String),
}

/// How one event is produced.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Name of the event.
    pub event: &'static str,
    /// The step in use; `None`: it cannot be had.
    pub step: Option<&'static str>,
    /// Programs attached for it.
    pub programs: Vec<&'static str>,
    /// What this way cannot see.
    pub blind: String,
    /// Better ways and why they were not possible.
    pub refused: Vec<Refused>,
}

/// A way that was not possible.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The step.
    pub step: &'static str,
    /// What the kernel said.
    pub reason: String,
    /// What would help.
    pub remedy: String,
}

/// An open kernel: programs attached, maps filled. Dropping it detaches everything.
pub struct Kernel {}

impl Kernel {
    /// Loads and attaches what `config` demands.
    ///
    /// # Errors
    /// When nothing useful can be attached; a refused hook alone is no error.
    pub fn open(_config: &Config) -> Result<Self, Error> {
        Err(Error::Unusable("the kernel object was not built: run `cargo xtask build`".into()))
    }

    /// How each demanded event is produced.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &[]
    }

    /// Changes what is wanted, in one step and without a gap. Returns the choices for events not attached before.
    ///
    /// # Errors
    /// When a filter map refuses an entry; what was in force stays.
    pub fn set_demands(&mut self, _demands: &[Demand]) -> Result<(), Error> {
        Ok(())
    }

    /// One `existing_process` record for every process there is, parents before children.
    ///
    /// # Errors
    /// When the iterator cannot be read.
    pub fn seed(&mut self) -> Result<Batch, Error> {
        Ok(Batch::default())
    }

    /// The reading end of the rings. Can be taken once; it may live in another thread.
    pub fn take_drain(&mut self) -> Option<Drain> {
        None
    }

    /// Brings the kernel's counters up to date in `ledger`.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn read_losses(&mut self, _ledger: &mut Ledger) -> Result<(), Error> {
        Ok(())
    }
}

/// The reading end of the rings.
pub struct Drain {}

impl Drain {
    /// Takes a snapshot of the producer positions and appends what lies before them to `batch`, in order of time.
    /// Returns how many records were taken.
    pub fn drain(&mut self, _batch: &mut Batch) -> usize {
        0
    }
}

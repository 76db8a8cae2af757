//! The kernel door: the only place that knows aya and bpf(2). Loads the programs, decides the hook plan, fills filters,
//! drains rings, reads counters. It must not know processes, rules or sinks.

mod btf;
mod filters;
mod flows;
mod load;
mod log;
mod maps;
mod parking;
mod plan;
mod programs;
mod ring;
mod seed;
mod sys;

pub use btf::Btf;
pub use flows::Poller;
pub use load::{Config, Error, Kernel};
pub use plan::{Choice, Refused};
pub use sys::ProgramFacts;

use haechi_ebpf::wire::at;

use std::time::Duration;

use crate::batch::Batch;
use parking::Parking;
use ring::Ring;

/// Records taken from one ring in one drain at most, so that a flood cannot keep the collector from releasing what it has.
const DRAIN_MAX: usize = 65_536;

/// The reading end of the rings.
pub struct Drain {
    critical: Ring,
    bulk: Ring,
    flows: Ring,
    parking: Parking,
}

impl Drain {
    /// Takes a snapshot of the producer positions and appends what lies before them to `batch`, in order of time.
    /// Returns how many records were taken.
    ///
    /// The other rings' positions are read first, and the critical ring drained first: a record in the bulk ring that was
    /// caused by one in the critical ring (an open by a process just forked) then never comes without its cause. Where
    /// the critical ring has to stop at a record that is still being written, the others wait too.
    pub fn drain(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        let (flows, bulk, critical) = (self.flows.produced(), self.bulk.produced(), self.critical.produced());
        if take(&mut self.critical, critical, batch) {
            take(&mut self.bulk, bulk, batch);
            take(&mut self.flows, flows, batch);
        }
        batch.sort();
        batch.len() - before
    }
}

impl Drain {
    /// Asks to be woken by the next record. Holds until one came.
    ///
    /// A record that is being written at this moment may not have seen that: look at the rings once more, a moment
    /// later, before waiting.
    pub fn park(&mut self) {
        self.parking.set();
    }

    /// Waits for a record, at most this long. Returns at once where one is there.
    pub fn wait(&self, longest: Duration) {
        self.parking.wait(longest);
    }
}

/// Takes at most [`DRAIN_MAX`] records. Returns whether all before `until` were taken.
fn take(ring: &mut Ring, until: u64, batch: &mut Batch) -> bool {
    let before = batch.len();
    ring.drain(until, |record| {
        let time = record.get(at::TIME..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b));
        batch.push(time, record);
        batch.len() - before < DRAIN_MAX
    })
}

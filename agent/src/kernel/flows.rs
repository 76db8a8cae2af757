//! Looking at all sockets that something is known of: an iterator over the map beside the sockets. What it finds comes
//! through the ring of flows; reading the iterator only drives it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData};
use aya::programs::Program;
use haechi_ebpf::program::{Hook, by_name};

use super::load::Error;
use super::sys;

/// The map that a program looks through for every known socket, if that is what it does.
pub(super) fn polls(program: &str) -> Option<&'static str> {
    match by_name(program)?.hook {
        Hook::Iter("bpf_sk_storage_map") => Some("SOCKETS"),
        Hook::Iter("bpf_map_elem") => Some("CONNECTIONS"),
        _ => None,
    }
}

/// Whether a program takes in, once, sockets that are open already.
pub(super) fn adopts(program: &str) -> bool {
    by_name(program).is_some_and(|def| def.hook == Hook::Iter("task_file"))
}

/// Looks at all sockets.
pub struct Poller {
    link: OwnedFd,
    survey: Survey,
}

/// Where the programs read which survey of all connections it is.
pub(super) type Survey = Arc<Mutex<Array<MapData, u64>>>;

impl Poller {
    /// Binds `program` to `map`.
    pub(super) fn of(object: &Ebpf, program: &'static str, map: &'static str, survey: Survey) -> Result<Self, Error> {
        let fault = |reason: String| Error::Map { name: map, reason };
        let (Some(Map::SkStorage(sockets) | Map::HashMap(sockets)), Some(Program::Iter(iterator))) =
            (object.map(map), object.program(program))
        else {
            return Err(fault(format!("it or {program} is not in the kernel object")));
        };
        let iterator = iterator.fd().map_err(|e| fault(e.to_string()))?;
        let link = sys::iterator_over_map(iterator, sockets.fd()).map_err(|e| fault(e.to_string()))?;
        Ok(Self { link, survey })
    }

    /// From now on every socket is told of once more, whether it changed or not; `now`, the time, is not that of any
    /// survey before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn survey(&self, now: u64) -> io::Result<()> {
        self.survey.lock().unwrap_or_else(PoisonError::into_inner).set(0, now, 0).map_err(io::Error::other)
    }

    /// Has every socket looked at that changed since the last time. Returns how many did not fit in the ring: they are
    /// told the next time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn poll(&self) -> io::Result<u64> {
        exhaust(sys::iterator_file(self.link.as_fd())?)
    }
}

/// Reads an iterator to its end; returns how many bytes it wrote.
pub(super) fn exhaust(iterator: File) -> io::Result<u64> {
    let mut total = 0;
    sys::read_iterator(iterator, 4096, |chunk| total += chunk.len() as u64)?;
    Ok(total)
}

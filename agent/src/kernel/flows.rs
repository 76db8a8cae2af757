//! Looking at all sockets that something is known of: an iterator over the map beside the sockets. What it finds comes
//! through the ring of flows; reading the iterator only drives it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya::programs::Program;

use super::load::Error;
use super::sys;

/// The programs that look at every known socket, and the maps that know them; best first.
pub(super) const POLL: [(&str, &str); 2] = [("flow_poll", "SOCKETS"), ("flow_poll_old", "CONNECTIONS")];
/// The programs that take in sockets that are open already, best first.
pub(super) const ADOPT: [&str; 2] = ["flow_adopt", "flow_adopt_by_address"];

/// Looks at all sockets.
#[derive(Debug)]
pub struct Poller {
    link: OwnedFd,
}

impl Poller {
    /// Binds `program` to `map`.
    pub(super) fn of(object: &Ebpf, program: &'static str, map: &'static str) -> Result<Self, Error> {
        let fault = |reason: String| Error::Map { name: map, reason };
        let (Some(Map::SkStorage(sockets) | Map::HashMap(sockets)), Some(Program::Iter(iterator))) =
            (object.map(map), object.program(program))
        else {
            return Err(fault(format!("it or {program} is not in the kernel object")));
        };
        let iterator = iterator.fd().map_err(|e| fault(e.to_string()))?;
        let link = sys::iterator_over_map(iterator, sockets.fd()).map_err(|e| fault(e.to_string()))?;
        Ok(Self { link })
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
pub(super) fn exhaust(mut iterator: File) -> io::Result<u64> {
    let (mut total, mut chunk) = (0, [0; 4096]);
    loop {
        match iterator.read(&mut chunk) {
            Ok(0) => return Ok(total),
            Ok(n) => total += n as u64,
            // The iterator asks for more time than one read may take.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => (),
            Err(e) => return Err(e),
        }
    }
}

//! Looking at all sockets that something is known of: an iterator over the map beside the sockets. What it finds comes
//! through the ring of flows; reading the iterator only drives it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::programs::Program;

use super::load::Error;
use super::sys;

/// The program that looks at every known socket.
pub(super) const POLL: &str = "flow_poll";
/// The programs that take in sockets that are open already, best first.
pub(super) const ADOPT: [&str; 2] = ["flow_adopt", "flow_adopt_old"];
/// The map beside the sockets.
const SOCKETS: &str = "SOCKETS";

/// Looks at all sockets.
#[derive(Debug)]
pub struct Poller {
    link: OwnedFd,
}

impl Poller {
    /// Binds the program to the map.
    pub(super) fn of(object: &Ebpf) -> Result<Self, Error> {
        let fault = |reason: String| Error::Map { name: SOCKETS, reason };
        let Some(aya::maps::Map::SkStorage(map)) = object.map(SOCKETS) else {
            return Err(fault("not in the kernel object".into()));
        };
        let Some(Program::Iter(program)) = object.program(POLL) else {
            return Err(fault(format!("{POLL} is not in the kernel object")));
        };
        let program = program.fd().map_err(|e| fault(e.to_string()))?;
        let link = sys::iterator_over_map(program, map.fd()).map_err(|e| fault(e.to_string()))?;
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

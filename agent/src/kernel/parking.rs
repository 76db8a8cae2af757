//! Sleeping until something happens. The programs wake nobody, because a wake-up costs hundreds of records; only where the
//! reader has said that it sleeps, the next record wakes it, once.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, MapData};

use super::load::Error;

/// The word that the programs look at, and the rings that wake.
pub(super) struct Parking {
    word: Array<MapData, u64>,
    rings: [OwnedFd; 3],
}

impl Parking {
    /// Over these rings.
    pub(super) fn of(word: Array<MapData, u64>, rings: [&MapData; 3]) -> Result<Self, Error> {
        let clone = |map: &MapData| map.fd().as_fd().try_clone_to_owned();
        let fault = |e: std::io::Error| Error::Map { name: "PARKED", reason: e.to_string() };
        let [a, b, c] = rings.map(clone);
        Ok(Self { word, rings: [a.map_err(fault)?, b.map_err(fault)?, c.map_err(fault)?] })
    }

    /// Says that the reader sleeps. Whoever wakes it takes that back.
    pub(super) fn set(&mut self) {
        if let Err(error) = self.word.set(0, 1, 0) {
            tracing::debug!(%error, "records will be taken up late");
        }
    }

    /// Sleeps until a ring has a record, at most this long.
    pub(super) fn wait(&self, longest: Duration) {
        let mut fds =
            [0, 1, 2].map(|i| libc::pollfd { fd: self.rings[i].as_raw_fd(), events: libc::POLLIN, revents: 0 });
        let longest = longest.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the descriptors live across the call, and there are as many as it is told. A signal ends it early.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, longest) };
    }
}

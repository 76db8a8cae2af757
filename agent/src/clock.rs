//! The clocks and the name of this host. Only what lies outside the core may ask.

use haechi_signatures::flat::Host;
use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanos(time: Timespec) -> u64 {
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// Nanoseconds since boot, as the kernel programs count them.
#[must_use]
pub fn boot_now() -> u64 {
    nanos(clock_gettime(ClockId::Boottime))
}

/// Nanoseconds of a clock that only ever goes on, for timing.
#[must_use]
pub fn steady() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// This host: its name, and when it booted by the wall clock as it is now.
#[must_use]
pub fn host() -> Host {
    let boot = nanos(clock_gettime(ClockId::Realtime)).saturating_sub(boot_now());
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Host { name: name.trim().to_owned(), boot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_and_wall_clock_agree() {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
        let ours = u128::from(host().boot + boot_now());
        assert!(ours.abs_diff(wall) < 60_000_000_000);
        assert!(!host().name.is_empty());
    }
}

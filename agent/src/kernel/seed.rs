//! Processes that were there before the agent: the task iterator's records, completed with their arguments.
//!
//! The iterator cannot read another process's memory, so the arguments come from /proc, of the same process (number and
//! start time) or not at all.

use std::collections::HashMap;
use std::io::{self, Read};

use haechi_ebpf::event::existing_process::{self, field};
use haechi_ebpf::wire::{HEADER, View, at, var, var_slot};

use super::sys::read_iterator;
use crate::batch::Batch;

/// Bytes of arguments kept, as at exec.
const ARGV_MAX: usize = 8192;
/// Clock ticks of /proc/PID/stat are 1/100 s: `USER_HZ`.
const TICK_NS: u64 = 10_000_000;
/// A read as large as the iterator can fill; it stops at whole records.
const READ: usize = 1 << 20;

/// Reads all records of an opened iterator, parents before children.
pub(super) fn read(iterator: impl Read) -> io::Result<Batch> {
    let mut bytes = Vec::new();
    read_iterator(iterator, READ, |chunk| bytes.extend_from_slice(chunk))?;
    let mut views = Vec::new();
    let mut rest = bytes.as_slice();
    while let Ok(view) = View::parse(rest) {
        rest = &rest[view.bytes().len()..];
        views.push(view);
    }
    if !rest.is_empty() {
        return Err(io::Error::other(format!("{} bytes of the task iterator are no record", rest.len())));
    }
    Ok(ordered(&views))
}

/// Parents before children; a process is never older than its parent, but clocks have a grain.
fn ordered(views: &[View<'_>]) -> Batch {
    let depth_of: HashMap<u32, u32> = views.iter().map(|v| (v.process().0, v.header_u32(at::PPID))).collect();
    let depth = |pid: u32| std::iter::successors(depth_of.get(&pid), |p| depth_of.get(p)).take(256).count() as u64;
    let mut batch = Batch::default();
    for view in views {
        batch.push(depth(view.process().0), &with_arguments(view));
    }
    batch.sort();
    batch
}

fn with_arguments(view: &View<'_>) -> Vec<u8> {
    let mut record = view.bytes().to_vec();
    let (pid, start) = view.process();
    let Some(mut argv) = arguments(pid, start) else { return record };
    let true_len = argv.len();
    argv.truncate(ARGV_MAX);
    let marks = if argv.len() < true_len { var::TRUNCATED } else { 0 };
    let slot = var_slot(record.len() as u64, argv.len() as u64, true_len as u64, marks);
    let place = HEADER + 8 * field::argv.0 as usize;
    record[place..place + 8].copy_from_slice(&slot.to_le_bytes());
    let present = view.header_u64(at::PRESENT) | 1 << field::argv.0;
    record[at::PRESENT..at::PRESENT + 8].copy_from_slice(&present.to_le_bytes());
    record.extend_from_slice(&argv);
    let len = (record.len() as u32).to_le_bytes();
    record[at::LEN..at::LEN + 4].copy_from_slice(&len);
    debug_assert!(View::parse(&record).is_ok_and(|v| v.event() == existing_process::ID));
    record
}

/// The arguments of the process with this number, if it started then.
fn arguments(pid: u32, start: u64) -> Option<Vec<u8>> {
    let argv = std::fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|a| !a.is_empty())?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets: fields are counted behind the last bracket. Start time is field 22.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    (ticks == start / TICK_NS).then_some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_same_process_only() {
        let pid = std::process::id();
        let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
        let ticks: u64 =
            stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(19)?.parse().ok()).expect("a number");
        assert!(arguments(pid, ticks * TICK_NS).is_some_and(|a| !a.is_empty()));
        assert_eq!(arguments(pid, (ticks + 1) * TICK_NS), None);
    }

    #[test]
    fn rubbish_from_the_iterator_is_an_error() {
        assert!(read([7_u8; 300].as_slice()).is_err());
        assert!(read([].as_slice()).expect("nothing is fine").is_empty());
    }
}

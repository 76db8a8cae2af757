//! What came last, for those who watch: records in order, each with a number, bounded by their bytes. Who writes never
//! waits for who reads: what does not fit pushes the oldest out, and a reader that comes too late is told how many it
//! missed. Records are shared with the sinks and kept as they are; nothing is encoded here.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::render::Item;

/// Number of the first record.
pub const FIRST: u64 = 1;
/// Bytes that each record costs besides its own.
const EACH: usize = 4 * size_of::<usize>();

/// The store of one stream.
#[derive(Debug)]
pub struct Ring {
    state: Mutex<State>,
    limit: usize,
    missed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Each with its weight.
    items: VecDeque<(Arc<Item>, usize)>,
    /// Records pushed out.
    gone: u64,
    bytes: usize,
}

/// What a reader got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Records that were wanted and are gone.
    pub lost: u64,
    /// Number of the first one it got.
    pub first: u64,
}

impl Ring {
    /// An empty store for so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), limit, missed: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record. The newest one is there even where it alone is too large.
    pub fn push(&self, item: Arc<Item>) {
        let bytes = weight(&item);
        let mut state = self.state();
        state.bytes += bytes;
        state.items.push_back((item, bytes));
        while state.bytes > self.limit && state.items.len() > 1 {
            let Some((_oldest, bytes)) = state.items.pop_front() else { return };
            state.bytes -= bytes;
            state.gone += 1;
        }
    }

    /// Adds at most `most` records to `out`, from number `next` on; 0 is the oldest there is.
    pub fn read(&self, next: u64, most: usize, out: &mut Vec<Arc<Item>>) -> Read {
        let state = self.state();
        let oldest = FIRST + state.gone;
        let first = next.max(oldest);
        let skip = usize::try_from(first - oldest).unwrap_or(usize::MAX).min(state.items.len());
        out.extend(state.items.range(skip..).take(most).map(|(item, _)| item.clone()));
        let lost = if next == 0 { 0 } else { first - next };
        self.missed.fetch_add(lost, Ordering::Relaxed);
        Read { lost, first }
    }

    /// Numbers of what is there: the oldest, and the one that comes next.
    #[must_use]
    pub fn numbers(&self) -> Range<u64> {
        let state = self.state();
        let oldest = FIRST + state.gone;
        oldest..oldest + state.items.len() as u64
    }

    /// Bytes of what is there.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Records that readers came too late for, all readers together.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// Bytes that a record holds, about; what it shares with others counts in each.
fn weight(item: &Item) -> usize {
    EACH + size_of::<Item>()
        + match item {
            Item::Event(happening) => happening.bytes(),
            Item::Finding(finding) => {
                let process = |p: &haechi_signatures::model::ProcessInfo| {
                    let argv: usize = p.argv.iter().map(|a| size_of::<String>() + a.len()).sum();
                    size_of_val(p) + p.exe.len() + p.cwd.len() + argv
                };
                let evidence: usize = finding.evidence.iter().map(|(k, v)| k.len() + value(v)).sum();
                let who: usize = finding.ancestors.iter().chain([&finding.process]).map(process).sum();
                size_of_val(&**finding) + finding.target.len() + evidence + value(&finding.event) + who
            }
        }
}

/// Bytes that a value of JSON holds, about.
fn value(json: &Value) -> usize {
    /// A node of the map, shared by its entries.
    const ENTRY: usize = 2 * size_of::<Value>();
    size_of::<Value>()
        + match json {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value).sum(),
            Value::Object(map) => map.iter().map(|(k, v)| ENTRY + k.len() + value(v)).sum(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use haechi_ebpf::wire::View;
    use haechi_signatures::model::Event;

    use super::*;
    use crate::render::{Happening, example};
    use crate::testing::{Who, opened};

    /// A record that says when it was made.
    fn item(time: u64) -> Arc<Item> {
        let record = opened(time, Who(1, 1, 1), "/x");
        Arc::new(Item::Event(Happening::of(&Event::join(View::parse(&record).expect("a record"), &()))))
    }

    fn room_for(records: usize) -> Ring {
        Ring::new(weight(&item(1)) * records)
    }

    fn read(ring: &Ring, next: u64, most: usize) -> (Read, Vec<u64>) {
        let mut out = Vec::new();
        let read = ring.read(next, most, &mut out);
        (read, out.iter().map(|i| i.time()).collect())
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let ring = room_for(10);
        assert_eq!(read(&ring, 0, 9), (Read { lost: 0, first: 1 }, vec![]));
        assert_eq!(ring.numbers(), 1..1);
        (1..=5).for_each(|time| ring.push(item(time)));
        assert_eq!(read(&ring, 0, 2), (Read { lost: 0, first: 1 }, vec![1, 2]));
        assert_eq!(read(&ring, 3, 9), (Read { lost: 0, first: 3 }, vec![3, 4, 5]));
        assert_eq!(read(&ring, 6, 9), (Read { lost: 0, first: 6 }, vec![]));
        assert_eq!(read(&ring, u64::MAX, 9), (Read { lost: 0, first: u64::MAX }, vec![]));
        assert_eq!((ring.numbers(), ring.missed()), (1..6, 0));
    }

    #[test]
    fn what_does_not_fit_pushes_the_oldest_out_and_late_readers_are_told() {
        let ring = room_for(3);
        (1..=10).for_each(|time| ring.push(item(time)));
        assert_eq!(ring.numbers(), 8..11);
        assert!(ring.bytes() <= ring.limit);
        assert_eq!(read(&ring, 1, 9), (Read { lost: 7, first: 8 }, vec![8, 9, 10]));
        assert_eq!(read(&ring, 7, 1), (Read { lost: 1, first: 8 }, vec![8]));
        assert_eq!(read(&ring, 8, 9), (Read { lost: 0, first: 8 }, vec![8, 9, 10]));
        // Who wants whatever there is has lost nothing.
        assert_eq!(read(&ring, 0, 9), (Read { lost: 0, first: 8 }, vec![8, 9, 10]));
        assert_eq!(ring.missed(), 8);
    }

    #[test]
    fn the_newest_is_there_even_if_it_is_too_large() {
        let ring = Ring::new(1);
        (1..=3).for_each(|time| ring.push(item(time)));
        assert_eq!(read(&ring, 2, 9), (Read { lost: 1, first: 3 }, vec![3]));
        ring.push(Arc::new(Item::Finding(Box::new(example()))));
        assert_eq!(ring.numbers(), 4..5);
    }

    /// Each reader sees every number once, or is told that it is gone, while somebody writes as fast as can be.
    #[test]
    fn got_and_lost_are_all_there_was() {
        const ALL: u64 = 20_000;
        let ring = room_for(100);
        std::thread::scope(|scope| {
            for most in [1, 7, 1000] {
                let ring = &ring;
                scope.spawn(move || {
                    let (mut next, mut got, mut lost) = (FIRST, 0, 0);
                    while next <= ALL {
                        let (read, times) = read(ring, next, most);
                        assert_eq!(times, (read.first..read.first + times.len() as u64).collect::<Vec<_>>());
                        got += times.len() as u64;
                        lost += read.lost;
                        next = read.first + times.len() as u64;
                        std::thread::yield_now();
                    }
                    assert_eq!(got + lost, ALL);
                });
            }
            (1..=ALL).for_each(|time| ring.push(item(time)));
        });
    }
}

//! The same rule, process and target within a window is one finding with a count. The first is told at once; when the
//! window ends and there were more, a summary is told with how many there were in all, the first among them.
//!
//! A window begins with its first finding and has a fixed length. When the table is full, the window that would end
//! first ends now; full is by number or by weight, for the sizes of what is kept are in the hands of whoever is watched.
//! What is repeated is built once per window, so a finding that never comes again costs a key only.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Finding, ProcessKey};

/// What makes two findings the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) rule: Arc<str>,
    pub(super) process: ProcessKey,
    pub(super) target: Arc<str>,
}

/// Bytes that all windows may keep, roughly.
const WEIGHT: usize = 16 << 20;
/// Bytes that a key takes besides its target, roughly.
const KEY_WEIGHT: usize = 256;
/// How much larger than its record a finding is, roughly.
const FINDING_WEIGHT: usize = 6;

struct Window {
    /// When it ends, and a serial number that makes it unique.
    end: (u64, u64),
    count: u64,
    last: u64,
    weight: usize,
    summary: Option<Box<Finding>>,
}

/// What is to be done with a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Tell it.
    First,
    /// Keep quiet.
    Repeat,
}

pub(super) struct Dedup {
    length: u64,
    capacity: usize,
    open: BTreeMap<Arc<Key>, Window>,
    ends: BTreeMap<(u64, u64), Arc<Key>>,
    serial: u64,
    weight: usize,
    evicted: u64,
}

impl Dedup {
    pub(super) fn new(length: u64, capacity: usize) -> Self {
        Self { length, capacity, open: BTreeMap::new(), ends: BTreeMap::new(), serial: 0, weight: 0, evicted: 0 }
    }

    /// Other limits from now on. Windows that are open end when they would have.
    pub(super) fn resize(&mut self, length: u64, capacity: usize) {
        (self.length, self.capacity) = (length, capacity);
    }

    /// Counts a finding at `time`; `build` makes it, from a record of `bytes`, when a summary will need it. Summaries of
    /// windows that end go to `out`.
    pub(super) fn hit(
        &mut self,
        key: Key,
        time: u64,
        bytes: usize,
        build: impl FnOnce() -> Finding,
        out: &mut Vec<Finding>,
    ) -> Verdict {
        if self.length == 0 || self.capacity == 0 {
            return Verdict::First;
        }
        let key = Arc::new(key);
        if let Some(window) = self.open.get_mut(&key) {
            if time < window.end.0 {
                window.count += 1;
                window.last = window.last.max(time);
                if window.summary.is_none() {
                    window.summary = Some(Box::new(build()));
                    window.weight += FINDING_WEIGHT * bytes;
                    self.weight += FINDING_WEIGHT * bytes;
                    self.make_room(0, out);
                }
                return Verdict::Repeat;
            }
            let end = window.end;
            self.close(end, out);
        }
        self.make_room(1, out);
        let weight = KEY_WEIGHT + key.target.len();
        self.weight += weight;
        self.serial += 1;
        let end = (time.saturating_add(self.length), self.serial);
        self.ends.insert(end, key.clone());
        self.open.insert(key, Window { end, count: 1, last: time, weight, summary: None });
        Verdict::First
    }

    /// Ends the windows that are over at `now`.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Finding>) {
        while let Some(end) = self.ends.keys().next().copied().filter(|end| end.0 <= now) {
            self.close(end, out);
        }
    }

    /// Windows that ended early because the table was full.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Ends the oldest windows until there is room for `more`.
    fn make_room(&mut self, more: usize, out: &mut Vec<Finding>) {
        while self.open.len() + more > self.capacity || self.weight > WEIGHT {
            let Some(end) = self.ends.keys().next().copied() else { return };
            self.evicted += 1;
            self.close(end, out);
        }
    }

    fn close(&mut self, end: (u64, u64), out: &mut Vec<Finding>) {
        let Some(window) = self.ends.remove(&end).and_then(|key| self.open.remove(&key)) else { return };
        self.weight -= window.weight;
        if let Some(mut summary) = window.summary {
            summary.count = window.count;
            summary.time = window.last;
            out.push(*summary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::finding::tests::example;

    fn hit(dedup: &mut Dedup, target: &str, time: u64, out: &mut Vec<Finding>) -> Verdict {
        let key = Key { rule: "r".into(), process: ProcessKey::default(), target: target.into() };
        dedup.hit(key, time, 0x10000, || example(target, time), out)
    }

    fn told(out: &mut Vec<Finding>) -> Vec<(String, u64, u64)> {
        out.drain(..).map(|f| (f.target, f.count, f.time)).collect()
    }

    #[test]
    fn a_window_tells_its_first_and_its_sum() {
        let (mut dedup, mut out) = (Dedup::new(10, 9), Vec::new());
        assert_eq!(hit(&mut dedup, "a", 100, &mut out), Verdict::First);
        assert_eq!(hit(&mut dedup, "b", 101, &mut out), Verdict::First);
        assert_eq!(hit(&mut dedup, "a", 105, &mut out), Verdict::Repeat);
        assert_eq!(hit(&mut dedup, "a", 104, &mut out), Verdict::Repeat);
        dedup.tick(109, &mut out);
        assert_eq!(told(&mut out), []);
        dedup.tick(110, &mut out);
        assert_eq!(told(&mut out), [("a".into(), 3, 105)]);
        dedup.tick(u64::MAX, &mut out);
        assert_eq!(told(&mut out), [], "what happened once is not told twice");
        assert_eq!(hit(&mut dedup, "a", 111, &mut out), Verdict::First);
    }

    #[test]
    fn a_window_that_is_over_ends_even_without_a_tick() {
        let (mut dedup, mut out) = (Dedup::new(10, 9), Vec::new());
        hit(&mut dedup, "a", 100, &mut out);
        hit(&mut dedup, "a", 101, &mut out);
        assert_eq!(hit(&mut dedup, "a", 110, &mut out), Verdict::First);
        assert_eq!(told(&mut out), [("a".into(), 2, 101)]);
    }

    #[test]
    fn a_full_table_ends_its_oldest_window_and_counts_it() {
        let (mut dedup, mut out) = (Dedup::new(10, 2), Vec::new());
        hit(&mut dedup, "a", 100, &mut out);
        hit(&mut dedup, "a", 101, &mut out);
        hit(&mut dedup, "b", 102, &mut out);
        hit(&mut dedup, "c", 103, &mut out);
        assert_eq!(told(&mut out), [("a".into(), 2, 101)]);
        assert_eq!((dedup.evicted(), dedup.open.len(), dedup.ends.len()), (1, 2, 2));
        assert_eq!(hit(&mut dedup, "a", 104, &mut out), Verdict::First);
    }

    #[test]
    fn a_heavy_table_gives_way_before_it_is_full() {
        let (mut dedup, mut out) = (Dedup::new(10, 1000), Vec::new());
        for i in 0..100 {
            for _ in 0..2 {
                hit(&mut dedup, &i.to_string(), 100, &mut out);
            }
        }
        assert!(dedup.weight <= WEIGHT && dedup.open.len() < 50, "{} windows", dedup.open.len());
        assert_eq!(out.len() + dedup.open.len(), 100, "what gives way is told");
        dedup.tick(u64::MAX, &mut out);
        assert_eq!((dedup.weight, out.len()), (0, 100));
    }

    #[test]
    fn no_window_tells_everything() {
        let (mut dedup, mut out) = (Dedup::new(0, 2), Vec::new());
        assert_eq!([hit(&mut dedup, "a", 1, &mut out), hit(&mut dedup, "a", 1, &mut out)], [Verdict::First; 2]);
    }
}

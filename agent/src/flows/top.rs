//! The busiest names of a counter, and "other": a metric's labels stay few, whatever runs on the node, and its sum stays
//! right. A name that gains a place starts from 0; the series of one that loses its place ends. None ever goes down.

use std::collections::HashMap;

use serde::Serialize;

use super::Totals;

/// The label for all without a place.
pub const OTHER: &str = "other";
/// Calls of [`Top::choose`] for each choice: a minute of ticks, so that each look at all connections counts.
const PAUSE: u32 = 120;
/// Names without a place whose bytes are remembered.
const WAITING: usize = 4096;

/// Totals under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The name.
    pub name: String,
    /// Its totals.
    pub totals: Totals,
}

/// Totals by name.
#[derive(Debug)]
pub struct Top {
    places: usize,
    shown: HashMap<Box<str>, Shown>,
    waiting: HashMap<Box<str>, u64>,
    other: Totals,
    calls: u32,
}

#[derive(Debug, Default)]
struct Shown {
    totals: Totals,
    /// Bytes since the last choice.
    recent: u64,
}

impl Top {
    /// Knows `places` by name.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places, shown: HashMap::new(), waiting: HashMap::new(), other: Totals::default(), calls: 0 }
    }

    /// Adds to the totals of `name`.
    pub fn add(&mut self, name: &str, more: Totals) {
        let bytes = more.tx + more.rx;
        if let Some(shown) = self.shown.get_mut(name) {
            shown.totals.add(more);
            shown.recent += bytes;
        } else if self.shown.len() < self.places {
            self.shown.insert(name.into(), Shown { totals: more, recent: bytes });
        } else {
            self.other.add(more);
            if let Some(waiting) = self.waiting.get_mut(name) {
                *waiting += bytes;
            } else if self.waiting.len() < WAITING {
                self.waiting.insert(name.into(), bytes);
            }
        }
    }

    /// Every minute gives places to names that moved more than twice as much as their holders lately.
    pub fn choose(&mut self) {
        self.calls += 1;
        if !self.calls.is_multiple_of(PAUSE) {
            return;
        }
        while let Some((name, bytes)) = self.waiting.iter().max_by_key(|w| (*w.1, w.0)).map(|w| (w.0.clone(), *w.1))
            && let Some((least, recent)) =
                self.shown.iter().min_by_key(|s| (s.1.recent, s.0)).map(|s| (s.0.clone(), s.1.recent))
            && bytes > 2 * recent
        {
            self.shown.remove(&least);
            self.waiting.remove(&name);
            // What it moved so far stays where it was counted. It keeps its place until it is as idle as those.
            self.shown.insert(name, Shown { totals: Totals::default(), recent: bytes });
        }
        self.waiting.retain(|_, bytes| {
            *bytes /= 2;
            *bytes > 0
        });
        self.shown.values_mut().for_each(|s| s.recent /= 2);
    }

    /// All rows in order of their names, with "other" where there is any.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.shown.iter().map(|(name, s)| Row { name: name.to_string(), totals: s.totals }).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        if self.other != Totals::default() {
            rows.push(Row { name: OTHER.into(), totals: self.other });
        }
        rows
    }
}

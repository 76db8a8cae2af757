//! What a rule did, in numbers; and what went wrong with it, in words.

use std::sync::Arc;

use serde::Serialize;

/// Counts of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Events of a kind that it wants.
    pub seen: u64,
    /// Of these, turned away by its declared paths, users, names or origins before it was asked.
    pub prefiltered: u64,
    /// Of these, not shown to it because it was put aside.
    pub aside: u64,
    /// Of these, shown to it.
    pub evaluated: u64,
    /// Findings told.
    pub fired: u64,
    /// Findings not told, because they repeat one.
    pub suppressed: u64,
    /// Findings not told, because of an exception.
    pub excepted: u64,
    /// Findings dropped, because one event made too many.
    pub dropped: u64,
    /// Times that it failed or took too long.
    pub errors: u64,
    /// Nanoseconds spent in it, where the engine has a clock.
    pub ns: u64,
}

/// Something about a rule that people should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// It failed for the first time in a while.
    Failed {
        /// The rule.
        rule: Arc<str>,
        /// Event time, nanoseconds since boot.
        time: u64,
        /// Why.
        error: String,
    },
    /// It failed too often and sees no events for a while.
    Aside {
        /// The rule.
        rule: Arc<str>,
        /// Event time, nanoseconds since boot.
        time: u64,
        /// Event time from which on it sees events again.
        until: u64,
        /// The last failure.
        error: String,
        /// Whether a clock had a part in it: a replay has none, and must be told.
        timed: bool,
    },
}

/// Notices kept until they are taken; beyond that they are counted only.
const NOTICES: usize = 256;

/// Notices, with a limit.
#[derive(Debug, Default)]
pub(super) struct Notices {
    kept: Vec<Notice>,
    dropped: u64,
}

impl Notices {
    pub(super) fn push(&mut self, notice: Notice) {
        if self.kept.len() < NOTICES {
            self.kept.push(notice);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn take(&mut self) -> (Vec<Notice>, u64) {
        (std::mem::take(&mut self.kept), std::mem::take(&mut self.dropped))
    }
}

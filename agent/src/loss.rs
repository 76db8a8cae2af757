//! The loss ledger: what was tried and what was lost, per event and cause. A loss is a number, never a silence.

use haechi_ebpf::event::{EVENTS, EventId, MAX_EVENTS};
use haechi_ebpf::loss::Loss;
use serde::{Deserialize, Serialize};

const CAUSES: usize = Loss::ALL.len();

/// Totals since start: `tried = delivered + the sum of lost`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    tried: Vec<u64>,
    lost: Vec<[u64; CAUSES]>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { tried: vec![0; MAX_EVENTS], lost: vec![[0; CAUSES]; MAX_EVENTS] }
    }
}

/// What was lost between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Of which event.
    pub event: EventId,
    /// Position of the cause in [`Loss::ALL`].
    pub cause: u8,
    /// How many.
    pub count: u64,
}

impl Ledger {
    /// Records that were tried.
    #[must_use]
    pub fn tried(&self, event: EventId) -> u64 {
        self.tried.get(event as usize).copied().unwrap_or(0)
    }

    /// Records that were lost for `cause`.
    #[must_use]
    pub fn lost(&self, event: EventId, cause: Loss) -> u64 {
        self.lost.get(event as usize).map_or(0, |l| l[cause as usize])
    }

    /// Records of all events that were lost for any cause.
    #[must_use]
    pub fn total_lost(&self) -> u64 {
        self.lost.iter().flatten().sum()
    }

    /// Sets what the kernel counts.
    pub fn set_tried(&mut self, event: EventId, count: u64) {
        if let Some(tried) = self.tried.get_mut(event as usize) {
            *tried = count;
        }
    }

    /// Sets a loss that the kernel counts.
    pub fn set_lost(&mut self, event: EventId, cause: Loss, count: u64) {
        if let Some(lost) = self.lost.get_mut(event as usize) {
            lost[cause as usize] = count;
        }
    }

    /// Adds a loss that happened in the agent.
    pub fn add_lost(&mut self, event: EventId, cause: Loss, count: u64) {
        if let Some(lost) = self.lost.get_mut(event as usize) {
            lost[cause as usize] += count;
        }
    }

    /// What was lost since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<Lost> {
        let mut out = Vec::new();
        for event in EVENTS {
            for cause in Loss::ALL {
                let count = self.lost(event.id, cause).saturating_sub(before.lost(event.id, cause));
                if count > 0 {
                    out.push(Lost { event: event.id, cause: cause as u8, count });
                }
            }
        }
        out
    }
}

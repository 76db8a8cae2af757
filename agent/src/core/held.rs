//! Findings that wait for the hash of their program. None waits longer than until the next tick; at most [`MAX_HELD`]
//! wait at once, the oldest then goes without. What was learned is kept for the next finding, bounded.

use std::collections::{HashMap, HashSet, VecDeque};

use haechi_signatures::model::Finding;

use super::{Answer, Exe, Question};

/// Findings that may wait at once.
pub const MAX_HELD: usize = 64;
/// Questions that may be open at once.
const MAX_ASKED: usize = 256;
/// Hashes that are remembered.
const MAX_HASHES: usize = 4096;

/// Whether a finding waits.
pub(super) enum Wait {
    /// It can go, with its hash where that is known.
    No(Box<Finding>),
    /// It waits. The program is asked for, unless it was already; another finding may have had to make room.
    Yes { question: Option<Question>, displaced: Option<Box<Finding>> },
}

#[derive(Default)]
pub(super) struct Held {
    waiting: VecDeque<(Exe, Box<Finding>)>,
    asked: HashSet<Exe>,
    hashes: HashMap<Exe, String>,
    by_age: VecDeque<Exe>,
}

impl Held {
    /// Takes a finding; `about` is the question that would give the hash of its program, if there is one.
    pub(super) fn take(&mut self, mut finding: Box<Finding>, about: Option<Question>) -> Wait {
        let Some(question) = about else { return Wait::No(finding) };
        let exe = question.exe;
        if let Some(hash) = self.hashes.get(&exe) {
            finding.process.sha256 = Some(hash.clone());
            return Wait::No(finding);
        }
        if self.asked.len() >= MAX_ASKED && !self.asked.contains(&exe) {
            return Wait::No(finding);
        }
        let question = self.asked.insert(exe).then_some(question);
        self.waiting.push_back((exe, finding));
        let full = self.waiting.len() > MAX_HELD;
        Wait::Yes { question, displaced: if full { self.waiting.pop_front().map(|w| w.1) } else { None } }
    }

    pub(super) fn answer(&mut self, answer: &Answer, mut tell: impl FnMut(Box<Finding>)) {
        self.asked.remove(&answer.exe);
        if let Some(hash) = &answer.sha256
            && self.hashes.insert(answer.exe, hash.clone()).is_none()
        {
            self.by_age.push_back(answer.exe);
            if self.by_age.len() > MAX_HASHES
                && let Some(oldest) = self.by_age.pop_front()
            {
                self.hashes.remove(&oldest);
            }
        }
        for (exe, mut finding) in std::mem::take(&mut self.waiting) {
            if exe == answer.exe {
                finding.process.sha256.clone_from(&answer.sha256);
                tell(finding);
            } else {
                self.waiting.push_back((exe, finding));
            }
        }
    }

    /// Lets everybody go.
    pub(super) fn release(&mut self) -> impl Iterator<Item = Box<Finding>> {
        std::mem::take(&mut self.waiting).into_iter().map(|w| w.1)
    }
}

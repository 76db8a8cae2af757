//! What waits for the core: one queue, in one order, that nobody ever blocks on. Batches are bounded by their bytes and
//! refused beyond that, to be counted by whoever brought them; the few other inputs have room besides.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;
use crate::core::Input;

/// Inputs other than batches that may wait.
const OTHERS: usize = 1024;
/// Empty batches kept for their memory.
const SPARE: usize = 8;
/// A batch larger than this gives its memory back.
const SPARE_BYTES: usize = 4 << 20;

/// The queue.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    ready: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Input>,
    others: usize,
    bytes: usize,
    closed: bool,
    spare: Vec<Batch>,
}

impl Inbox {
    /// An empty queue with room for batches of so many bytes together.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub fn push_batch(&self, batch: Batch) -> Result<(), Batch> {
        self.push_within(self.limit, batch)
    }

    /// Appends a batch of records that are to be lost last: for them there is as much room again.
    ///
    /// # Errors
    /// As [`Inbox::push_batch`].
    pub fn push_urgent(&self, batch: Batch) -> Result<(), Batch> {
        self.push_within(self.limit.saturating_mul(2), batch)
    }

    fn push_within(&self, limit: usize, batch: Batch) -> Result<(), Batch> {
        let mut state = self.state();
        // One batch alone always fits: it is in memory already.
        if state.closed || state.bytes > 0 && state.bytes + batch.size() > limit {
            return Err(batch);
        }
        state.bytes += batch.size();
        state.waiting.push_back(Input::Batch(batch));
        self.ready.notify_one();
        Ok(())
    }

    /// Appends another input. A tick after a tick takes its place. An answer always has room: the core asks a few questions
    /// at a time and counts on an answer to each.
    ///
    /// # Errors
    /// Gives it back when there is no room; an answer only when nobody listens any more.
    pub fn push(&self, input: Input) -> Result<(), Input> {
        let mut state = self.state();
        if state.closed || state.others >= OTHERS && !matches!(input, Input::Answer(_)) {
            return Err(input);
        }
        if let (Some(Input::Tick(last)), Input::Tick(now)) = (state.waiting.back_mut(), &input) {
            *last = *now;
            return Ok(());
        }
        state.waiting.push_back(input);
        state.others += 1;
        self.ready.notify_one();
        Ok(())
    }

    /// The next input; `None` when the queue is closed and empty. Waits for one.
    #[must_use]
    pub fn pop(&self) -> Option<Input> {
        let mut state = self.state();
        loop {
            if let Some(input) = state.waiting.pop_front() {
                match &input {
                    Input::Batch(batch) => state.bytes -= batch.size(),
                    _ => state.others -= 1,
                }
                return Some(input);
            }
            if state.closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more comes; what waits is still given out, and the end after it.
    pub fn close(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.closed, true) {
            state.waiting.push_back(Input::End);
            state.others += 1;
        }
        self.ready.notify_all();
    }

    /// How many inputs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An empty batch, with the memory of an old one where there is one.
    #[must_use]
    pub fn spare(&self) -> Batch {
        self.state().spare.pop().unwrap_or_default()
    }

    /// Gives a batch back that is done with.
    pub fn recycle(&self, mut batch: Batch) {
        if batch.size() <= SPARE_BYTES {
            batch.clear();
            let mut state = self.state();
            if state.spare.len() < SPARE {
                state.spare.push(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_a_bound_and_others_get_through() {
        let inbox = Inbox::new(8);
        let batch = || {
            let mut batch = Batch::default();
            batch.push(1, b"6bytes");
            batch
        };
        inbox.push_batch(batch()).expect("room");
        assert!(inbox.push_batch(batch()).is_err());
        inbox.push_urgent(batch()).expect("more room");
        assert!(inbox.push_urgent(batch()).expect_err("no more room").len() == 1);
        inbox.push(Input::Tick(1)).expect("room");
        inbox.push(Input::Tick(2)).expect("room");
        assert_eq!(inbox.len(), 3, "a tick after a tick takes its place");
        assert!(matches!(inbox.pop(), Some(Input::Batch(_))));
        assert!(matches!(inbox.pop(), Some(Input::Batch(_))));
        assert!(matches!(inbox.pop(), Some(Input::Tick(2))));
        inbox.push_batch(batch()).expect("room again");
        inbox.close();
        assert!(inbox.push(Input::End).is_err());
        assert!(matches!(inbox.pop(), Some(Input::Batch(_))));
        assert!(matches!(inbox.pop(), Some(Input::End)));
        assert!(inbox.pop().is_none());
    }

    #[test]
    fn an_answer_has_room_until_the_end() {
        let inbox = Inbox::new(1);
        for _ in 0..OTHERS {
            inbox.push(Input::Lost(Vec::new())).expect("room");
        }
        inbox.push(Input::Lost(Vec::new())).expect_err("no more room");
        let exe = crate::core::Exe { dev: 1, inode: 2, ctime: 3 };
        let answer = || Input::Answer(crate::core::Answer { exe, sha256: None });
        inbox.push(answer()).expect("an answer has room");
        inbox.close();
        inbox.push(answer()).expect_err("nobody listens");
    }

    #[test]
    fn memory_is_used_again() {
        let inbox = Inbox::new(1);
        let mut batch = Batch::default();
        batch.push(1, b"record");
        inbox.recycle(batch);
        assert!(inbox.spare().is_empty());
    }
}

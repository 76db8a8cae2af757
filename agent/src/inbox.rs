//! What waits for the core: one queue, in one order, that nobody ever blocks on. Batches have a bound of their own and are
//! refused beyond it, to be counted by whoever brought them; the few other inputs have room besides.

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
    batches: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Input>,
    batches: usize,
    closed: bool,
    spare: Vec<Batch>,
}

impl Inbox {
    /// An empty queue with room for so many batches.
    #[must_use]
    pub fn new(batches: usize) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), batches: batches.max(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub fn push_batch(&self, batch: Batch) -> Result<(), Batch> {
        let mut state = self.state();
        if state.closed || state.batches >= self.batches {
            return Err(batch);
        }
        state.batches += 1;
        state.waiting.push_back(Input::Batch(batch));
        self.ready.notify_one();
        Ok(())
    }

    /// Appends another input. A tick after a tick takes its place.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub fn push(&self, input: Input) -> Result<(), Input> {
        let mut state = self.state();
        if state.closed || state.waiting.len() - state.batches >= OTHERS {
            return Err(input);
        }
        match (state.waiting.back_mut(), &input) {
            (Some(Input::Tick(last)), Input::Tick(now)) => *last = *now,
            _ => state.waiting.push_back(input),
        }
        self.ready.notify_one();
        Ok(())
    }

    /// The next input; `None` when the queue is closed and empty. Waits for one.
    #[must_use]
    pub fn pop(&self) -> Option<Input> {
        let mut state = self.state();
        loop {
            if let Some(input) = state.waiting.pop_front() {
                if matches!(input, Input::Batch(_)) {
                    state.batches -= 1;
                }
                return Some(input);
            }
            if state.closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more comes; what waits is still given out.
    pub fn close(&self) {
        self.state().closed = true;
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
        let inbox = Inbox::new(1);
        inbox.push_batch(Batch::default()).expect("room");
        assert!(inbox.push_batch(Batch::default()).is_err());
        inbox.push(Input::Tick(1)).expect("room");
        inbox.push(Input::Tick(2)).expect("room");
        assert_eq!(inbox.len(), 2, "a tick after a tick takes its place");
        assert!(matches!(inbox.pop(), Some(Input::Batch(_))));
        inbox.push_batch(Batch::default()).expect("room again");
        assert!(matches!(inbox.pop(), Some(Input::Tick(2))));
        inbox.close();
        assert!(inbox.push(Input::End).is_err());
        assert!(inbox.pop().is_some() && inbox.pop().is_none());
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

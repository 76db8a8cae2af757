//! The thread that has all connections looked at, now and then. What is found comes through the ring like everything
//! else; this thread only drives it and counts what it cost.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::clock;
use crate::kernel::Poller;

/// Looks taken one after the other while the ring has no room: then the next turn must do.
const ROUNDS: usize = 64;
/// Time for the collector to make room.
const PAUSE: Duration = Duration::from_millis(2);

/// What polling cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Times that all connections were looked at.
    pub polls: u64,
    /// Nanoseconds spent in it.
    pub ns: u64,
    /// Connections that had to wait for the next turn for want of room in the ring.
    pub deferred: u64,
    /// Times that the kernel refused.
    pub errors: u64,
}

#[derive(Default)]
struct State {
    poller: Option<Arc<Poller>>,
    stop: bool,
    /// Every connection is to be told of, whether it changed or not.
    survey: bool,
    cost: Cost,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// All connections were told of between these two times, in nanoseconds since boot. Returns whether it was heard.
pub type Surveyed = Box<dyn Fn(u64, u64) -> bool + Send>;

/// The thread at work.
pub struct Polling {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Polling {
    /// Starts the thread; `poller` is asked every `interval`, and `surveyed` is told when a survey is complete.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(poller: Option<Arc<Poller>>, interval: Duration, surveyed: Surveyed) -> io::Result<Self> {
        let state = State { poller, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mine = shared.clone();
        let thread =
            thread::Builder::new().name("haechi-poll".into()).spawn(move || run(&mine, interval, &surveyed))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on `poller` is asked. Returns whether nobody was before.
    pub fn replace(&self, poller: Option<Arc<Poller>>) -> bool {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.poller.is_none() && poller.is_some();
        state.poller = poller;
        first
    }

    /// The next time all connections are told of, whether they changed or not.
    pub fn survey(&self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).survey = true;
    }

    /// What it cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).cost
    }

    /// Looks a last time and ends the thread. Returns what it cost in all.
    pub fn stop(&mut self) -> Cost {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.changed.notify_all();
        // A panic there has been reported by the thread itself.
        let _ = self.thread.take().map(JoinHandle::join);
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).cost
    }
}

fn run(shared: &Shared, interval: Duration, surveyed: &Surveyed) {
    let mut next = Instant::now() + interval;
    loop {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stop
            && let Some(left) = next.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
        {
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (poller, stop) = (state.poller.clone(), state.stop);
        let mut survey = poller.is_some() && std::mem::take(&mut state.survey);
        drop(state);
        if let Some(poller) = poller {
            let begun = clock::boot_now();
            if survey && let Err(error) = poller.survey(begun) {
                warn!(%error, "connections that ended unseen stay known");
                survey = false;
            }
            let cost = look(&poller);
            let all = cost.deferred == 0 && cost.errors == 0;
            let again = survey && !(all && surveyed(begun, clock::boot_now()));
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.cost.polls += cost.polls;
            state.cost.ns += cost.ns;
            state.cost.deferred += cost.deferred;
            state.cost.errors += cost.errors;
            state.survey |= again;
        }
        if stop {
            return;
        }
        next = (next + interval).max(Instant::now());
    }
}

/// Looks at all connections, again where some did not fit.
fn look(poller: &Poller) -> Cost {
    let mut cost = Cost::default();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let result = poller.poll();
        cost.polls += u64::from(round == 0);
        cost.ns += begun.elapsed().as_nanos() as u64;
        match result {
            Ok(0) => return cost,
            Ok(more) if round + 1 == ROUNDS => cost.deferred += more,
            Ok(_) => thread::sleep(PAUSE),
            Err(error) => {
                warn!(%error, "connections cannot be looked at");
                cost.errors += 1;
                return cost;
            }
        }
    }
    cost
}

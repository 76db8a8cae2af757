//! The collector: a thread that drains the rings and hands on batches. It sleeps a millisecond after it found something,
//! twice as long each time it found nothing; after four in vain it asks to be woken by the next record, and sleeps until
//! then. Nobody wakes it while there is work. Knows bytes and event numbers only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use haechi_ebpf::event::{EventId, MAX_EVENTS, Ring, by_id};
use haechi_ebpf::wire::at;

use crate::batch::Batch;
use crate::clock;
use crate::core::Input;
use crate::inbox::Inbox;
use crate::kernel::Drain;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(4);
/// Time asleep without being woken, so that ticks and the order to stop are not late.
const PARKED: Duration = Duration::from_millis(100);
/// Nanoseconds between ticks of the core.
const TICK: u64 = 500_000_000;
/// The same while a finding waits for an answer.
const HURRIED_TICK: u64 = 50_000_000;
/// Rounds of the last drain: a flood that does not end must not keep the agent.
const LAST_ROUNDS: usize = 64;

/// A collector at work.
pub struct Collector {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    stop: AtomicBool,
    /// A finding waits for an answer: tick soon.
    hurry: AtomicBool,
    refused: Vec<AtomicU64>,
}

impl Shared {
    fn count(&self, event: EventId) {
        if let Some(count) = self.refused.get(event as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the core's thread and others hold of the collector.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The next tick shall come soon.
    pub fn hurry(&self) {
        self.0.hurry.store(true, Ordering::Relaxed);
    }

    /// Records that found no room in the inbox, by event.
    #[must_use]
    pub fn refused(&self, event: EventId) -> u64 {
        self.0.refused.get(event as usize).map_or(0, |n| n.load(Ordering::Relaxed))
    }
}

impl Collector {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(drain: Drain, inbox: Arc<Inbox>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            refused: (0..MAX_EVENTS).map(|_| AtomicU64::new(0)).collect(),
        });
        let mine = shared.clone();
        let thread = thread::Builder::new().name("haechi-collect".into()).spawn(move || run(drain, &inbox, &mine))?;
        Ok(Self { shared, thread })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Ends the thread once it has taken what is in the rings.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        // A panic there has been reported by the thread itself; what it held is lost either way.
        let _ = self.thread.join();
    }
}

fn run(mut drain: Drain, inbox: &Inbox, shared: &Shared) {
    let (mut sleep, mut ticked, mut parked) = (SHORTEST, 0, false);
    loop {
        // Read first: whatever came before the order to stop is still drained.
        let stopping = shared.stop.load(Ordering::Acquire);
        let taken = round(&mut drain, inbox, shared);
        let now = clock::boot_now();
        let pause = if shared.hurry.load(Ordering::Relaxed) { HURRIED_TICK } else { TICK };
        if now.saturating_sub(ticked) >= pause {
            ticked = now;
            shared.hurry.store(false, Ordering::Relaxed);
            // Without room the core is behind and has older things to do; the next tick says more.
            let _ = inbox.push(Input::Tick(now));
        }
        if stopping {
            for _ in 0..LAST_ROUNDS {
                if round(&mut drain, inbox, shared) == 0 {
                    break;
                }
            }
            return;
        }
        if taken > 0 {
            (sleep, parked) = (SHORTEST, false);
        } else if parked {
            // Whoever did not see yet that we sleep has written its record by now, and it would be there.
            drain.wait(PARKED);
            continue;
        } else if sleep < LONGEST {
            sleep *= 2;
        } else {
            drain.park();
            (sleep, parked) = (SHORTEST, true);
        }
        thread::sleep(sleep);
    }
}

/// Drains once.
fn round(drain: &mut Drain, inbox: &Inbox, shared: &Shared) -> usize {
    let mut batch = inbox.spare();
    let taken = drain.drain(&mut batch);
    if taken == 0 {
        inbox.recycle(batch);
    } else if let Err(batch) = inbox.push_batch(batch) {
        refuse(batch, inbox, shared);
    }
    taken
}

/// The core is behind. What its knowledge rests on still goes to it, the rest is counted as lost.
fn refuse(batch: Batch, inbox: &Inbox, shared: &Shared) {
    let mut urgent = inbox.spare();
    for record in batch.records() {
        let (event, time) = head(record);
        if by_id(event).is_some_and(|def| def.ring == Ring::Critical) {
            urgent.push(time, record);
        } else {
            shared.count(event);
        }
    }
    inbox.recycle(batch);
    if let Err(urgent) = inbox.push_urgent(urgent) {
        urgent.records().for_each(|record| shared.count(head(record).0));
        inbox.recycle(urgent);
    }
}

/// Event and time of a record, which may be torn.
fn head(record: &[u8]) -> (EventId, u64) {
    let event = record.get(at::EVENT..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_le_bytes(*b));
    let time = record.get(at::TIME..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b));
    (event, time)
}

//! The queue of one sink and the thread behind it. A flood of events pushes neither findings nor gaps out: they have
//! room besides.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use haechi_ebpf::event::lost_events;
use haechi_ebpf::loss::Loss;
use tracing::{error, warn};

use super::{ByName, Sink};
use crate::render::Item;

/// Room that only findings and gaps may use.
const FINDINGS: usize = 1024;
/// Items written together, at most.
const TOGETHER: usize = 256;
/// What items are called whose sink took neither them nor an end.
const UNWRITTEN: &str = "items not written by the end";

/// How a sink fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Which sink.
    pub name: String,
    /// Items it took.
    pub delivered: u64,
    /// Items it did not take, because its queue was full or it could not write, by name of event or rule.
    pub lost: Vec<(String, u64)>,
    /// Whether its reader is gone.
    pub closed: bool,
}

pub(super) struct Queue {
    sender: SyncSender<Arc<Item>>,
    /// Items that may wait before only findings and gaps are taken.
    capacity: usize,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Hangs up when the thread is done.
    done: Receiver<()>,
}

struct Shared {
    name: String,
    /// Items that went into the queue, and those of them that were delivered or lost since.
    taken: AtomicU64,
    settled: AtomicU64,
    delivered: AtomicU64,
    waiting: AtomicUsize,
    closed: AtomicBool,
    lost: Mutex<Losses>,
}

#[derive(Default)]
struct Losses {
    total: ByName,
    untold: ByName,
}

impl Shared {
    fn lose(&self, item: &Item) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost.total.entry(item.name().to_owned()).or_default() += 1;
        *lost.untold.entry(item.name().to_owned()).or_default() += 1;
    }

    fn take_untold(&self) -> ByName {
        std::mem::take(&mut self.lost.lock().unwrap_or_else(PoisonError::into_inner).untold)
    }

    /// What was to be told, and was not.
    fn give_back(&self, untold: &ByName) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in untold {
            *lost.untold.entry(name.clone()).or_default() += count;
        }
    }
}

impl Queue {
    pub(super) fn start(
        name: String,
        sink: Box<dyn Sink>,
        capacity: usize,
        closed: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(capacity + FINDINGS);
        let shared = Arc::new(Shared {
            name,
            taken: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            lost: Mutex::default(),
        });
        let mut worker = Worker {
            sink,
            shared: shared.clone(),
            gathered: Vec::new(),
            telling: ByName::new(),
            time: 0,
            failing: false,
        };
        let (working, done) = sync_channel(1);
        let thread = thread::Builder::new().name("haechi-sink".into()).spawn(move || {
            let _working: SyncSender<()> = working;
            worker.run(&receiver);
            if worker.shared.closed.load(Ordering::Acquire) {
                closed();
                // Whoever still sends must find what it sent counted.
                for item in receiver {
                    worker.shared.lose(&item);
                    worker.shared.settled.fetch_add(1, Ordering::AcqRel);
                }
            }
        })?;
        Ok(Self { sender, capacity, shared, thread, done })
    }

    pub(super) fn send(&self, item: &Arc<Item>) {
        let shared = &self.shared;
        let waiting = shared.waiting.fetch_add(1, Ordering::AcqRel);
        let room = waiting < self.capacity || matters(item);
        shared.taken.fetch_add(1, Ordering::AcqRel);
        if self.is_closed() || !room || self.sender.try_send(item.clone()).is_err() {
            shared.taken.fetch_sub(1, Ordering::AcqRel);
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
            shared.lose(item);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> Status {
        status(&self.shared)
    }

    /// Waits for the sink to write what is left, as long as it gets on: one that wrote nothing for so long is stuck
    /// (nobody reads, and nobody hangs up) and left to itself, for it must not keep the agent from ending.
    pub(super) fn finish(self, patience: Duration) -> Status {
        drop(self.sender);
        let settled = || self.shared.settled.load(Ordering::Acquire);
        let mut before = settled();
        let stuck = loop {
            if self.done.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
                break false;
            }
            if std::mem::replace(&mut before, settled()) == before {
                break true;
            }
        };
        if stuck {
            let unwritten = self.shared.taken.load(Ordering::Acquire) - self.shared.settled.load(Ordering::Acquire);
            error!(sink = self.shared.name, unwritten, "the sink is stuck and left behind");
            let mut status = status(&self.shared);
            status.lost.push((UNWRITTEN.to_owned(), unwritten));
            return status;
        }
        if self.thread.join().is_err() {
            error!(sink = self.shared.name, "the sink failed");
        }
        status(&self.shared)
    }
}

/// What a flood must not push out: findings, and the word of a gap.
fn matters(item: &Item) -> bool {
    matches!(item, Item::Finding(_)) || item.name() == lost_events::DEF.name
}

fn status(shared: &Shared) -> Status {
    let lost = shared.lost.lock().unwrap_or_else(PoisonError::into_inner);
    Status {
        name: shared.name.clone(),
        delivered: shared.delivered.load(Ordering::Relaxed),
        lost: lost.total.iter().map(|(name, count)| (name.clone(), *count)).collect(),
        closed: shared.closed.load(Ordering::Acquire),
    }
}

struct Worker {
    sink: Box<dyn Sink>,
    shared: Arc<Shared>,
    /// What the sink holds back.
    gathered: Vec<Arc<Item>>,
    /// The gaps among it.
    telling: ByName,
    /// Time of the newest item.
    time: u64,
    failing: bool,
}

impl Worker {
    /// Works until there are no senders, or the reader is gone.
    fn run(&mut self, receiver: &Receiver<Arc<Item>>) {
        while let Some(item) = self.next(receiver) {
            if let Some(item) = item {
                self.gather(item);
            }
            while self.gathered.len() < TOGETHER
                && let Ok(item) = receiver.try_recv()
            {
                self.gather(item);
            }
            if let Err(error) = self.flush()
                && error.kind() == ErrorKind::BrokenPipe
            {
                self.shared.closed.store(true, Ordering::Release);
                warn!(sink = self.shared.name, "the reader of the sink is gone");
                return;
            }
        }
        // Nothing follows that could carry the word of a last gap.
        self.tell_gaps();
        if !self.telling.is_empty() {
            // What fails here has been said and counted before.
            let _ = self.flush();
        }
    }

    /// The next item, or nothing where the sink wants to be flushed all the same; `None` at the end.
    fn next(&self, receiver: &Receiver<Arc<Item>>) -> Option<Option<Arc<Item>>> {
        let Some(beat) = self.sink.beat() else { return receiver.recv().ok().map(Some) };
        match receiver.recv_timeout(beat) {
            Ok(item) => Some(Some(item)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn gather(&mut self, item: Arc<Item>) {
        self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
        self.time = item.time();
        self.tell_gaps();
        self.sink.gather(&item);
        self.gathered.push(item);
    }

    fn tell_gaps(&mut self) {
        for (name, count) in self.shared.take_untold() {
            if let Some(gap) = Item::gap(&name, Loss::Queue.name(), count, self.time) {
                self.sink.gather(&gap);
            }
            *self.telling.entry(name).or_default() += count;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.sink.flush();
        match &result {
            Ok(()) => {
                self.shared.delivered.fetch_add(self.gathered.len() as u64, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    warn!(sink = self.shared.name, "the sink can be written again");
                }
            }
            Err(error) => {
                self.gathered.iter().for_each(|item| self.shared.lose(item));
                self.shared.give_back(&self.telling);
                let broken = error.kind() == ErrorKind::BrokenPipe;
                if !broken && !std::mem::replace(&mut self.failing, true) {
                    error!(sink = self.shared.name, %error, "the sink cannot be written; what it loses is counted");
                }
            }
        }
        self.shared.settled.fetch_add(self.gathered.len() as u64, Ordering::AcqRel);
        self.gathered.clear();
        self.telling.clear();
        result
    }
}

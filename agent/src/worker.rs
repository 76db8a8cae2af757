//! The thread of the core: takes inputs from the inbox, records them, lets the core work, hands on what comes out.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use haechi_signatures::demand::Demand;
use haechi_signatures::engine::{Notice, ReloadReport};
use haechi_signatures::model::About;
use tokio::sync::{Notify, mpsc};
use tracing::{error, warn};

use crate::collector;
use crate::core::{Core, Counts, Input, Output};
use crate::hash::Hasher;
use crate::inbox::Inbox;
use crate::record::Recorder;
use crate::render::Item;
use crate::servers::Served;
use crate::sinks::{Sinks, Status};

/// What the thread needs.
pub struct Config {
    /// The core.
    pub core: Core,
    /// Where inputs come from.
    pub inbox: Arc<Inbox>,
    /// Where outputs go.
    pub sinks: Sinks,
    /// Those who watch from outside, if it is served.
    pub served: Option<Arc<Served>>,
    /// Who answers questions.
    pub hasher: Hasher,
    /// Who brings the ticks.
    pub collector: collector::Handle,
    /// The recording, if one was asked for.
    pub recorder: Option<Recorder>,
    /// Items after which to end.
    pub exit_after: Option<u64>,
}

/// What the thread tells the others while it works.
#[derive(Debug, Default)]
pub struct Telling {
    /// The newest counts.
    pub counts: Mutex<Snapshot>,
    /// Sequence numbers show a gap.
    pub gap: Notify,
    /// Enough was shown.
    pub enough: Notify,
    /// The thread is over, whatever ended it.
    pub ended: Notify,
}

/// Says that the thread is over when it goes, be it in a panic.
struct Ending(Arc<Telling>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.notify_one();
    }
}

/// Counts as of the last tick.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Of the core.
    pub counts: Counts,
    /// Of the sinks.
    pub sinks: Vec<Status>,
}

/// A reload that was done: what it did, and what the rules demand now.
#[derive(Debug)]
pub struct Reloaded {
    /// What it did.
    pub report: ReloadReport,
    /// What is demanded of the kernel now.
    pub demands: Vec<Demand>,
}

/// The thread at work.
pub struct Worker {
    /// What it tells.
    pub telling: Arc<Telling>,
    /// Reloads that were done.
    pub reloads: mpsc::Receiver<Reloaded>,
    thread: JoinHandle<Totals>,
}

/// What was done in all.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By the core.
    pub counts: Counts,
    /// By the sinks.
    pub sinks: Vec<Status>,
    /// Inputs that are not in the recording.
    pub unrecorded: u64,
}

impl Config {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn build(self) -> io::Result<Worker> {
        let telling = Arc::new(Telling::default());
        let (sender, reloads) = mpsc::channel(16);
        let mine = Ending(telling.clone());
        let thread = thread::Builder::new().name("haechi-core".into()).spawn(move || run(self, &mine.0, &sender))?;
        Ok(Worker { telling, reloads, thread })
    }
}

impl Worker {
    /// Waits for the end, which comes when the inbox is closed and empty; `None`: the thread panicked before.
    #[must_use]
    pub fn join(self) -> Option<Totals> {
        self.thread.join().ok()
    }
}

fn run(config: Config, telling: &Telling, reloads: &mpsc::Sender<Reloaded>) -> Totals {
    let Config { mut core, inbox, sinks, served, hasher, collector, mut recorder, exit_after } = config;
    let (mut outputs, mut shown) = (Vec::new(), 0);
    if let Some(served) = &served {
        served.set_rules(rules(&mut core));
    }
    while let Some(input) = inbox.pop() {
        if let Some(recorder) = &mut recorder {
            recorder.write(&input);
        }
        core.step(&input, &mut outputs);
        let mut show = |item: Item| {
            shown += 1;
            let item = Arc::new(item);
            if let Some(served) = &served {
                served.push(&item, true);
            }
            sinks.send(&item);
        };
        for output in outputs.drain(..) {
            match output {
                Output::Event(happening) => show(Item::Event(happening)),
                Output::Finding(finding) => show(Item::Finding(finding)),
                Output::Offered(happening) => {
                    if let Some(served) = &served {
                        served.push(&Arc::new(Item::Event(happening)), false);
                    }
                }
                Output::Question(question) => match hasher.ask(question) {
                    Some(answer) => drop(inbox.push(Input::Answer(answer))),
                    None => collector.hurry(),
                },
                Output::GapSeen => telling.gap.notify_one(),
                Output::Reloaded(report) => {
                    if let Some(served) = &served {
                        served.set_rules(rules(&mut core));
                    }
                    // Whoever asked may have stopped waiting.
                    let _ = reloads.try_send(Reloaded { report: *report, demands: core.demands() });
                }
            }
        }
        if let Some(served) = &served {
            served.flush();
        }
        if exit_after.is_some_and(|limit| shown >= limit) {
            telling.enough.notify_one();
        }
        match input {
            Input::Batch(batch) => inbox.recycle(batch),
            Input::Tick(_) => {
                notices(&mut core);
                let snapshot = Snapshot { counts: core.counts(), sinks: sinks.status() };
                *telling.counts.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
            }
            _ => {}
        }
    }
    notices(&mut core);
    Totals { counts: core.counts(), sinks: sinks.finish(), unrecorded: recorder.map_or(0, |r| r.skipped()) }
}

fn rules(core: &mut Core) -> Vec<About> {
    core.engine().catalogue().into_iter().cloned().collect()
}

fn notices(core: &mut Core) {
    let (notices, more) = core.engine().take_notices();
    for notice in notices {
        match notice {
            Notice::Failed { rule, error, .. } => warn!(%rule, error, "a rule failed"),
            Notice::Aside { rule, error, .. } => {
                error!(%rule, error, "a rule fails too often and is put aside for a while");
            }
        }
    }
    if more > 0 {
        warn!(more, "more rules failed");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_panics_says_that_it_is_over() {
        let telling = Arc::new(Telling::default());
        let mine = Ending(telling.clone());
        let thread = thread::spawn(move || {
            let _mine = mine;
            panic!("on purpose");
        });
        thread.join().expect_err("it panicked");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = async { tokio::time::timeout(Duration::from_secs(30), telling.ended.notified()).await };
        runtime.block_on(ended).expect("it was said");
    }
}

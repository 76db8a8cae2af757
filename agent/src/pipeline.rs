//! The start-up, the run and the end of the agent, as a story.
//!
//! ```text
//! rings -> collector (thread) -> inbox -> core (thread) -> queues -> sinks (a thread each)
//!                                  ^ answers <- hasher (thread) <- questions
//! this task: signals, changes of rules, loss counters, the kernel's filters
//! ```

use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use haechi_ebpf::event::{EVENTS, Ring, by_id, net_flow};
use haechi_ebpf::loss::Loss;
use haechi_signatures::demand::Demand;
use haechi_signatures::engine::{self, ReloadReport, Running, Watch};
use haechi_signatures::sources::{Bounds, Sources};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{self, MissedTickBehavior, sleep};
use tracing::{debug, error, info, warn};

use crate::collector::{self, Collector};
use crate::config::Config;
use crate::core::{self, Core, Input, Rules, Start};
use crate::filter::Selection;
use crate::hash::Hasher;
use crate::inbox::Inbox;
use crate::kernel::{self, Kernel};
use crate::loss::{Ledger, Lost};
use crate::metrics;
use crate::poller::{Cost, Polling};
use crate::record::Recorder;
use crate::render::Context;
use crate::servers::address::Listener;
use crate::servers::{self, Fare, Served, Server};
use crate::sinks::{self, Sinks};
use crate::worker::{self, Reloaded, Totals, Worker};
use crate::{cgroups, clock, watch};

/// How long a reload may take before that is said, each time.
const RELOAD: Duration = Duration::from_secs(30);
/// Time between two looks at the loss counters, where nothing asks for an earlier one.
const LOOK: Duration = Duration::from_secs(1);
/// Time until a look that something asks for.
const SOON: Duration = Duration::from_millis(50);
/// Time after which open sockets are taken in once more: those that nobody had accepted had no descriptor before.
const ADOPT_AGAIN: Duration = Duration::from_secs(3);
/// Time between two metrics files.
const METRICS: Duration = Duration::from_secs(10);

/// What a run is asked to do besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Record all inputs in this file.
    pub record: Option<PathBuf>,
    /// End after this time.
    pub duration: Option<Duration>,
    /// End after so many events and findings.
    pub exit_after: Option<u64>,
    /// Write metrics to this file.
    pub metrics_file: Option<PathBuf>,
    /// Show a table of connections.
    pub table: Option<sinks::table::Spec>,
    /// Colour for a terminal.
    pub colour: bool,
    /// Reads the settings of the rules again, at SIGHUP.
    pub reread: Option<Reread>,
}

/// Reads the settings of the rules as they are now, or says in words why they cannot be had.
#[derive(Clone)]
pub struct Reread(pub Arc<dyn Fn() -> Result<engine::Config, String>>);

impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reread")
    }
}

/// Why the agent could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Filters or rules mean nothing.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// The kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A sink cannot be set up.
    #[error(transparent)]
    Sink(#[from] sinks::Error),
    /// It cannot be served.
    #[error(transparent)]
    Serve(#[from] servers::address::Error),
    /// The recording cannot be made.
    #[error("the recording {} cannot be made", path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The core panicked: a mistake in it, which its thread has reported.
    #[error("the core failed: nothing is judged any more")]
    Failed,
    /// The system refuses a thread, a signal handler or the like.
    #[error("the system refuses what every program needs")]
    System(#[from] io::Error),
}

/// What was seen and lost in a whole run.
#[derive(Debug, Default)]
pub struct Summary {
    /// By the core and the sinks.
    pub totals: Totals,
    /// What looking at connections cost.
    pub poll: Cost,
    /// Tried and lost, by event and cause.
    pub ledger: Ledger,
    /// How each stream fared for those who watched.
    pub served: [Fare; 3],
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: &Config, run: &Run) -> Result<Summary, Error> {
    // What is wanted: rules and filters say it, before anything is touched. Watched first, then read: a change in
    // between is not missed.
    let changed = Arc::new(Notify::new());
    if let Err(error) = watch::start(&config.rules.dirs, changed.clone()) {
        warn!(%error, "rules are not watched: changes need SIGHUP");
    }
    let sources = read_rules(&config.rules.dirs, &Sources::default());
    let start = Start { host: clock::host(), time: clock::boot_now(), options: config.options(), sources };
    let (mut core, report) = Core::build(&start)?;
    tell(&report);
    if run.record.is_none() {
        // Times differ from run to run: a recorded run does without, so that a replay is exact.
        core.engine().set_clock(Box::new(clock::steady));
    }
    let context =
        Context { host: start.host.clone(), env: config.env.clone(), decoded: config.decoded, colour: run.colour };
    let serving = serving(config, &start, &context)?;
    let served = serving.as_ref().map(|s| s.0.clone());
    served.iter().for_each(|served| core.offer(served.offered().clone()));
    let closed = Arc::new(Notify::new());
    let (all_closed, open) = (closed.clone(), AtomicUsize::new(config.sinks.len() + usize::from(run.table.is_some())));
    let one_closed = move || {
        if open.fetch_sub(1, Ordering::AcqRel) == 1 {
            all_closed.notify_one();
        }
    };
    let one_closed: Arc<dyn Fn() + Send + Sync> = Arc::new(one_closed);
    let sinks = Sinks::build(&config.sinks, run.table.as_ref(), &context, config.sink_queue, &one_closed)?;
    let recorder = match &run.record {
        Some(path) => {
            Some(Recorder::create(path, &start).map_err(|source| Error::Record { path: path.clone(), source })?)
        }
        None => None,
    };

    // Programs first, then the processes that are there already: nothing falls between.
    let demands = core.demands();
    let mut kernel = Kernel::open(&config.kernel(demands.clone()))?;
    for choice in kernel.choices().iter().filter(|c| c.step.is_none() && !c.declined) {
        let reason = choice.refused.first().map_or("", |r| r.reason.as_str());
        warn!(event = choice.event, reason, "this event cannot be had here; `haechi check` says more");
    }
    let inbox = Arc::new(Inbox::new(config.queue_bytes));
    match cgroups::scan() {
        Ok(all) => drop(inbox.push(Input::Cgroups(all))),
        Err(error) => warn!(%error, "containers that run already will not be recognised"),
    }
    drop(inbox.push(Input::Seed(kernel.seed()?)));
    adopt(&mut kernel);
    let drain = kernel.take_drain().ok_or_else(|| io::Error::other("the rings were taken already"))?;
    let collector = Collector::start(drain, inbox.clone())?;
    let answers = inbox.clone();
    let hasher = Hasher::start(move |answer| answers.push(Input::Answer(answer)).is_ok())?;
    let survey = inbox.clone();
    let surveyed = move |begun, ended| survey.push(Input::Surveyed(begun, ended)).is_ok();
    let interval = Duration::from_secs(config.flow_seconds);
    let polling = Polling::start(kernel.poller(), interval, Box::new(surveyed))?;
    let rule_watch = core.engine().watch();
    let handle = collector.handle();
    let worker = worker::Config {
        core,
        inbox: inbox.clone(),
        sinks,
        served: served.clone(),
        hasher,
        collector: handle.clone(),
        recorder,
        exit_after: run.exit_after,
    }
    .build()?;
    let server = serving.map(|(served, listener)| {
        served.set_telling(worker.telling.clone());
        Server::start(listener, served)
    });
    let server = server.transpose()?;
    // Before anybody is told that it stands: a signal that comes at once must end it in order.
    let mut signals = Signals::listen()?;
    // Not a matter of log levels: who started us wants to know that it stands.
    eprintln!("haechi: watching with {} rules and {} programs", report.added.len(), kernel.attached().len());

    let mut steering = Steering {
        kernel,
        polling,
        collector: handle,
        inbox,
        worker,
        start,
        demands,
        served,
        server,
        ledger: Ledger::default(),
        told: Ledger::default(),
        running: None,
        reseed: false,
        seeded: Instant::now(),
        asked: None,
        again: None,
    };
    steering.until_end(run, &mut signals, &rule_watch, &changed, &closed).await;
    let summary = steering.finish(collector)?;
    if let Some(path) = &run.metrics_file {
        write_metrics(path, &summary.snapshot());
    }
    Ok(summary)
}

impl Summary {
    /// As metrics.
    fn snapshot(&self) -> metrics::Snapshot {
        let worker = worker::Snapshot { counts: self.totals.counts.clone(), sinks: self.totals.sinks.clone() };
        metrics::Snapshot { ledger: self.ledger.clone(), worker, waiting: 0, poll: self.poll, served: self.served }
    }
}

fn write_metrics(path: &Path, snapshot: &metrics::Snapshot) {
    if let Err(error) = metrics::write(path, snapshot) {
        warn!(path = %path.display(), %error, "metrics cannot be written");
    }
}

/// The signals that the agent answers to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What happens beside the river while records flow.
struct Steering {
    kernel: Kernel,
    polling: Polling,
    collector: collector::Handle,
    inbox: Arc<Inbox>,
    worker: Worker,
    start: Start,
    demands: Vec<Demand>,
    served: Option<Arc<Served>>,
    server: Option<Server>,
    ledger: Ledger,
    told: Ledger,
    running: Option<Running>,
    reseed: bool,
    seeded: Instant,
    /// A reload that the core has not answered yet: until when it should have.
    asked: Option<Instant>,
    /// Something changed since: whether it was asked for.
    again: Option<bool>,
}

impl Steering {
    async fn until_end(
        &mut self,
        run: &Run,
        signals: &mut Signals,
        watch: &Watch,
        changed: &Arc<Notify>,
        closed: &Notify,
    ) {
        let Signals { terminate, interrupt, hangup } = signals;
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut metrics = time::interval(METRICS);
        metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut soon = false;
        let mut again = pin!(sleep(ADOPT_AGAIN));
        let mut adopted = false;
        let telling = self.worker.telling.clone();
        let mut over = pin!(async {
            match run.duration {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                () = &mut over => return,
                () = telling.enough.notified() => return,
                // An agent that goes on without its core would only look alive.
                () = telling.ended.notified() => return,
                () = closed.notified() => {
                    warn!("nobody reads the output any more: ending");
                    return;
                }
                _ = hangup.recv() => {
                    self.settings(run, changed);
                    self.reload(true);
                }
                () = changed.notified() => self.reload(false),
                Some(done) = self.worker.reloads.recv() => self.reloaded(done),
                () = telling.gap.notified() => {
                    // Soon, not at once: while the kernel is busy losing, there is a hint with every batch.
                    if !mem::replace(&mut soon, true) {
                        look.reset_after(SOON);
                    }
                }
                _ = look.tick() => {
                    soon = false;
                    self.losses();
                    self.repair();
                    self.stuck(watch);
                    self.unanswered();
                    self.kernel.flush_log();
                }
                () = &mut again, if !adopted => {
                    adopted = true;
                    adopt(&mut self.kernel);
                }
                _ = metrics.tick(), if run.metrics_file.is_some() => {
                    run.metrics_file.iter().for_each(|path| write_metrics(path, &self.snapshot()));
                }
            }
        }
    }

    /// Reads the counters, and lets the core know what was lost since.
    fn losses(&mut self) {
        if let Err(error) = self.kernel.read_losses(&mut self.ledger) {
            warn!(%error, "the loss counters cannot be read");
        }
        let counts = self.worker.telling.counts.lock().unwrap_or_else(PoisonError::into_inner).counts.clone();
        for event in EVENTS {
            self.ledger.set_lost(event.id, Loss::Queue, self.collector.refused(event.id));
            self.ledger.set_lost(event.id, Loss::Rejected, counts.rejected[event.id as usize]);
        }
        if let Some(served) = &self.served {
            served.set_ledger(&self.ledger);
        }
        // The core rejected those itself and has told them.
        let lost: Vec<Lost> =
            self.ledger.since(&self.told).into_iter().filter(|l| l.cause != Loss::Rejected as u8).collect();
        if lost.is_empty() {
            return;
        }
        self.reseed |= lost.iter().any(|l| by_id(l.event).is_some_and(|d| d.ring == Ring::Critical));
        if lost.iter().any(|l| l.event == net_flow::ID) {
            self.polling.survey();
        }
        debug!(?lost, "records were lost");
        if self.inbox.push(Input::Lost(lost)).is_ok() {
            self.told.clone_from(&self.ledger);
        }
    }

    /// After a loss of records that the core's knowledge rests on, it is told anew who is there; at most once a second.
    fn repair(&mut self) {
        if !self.reseed || self.seeded.elapsed() < LOOK {
            return;
        }
        (self.reseed, self.seeded) = (false, Instant::now());
        match self.kernel.seed() {
            // Without room now, soon again.
            Ok(batch) => self.reseed = self.inbox.push(Input::Seed(batch)).is_err(),
            Err(error) => warn!(%error, "the process tree cannot be repaired"),
        }
    }

    /// Names a rule that has been running since the last look.
    fn stuck(&mut self, watch: &Watch) {
        let running = watch.running();
        if let Some(now) = &running
            && self.running.as_ref() == Some(now)
        {
            error!(rule = %now.rule, "this rule has been busy with one event for a second or more");
        }
        self.running = running;
    }

    /// Takes in the settings of the rules as they are now; the rules themselves follow.
    fn settings(&mut self, run: &Run, changed: &Arc<Notify>) {
        let Some(Reread(reread)) = &run.reread else { return };
        let rules = match reread() {
            Ok(rules) => rules,
            Err(words) => return error!("the settings of the rules stay as they were: {words}"),
        };
        if rules.dirs != self.start.options.rules.dirs
            && let Err(error) = watch::start(&rules.dirs, changed.clone())
        {
            warn!(%error, "rules are not watched: changes need SIGHUP");
        }
        self.start.options.rules = rules;
    }

    /// Loads the rules anew. The kernel sends what the new ones need before the old ones go, and stops sending what only
    /// the old ones needed after: no rule misses anything, and hooks that both need are not touched. One at a time.
    fn reload(&mut self, asked: bool) {
        if self.asked.is_some() {
            self.again = Some(asked || self.again == Some(true));
            return;
        }
        let sources = read_rules(&self.start.options.rules.dirs, &self.start.sources);
        if !asked && sources == self.start.sources {
            return;
        }
        let before = mem::replace(&mut self.start.sources, sources);
        match self.hand_over() {
            Ok(()) => self.asked = Some(Instant::now() + RELOAD),
            Err(words) => {
                error!("the rules are not loaded anew: {words}");
                // The next change, or SIGHUP, tries all of it again.
                self.start.sources = before;
                if let Err(error) = self.kernel.set_demands(&self.demands) {
                    warn!(%error, "filters of rules that were not loaded stay in the kernel");
                }
            }
        }
    }

    /// Has the kernel send what the old rules need and the new ones, and gives the core the new ones.
    fn hand_over(&mut self) -> Result<(), String> {
        let (mut trial, _) = Core::build(&self.start).map_err(|e| e.to_string())?;
        self.served.iter().for_each(|served| trial.offer(served.offered().clone()));
        let both: Vec<Demand> = self.demands.iter().cloned().chain(trial.demands()).collect();
        self.kernel.set_demands(&both).map_err(|e| format!("the kernel refuses their filters: {e}"))?;
        let rules = Rules { config: self.start.options.rules.clone(), sources: self.start.sources.clone() };
        self.inbox.push(Input::Reload(Box::new(rules))).map_err(|_full| "the agent is overloaded".to_owned())
    }

    /// The core has loaded the rules anew.
    fn reloaded(&mut self, done: Reloaded) {
        let Reloaded { report, demands } = done;
        self.asked = None;
        tell(&report);
        if let Err(error) = self.kernel.set_demands(&demands) {
            warn!(%error, "filters of old rules stay in the kernel");
        }
        let poller = self.kernel.poller();
        if self.polling.replace(poller) {
            adopt(&mut self.kernel);
            // What ended while nobody looked.
            self.polling.survey();
        }
        self.demands = demands;
        info!(
            added = ?report.added, changed = ?report.changed, removed = ?report.removed,
            unchanged = report.unchanged.len(), "rules were loaded anew"
        );
        if let Some(asked) = self.again.take() {
            self.reload(asked);
        }
    }

    /// Says that a reload takes long.
    fn unanswered(&mut self) {
        if let Some(until) = &mut self.asked
            && *until < Instant::now()
        {
            error!("the core does not answer: the rules are not loaded anew yet");
            *until += RELOAD;
        }
    }

    fn snapshot(&self) -> metrics::Snapshot {
        let worker = self.worker.telling.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        metrics::Snapshot {
            ledger: self.ledger.clone(),
            worker,
            waiting: self.inbox.len(),
            poll: self.polling.cost(),
            served: self.served.as_ref().map(|s| s.fares()).unwrap_or_default(),
        }
    }

    /// Ends from the left to the right, so that whatever was taken in comes out.
    fn finish(mut self, collector: Collector) -> Result<Summary, Error> {
        // Connections that live are told once more, with what they moved until now.
        let poll = self.polling.stop();
        // Nothing new is sent, of processes and cgroups neither; what is in the rings is drained, and the counters are final.
        if let Err(error) = self.kernel.hush() {
            debug!(%error, "the kernel keeps sending");
        }
        collector.stop();
        self.losses();
        self.kernel.flush_log();
        drop(self.kernel);
        self.inbox.close();
        let totals = self.worker.join().ok_or(Error::Failed)?;
        if let (Some(server), Some(served)) = (self.server, &self.served) {
            server.finish(served);
        }
        let mut ledger = self.ledger;
        for event in EVENTS {
            let rejected = totals.counts.rejected.get(event.id as usize).copied().unwrap_or(0);
            ledger.set_lost(event.id, Loss::Rejected, rejected);
        }
        let served = self.served.map(|s| s.fares()).unwrap_or_default();
        Ok(Summary { totals, poll, ledger, served })
    }
}

/// Where others may watch, if anything is served: what is shown, what the configuration names besides, and connections.
fn serving(config: &Config, start: &Start, context: &Context) -> Result<Option<(Arc<Served>, Listener)>, Error> {
    if !config.serve {
        return Ok(None);
    }
    let flows = [net_flow::DEF.name.to_owned()].into_iter().filter(|_| config.flows);
    let offered: Vec<String> = config.serve_events.iter().cloned().chain(flows).collect();
    let parse = |events: &[String]| Selection::parse(events, &config.scope).map_err(core::Error::from);
    let visible = [parse(&config.events)?, parse(&offered)?];
    let served = Arc::new(Served::new(&config.server, start, context, visible));
    Ok(Some((served, config.server.address.listen()?)))
}

/// Takes in the sockets that are open; without, they have no owner, and are told when they end.
fn adopt(kernel: &mut Kernel) {
    if let Err(error) = kernel.adopt_sockets() {
        warn!(%error, "some connections that were open already have no owner");
    }
}

/// Reads the rules on disk, and says what cannot be read: that stays as it was `before`.
fn read_rules(dirs: &[PathBuf], before: &Sources) -> Sources {
    let (mut sources, errors) = Sources::read(dirs, Bounds::default());
    let kept = sources.keep(before, &errors);
    for error in errors {
        error!("{error}");
    }
    for file in kept {
        warn!(file, "this file stays at work as it was before");
    }
    sources
}

/// Says what came of loading rules.
fn tell(report: &ReloadReport) {
    for error in &report.errors {
        error!("rule not loaded: {error}");
    }
    for warning in &report.warnings {
        warn!("{warning}");
    }
    for name in &report.replaced {
        info!(rule = name, "a rule of yours takes the place of a built-in one");
    }
}

//! Shows each event to the rules that want it, and makes findings of what they say.
//!
//! In order of cost: the kind of the event picks the rules, what a rule declared turns events away, and only then is
//! the rule asked. What it found passes its exceptions and the window of repeats; what remains is put together.
//!
//! Given the same events, sources, settings and ticks, an engine without a clock says the same, byte for byte.

mod config;
mod counters;
mod dedup;
mod finding;
mod health;
mod moment;
mod reload;
mod slot;
mod watch;

use std::array;

use haechi_ebpf::event::MAX_EVENTS;

use crate::demand::Demand;
use crate::flat::Host;
use crate::model::{About, Event, Finding};
use crate::rule::Emit;

pub use config::{Config, ConfigError, Limits, RuleConfig};
pub use counters::{Counters, Notice};
pub(crate) use health::Failure;
pub use reload::ReloadReport;
pub use watch::{Running, Watch};

use counters::Notices;
use dedup::{Dedup, Key, Verdict};
use moment::Moment;
use slot::{Interest, Slot};
pub use slot::{Language, RuleView};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of some steady clock.
pub type Clock = Box<dyn FnMut() -> u64 + Send>;

/// The rules at work.
pub struct Engine {
    config: Config,
    host: Host,
    clock: Option<Clock>,
    slots: Vec<Slot>,
    /// By event: who is interested.
    index: [Interest; MAX_EVENTS],
    dedup: Dedup,
    notices: Notices,
    watch: Watch,
    emit: Emit,
}

impl Engine {
    fn new(config: Config, host: Host) -> Self {
        Self {
            dedup: Dedup::new(config.window_seconds.saturating_mul(SECOND), config.window_entries),
            config,
            host,
            clock: None,
            slots: Vec::new(),
            index: array::from_fn(|_| Interest::default()),
            notices: Notices::default(),
            watch: Watch::default(),
            emit: Emit::default(),
        }
    }

    /// Times rules by `clock` from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// Takes other settings in; they hold from the next reload on, which should follow at once.
    ///
    /// # Errors
    /// They contradict themselves; those that were stay.
    pub fn set_config(&mut self, config: &Config) -> Result<(), ConfigError> {
        config.check()?;
        self.dedup.resize(config.window_seconds.saturating_mul(SECOND), config.window_entries);
        self.config.clone_from(config);
        Ok(())
    }

    /// Shows `event` to the rules; what they find is added to `out`.
    pub fn judge(&mut self, event: &Event<'_>, out: &mut Vec<Finding>) {
        let Some(interest) = self.index.get(usize::from(event.view.event())) else { return };
        if interest.subs.is_empty() {
            return;
        }
        let moment = Moment::new(event, &self.host, interest.need);
        let time = event.view.time();
        for sub in &interest.subs {
            let slot = &mut self.slots[sub.slot];
            slot.counters.seen += 1;
            if !sub.demands.iter().any(|d| moment.meets(d)) || !slot.admits(event) {
                slot.counters.prefiltered += 1;
                continue;
            }
            if slot.health.is_aside(time) {
                slot.counters.aside += 1;
                continue;
            }
            slot.counters.evaluated += 1;
            let started = self.clock.as_mut().map(|clock| clock());
            self.watch.enter(sub.slot);
            let mut result = slot.ask(&moment, &mut self.emit);
            self.watch.leave();
            if let (Some(started), Some(clock)) = (started, self.clock.as_mut()) {
                let ns = clock().saturating_sub(started);
                slot.counters.ns += ns;
                let (ms, limit) = (ns / 1_000_000, self.config.limits.milliseconds);
                if ms >= limit && result.is_ok() {
                    result = Err(Failure::Slow { ms, limit });
                }
            }
            if let Err(why) = result {
                slot.counters.errors += 1;
                slot.health.failed(&slot.name, time, &why, &self.config.limits, &mut self.notices);
            }
            if !self.emit.hits.is_empty() {
                tell(slot, &moment, &mut self.emit, &mut self.dedup, out);
            }
        }
    }

    /// Ends the windows of repeats that are over at `now`, nanoseconds since boot; their summaries are added to `out`.
    pub fn tick(&mut self, now: u64, out: &mut Vec<Finding>) {
        self.dedup.tick(now, out);
    }

    /// Ends all windows, for there will be no more events.
    pub fn finish(&mut self, out: &mut Vec<Finding>) {
        self.dedup.tick(u64::MAX, out);
    }

    /// What the rules want to see.
    #[must_use]
    pub fn demands(&self) -> Vec<Demand> {
        self.slots.iter().flat_map(|s| s.demands.iter().cloned()).collect()
    }

    /// The rules.
    #[must_use]
    pub fn catalogue(&self) -> Vec<&About> {
        self.slots.iter().map(|s| s.about.as_ref()).collect()
    }

    /// The rules, with all that the engine knows of them.
    pub fn rules(&self) -> impl Iterator<Item = RuleView<'_>> {
        self.slots.iter().map(Slot::view)
    }

    /// What each rule did.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &Counters)> {
        self.slots.iter().map(|s| (&*s.name, &s.counters))
    }

    /// Windows of repeats that ended early because there were too many.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.dedup.evicted()
    }

    /// Takes the notices that have come up, and how many more there were than could be kept.
    pub fn take_notices(&mut self) -> (Vec<Notice>, u64) {
        self.notices.take()
    }

    /// A view of which rule is running, for a watchdog in another thread.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Puts a rule aside until event time `until`, as a [`Notice::Aside`] told in the live run that is replayed.
    pub fn put_aside(&mut self, rule: &str, until: u64) {
        for slot in self.slots.iter_mut().filter(|s| &*s.name == rule) {
            slot.health.put_aside(until);
        }
    }
}

/// Tells what a rule found, unless an exception or a repeat forbids it.
fn tell(slot: &mut Slot, moment: &Moment<'_, '_>, emit: &mut Emit, dedup: &mut Dedup, out: &mut Vec<Finding>) {
    slot.counters.dropped += std::mem::take(&mut emit.dropped);
    let excused = || slot.about.excuses.iter().any(|e| e.holds(moment.event));
    if excused() || slot.exceptions.iter().any(|e| e.holds(moment.event)) {
        slot.counters.excepted += emit.hits.len() as u64;
        emit.hits.clear();
        return;
    }
    let view = &moment.event.view;
    for hit in emit.hits.drain(..) {
        let key = Key { rule: slot.name.clone(), process: moment.event.key(), target: hit.target.as_str().into() };
        let build = || finding::assemble(&slot.about, moment.event, moment.json(), hit.clone());
        match dedup.hit(key, view.time(), view.bytes().len(), build, out) {
            Verdict::First => {
                slot.counters.fired += 1;
                out.push(finding::assemble(&slot.about, moment.event, moment.json(), hit));
            }
            Verdict::Repeat => slot.counters.suppressed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Builder;
    use crate::rule::Signature;
    use haechi_ebpf::event::ptrace;
    use haechi_ebpf::wire::View;
    use slot::Kind;
    use std::sync::Arc;

    /// Panics on the first event; finds too much in the others.
    struct Unruly(Arc<About>, bool);

    impl Signature for Unruly {
        fn about(&self) -> &Arc<About> {
            &self.0
        }

        fn demands(&self) -> Vec<Demand> {
            vec![Demand::of(ptrace::ID)]
        }

        fn on_event(&mut self, _: &Event<'_>, emit: &mut Emit) {
            assert!(std::mem::take(&mut self.1), "out of order");
            for i in 0..100 {
                emit.fire(i.to_string(), []);
            }
            self.1 = true;
        }
    }

    fn engine(rule: Unruly) -> Engine {
        let mut engine = Engine::new(Config::default(), Host::default());
        engine.slots = vec![Slot::new("", true, Kind::Rust(Box::new(rule)))];
        engine.index = reload::index(&engine.slots);
        engine
    }

    fn judge(engine: &mut Engine) -> usize {
        let bytes = Builder::new(&ptrace::DEF).finish();
        let mut out = Vec::new();
        engine.judge(&Event::join(View::parse(&bytes).expect("a record"), &()), &mut out);
        out.len()
    }

    #[test]
    fn a_rule_that_panics_has_failed_and_nothing_more() {
        let mut engine = engine(Unruly(finding::tests::about("unruly"), false));
        assert_eq!(judge(&mut engine), 0);
        let error = "it panicked: out of order".to_owned();
        assert_eq!(engine.take_notices().0, [Notice::Failed { rule: "unruly".into(), time: 0, error }]);
        assert_eq!(engine.watch().running(), None);
    }

    #[test]
    fn one_event_makes_only_so_many_findings() {
        let mut engine = engine(Unruly(finding::tests::about("unruly"), true));
        assert_eq!(judge(&mut engine), Emit::MAX);
        assert_eq!(engine.counters().next().map(|(_, c)| c.dropped), Some(84));
    }
}

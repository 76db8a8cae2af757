//! The heart of the agent, as a pure state machine: inputs in, outputs out. No clock, file, environment or network:
//! time, names, look-ups and rules all come as an [`Input`]. A recording of the inputs therefore gives the same outputs
//! again, byte for byte.
//!
//! For each record: check its shape, bring cgroups and process tree up to date, join it to its process, judge it, and
//! copy it out only where somebody asked to see it.

mod held;
mod input;
mod output;
mod sequence;

use haechi_ebpf::event::{
    EVENTS, MAX_EVENTS, by_id, cgroup_attach_task, cgroup_mkdir, cgroup_rmdir, lost_events, net_flow, net_tcp_accept,
};
use haechi_ebpf::loss::Loss;
use haechi_ebpf::wire::{View, at};
use haechi_signatures::demand::Demand;
use haechi_signatures::engine::{Engine, ReloadReport};
use haechi_signatures::model::{Event, Finding, ProcessInfo, ProcessKey, Processes};
use haechi_signatures::path;
use haechi_signatures::record::Builder;

use crate::batch::Batch;
use crate::cgroups::Cgroups;
use crate::filter::{self, Selection};
use crate::flows::{Flows, Places};
use crate::loss::Lost;
use crate::render::Happening;
use crate::tree::{self, Tree};

pub use held::MAX_HELD;
use held::{Held, Wait};
pub use input::{Answer, Exe, Input, Options, Question, Rules, Start};
pub use output::{Counts, Output};
use sequence::Sequences;

/// Nanoseconds for which a removed cgroup stays known.
const CGROUP_GRACE: u64 = 5_000_000_000;

/// Why the core cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A filter means nothing.
    #[error(transparent)]
    Filter(#[from] filter::Error),
    /// The settings of the rules contradict themselves.
    #[error(transparent)]
    Rules(#[from] haechi_signatures::engine::ConfigError),
}

/// The state machine.
pub struct Core {
    selection: Selection,
    offered: Selection,
    engine: Engine,
    tree: Tree,
    cgroups: Cgroups,
    flows: Flows,
    places: Places,
    watch_flows: bool,
    held: Option<Held>,
    sequences: Sequences,
    found: Vec<Finding>,
    rejected: Vec<Lost>,
    now: u64,
    counts: Counts,
}

impl Core {
    /// Builds the core for a run that begins with `start`. Also says which rules were loaded and which were not.
    ///
    /// # Errors
    /// A filter or the settings of the rules mean nothing.
    pub fn build(start: &Start) -> Result<(Self, ReloadReport), Error> {
        let options = &start.options;
        let (engine, report) = options.rules.build(start.host.clone(), &start.sources)?;
        let core = Self {
            selection: Selection::parse(&options.events, &options.scope)?,
            offered: Selection::default(),
            engine,
            tree: Tree::new(tree::Config { limit: options.processes, ..tree::Config::default() }),
            cgroups: Cgroups::default(),
            flows: Flows::new(options.connections, options.flow_names),
            places: Places::default(),
            watch_flows: options.flows,
            held: options.executable_hash.then(Held::default),
            sequences: Sequences::default(),
            found: Vec::new(),
            rejected: Vec::new(),
            now: start.time,
            counts: Counts::default(),
        };
        Ok((core, report))
    }

    /// Lets events out besides, for those who watch from outside. What is shown stays what it is, in a replay too.
    pub fn offer(&mut self, offered: Selection) {
        self.offered = offered;
    }

    /// What the kernel must send: for the events that were asked for, and for the rules. What the tree needs it sends anyway.
    #[must_use]
    pub fn demands(&self) -> Vec<Demand> {
        let rules = self.engine.demands().into_iter().map(|d| self.selection.narrow(d));
        // Who accepted a connection is worth a hook, but not a slower machine: without, it belongs to who listens.
        let accepts = Demand { if_cheap: true, ..Demand::of(net_tcp_accept::ID) };
        let flows = [Demand::of(net_flow::ID), accepts].into_iter().filter(|_| self.watch_flows);
        self.selection.demands().into_iter().chain(self.offered.demands()).chain(rules).chain(flows).collect()
    }

    /// The rules, for what is not the core's business: listing, timing, watching.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        (counts.processes, counts.processes_evicted) = self.tree.counts();
        (counts.cgroups, counts.cgroups_evicted) = self.cgroups.counts();
        (counts.flows, counts.places) = (self.flows.counts(), self.places.counts());
        counts.rules = self.engine.counters().map(|(name, c)| (name.to_owned(), *c)).collect();
        counts
    }

    /// Takes one input in; what comes of it is added to `out`.
    pub fn step(&mut self, input: &Input, out: &mut Vec<Output>) {
        match input {
            Input::Seed(batch) => self.seed(batch, out),
            Input::Cgroups(all) => all.iter().for_each(|(id, path)| self.cgroups.learn(*id, path)),
            Input::Batch(batch) => {
                for record in batch.records() {
                    self.bytes(record, true, out);
                }
                if self.sequences.gap_opened() {
                    out.push(Output::GapSeen);
                }
            }
            Input::Lost(lost) => {
                if lost.iter().any(|l| l.event == net_flow::ID) {
                    self.flows.unsure();
                }
                self.gaps(lost, out);
            }
            Input::Surveyed(begun, ended) => self.flows.survey(*begun, *ended),
            Input::Answer(answer) => {
                if let Some(held) = &mut self.held {
                    held.answer(answer, |finding| out.push(Output::Finding(finding)));
                }
            }
            Input::Reload(rules) => {
                let refused = self.engine.set_config(&rules.config).err();
                let mut report = self.engine.reload(&rules.sources);
                report.warnings.extend(refused.map(|e| format!("the settings of the rules stay as they were: {e}")));
                out.push(Output::Reloaded(Box::new(report)));
            }
            Input::Tick(now) => self.tick(*now, out),
            Input::End => {
                self.tell_rejected(out);
                self.engine.finish(&mut self.found);
                self.tell(out);
                self.release(out);
            }
        }
    }

    fn seed(&mut self, batch: &Batch, out: &mut Vec<Output>) {
        let mut alive = Vec::with_capacity(batch.len());
        let mut begun = None;
        for record in batch.records() {
            if let Ok(view) = View::parse(record) {
                let (pid, start) = view.process();
                alive.push(ProcessKey { pid, start });
                begun = begun.or(Some(view.time()));
            }
            self.bytes(record, false, out);
        }
        if let Some(begun) = begun {
            self.tree.reconcile(&alive, begun);
        }
    }

    fn bytes(&mut self, record: &[u8], sequenced: bool, out: &mut Vec<Output>) {
        match View::parse(record) {
            Ok(view) => {
                if sequenced {
                    self.sequences.see(&view);
                }
                self.counts.delivered[view.event() as usize] += 1;
                self.record(view, out);
            }
            Err(_) => self.reject(record),
        }
    }

    fn record(&mut self, view: View<'_>, out: &mut Vec<Output>) {
        self.now = self.now.max(view.time());
        let amended;
        let view = match view.event() {
            net_flow::ID => {
                amended = self.flows.amend(&view);
                amended.as_deref().and_then(|record| View::parse(record).ok()).unwrap_or(view)
            }
            net_tcp_accept::ID => {
                self.flows.accept(&view);
                view
            }
            _ => view,
        };
        self.learn_cgroup(&view);
        self.tree.apply(&view, &self.cgroups);
        let event = Event::join(view, &self.tree);
        if view.event() == net_flow::ID && !self.flows.see(&view, program(event.exe())) {
            return;
        }
        self.places.learn(&event);
        if !self.selection.in_scope(&event) {
            return;
        }
        self.engine.judge(&event, &mut self.found);
        if self.selection.wants(&event) {
            out.push(Output::Event(Happening::of(&event).at(self.places.of(&event))));
        } else if self.offered.wants(&event) {
            out.push(Output::Offered(Happening::of(&event).at(self.places.of(&event))));
        }
        if !self.found.is_empty() {
            self.tell(out);
        }
    }

    fn learn_cgroup(&mut self, view: &View<'_>) {
        let (id, path, hierarchy) = match view.event() {
            cgroup_mkdir::ID => {
                use cgroup_mkdir::field::{cgroup_id, cgroup_path, hierarchy_id};
                (cgroup_id, cgroup_path, hierarchy_id)
            }
            cgroup_attach_task::ID => {
                use cgroup_attach_task::field::{cgroup_id, cgroup_path, hierarchy_id};
                (cgroup_id, cgroup_path, hierarchy_id)
            }
            cgroup_rmdir::ID => {
                if let Some(id) = view.number(cgroup_rmdir::field::cgroup_id) {
                    self.cgroups.remove(id, view.time());
                }
                return;
            }
            _ => return,
        };
        if view.number(hierarchy).unwrap_or_default() == 0
            && let (Some(id), Some(path)) = (view.number(id), view.text(path))
            && !path.truncated
            && let Ok(path) = std::str::from_utf8(path.bytes)
        {
            self.cgroups.learn(id, path);
        }
    }

    /// Sends on what the rules found; a finding waits a moment where the hash of its program is not known yet.
    fn tell(&mut self, out: &mut Vec<Output>) {
        for finding in self.found.drain(..) {
            self.counts.findings += 1;
            let finding = Box::new(finding);
            let Some(held) = &mut self.held else {
                out.push(Output::Finding(finding));
                continue;
            };
            let about = question(&self.tree, &finding.process);
            match held.take(finding, about) {
                Wait::No(finding) => out.push(Output::Finding(finding)),
                Wait::Yes { question, displaced } => {
                    out.extend(question.map(Output::Question));
                    out.extend(displaced.map(Output::Finding));
                }
            }
        }
    }

    fn tick(&mut self, now: u64, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.tree.advance(now);
        self.cgroups.advance(now.saturating_sub(CGROUP_GRACE));
        self.flows.tick(now);
        self.places.advance(now, &self.tree);
        self.engine.tick(now, &mut self.found);
        self.release(out);
        self.tell(out);
        self.tell_rejected(out);
    }

    fn tell_rejected(&mut self, out: &mut Vec<Output>) {
        let rejected = std::mem::take(&mut self.rejected);
        self.gaps(&rejected, out);
    }

    fn release(&mut self, out: &mut Vec<Output>) {
        if let Some(held) = &mut self.held {
            out.extend(held.release().map(Output::Finding));
        }
    }

    /// Bytes that are no record still count as a loss of the event they claim to be.
    fn reject(&mut self, record: &[u8]) {
        let claimed = record.get(at::EVENT..at::EVENT + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        let event = by_id(claimed).map_or(0, |def| def.id);
        self.counts.rejected[event as usize] += 1;
        let cause = Loss::Rejected as u8;
        match self.rejected.iter_mut().find(|l| l.event == event) {
            Some(lost) => lost.count += 1,
            None => self.rejected.push(Lost { event, cause, count: 1 }),
        }
    }

    /// A gap is an event itself: rules may watch for it, and every sink shows it.
    fn gaps(&mut self, lost: &[Lost], out: &mut Vec<Output>) {
        use lost_events::field;
        for lost in lost {
            let name = by_id(lost.event).map_or("unknown", |def| def.name);
            let reason = Loss::ALL.get(lost.cause as usize).map_or("unknown", |cause| cause.name());
            let record = Builder::new(&lost_events::DEF)
                .time(self.now)
                .text(field::event, name)
                .text(field::reason, reason)
                .number(field::count, lost.count)
                .finish();
            if let Ok(view) = View::parse(&record) {
                let event = Event::join(view, &self.tree);
                self.engine.judge(&event, &mut self.found);
                out.push(Output::Event(Happening::of(&event)));
            }
        }
        self.tell(out);
    }
}

/// A program's name, as metrics show it.
fn program(exe: &str) -> &str {
    let leaf = path::leaf(exe);
    if leaf.is_empty() { "unknown" } else { leaf }
}

/// The question for the hash of a process's program, where the tree knows which file that is.
fn question(tree: &Tree, who: &ProcessInfo) -> Option<Question> {
    let process = tree.get(ProcessKey { pid: who.pid, start: who.start })?;
    let image = process.images.iter().rev().find(|i| *i.exe == *who.exe && i.inode != 0)?;
    Some(Question {
        exe: Exe { dev: image.dev, inode: image.inode, ctime: image.ctime },
        pid: who.pid,
        start: who.start,
        parent: process.parent.pid,
        path: image.exe.clone(),
    })
}

const _: () = assert!(EVENTS.len() <= MAX_EVENTS);

#[cfg(test)]
mod tests;

//! Takes in a user's rules, at the start and whenever they change. What has not changed keeps its state and counts;
//! a broken file does not stop the others, and what it held before stays at work.

use std::collections::BTreeSet;
use std::sync::Arc;

use haechi_ebpf::event::{self, MAX_EVENTS};

use super::Engine;
use super::slot::{Interest, Kind, Slot, Sub};
use crate::path::leaf;
use crate::rego::{self, LoadError, Problem};
use crate::rules;
use crate::sources::{Source, Sources};

/// What a reload did. Names are those of rules.
#[derive(Debug, Default)]
pub struct ReloadReport {
    /// At work now and not before.
    pub added: Vec<String>,
    /// At work before too, in another form.
    pub changed: Vec<String>,
    /// At work as before.
    pub unchanged: Vec<String>,
    /// No longer at work.
    pub removed: Vec<String>,
    /// Built-in rules that gave way to a user's rule of the same name.
    pub replaced: Vec<String>,
    /// Files that could not be loaded.
    pub errors: Vec<LoadError>,
    /// What may not be as it was meant.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Puts the built-in rules (unless they are off) and those in `sources` to work, in place of those that were. Open windows of repeats
    /// stay open.
    pub fn reload(&mut self, sources: &Sources) -> ReloadReport {
        let before = std::mem::take(&mut self.slots);
        let names: BTreeSet<Arc<str>> = before.iter().map(|s| s.name.clone()).collect();
        let mut load = Load {
            before,
            now: Vec::new(),
            kept: BTreeSet::new(),
            report: ReloadReport::default(),
            instructions: self.config.limits.instructions,
        };
        if self.config.builtin {
            load.rust();
            for (file, text) in rules::REGO {
                load.rego(&Source { file: (*file).to_owned(), text: (*text).to_owned() }, &[], true);
            }
        }
        load.users(sources);
        let Load { now, kept, mut report, .. } = load;

        let known: BTreeSet<_> = now.iter().map(|s| s.name.clone()).collect();
        for name in self.config.disabled.iter().chain(self.config.rules.keys()) {
            if !known.contains(name.as_str()) {
                report.warnings.push(format!("the configuration names a rule `{name}`, but there is none"));
            }
        }
        self.slots = now.into_iter().filter(|s| !self.config.disabled.iter().any(|d| **d == *s.name)).collect();
        for slot in &mut self.slots {
            if let Kind::Rego(rule, _) = &mut slot.kind {
                rule.limit(self.config.limits.instructions);
            }
            slot.exceptions = self.config.rules.get(&*slot.name).map(|r| r.all()).unwrap_or_default();
            let list = match (names.contains(&slot.name), kept.contains(&(slot.name.clone(), slot.builtin))) {
                (false, _) => &mut report.added,
                (true, true) => &mut report.unchanged,
                (true, false) => &mut report.changed,
            };
            list.push(slot.name.to_string());
        }
        let gone = names.iter().filter(|n| !self.slots.iter().any(|s| s.name == **n));
        report.removed = gone.map(ToString::to_string).collect();
        self.index = index(&self.slots);
        self.watch.rename(self.slots.iter().map(|s| s.name.clone()).collect());
        report
    }
}

/// A reload under way.
struct Load {
    before: Vec<Slot>,
    now: Vec<Slot>,
    /// Names of those that are as they were, and whether they are built in: a namesake is another rule.
    kept: BTreeSet<(Arc<str>, bool)>,
    report: ReloadReport,
    instructions: usize,
}

impl Load {
    fn rust(&mut self) {
        for make in rules::RUST {
            let new = Slot::new("", true, Kind::Rust(make()));
            let old = self.take(|s| s.name == new.name && matches!(s.kind, Kind::Rust(_)));
            self.now.push(old.unwrap_or(new));
        }
    }

    fn users(&mut self, sources: &Sources) {
        let (mut helpers, mut rules) = (Vec::new(), Vec::new());
        for source in &sources.0 {
            match leaf(&source.file) {
                name if name.ends_with("_test.rego") => {}
                "helpers.rego" => self.report.warnings.push(format!(
                    "{}: left out, because data.tracee.helpers is built in; call a file of your own helpers otherwise",
                    source.file
                )),
                name if name.ends_with("helpers.rego") => match rego::check_helper(source) {
                    Ok(()) => helpers.push(source),
                    Err(error) => self.report.errors.push(error),
                },
                _ => rules.push(source),
            }
        }
        for source in rules {
            self.rego(source, &helpers, false);
        }
    }

    fn rego(&mut self, source: &Source, helpers: &[&Source], builtin: bool) {
        let parts = std::iter::once(source).chain(helpers.iter().copied());
        let made_of: Arc<str> = parts.map(|s| s.text.as_str()).collect::<Vec<_>>().join("\0").into();
        let same = |s: &Slot| s.file == source.file && matches!(&s.kind, Kind::Rego(_, of) if *of == made_of);
        let slot = match self.take(same) {
            Some(slot) => slot,
            None => match rego::Rule::load(source, helpers, self.instructions) {
                Ok(rule) => {
                    let mut slot = Slot::new(&source.file, builtin, Kind::Rego(Box::new(rule), made_of));
                    slot.counters =
                        self.before.iter().find(|s| s.name == slot.name).map(|s| s.counters).unwrap_or_default();
                    slot
                }
                Err(error) => {
                    self.report.errors.push(error);
                    let Some(slot) = self.take(|s| s.file == source.file) else { return };
                    let warning = format!("{}: rule `{}` stays at work as it was before", source.file, slot.name);
                    self.report.warnings.push(warning);
                    slot
                }
            },
        };
        self.warn(&slot);
        self.place(slot);
    }

    /// Finds a place for a rule: a user's one takes that of a built-in one of the same name, but nobody else's.
    fn place(&mut self, slot: Slot) {
        match self.now.iter_mut().find(|s| s.name == slot.name) {
            None => self.now.push(slot),
            Some(old) if old.builtin && !slot.builtin => {
                self.report.replaced.push(slot.name.to_string());
                *old = slot;
            }
            Some(old) => {
                let problem = Problem::Taken { name: slot.name.to_string(), by: old.file.clone() };
                self.report.errors.push(LoadError { file: slot.file, line: None, problem });
            }
        }
    }

    fn warn(&mut self, slot: &Slot) {
        let Kind::Rego(rule, _) = &slot.kind else { return };
        for name in rule.unknown() {
            let note = if slot.demands.is_empty() { ", so the rule can never fire" } else { "" };
            let file = &slot.file;
            self.report.warnings.push(format!("{file}: this version knows no event or system call `{name}`{note}"));
        }
    }

    /// Takes the rule that `is` the one out of those that were, as one that is kept.
    fn take(&mut self, is: impl Fn(&Slot) -> bool) -> Option<Slot> {
        let slot = self.before.iter().position(is).map(|i| self.before.remove(i))?;
        self.kept.insert((slot.name.clone(), slot.builtin));
        Some(slot)
    }
}

/// Who is interested in what.
pub(super) fn index(slots: &[Slot]) -> [Interest; MAX_EVENTS] {
    std::array::from_fn(|id| {
        let mut interest = Interest::default();
        let Some(def) = event::by_id(id as u16) else { return interest };
        for (slot, rule) in slots.iter().enumerate() {
            let demands: Vec<_> = rule.demands.iter().filter(|d| d.event == def.id).cloned().collect();
            if !demands.is_empty() {
                interest.need = interest.need.and(rule.need(def));
                interest.subs.push(Sub { slot, demands });
            }
        }
        interest
    })
}

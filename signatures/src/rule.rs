//! What a rule written in Rust is. It sees events and says what it found; the engine does everything else: filters,
//! exceptions, de-duplication, who did it.
//!
//! A rule must be a function of the events it has seen: no clock (events carry their time), no randomness, no I/O.
//! Whatever it remembers must have a limit.

use std::sync::Arc;

use serde_json::Value;

use crate::demand::Demand;
use crate::exceptions::Excuse;
use crate::model::{About, Event, Mitre, Severity};

/// How far apart two events may be and still meet in the state of a rule. Detection can run in shards that keep such
/// events together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Events of one process; a rule without state belongs here.
    Process,
    /// Events of a process and its descendants.
    Tree,
    /// Events of one cgroup.
    Cgroup,
    /// All events.
    Node,
}

/// A rule.
pub trait Signature: Send {
    /// What it is, for people.
    fn about(&self) -> &Arc<About>;

    /// Which events it wants to see; nothing else reaches it.
    fn demands(&self) -> Vec<Demand>;

    /// The scope of its state.
    fn scope(&self) -> Scope {
        Scope::Process
    }

    /// Looks at one event.
    fn on_event(&mut self, event: &Event<'_>, emit: &mut Emit);
}

/// Something a rule found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// What was touched, in one word or path.
    pub target: String,
    /// Facts that made the rule fire, in order.
    pub evidence: Vec<(String, Value)>,
    /// The technique, where it is not the rule's own.
    pub mitre: Option<Mitre>,
}

/// Takes what a rule found in one event.
#[derive(Debug, Default)]
pub struct Emit {
    pub(crate) hits: Vec<Hit>,
    pub(crate) dropped: u64,
}

impl Emit {
    /// Findings that one rule may make of one event; more are dropped and counted.
    pub const MAX: usize = 16;

    /// Reports a finding about `target`.
    pub fn fire<const N: usize>(&mut self, target: impl Into<String>, evidence: [(&str, Value); N]) {
        self.hit(Hit {
            target: target.into(),
            evidence: evidence.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            mitre: None,
        });
    }

    /// The same for a technique that is not the rule's own: tactic, id, name.
    pub fn fire_as<const N: usize>(
        &mut self,
        (tactic, id, technique): (&str, &str, &str),
        target: impl Into<String>,
        evidence: [(&str, Value); N],
    ) {
        self.hit(Hit {
            target: target.into(),
            evidence: evidence.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            mitre: Some(Mitre { tactic: tactic.to_owned(), id: id.to_owned(), technique: technique.to_owned() }),
        });
    }

    pub(crate) fn hit(&mut self, hit: Hit) {
        if self.hits.len() < Self::MAX {
            self.hits.push(hit);
        } else {
            self.dropped += 1;
        }
    }
}

/// What a rule is, as a constant.
#[derive(Clone, Copy, Debug)]
pub struct AboutDef {
    /// See [`About`].
    pub id: &'static str,
    /// See [`About`].
    pub name: &'static str,
    /// See [`About`].
    pub version: &'static str,
    /// See [`About`].
    pub title: &'static str,
    /// See [`About`].
    pub description: &'static str,
    /// See [`About`].
    pub remedy: &'static str,
    /// See [`About`].
    pub severity: Severity,
    /// Tactic, technique id, technique.
    pub mitre: (&'static str, &'static str, &'static str),
    /// See [`About`].
    pub tags: &'static [&'static str],
    /// See [`About`].
    pub excuses: &'static [ExcuseDef],
}

/// Who a rule leaves alone by itself, as a constant; see [`Excuse`].
#[derive(Clone, Copy, Debug)]
pub struct ExcuseDef {
    /// See [`Excuse`].
    pub exes: &'static [&'static str],
    /// See [`Excuse`].
    pub below: &'static [&'static str],
    /// See [`Excuse`].
    pub paths: &'static [&'static str],
    /// See [`Excuse`].
    pub why: &'static str,
}

impl ExcuseDef {
    /// These programs.
    #[must_use]
    pub const fn of(exes: &'static [&'static str], why: &'static str) -> Self {
        Self { exes, below: &[], paths: &[], why }
    }

    /// These programs and whatever runs below them.
    #[must_use]
    pub const fn below(below: &'static [&'static str], why: &'static str) -> Self {
        Self { exes: &[], below, paths: &[], why }
    }

    fn excuse(&self) -> Excuse {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let Self { exes, below, paths, why } = *self;
        Excuse { exes: own(exes), below: own(below), paths: own(paths), why: why.to_owned() }
    }
}

impl AboutDef {
    /// As the model holds it.
    #[must_use]
    pub fn about(&self) -> Arc<About> {
        let (tactic, id, technique) = self.mitre;
        Arc::new(About {
            id: self.id.to_owned(),
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            title: self.title.to_owned(),
            description: self.description.to_owned(),
            remedy: self.remedy.to_owned(),
            severity: self.severity,
            mitre: Mitre { tactic: tactic.to_owned(), id: id.to_owned(), technique: technique.to_owned() },
            tags: self.tags.iter().map(|t| (*t).to_owned()).collect(),
            excuses: self.excuses.iter().map(ExcuseDef::excuse).collect(),
        })
    }
}

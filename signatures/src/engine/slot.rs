//! A rule at its place in the engine, in whatever language it is written, and who is interested in an event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use haechi_ebpf::event::{EventDef, Field, FieldType};

use super::counters::Counters;
use super::health::{Failure, Health};
use super::moment::Moment;
use crate::demand::Demand;
use crate::exceptions::Exception;
use crate::flat::Need;
use crate::model::{About, Event};
use crate::path;
use crate::rego;
use crate::rule::{Emit, Scope, Signature};
use crate::sockaddr::SockAddr;

/// What a rule is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Rust.
    Rust,
    /// Rego.
    Rego,
}

/// A rule, for people.
#[derive(Clone, Copy, Debug)]
pub struct RuleView<'a> {
    /// What it is.
    pub about: &'a About,
    /// What it is written in.
    pub language: Language,
    /// Whether it came with Haechi.
    pub builtin: bool,
    /// The file it is in; empty for one in Rust.
    pub file: &'a str,
    /// The scope of its state.
    pub scope: Scope,
    /// What it wants to see.
    pub demands: &'a [Demand],
    /// What it did.
    pub counters: &'a Counters,
}

/// Who is interested in events of one kind.
#[derive(Default)]
pub(super) struct Interest {
    pub(super) subs: Vec<Sub>,
    /// What any of them reads of the flat form.
    pub(super) need: Need,
}

/// The interest of one rule in events of one kind.
pub(super) struct Sub {
    /// Its position.
    pub(super) slot: usize,
    /// Any one of these must be met.
    pub(super) demands: Vec<Demand>,
}

pub(super) enum Kind {
    Rust(Box<dyn Signature>),
    /// With what it was made of, by which a reload knows it again.
    Rego(Box<rego::Rule>, Arc<str>),
}

pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) about: Arc<About>,
    /// The file it is in; empty for one written in Rust.
    pub(super) file: String,
    /// Whether it came with Haechi.
    pub(super) builtin: bool,
    pub(super) kind: Kind,
    pub(super) demands: Vec<Demand>,
    pub(super) exceptions: Vec<Exception>,
    pub(super) counters: Counters,
    pub(super) health: Health,
}

impl Slot {
    pub(super) fn new(file: &str, builtin: bool, kind: Kind) -> Self {
        let (about, demands) = match &kind {
            Kind::Rust(rule) => (rule.about().clone(), rule.demands()),
            Kind::Rego(rule, _) => (rule.about().clone(), rule.demands().to_vec()),
        };
        Self {
            name: about.name.as_str().into(),
            about,
            file: file.to_owned(),
            builtin,
            kind,
            demands,
            exceptions: Vec::new(),
            counters: Counters::default(),
            health: Health::default(),
        }
    }

    pub(super) fn view(&self) -> RuleView<'_> {
        let (language, scope) = match &self.kind {
            Kind::Rust(rule) => (Language::Rust, rule.scope()),
            Kind::Rego(..) => (Language::Rego, Scope::Process),
        };
        let Self { about, builtin, file, demands, counters, .. } = self;
        RuleView { about, language, builtin: *builtin, file, scope, demands, counters }
    }

    /// What it reads of the flat form of such events.
    pub(super) fn need(&self, def: &EventDef) -> Need {
        match &self.kind {
            Kind::Rust(_) => Need::default(),
            Kind::Rego(rule, _) => rule.need(def),
        }
    }

    /// What a demand cannot say of what it wants.
    pub(super) fn admits(&self, event: &Event<'_>) -> bool {
        match &self.kind {
            Kind::Rust(_) => true,
            Kind::Rego(rule, _) => rule.wants(event),
        }
    }

    /// Shows it the event. A rule that panics has failed like any other.
    pub(super) fn ask(&mut self, moment: &Moment<'_, '_>, emit: &mut Emit) -> Result<(), Failure> {
        let kind = &mut self.kind;
        let asked = catch_unwind(AssertUnwindSafe(|| match kind {
            Kind::Rust(rule) => {
                rule.on_event(moment.event, emit);
                Ok(())
            }
            Kind::Rego(rule, _) => rule.run(moment.input(), || target(moment.event), emit).map_err(Failure::from),
        }));
        asked.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Failure::Panic(said.unwrap_or_else(|| "without a word".to_owned())))
        })
    }
}

/// What an event is about, for a rule that does not say: its path, its address, the process it was done to, its first
/// text, else its name.
fn target(event: &Event<'_>) -> String {
    if let Some(place) = path::of(event) {
        return place.path.into_owned();
    }
    let def = event.def();
    let text = |ty| {
        let mut fields = def.fields.iter().enumerate().filter(move |(_, f)| f.ty == ty);
        fields.find_map(|(i, _)| event.text(Field(i as u8)))
    };
    let addr = || text(FieldType::SockAddr).and_then(|t| SockAddr::parse(t.bytes)).map(|a| a.to_string());
    let pid = || {
        let pid = event.number(Field(def.field("pid")? as u8))?;
        Some(format!("pid {}", pid as i32))
    };
    let word = || text(FieldType::Str).map(|t| String::from_utf8_lossy(t.bytes).into_owned());
    let ip = || text(FieldType::Ip).map(|t| crate::sockaddr::ip_text(t.bytes));
    addr().or_else(ip).or_else(pid).or_else(word).unwrap_or_else(|| event.name().to_owned())
}

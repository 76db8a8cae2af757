//! Signatures in Rego, by the contract that Tracee's had: a file says what it is (`__rego_metadoc__`), which events it
//! wants (`tracee_selected_events`), and whether one is what it looks for (`tracee_match`).
//!
//! Two things are ours, among the properties. `"haechi_paths": {"leaves": [..], "prefixes": [..], "suffixes": [..]}` names
//! the only paths the signature looks at: what is elsewhere never leaves the kernel for its sake. `"haechi_excuses":
//! [{"exes": [..], "below": [..], "paths": [..], "why": ".."}]` says who is left alone.
//!
//! They run in the Rego machine with a limit of instructions and of what a value may become, and with no clock, network or chance.

mod bounds;
mod check;
mod compile;
mod error;
mod input;
mod meta;
mod necessary;
mod needs;
mod select;
mod tokens;

use std::sync::Arc;

use haechi_ebpf::event::EventDef;
use regorus::Value;
use regorus::rvm::RegoVM;
use regorus::rvm::vm::VmError;

use crate::demand::Demand;
use crate::flat::Need;
use crate::model::{About, Event};
use crate::rule::{Emit, Hit};
use crate::sources::Source;

pub use error::{LoadError, Problem, RunError};
pub(crate) use input::input;

const METADOC: &str = "__rego_metadoc__";
const MATCH: &str = "tracee_match";

/// A loaded signature.
pub(crate) struct Rule {
    about: Arc<About>,
    demands: Vec<Demand>,
    selectors: Vec<select::Selector>,
    necessary: necessary::Necessary,
    reads: needs::Reads,
    machines: Vec<RegoVM>,
    unknown: Vec<String>,
}

/// Whether `source` can be a helper module.
pub(crate) fn check_helper(source: &Source) -> Result<(), LoadError> {
    check::check(source)?;
    compile::check_helper(source)
}

impl Rule {
    /// Loads `source` together with `helpers`.
    pub(crate) fn load(source: &Source, helpers: &[&Source], instructions: usize) -> Result<Self, LoadError> {
        check::check(source)?;
        let compiled = compile::compile(source, helpers, instructions)?;
        let wrong = |rule, why| LoadError {
            file: source.file.clone(),
            line: compile::line_of(&source.text, rule),
            problem: Problem::Value { rule, why },
        };
        let json = |value: &Value, rule| serde_json::to_value(value).map_err(|e| wrong(rule, e.to_string()));
        let meta = meta::read(&json(&compiled.metadoc, METADOC)?).map_err(|why| wrong(METADOC, why))?;
        let selected = json(&compiled.selected, select::SELECTED)?;
        let (selectors, unknown) = select::read(&selected).map_err(|why| wrong(select::SELECTED, why))?;
        let reads = helpers.iter().map(|h| needs::Reads::of(&h.text));
        Ok(Self {
            about: meta.about,
            demands: select::demands(&selectors, &meta.paths, &compiled.necessary),
            selectors,
            necessary: compiled.necessary,
            reads: reads.fold(needs::Reads::of(&source.text), needs::Reads::and),
            machines: compiled.matchers.iter().map(|p| compile::machine(p, instructions)).collect(),
            unknown,
        })
    }

    pub(crate) fn about(&self) -> &Arc<About> {
        &self.about
    }

    pub(crate) fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// Events it wants that this version does not know.
    pub(crate) fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// What it reads of events of this kind.
    pub(crate) fn need(&self, def: &EventDef) -> Need {
        self.reads.need(def)
    }

    /// Whether it wants `event`, whose kind is the right one: origins decide, and what its text needs.
    pub(crate) fn wants(&self, event: &Event<'_>) -> bool {
        self.selectors.iter().any(|s| s.wants(event)) && self.necessary.holds(event)
    }

    /// Instructions that it may take for one event.
    pub(crate) fn limit(&mut self, instructions: usize) {
        self.machines.iter_mut().for_each(|machine| machine.set_max_instructions(instructions));
    }

    /// Looks at an event; `target` says what it is about.
    pub(crate) fn run(
        &mut self,
        input: &Value,
        target: impl FnOnce() -> String,
        emit: &mut Emit,
    ) -> Result<(), RunError> {
        let mut found: Option<Value> = None;
        for machine in &mut self.machines {
            machine.set_input(input.clone());
            let value = machine.execute().map_err(|e| match e {
                VmError::InstructionLimitExceeded { limit, .. } => RunError::Instructions(limit),
                VmError::MemoryLimitExceeded { limit, .. } => RunError::Memory(limit),
                other => RunError::Machine(other.to_string()),
            })?;
            if !bounds::fits(&value) {
                return Err(RunError::Memory(bounds::LARGEST));
            }
            // Anything but `true` and an object is no match, as it always was.
            if !matches!(value, Value::Bool(true) | Value::Object(_)) {
                continue;
            }
            match &found {
                Some(before) if *before != value => return Err(RunError::Conflict),
                _ => found = Some(value),
            }
        }
        if let Some(value) = found {
            emit.hit(Hit { target: target(), evidence: evidence(&value), mitre: None });
        }
        Ok(())
    }
}

/// The members of the object that a match is; a bare `true` has none.
fn evidence(value: &Value) -> Vec<(String, serde_json::Value)> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(members)) => members.into_iter().collect(),
        _ => Vec::new(),
    }
}

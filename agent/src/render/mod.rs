//! Turns outputs of the core into lines: for machines ([`json`]) and for people ([`pretty`]). Knows no queue and no
//! file; a line depends on nothing but the output and [`Context`], so that a replay gives the same bytes anywhere.

mod datum;
mod ids;
pub mod json;
mod line;
pub mod pretty;

use std::sync::Arc;

use haechi_ebpf::wire::View;
use haechi_signatures::flat::Host;
use haechi_signatures::model::{Container, Event, Finding, Image};

use crate::flows::Place;

pub use ids::{event_id, finding_id};

/// What all lines of a run have in common.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The node.
    pub host: Host,
    /// Variables of a new program's environment that are shown.
    pub env: Vec<String>,
    /// Spell flags and the like instead of giving their numbers.
    pub decoded: bool,
    /// Colour for a terminal.
    pub colour: bool,
}

/// An event on its way to a sink: what of it outlives its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    record: Box<[u8]>,
    /// Name as users know it.
    pub name: &'static str,
    /// Which program did it.
    pub image: Option<Arc<Image>>,
    /// Number of its process in its own pid namespace, for records that a process did not make itself.
    pub ns_pid: u32,
    /// Where.
    pub container: Option<Arc<Container>>,
    /// For a connection: its network namespace, and the other end.
    pub place: Option<Box<Place>>,
}

impl Happening {
    /// Copies out of the batch what a sink needs.
    #[must_use]
    pub fn of(event: &Event<'_>) -> Self {
        let process = event.process;
        Self {
            record: event.view.bytes().into(),
            name: event.name(),
            image: process.and_then(|p| p.image(event.view.header_u32(haechi_ebpf::wire::at::EXEC_ID))).cloned(),
            ns_pid: process.map_or(0, |p| p.ns_pid),
            container: process.and_then(|p| p.container.clone()),
            place: None,
        }
    }

    /// The same at this place.
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Self {
        Self { place: place.map(Box::new), ..self }
    }

    /// The record; it was checked before it got here.
    #[must_use]
    pub fn view(&self) -> Option<View<'_>> {
        View::parse(&self.record).ok()
    }
}

/// Something to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An event that was asked for, or a gap in the stream.
    Event(Happening),
    /// What a rule found.
    Finding(Box<Finding>),
}

impl Item {
    /// Name of the event or of the rule.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Event(happening) => happening.name,
            Self::Finding(finding) => &finding.about.name,
        }
    }
}

#[cfg(test)]
pub(crate) use tests::finding as example;

#[cfg(test)]
mod tests;

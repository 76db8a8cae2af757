//! Turns outputs of the core into lines: for machines ([`json`]) and for people ([`pretty`]). Knows no queue and no
//! file; a line depends on nothing but the output and [`Context`], so that a replay gives the same bytes anywhere.

mod datum;
mod ids;
pub mod json;
mod line;
pub mod pretty;

use std::sync::Arc;

use haechi_ebpf::event::lost_events;
use haechi_ebpf::wire::View;
use haechi_signatures::flat::Host;
use haechi_signatures::model::{Container, Event, Finding, Image};
use haechi_signatures::record::Builder;

use crate::flows::Place;

pub(crate) use datum::shown;
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

/// A program by its names alone: what waits somewhere must not keep the rest, which has no small bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Path of the executable; empty when it could not be had.
    pub exe: Arc<str>,
    /// Name of the task after the exec.
    pub comm: Arc<str>,
}

/// An event on its way to a sink: what of it outlives its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    record: Box<[u8]>,
    /// Name as users know it.
    pub name: &'static str,
    /// Which program did it.
    pub image: Option<Program>,
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
            image: event.image.map(|i| Program { exe: i.exe.clone(), comm: i.comm.clone() }),
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

    /// Path of its program, or its name, or nothing.
    #[must_use]
    pub fn program(&self) -> &str {
        self.image.as_ref().map_or("", |i| if i.exe.is_empty() { &i.comm } else { &i.exe })
    }

    /// Ids of the containers that it happened in: the process's, and that of its network namespace.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        let network = self.place.as_deref().and_then(|p| p.tenant.as_ref()?.container());
        self.container.as_deref().into_iter().chain(network).map(|c| c.id.as_str())
    }

    /// Bytes that it holds besides its own; what it shares counts in full where it has no small bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let place = self.place.as_deref().map_or(0, |place| {
            let peer = place.peer.as_ref().and_then(|name| name.process.as_ref()?.image.as_deref());
            let texts =
                |image: &Image| image.exe.len() + image.cwd.len() + image.argv.iter().map(String::len).sum::<usize>();
            size_of_val(place) + peer.map_or(0, texts)
        });
        self.record.len() + self.image.as_ref().map_or(0, |i| i.exe.len() + i.comm.len()) + place
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
    /// The word of a gap: so many of `event` are missing here, and why.
    #[must_use]
    pub fn gap(event: &str, reason: &str, count: u64, time: u64) -> Option<Self> {
        let record = Builder::new(&lost_events::DEF)
            .time(time)
            .text(lost_events::field::event, event)
            .text(lost_events::field::reason, reason)
            .number(lost_events::field::count, count)
            .finish();
        Some(Self::Event(Happening::of(&Event::join(View::parse(&record).ok()?, &()))))
    }

    /// When it happened, nanoseconds since boot.
    #[must_use]
    pub fn time(&self) -> u64 {
        match self {
            Self::Event(happening) => happening.view().map_or(0, |v| v.time()),
            Self::Finding(finding) => finding.time,
        }
    }

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

//! Everything that can come out of the core.

use haechi_ebpf::event::MAX_EVENTS;
use haechi_signatures::engine::{Counters, ReloadReport};
use haechi_signatures::model::Finding;
use serde::Serialize;

use super::Question;
use crate::flows;
use crate::render::Happening;

/// One thing that came out.
#[derive(Debug)]
pub enum Output {
    /// An event that somebody asked for, or a gap in the stream.
    Event(Happening),
    /// An event that only those see who watch from outside.
    Offered(Happening),
    /// A rule found something.
    Finding(Box<Finding>),
    /// The hash of a program is wanted; an [`super::Answer`] must follow, if only an empty one.
    Question(Question),
    /// Sequence numbers show that records were lost: it is time to read the counters.
    GapSeen,
    /// Rules were loaded anew.
    Reloaded(Box<ReloadReport>),
}

/// What the core counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// Records taken in, by event.
    pub delivered: Vec<u64>,
    /// Bytes that were no record, by the event they claimed to be; 0 is none that exists.
    pub rejected: Vec<u64>,
    /// Findings told.
    pub findings: u64,
    /// Processes known.
    pub processes: usize,
    /// Processes forgotten early for want of room.
    pub processes_evicted: u64,
    /// Cgroups known.
    pub cgroups: usize,
    /// Cgroups forgotten early for want of room.
    pub cgroups_evicted: u64,
    /// Connections.
    pub flows: flows::Counts,
    /// Where connections are.
    pub places: flows::PlaceCounts,
    /// What each rule did.
    pub rules: Vec<(String, Counters)>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            delivered: vec![0; MAX_EVENTS],
            rejected: vec![0; MAX_EVENTS],
            findings: 0,
            processes: 0,
            processes_evicted: 0,
            cgroups: 0,
            cgroups_evicted: 0,
            flows: flows::Counts::default(),
            places: flows::PlaceCounts::default(),
            rules: Vec::new(),
        }
    }
}

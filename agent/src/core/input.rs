//! Everything that the core can be told. What is not here, it cannot know.

use std::sync::Arc;

use haechi_signatures::engine;
use haechi_signatures::flat::Host;
use haechi_signatures::sources::Sources;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::loss::Lost;

/// The beginning of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The node: name and time of boot.
    pub host: Host,
    /// When the run began, nanoseconds since boot.
    pub time: u64,
    /// Settings that decide what comes out.
    pub options: Options,
    /// Rules besides the built-in ones.
    pub sources: Sources,
}

/// Settings that decide what comes out of the core.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// What was given to `--events`.
    pub events: Vec<String>,
    /// What was given to `--scope`.
    pub scope: Vec<String>,
    /// Whether findings carry the hash of the program.
    pub executable_hash: bool,
    /// Processes known at a time.
    pub processes: usize,
    /// Whether connections are watched.
    pub flows: bool,
    /// Connections known at a time.
    pub connections: usize,
    /// Programs that metrics of connections know by name.
    pub flow_names: usize,
    /// Settings of the rules.
    pub rules: engine::Config,
    /// Variables of the environment that are shown.
    pub env: Vec<String>,
    /// Spell flags instead of giving their numbers.
    pub decoded: bool,
}

/// One thing that the core is told.
#[derive(Debug)]
pub enum Input {
    /// Every process there is, as `existing_process` records.
    Seed(Batch),
    /// Cgroups that exist: id and path.
    Cgroups(Vec<(u64, String)>),
    /// Records from the kernel, in order of time.
    Batch(Batch),
    /// What was lost since the last time.
    Lost(Vec<Lost>),
    /// The answer to a question.
    Answer(Answer),
    /// Other rules from now on, or other settings of theirs.
    Reload(Box<Rules>),
    /// Every connection that lives was told of between these two times, in nanoseconds since boot.
    Surveyed(u64, u64),
    /// It is this many nanoseconds since boot, and all records from before have been handed over.
    Tick(u64),
    /// There will be nothing more.
    End,
}

/// Rules and their settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Settings.
    pub config: engine::Config,
    /// Rules besides the built-in ones.
    pub sources: Sources,
}

/// An executable file as the kernel knows it; a change makes it another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exe {
    /// Device, as the kernel numbers it.
    pub dev: u32,
    /// Inode.
    pub inode: u64,
    /// Change time of the inode, nanoseconds since the epoch; 0 is unknown.
    pub ctime: u64,
}

/// The core wants to know the hash of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which program.
    pub exe: Exe,
    /// A process that runs it: its number and start.
    pub pid: u32,
    /// Start of the process, nanoseconds since boot.
    pub start: u64,
    /// Its parent, through whose root the program may still be found when the process is gone; 0 is unknown.
    pub parent: u32,
    /// The program's path; empty is unknown.
    pub path: Arc<str>,
}

/// An answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which program.
    pub exe: Exe,
    /// Its SHA-256 in hex; `None` where it could not be read.
    pub sha256: Option<String>,
}

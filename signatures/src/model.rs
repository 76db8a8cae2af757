//! The one model of what happened and what was found: events with their process, findings with their evidence.
//!
//! An [`Event`] borrows: the record lies in the batch it came in, the process in the agent's process tree. Whatever is
//! kept (a [`Finding`]) copies out. This module knows no engine and no sink.

use std::fmt;
use std::sync::Arc;

use haechi_ebpf::event::{EventDef, Field, security_file_open};
use haechi_ebpf::filter::WRITE_FLAGS;
use haechi_ebpf::wire::{Text, View, at};
use serde::{Deserialize, Serialize};

use crate::exceptions::Excuse;

/// A process for ever: its number in the host's numbering and when it started, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Number in the host's numbering.
    pub pid: u32,
    /// Start, nanoseconds since boot.
    pub start: u64,
}

/// A container, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Full id given by its runtime.
    pub id: String,
    /// Runtime, by the form of its cgroup path.
    pub runtime: &'static str,
    /// Pod uid, by the form of its cgroup path.
    pub pod_uid: Option<String>,
}

impl Container {
    /// The beginning of its id, as runtimes show it.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// One program of a process: what an exec, or the fork before it, made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `task_struct.self_exec_id`.
    pub exec_id: u32,
    /// Resolved path of the executable; empty when it could not be had.
    pub exe: Arc<str>,
    /// Arguments.
    pub argv: Arc<[String]>,
    /// Working directory at the exec.
    pub cwd: Arc<str>,
    /// Name of the task after the exec.
    pub comm: Arc<str>,
    /// Device of the executable, as the kernel numbers it.
    pub dev: u32,
    /// Inode of the executable.
    pub inode: u64,
    /// Change time of that inode, nanoseconds since the epoch.
    pub ctime: u64,
    /// Login user (audit); `u32::MAX` is nobody.
    pub login_uid: u32,
    /// Audit session; `u32::MAX` is none.
    pub session: u32,
    /// Controlling terminal; empty for none.
    pub tty: Arc<str>,
    /// Effective user.
    pub euid: u32,
    /// Effective capabilities.
    pub cap_effective: u64,
    /// Nanoseconds since boot at which this program began.
    pub since: u64,
}

/// A process of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub key: ProcessKey,
    /// Its parent when it was made; pid 0 is unknown.
    pub parent: ProcessKey,
    /// Its number in its innermost pid namespace.
    pub ns_pid: u32,
    /// Real user, as last seen.
    pub uid: u32,
    /// The container it runs in.
    pub container: Option<Arc<Container>>,
    /// Its programs, oldest first; never empty.
    pub images: Vec<Arc<Image>>,
    /// When it ended, nanoseconds since boot.
    pub ended: Option<u64>,
}

impl Process {
    /// The program with this exec id. Where it is not known, no other one is blamed in its place.
    #[must_use]
    pub fn image(&self, exec_id: u32) -> Option<&Arc<Image>> {
        self.images.iter().rev().find(|i| i.exec_id == exec_id)
    }
}

/// Looks processes up by name; the agent's process tree is one.
pub trait Processes {
    /// The process called `key`.
    fn get(&self, key: ProcessKey) -> Option<&Process>;
}

/// No processes are known.
impl Processes for () {
    fn get(&self, _: ProcessKey) -> Option<&Process> {
        None
    }
}

/// Something that happened, with the process that did it.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The record.
    pub view: View<'a>,
    /// Who did it, where the tree knows.
    pub process: Option<&'a Process>,
    /// Which program of that process did it.
    pub image: Option<&'a Image>,
    /// Everybody else.
    pub processes: &'a dyn Processes,
}

impl<'a> Event<'a> {
    /// Joins a record to its process.
    #[must_use]
    pub fn join(view: View<'a>, processes: &'a dyn Processes) -> Self {
        let (pid, start) = view.process();
        let process = processes.get(ProcessKey { pid, start });
        let image = process.and_then(|p| p.image(view.header_u32(at::EXEC_ID))).map(Arc::as_ref);
        Self { view, process, image, processes }
    }

    /// Its definition.
    #[must_use]
    pub const fn def(&self) -> &'static EventDef {
        self.view.def()
    }

    /// Name as users know it; a system call asked for by name has its own.
    #[must_use]
    pub fn name(&self) -> &'static str {
        crate::name::event_name(&self.view)
    }

    /// Name of its process.
    #[must_use]
    pub fn key(&self) -> ProcessKey {
        let (pid, start) = self.view.process();
        ProcessKey { pid, start }
    }

    /// The number in a fixed field.
    #[must_use]
    pub fn number(&self, field: Field) -> Option<u64> {
        self.view.number(field)
    }

    /// The text in a variable field.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<Text<'a>> {
        self.view.text(field)
    }

    /// The text in a variable field as UTF-8; a field that is not valid UTF-8 is not matched by text.
    #[must_use]
    pub fn str(&self, field: Field) -> Option<&'a str> {
        std::str::from_utf8(self.view.text(field)?.bytes).ok()
    }

    /// Path of the program that did it; empty when unknown.
    #[must_use]
    pub fn exe(&self) -> &'a str {
        self.image.map_or("", |i| &i.exe)
    }

    /// Whether it opens a file in a way that lets it be changed; an open whose flags are unknown may.
    #[must_use]
    pub fn can_write(&self) -> bool {
        use security_file_open::{ID, field::flags};
        self.view.event() == ID && self.number(flags).is_none_or(|f| f as u32 & WRITE_FLAGS != 0)
    }

    /// Whether it opens a file in a way that lets it be read; an open whose flags are unknown may.
    #[must_use]
    pub fn can_read(&self) -> bool {
        use security_file_open::{ID, field::flags};
        const O_ACCMODE: u64 = 3;
        const O_WRONLY: u64 = 1;
        self.view.event() == ID && self.number(flags).is_none_or(|f| f & O_ACCMODE != O_WRONLY)
    }

    /// Whether what it opens holds anything: neither a directory, nor a mere place (`O_PATH`).
    #[must_use]
    pub fn opens_content(&self) -> bool {
        use security_file_open::field::{flags, inode_mode};
        const O_PATH: u64 = 0o10_000_000;
        const S_IFMT: u64 = 0o170_000;
        const S_IFDIR: u64 = 0o040_000;
        self.number(flags).is_none_or(|f| f & O_PATH == 0)
            && self.number(inode_mode).is_none_or(|m| m & S_IFMT != S_IFDIR)
    }

    /// The container it happened in.
    #[must_use]
    pub fn container(&self) -> Option<&'a Container> {
        self.process.and_then(|p| p.container.as_deref())
    }

    /// The parents of its process, nearest first, at most `depth`.
    pub fn ancestors(&self, depth: usize) -> impl Iterator<Item = &'a Process> + use<'a> {
        let processes = self.processes;
        std::iter::successors(self.process.and_then(|p| processes.get(p.parent)), move |p| processes.get(p.parent))
            .take(depth)
    }
}

/// How bad a finding is. The numbers are Tracee's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info = 0,
    /// Odd.
    Low = 1,
    /// Look at it today.
    Medium = 2,
    /// Look at it now.
    High = 3,
    /// Act now.
    Critical = 4,
}

impl Severity {
    /// All, mildest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Name in output and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["info", "low", "medium", "high", "critical"][self as usize]
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A tactic and technique of MITRE ATT&CK.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mitre {
    /// Tactic, by name.
    pub tactic: String,
    /// Technique id, as `T1003.008`.
    pub id: String,
    /// Technique, by name.
    pub technique: String,
}

/// What a rule is, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    /// Id, as `TRC-105`.
    pub id: String,
    /// Name, which is also the name of the event it makes.
    pub name: String,
    /// Version of the rule.
    pub version: String,
    /// One line.
    pub title: String,
    /// What it means that it fired.
    pub description: String,
    /// What to do then.
    pub remedy: String,
    /// How bad it is.
    pub severity: Severity,
    /// Where it belongs in MITRE ATT&CK.
    pub mitre: Mitre,
    /// Free tags.
    pub tags: Vec<String>,
    /// Who it leaves alone by itself, and why.
    pub excuses: Vec<Excuse>,
}

/// A process as a finding tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessInfo {
    /// Number in the host's numbering.
    pub pid: u32,
    /// Start, nanoseconds since boot.
    pub start: u64,
    /// Number in its own pid namespace.
    pub ns_pid: u32,
    /// Path of its program; empty when unknown.
    pub exe: String,
    /// Name.
    pub comm: String,
    /// Arguments.
    pub argv: Vec<String>,
    /// Working directory at the exec.
    pub cwd: String,
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Login user (audit).
    pub login_uid: Option<u32>,
    /// Audit session.
    pub session: Option<u32>,
    /// Controlling terminal.
    pub tty: Option<String>,
    /// SHA-256 of its program, where asked for and known.
    pub sha256: Option<String>,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The rule.
    pub about: Arc<About>,
    /// Nanoseconds since boot of the event that fired it.
    pub time: u64,
    /// What was touched, in one word or path: with the rule and the process it decides what is the same finding.
    pub target: String,
    /// Facts that made it fire, in order.
    pub evidence: Vec<(String, serde_json::Value)>,
    /// The event, in the flat form of [`crate::flat`].
    pub event: serde_json::Value,
    /// Who did it.
    pub process: ProcessInfo,
    /// Its parents, nearest first.
    pub ancestors: Vec<ProcessInfo>,
    /// Where it happened.
    pub container: Option<Container>,
    /// How many times it happened in the window that this finding closes; 1 for the first.
    pub count: u64,
}

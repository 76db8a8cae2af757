//! What a rule, a sink or the command line needs to see. The agent turns demands into kernel filters and a hook plan:
//! what nobody demands is neither attached nor sent.

use haechi_ebpf::event::{EventId, security_file_open, syscall};

/// Paths of interest: any one of them is enough. Empty: every path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Whole last components.
    pub leaves: Vec<String>,
    /// Beginnings of the path.
    pub prefixes: Vec<String>,
    /// Ends of the path.
    pub suffixes: Vec<String>,
}

impl Paths {
    /// Whether every path is wanted.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.leaves.is_empty() && self.prefixes.is_empty() && self.suffixes.is_empty()
    }

    /// Whether `path` is wanted: the exact test behind what the kernel lets through.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let leaf = crate::path::leaf(path);
        self.is_any()
            || self.leaves.iter().any(|l| l == leaf)
            || self.prefixes.iter().any(|p| path.starts_with(p.as_str()))
            || self.suffixes.iter().any(|s| path.ends_with(s.as_str()))
    }
}

/// Values wanted, or (where `not` holds any) unwanted, in one dimension. Both empty: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// One of these.
    pub only: Vec<T>,
    /// None of these.
    pub not: Vec<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self { only: Vec::new(), not: Vec::new() }
    }
}

impl<T: PartialEq> Choice<T> {
    /// Whether every value is wanted.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.only.is_empty() && self.not.is_empty()
    }

    /// Whether `value` is wanted.
    pub fn matches<U: ?Sized>(&self, value: &U) -> bool
    where
        T: PartialEq<U>,
    {
        (self.only.is_empty() || self.only.iter().any(|v| v == value)) && !self.not.iter().any(|v| v == value)
    }
}

/// A demand of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Which event.
    pub event: EventId,
    /// Which system call, for the `syscall` event.
    pub syscall: Option<&'static str>,
    /// Which paths.
    pub paths: Paths,
    /// Which real users.
    pub uids: Choice<u32>,
    /// Which thread names.
    pub comms: Choice<String>,
    /// Which cgroups, by v2 id.
    pub cgroups: Choice<u64>,
    /// Only opens that can change the file; for `security_file_open`. Nearly all opens read, and these cost nothing then,
    /// whatever paths are asked for.
    pub writes: bool,
    /// Only where it does not make every system call of the machine slower; such events are had without it.
    pub if_cheap: bool,
}

impl Demand {
    /// All of one event.
    #[must_use]
    pub fn of(event: EventId) -> Self {
        Self { event, ..Self::default() }
    }

    /// All of one event at these paths.
    #[must_use]
    pub fn at(event: EventId, paths: Paths) -> Self {
        Self { event, paths, ..Self::default() }
    }

    /// All calls of this name, where system calls are looked at anyway.
    #[must_use]
    pub fn call_if_cheap(name: &'static str) -> Self {
        Self { syscall: Some(name), if_cheap: true, ..Self::of(syscall::ID) }
    }

    /// All opens of these paths that can change the file.
    #[must_use]
    pub fn written(paths: Paths) -> Self {
        Self { writes: true, ..Self::at(security_file_open::ID, paths) }
    }
}

//! What rules about files that nobody should write have in common: which files, and what is said of one that was opened
//! for writing. Their paths are looked at only in opens that can write; all others stay as cheap as they were.

use std::sync::Arc;

use haechi_ebpf::event::security_file_open as open;
use serde_json::json;

use crate::demand::{Demand, Paths};
use crate::model::{About, Event};
use crate::path;
use crate::rule::{AboutDef, Emit, Signature};

/// Which files.
#[derive(Clone, Copy)]
pub(super) struct Files {
    /// Whole paths; with `/` at the end a directory, with `*` the beginning of a path.
    pub(super) paths: &'static [&'static str],
    /// Ends of paths.
    pub(super) ends: &'static [&'static str],
    /// What else must hold of the path.
    pub(super) only: fn(&str) -> bool,
    /// Only where what was in the file is thrown away.
    pub(super) emptied: bool,
    /// Only in containers.
    pub(super) contained: bool,
}

impl Files {
    /// None; the start of every list.
    pub(super) const NONE: Self = Self { paths: &[], ends: &[], only: |_| true, emptied: false, contained: false };

    /// As a demand: what the kernel needs to know.
    pub(super) fn demand(&self) -> Demand {
        let own = |list: &[&str]| list.iter().map(|p| p.trim_end_matches('*').to_owned()).collect();
        Demand::written(Paths { leaves: Vec::new(), prefixes: own(self.paths), suffixes: own(self.ends) })
    }

    fn has(&self, path: &str) -> bool {
        let is = |pattern: &&str| match pattern.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None if pattern.ends_with('/') => path.starts_with(pattern),
            None => path == *pattern,
        };
        (self.paths.iter().any(is) || self.ends.iter().any(|e| path.ends_with(e))) && (self.only)(path)
    }

    /// Reports `event` if it opens one of them for writing.
    pub(super) fn look(&self, event: &Event<'_>, emit: &mut Emit) {
        const O_TRUNC: u64 = 0o1000;
        if !event.can_write() || !event.opens_content() {
            return;
        }
        let flags = event.number(open::field::flags);
        if self.emptied && flags.is_some_and(|f| f & O_TRUNC == 0) || self.contained && event.container().is_none() {
            return;
        }
        let Some(place) = path::of(event) else { return };
        if self.has(&place.path) {
            emit.fire(place.path.as_ref(), [("path", json!(place.path)), ("path_from_user", json!(place.from_user))]);
        }
    }
}

/// A rule about nothing but such files.
pub(super) struct Written {
    about: Arc<About>,
    files: Files,
}

impl Written {
    pub(super) fn new(about: &AboutDef, files: Files) -> Self {
        Self { about: about.about(), files }
    }
}

impl Signature for Written {
    fn about(&self) -> &Arc<About> {
        &self.about
    }

    fn demands(&self) -> Vec<Demand> {
        vec![self.files.demand()]
    }

    fn on_event(&mut self, event: &Event<'_>, emit: &mut Emit) {
        self.files.look(event, emit);
    }
}

//! TRC-105: a program was started from memory: from a memfd, or from a file system that lives in memory.

use haechi_ebpf::event::sched_process_exec as exec;
use serde_json::json;

use super::known::program_before;
use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::path::{leaf, normal};
use crate::rule::{AboutDef, Emit};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-105",
    name: "fileless_execution",
    version: "1",
    title: "A program was started from memory, not from a disk",
    description: "A process executed a memfd or a file in shared memory. Nothing of such a program is left on a disk: \
                  malware does this to escape file scanners and allow-lists. Few honest programs do it; container \
                  runtimes that copy themselves into a memfd are known and left out.",
    remedy: "Look at what the parent of this process is and how it got there. While the process lives, save its \
             program with `cp /proc/<pid>/exe`; then stop it and look for what downloaded it. If it is a tool of \
             yours, add an exception for its parent.",
    severity: Severity::High,
    mitre: ("Defense Evasion", "T1620", "Reflective Code Loading"),
    tags: &["linux", "container"],
    excuses: &[],
};

/// Where shared memory is mounted.
const SHARED_MEMORY: &[&str] = &["/dev/shm/", "/run/shm/"];
/// Low-level runtimes that run a copy of themselves from a memfd so that a container cannot overwrite them, and the
/// name that the memfd then has.
const RUNTIMES: &[&str] = &["runc", "crun"];
const RUNTIME_MEMFDS: &[&str] = &["runc_cloned:/proc/self/exe", "libcrun"];
const RUNTIME_DIRS: &[&str] = &["/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/", "/usr/libexec/"];

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    // No paths: a script is known by the path it was called by, not by that of its interpreter.
    vec![Demand::of(exec::ID)]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    let Some(path) = event.text(exec::field::pathname) else { return };
    let path = String::from_utf8_lossy(path.bytes);
    if let Some(name) = memfd(&path) {
        if !runtime_copy(event, name) {
            emit.fire(path.as_ref(), [("pathname", json!(path)), ("kind", json!("memfd")), ("argv0", argv0(event))]);
        }
    } else if in_shared_memory(&path) {
        let deleted = event.number(exec::field::nlink) == Some(0);
        emit.fire(
            path.as_ref(),
            [
                ("pathname", json!(path)),
                ("kind", json!("shared memory")),
                ("deleted", json!(deleted)),
                ("argv0", argv0(event)),
            ],
        );
    } else if let Some(script) = script(event) {
        emit.fire(
            script.clone(),
            [("pathname", json!(path)), ("kind", json!("script in shared memory")), ("script", json!(script))],
        );
    }
}

/// The name of the memfd that `path` is.
fn memfd(path: &str) -> Option<&str> {
    path.strip_prefix('/').unwrap_or(path).strip_prefix("memfd:")
}

fn in_shared_memory(path: &str) -> bool {
    SHARED_MEMORY.iter().any(|p| path.starts_with(p))
}

/// The path of a `#!` file in shared memory that was executed.
fn script(event: &Event<'_>) -> Option<String> {
    let (called, interp) = (event.text(exec::field::cmdpath)?, event.text(exec::field::interp)?);
    if called.bytes == interp.bytes {
        return None;
    }
    let called = String::from_utf8_lossy(called.bytes);
    let called = normal(&called);
    in_shared_memory(&called).then(|| called.into_owned())
}

/// Whether this is a container runtime running a copy of itself: both the memfd's name and the program before must
/// be those of a runtime, for anybody can choose the name.
fn runtime_copy(event: &Event<'_>, name: &str) -> bool {
    let before = program_before(event);
    let dir = RUNTIME_DIRS.iter().find_map(|d| before.strip_prefix(d));
    RUNTIME_MEMFDS.contains(&name) && dir.is_some_and(|l| RUNTIMES.contains(&l)) && event.container().is_none()
}

fn argv0(event: &Event<'_>) -> serde_json::Value {
    let first = event.text(exec::field::argv).and_then(|a| a.strings().next());
    first.map_or(json!(null), |a| json!(leaf(&String::from_utf8_lossy(a))))
}

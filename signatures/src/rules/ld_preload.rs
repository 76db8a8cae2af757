//! TRC-107: a library was put before all others, by the environment of a program or for every program.

use haechi_ebpf::event::sched_process_exec as exec;
use serde_json::json;

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::plain::Plain;
use super::written::Files;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-107",
    name: "ld_preload",
    version: "1",
    title: "A library was put before those that a program asks for",
    description: "A program was started with LD_PRELOAD, LD_AUDIT or LD_LIBRARY_PATH naming a place where no \
                  libraries are installed, or a process opened /etc/ld.so.preload for writing, which does the \
                  same to every program. Code in such a library runs inside the program and can take what it \
                  reads and change what it does. Where only names or the directories of the system are given, \
                  nothing is said; for LD_LIBRARY_PATH, which build tools set to wherever they build, only a \
                  place that hides is.",
    remedy: "Look at the library and where it came from. If it was not you, remove it (and its line in \
             /etc/ld.so.preload), and start again whatever ran with it. For a tool of yours, add an exception for \
             its path.",
    severity: Severity::Medium,
    mitre: ("Persistence", "T1574", "Hijack Execution Flow"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::below(PACKAGERS, PACKAGER_WHY),
        ExcuseDef::below(
            &["/usr/bin/valgrind", "/usr/libexec/valgrind/*", "/usr/bin/rr", "/snap/*"],
            "they run programs with a library of their own by design",
        ),
    ],
};

/// For every program.
const FILES: Files = Files { ends: &["/etc/ld.so.preload"], ..Files::NONE };

/// Where libraries are installed. What is named without a directory is looked for there.
const INSTALLED: &[&str] = &[
    "/usr/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/opt/", "/snap/", "/nix/", "/gnu/", "/app/", "$LIB", "$ORIGIN",
];

/// Where anybody can put a file, and nobody looks.
const HIDING: &[&str] = &["/dev/shm/", "/dev/mqueue/", "/run/shm/"];

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::of(exec::ID), FILES.demand()]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    if event.view.event() != exec::ID {
        return FILES.look(event, emit);
    }
    let Some(env) = event.text(exec::field::env) else { return };
    // One look at each variable, in every exec of the machine: nothing is copied.
    for variable in env.strings().filter(|v| v.starts_with(b"LD_")) {
        let text = String::from_utf8_lossy(variable);
        let Some((name, value)) = text.split_once('=') else { continue };
        let odd: fn(&str) -> bool = match name {
            "LD_PRELOAD" | "LD_AUDIT" => is_elsewhere,
            "LD_LIBRARY_PATH" => hides,
            _ => continue,
        };
        if let Some(place) = value.split([':', ' ', ';']).find(|p| odd(p)) {
            emit.fire(place, [("variable", json!(name)), ("value", json!(value)), ("place", json!(place))]);
        }
    }
}

/// A library by its path, outside of where libraries are installed; or by a path that depends on where one is.
fn is_elsewhere(library: &str) -> bool {
    let path = crate::path::normal(library);
    library.contains('/') && (hides(library) || !INSTALLED.iter().any(|d| path.starts_with(d)))
}

/// A place in memory, or a hidden one where everybody may write.
fn hides(place: &str) -> bool {
    let path = crate::path::normal(place);
    let within = |dir: &&str| path.starts_with(*dir) || *path == *dir.trim_end_matches('/');
    let shared = ["/tmp/", "/var/tmp/"].iter().find_map(|dir| path.strip_prefix(dir));
    // Where every AppImage mounts itself.
    HIDING.iter().any(within) || shared.is_some_and(|rest| rest.starts_with('.') && !rest.starts_with(".mount_"))
}

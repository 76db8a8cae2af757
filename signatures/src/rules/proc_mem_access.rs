//! TRC-1023: the memory of another process was opened for reading.

use haechi_ebpf::event::security_file_open as open;
use haechi_ebpf::wire::at;
use serde_json::json;

use super::known::{DEBUGGERS, memory_of};
use super::plain::Plain;
use crate::demand::{Demand, Paths};
use crate::model::{Event, Severity};
use crate::path;
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1023",
    name: "proc_mem_access",
    version: "1",
    title: "The memory of another process was opened for reading",
    description: "A process opened /proc/PID/mem of another process for reading. Passwords, keys and tokens of a \
                  running program lie there in the clear. Debuggers do it too, and what collects crashes.",
    remedy: "Look at both processes: who started the one that reads, and which secrets the other one holds. If it \
             was not you, treat those as stolen and change them. For a tool of yours, add its path to `allow` of \
             this rule.",
    severity: Severity::High,
    mitre: ("Credential Access", "T1003.007", "OS Credential Dumping: Proc Filesystem"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::of(
            DEBUGGERS,
            "looking into other processes is what they are for; whoever may debug a process needs no trick",
        ),
        ExcuseDef::of(
            &[
                "/usr/lib/systemd/systemd-coredump",
                "/usr/share/apport/apport",
                "/opt/google/chrome/chrome_crashpad_handler",
                "/usr/lib/chromium/chrome_crashpad_handler",
            ],
            "they keep what is left of a program that crashed",
        ),
    ],
};

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    let paths = Paths { leaves: vec!["mem".to_owned()], ..Paths::default() };
    vec![Demand::at(open::ID, paths)]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    if !event.can_read() {
        return;
    }
    let Some(place) = path::of(event) else { return };
    let Some(pid) = memory_of(&place.path) else { return };
    // Its own is no secret of another one.
    if [at::NS_TGID, at::TGID].iter().any(|n| event.view.header_u32(*n) == pid) {
        return;
    }
    emit.fire(place.path.as_ref(), [("path", json!(place.path)), ("target_pid", json!(pid))]);
}

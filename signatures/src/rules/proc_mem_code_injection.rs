//! TRC-1024: the memory of another process was opened for writing.

use serde_json::json;

use super::known::{DEBUGGERS, memory_of};
use super::plain::Plain;
use crate::demand::{Demand, Paths};
use crate::model::{Event, Severity};
use crate::path;
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1024",
    name: "proc_mem_code_injection",
    version: "1",
    title: "The memory of a process was opened for writing",
    description: "A process opened /proc/PID/mem for writing. What is written there changes the program while it \
                  runs, even code that is mapped read-only: a way to run one's own code inside an honest program. \
                  Debuggers do it too.",
    remedy: "Look at both processes: who started the one that writes, and what the other one can reach. If nobody \
             is debugging it, stop both, and treat what the target had access to as stolen. For a debugger of \
             yours, add its path to `allow` of this rule.",
    severity: Severity::High,
    mitre: ("Defense Evasion", "T1055.009", "Process Injection: Proc Memory"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::of(
            DEBUGGERS,
            "changing other processes is what they are for; whoever may debug a process needs no trick",
        ),
        ExcuseDef::of(
            &["/usr/bin/julia", "/usr/local/julia*", "/opt/julia*"],
            "Julia's compiler writes the code it makes into its own memory this way",
        ),
    ],
};

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    let paths = Paths { leaves: vec!["mem".to_owned()], ..Paths::default() };
    vec![Demand::written(paths)]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    if !event.can_write() {
        return;
    }
    let Some(place) = path::of(event) else { return };
    let Some(pid) = memory_of(&place.path) else { return };
    emit.fire(place.path.as_ref(), [("path", json!(place.path)), ("target_pid", json!(pid))]);
}

//! TRC-1025: a process wrote into the memory of another one in one call.

use haechi_ebpf::event::syscall;
use haechi_ebpf::wire::at;
use serde_json::json;

use super::known::DEBUGGERS;
use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1025",
    name: "process_vm_write_inject",
    version: "1",
    title: "A process wrote into the memory of another one",
    description: "A process called process_vm_writev with another process as its target. It is the fastest way to \
                  put one's own code or data into an honest program. It is seen where the \
                  tracepoint of all system calls is used anyway, and nowhere else: `haechi check` says so.",
    remedy: "Look at both processes: who started the one that writes, and what the other one can reach. If nobody \
             is debugging it, stop both, and treat what the target had access to as stolen. For a debugger of \
             yours, add its path to `allow` of this rule.",
    severity: Severity::High,
    mitre: ("Defense Evasion", "T1055", "Process Injection"),
    tags: &["linux", "container"],
    excuses: &[ExcuseDef::of(
        DEBUGGERS,
        "changing other processes is what they are for; whoever may debug a process needs no trick",
    )],
};

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::call_if_cheap("process_vm_writev")]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    let Some(pid) = event.number(syscall::field::arg0).map(|p| p as i32) else { return };
    // The call counts processes as its caller does.
    if pid as u32 != event.view.header_u32(at::NS_TGID) {
        emit.fire(format!("pid {pid}"), [("target_pid", json!(pid))]);
    }
}

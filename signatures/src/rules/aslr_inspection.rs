//! TRC-109: a process looked whether the layout of memory is random.

use haechi_ebpf::event::security_file_open as open;
use serde_json::json;

use super::plain::Plain;
use crate::demand::{Demand, Paths};
use crate::model::{Event, Severity};
use crate::path;
use crate::rule::{AboutDef, Emit};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-109",
    name: "aslr_inspection",
    version: "1",
    title: "A process looked whether addresses are random",
    description: "A process read /proc/sys/kernel/randomize_va_space, which says whether programs lie at random \
                  addresses. Exploits look there before they guess an address; so do sysctl and tools that check \
                  the hardening of a machine.",
    remedy: "By itself it is nothing. Look at what else this process and its parents did.",
    severity: Severity::Info,
    mitre: ("Privilege Escalation", "T1068", "Exploitation for Privilege Escalation"),
    tags: &["linux", "container"],
    excuses: &[],
};

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::at(open::ID, Paths { leaves: vec!["randomize_va_space".to_owned()], ..Paths::default() })]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    let reads = event.can_read();
    let Some(place) = path::of(event).filter(|p| reads && p.path.ends_with("/sys/kernel/randomize_va_space")) else {
        return;
    };
    emit.fire(place.path.as_ref(), [("path", json!(place.path))]);
}

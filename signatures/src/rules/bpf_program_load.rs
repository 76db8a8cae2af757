//! HCH-005: a program that nobody knows put code into the kernel by bpf(2).

use haechi_ebpf::event::syscall;
use serde_json::json;

use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "HCH-005",
    name: "bpf_program_load",
    version: "1",
    title: "A BPF program was loaded by an unusual program",
    description: "A process loaded a program into the kernel by bpf(2), and it is none of those that do so every \
                  day (systemd, container runtimes, network agents). Rootkits hide processes and connections this \
                  way, and blind agents. It is seen where the \
                  tracepoint of all system calls is used anyway, and nowhere else: `haechi check` says so.",
    remedy: "Look at what was loaded and by whom (`bpftool prog`). If it was not you, stop that process: unless \
             it pinned its programs, they go with it. For an agent of yours, add its path to `allow` of this \
             rule.",
    severity: Severity::Medium,
    mitre: ("Persistence", "T1547.006", "Boot or Logon Autostart Execution: Kernel Modules and Extensions"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::of(
            &["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/usr/lib/systemd/systemd-*", "/sbin/init"],
            "systemd filters devices and addresses of its units with BPF",
        ),
        ExcuseDef::of(
            &["/usr/bin/runc", "/usr/sbin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc", "/usr/bin/crun"],
            "container runtimes say by BPF which devices a container may use",
        ),
        ExcuseDef::of(
            &[
                "/usr/sbin/bpftool",
                "/usr/bin/bpftool",
                "/usr/bin/bpftrace",
                "/usr/sbin/tc",
                "/usr/sbin/ip",
                "/usr/bin/perf",
            ],
            "the tools of administrators for BPF; who ran them is in the events",
        ),
        ExcuseDef::of(
            &[
                "/usr/bin/haechi",
                "/usr/sbin/haechi",
                "/usr/local/bin/haechi",
                "/usr/bin/cilium-agent",
                "/usr/bin/falco",
            ],
            "agents that watch by BPF, at the paths of their packages",
        ),
    ],
};

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::call_if_cheap("bpf")]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    const BPF_PROG_LOAD: u64 = 5;
    let loaded = event.number(syscall::field::arg0).map(|cmd| cmd & 0xffff_ffff) == Some(BPF_PROG_LOAD);
    // Looking whether the kernel would take a program fails more often than not, and leaves nothing behind.
    if loaded && event.view.ret().is_some_and(|fd| fd >= 0) {
        emit.fire("program", [("command", json!("BPF_PROG_LOAD"))]);
    }
}

//! TRC-1017: code was put into the kernel as a module.

use serde_json::json;

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1017",
    name: "kernel_module_loading",
    version: "1",
    title: "A kernel module was loaded",
    description: "A process loaded a module into the kernel. Rootkits come this way: from then on, nothing that \
                  the kernel says can be trusted. What the kernel itself asks for (hardware, file systems, \
                  netfilter) is loaded by modprobe below a thread of the kernel and is not told. It is seen where the \
                  tracepoint of all system calls is used anyway, and nowhere else: `haechi check` says so.",
    remedy: "Look at which module it was (`lsmod`, `dmesg`) and who loaded it. If it was not you, the machine is \
             lost: save what you need for an analysis and rebuild it. For a tool of yours, add an exception for \
             its parent.",
    severity: Severity::Medium,
    mitre: ("Persistence", "T1547.006", "Boot or Logon Autostart Execution: Kernel Modules and Extensions"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::below(PACKAGERS, PACKAGER_WHY),
        ExcuseDef::of(
            &[
                "/usr/bin/udevadm",
                "/usr/lib/systemd/systemd-udevd",
                "/lib/systemd/systemd-udevd",
                "/usr/lib/systemd/systemd-modules-load",
                "/lib/systemd/systemd-modules-load",
            ],
            "they load what hardware needs, and what /etc/modules-load.d says",
        ),
    ],
};

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    ["init_module", "finit_module"].map(Demand::call_if_cheap).to_vec()
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    let loaded = event.view.ret() == Some(0);
    // Threads of the kernel have no program: what they run, the kernel asked for.
    let by_kernel = event.ancestors(1).next().and_then(|p| p.images.last()).is_some_and(|i| i.exe.is_empty());
    if loaded && !by_kernel {
        emit.fire(event.name(), [("call", json!(event.name()))]);
    }
}

//! TRC-1011: what the kernel runs when a program crashes was changed.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1011",
    name: "core_pattern_modification",
    version: "1",
    title: "The handler of crashes was opened for writing",
    description: "A process opened /proc/sys/kernel/core_pattern for writing. If it begins with a pipe, the \
                  kernel runs that program as root, outside of any container, whenever one crashes: a known way \
                  out of containers.",
    remedy: "Look at what it says now (`sysctl kernel.core_pattern`). If it was not you, set it back, and treat \
             the container that wrote it as an attacker's, and the host too if anything crashed since.",
    severity: Severity::High,
    mitre: ("Privilege Escalation", "T1611", "Escape to Host"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::below(PACKAGERS, PACKAGER_WHY),
        ExcuseDef::of(
            &["/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"],
            "it sets at boot what /etc/sysctl.d says",
        ),
    ],
};

/// Which files.
const FILES: Files = Files { ends: &["/sys/kernel/core_pattern"], ..Files::NONE };

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

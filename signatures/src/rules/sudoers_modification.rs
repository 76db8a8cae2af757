//! TRC-1028: the list of who may become root was written.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1028",
    name: "sudoers_modification",
    version: "1",
    title: "The list of who may use sudo was opened for writing",
    description: "A process opened /etc/sudoers, or a file in /etc/sudoers.d, for writing. Whoever is in that \
                  list becomes root without an exploit, so attackers add themselves to stay. visudo does it too, \
                  when somebody edits the list.",
    remedy: "Look at what the file says now (`visudo -c`, `git diff` or a backup) and who wrote it. If it was not \
             you, take the change out, and look for what else that process did: it was root already. For \
             configuration management, add its path to `allow` of this rule.",
    severity: Severity::Medium,
    mitre: ("Privilege Escalation", "T1548.003", "Abuse Elevation Control Mechanism: Sudo and Sudo Caching"),
    tags: &["linux", "container"],
    excuses: &[ExcuseDef::below(PACKAGERS, PACKAGER_WHY)],
};

/// Which files.
const FILES: Files = Files {
    paths: &["/etc/sudoers", "/etc/sudoers.d/", "/private/etc/sudoers", "/private/etc/sudoers.d/"],
    ..Files::NONE
};

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

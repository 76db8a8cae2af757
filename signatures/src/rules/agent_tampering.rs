//! HCH-006: a file of Haechi itself was opened for writing.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "HCH-006",
    name: "agent_tampering",
    version: "1",
    title: "A file of Haechi was opened for writing",
    description: "A process opened for writing the program, the unit, the settings or the rules of this agent. \
                  Who can change them can blind it after the next start, or after the next reload of rules.",
    remedy: "Compare the file with what you deployed. If it was not you, put it back, and treat the machine as \
             broken into: only root can do this. For what deploys Haechi, add its path to `allow` of this rule.",
    severity: Severity::High,
    mitre: ("Defense Evasion", "T1562.001", "Impair Defenses: Disable or Modify Tools"),
    tags: &["linux", "container"],
    excuses: &[ExcuseDef::below(PACKAGERS, PACKAGER_WHY)],
};

/// Which files.
const FILES: Files = Files {
    paths: &[
        "/etc/haechi/",
        "/usr/bin/haechi",
        "/usr/sbin/haechi",
        "/usr/local/bin/haechi",
        "/usr/local/sbin/haechi",
        "/etc/systemd/system/haechi.service",
        "/etc/systemd/system/haechi.service.d/",
        "/usr/lib/systemd/system/haechi.service",
        "/lib/systemd/system/haechi.service",
    ],
    ..Files::NONE
};

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

//! HCH-004: a log that tells who logged in and what happened was emptied.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "HCH-004",
    name: "log_wiping",
    version: "1",
    title: "A system log was emptied",
    description: "A process opened a log of logins, of the kernel or of the system so that all it held was thrown \
                  away (O_TRUNC), as `> /var/log/auth.log` does. Attackers do this to cover their traces. What \
                  empties a file by other means (truncate, rm) is not seen by this rule.",
    remedy: "What was in the log is gone here: look for a copy where logs are sent to, and at what happened on \
             this machine before. If a tool of yours rotates logs this way, add its path to `allow` of this rule.",
    severity: Severity::Medium,
    mitre: ("Defense Evasion", "T1070.002", "Indicator Removal: Clear Linux or Mac System Logs"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::below(PACKAGERS, PACKAGER_WHY),
        ExcuseDef::below(&["/usr/sbin/logrotate", "/usr/bin/logrotate"], "it keeps a copy of what it empties"),
    ],
};

/// Which files.
const FILES: Files = Files {
    paths: &[
        "/var/log/auth.log",
        "/var/log/secure",
        "/var/log/syslog",
        "/var/log/messages",
        "/var/log/kern.log",
        "/var/log/wtmp",
        "/var/log/btmp",
        "/var/log/lastlog",
        "/var/log/faillog",
        "/var/log/audit/",
    ],
    emptied: true,
    ..Files::NONE
};

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

//! TRC-1027: something was put down to be run later.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1027",
    name: "scheduled_task_mod",
    version: "1",
    title: "A scheduled task was opened for writing",
    description: "A process opened for writing a file that says what cron, anacron, at or a systemd timer will \
                  run. Attackers put themselves there to come back after a reboot or after they were thrown out. \
                  crontab and at do it too, when somebody plans a task.",
    remedy: "Look at what the file makes run, and when. If it was not you, take it out, and treat what it runs as \
             the malware. For configuration management, add its path to `allow` of this rule.",
    severity: Severity::Medium,
    mitre: ("Persistence", "T1053.003", "Scheduled Task/Job: Cron"),
    tags: &["linux", "container"],
    excuses: &[
        ExcuseDef::below(PACKAGERS, PACKAGER_WHY),
        ExcuseDef {
            exes: &["/usr/sbin/anacron"],
            below: &[],
            paths: &["/var/spool/anacron/"],
            why: "it notes there when it last ran a task",
        },
    ],
};

/// Which files.
const FILES: Files = Files {
    paths: &[
        "/etc/crontab",
        "/etc/anacrontab",
        "/etc/cron.allow",
        "/etc/cron.deny",
        "/etc/at.allow",
        "/etc/at.deny",
        "/etc/cron.d/",
        "/etc/cron.hourly/",
        "/etc/cron.daily/",
        "/etc/cron.weekly/",
        "/etc/cron.monthly/",
        "/var/spool/cron/",
        "/var/spool/anacron/",
        "/var/spool/at/",
    ],
    ends: &[".timer"],
    only: is_kept,
    ..Files::NONE
};

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

/// Where systemd looks for timers that stay: systemd.unit(5).
const UNITS: &[&str] = &["/etc/systemd/", "/usr/lib/systemd/", "/lib/systemd/", "/usr/local/lib/systemd/"];
/// The same below the home of a user.
const USER_UNITS: &[&str] = &["/.config/systemd/user/", "/.local/share/systemd/user/"];

/// Not what systemd makes for as long as it runs, when a timer last ran, what `at` keeps of the output of tasks, or what
/// only ends alike.
fn is_kept(path: &str) -> bool {
    if path.ends_with(".timer") {
        UNITS.iter().any(|dir| path.starts_with(dir)) || USER_UNITS.iter().any(|dir| path.contains(dir))
    } else {
        !path.starts_with("/var/spool/cron/atspool/") && !path.starts_with("/var/spool/at/spool/")
    }
}

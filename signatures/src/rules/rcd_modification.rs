//! TRC-1026: what runs at boot was changed.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1026",
    name: "rcd_modification",
    version: "1",
    title: "A script that runs at boot was opened for writing",
    description: "A process opened for writing a script that init runs at boot (rc.local, /etc/init.d, \
                  /etc/rc*.d). Attackers put themselves there to survive a reboot.",
    remedy: "Look at what the script does now and who wrote it. If it was not you, take the change out before the \
             next boot. For configuration management, add its path to `allow` of this rule.",
    severity: Severity::Medium,
    mitre: ("Persistence", "T1037.004", "Boot or Logon Initialization Scripts: RC Scripts"),
    tags: &["linux", "container"],
    excuses: &[ExcuseDef::below(PACKAGERS, PACKAGER_WHY)],
};

/// Which files.
const FILES: Files = Files {
    paths: &[
        "/etc/rc.local",
        "/etc/init.d/",
        "/etc/rc.d/",
        "/etc/rc0.d/",
        "/etc/rc1.d/",
        "/etc/rc2.d/",
        "/etc/rc3.d/",
        "/etc/rc4.d/",
        "/etc/rc5.d/",
        "/etc/rc6.d/",
        "/etc/rcS.d/",
    ],
    ..Files::NONE
};

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

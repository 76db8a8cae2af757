//! HCH-003: who may log in by key was changed.

use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "HCH-003",
    name: "authorized_keys_modification",
    version: "1",
    title: "The list of keys that may log in was opened for writing",
    description: "A process opened an authorized_keys file for writing. A key in it opens the account from \
                  anywhere, whatever its password: a common way to stay. ssh-copy-id does it too.",
    remedy: "Look at which keys the file holds and whose they are (`ssh-keygen -lf`). Take out those that nobody \
             knows, and look at what that process did besides. For configuration management, add its path to \
             `allow` of this rule.",
    severity: Severity::Medium,
    mitre: ("Persistence", "T1098.004", "Account Manipulation: SSH Authorized Keys"),
    tags: &["linux", "container"],
    excuses: &[ExcuseDef::of(
        &["/usr/bin/google_guest_agent", "/usr/bin/google_guest_agent_manager"],
        "it puts down the keys that the cloud's console knows",
    )],
};

/// Which files.
const FILES: Files = Files { ends: &["/.ssh/authorized_keys", "/.ssh/authorized_keys2"], ..Files::NONE };

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

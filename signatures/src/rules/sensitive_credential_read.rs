//! HCH-001: a file that holds password hashes or private keys was opened for reading by a program that has no business
//! with it.

use haechi_ebpf::event::security_file_open as open;
use serde_json::json;

use super::known::PACKAGERS;
use super::plain::Plain;
use crate::demand::{Demand, Paths};
use crate::model::{Event, Severity};
use crate::path::{self, leaf};
use crate::rule::{AboutDef, Emit, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "HCH-001",
    name: "sensitive_credential_read",
    version: "1",
    title: "Password hashes or private keys were read by an unusual program",
    description: "A process opened for reading a file with password hashes (shadow, gshadow, their backups) or an SSH \
                  private key, and it is none of the programs that do so every day (login, sudo, sshd, ...). With the \
                  hashes an attacker cracks passwords; with a key they move on to other machines.",
    remedy: "Look at who ran this program and why. If it was not you, treat the passwords or the key as stolen: change \
             them, and check where they give access. If it is a tool of yours (backup, configuration management), add \
             its path to `allow` of this rule.",
    severity: Severity::High,
    mitre: PASSWORDS,
    tags: &["linux", "container", "T1552.004"],
    excuses: &[ExcuseDef {
        exes: &[],
        below: PACKAGERS,
        paths: &["/etc/shadow", "/etc/gshadow", "/etc/passwd-", "/var/backups/"],
        why: "scripts of packages make and look up accounts; in Perl, looking up a user reads the hashes too",
    }],
};

/// Tactic, id and name of the techniques.
type Technique = (&'static str, &'static str, &'static str);
const PASSWORDS: Technique = ("Credential Access", "T1003.008", "OS Credential Dumping: /etc/passwd and /etc/shadow");
const KEYS: Technique = ("Credential Access", "T1552.004", "Unsecured Credentials: Private Keys");

/// A kind of secret: what it is called, its technique, which files hold it, who may read it.
struct Secret {
    name: &'static str,
    technique: Technique,
    /// Last components.
    leaves: &'static [&'static str],
    /// The directory, at the end of the path before the last component; empty is any.
    dirs: &'static [&'static str],
    /// Names of programs, separated by spaces.
    readers: &'static str,
}

const SECRETS: &[Secret] = &[
    Secret {
        name: "password hashes",
        technique: PASSWORDS,
        leaves: &["shadow", "shadow-", "gshadow", "gshadow-", "passwd-", "opasswd"],
        dirs: &["/etc", "/etc/security"],
        readers: ACCOUNTS,
    },
    Secret {
        name: "backup of password hashes",
        technique: PASSWORDS,
        leaves: &["shadow.bak", "gshadow.bak", "passwd.bak"],
        dirs: &["/var/backups"],
        readers: ACCOUNTS,
    },
    Secret {
        name: "SSH user key",
        technique: KEYS,
        leaves: &["id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"],
        dirs: &[],
        readers: "ssh ssh-agent ssh-add ssh-keygen ssh-keysign gnome-keyring-daemon",
    },
    Secret {
        name: "SSH host key",
        technique: KEYS,
        leaves: &["ssh_host_rsa_key", "ssh_host_dsa_key", "ssh_host_ecdsa_key", "ssh_host_ed25519_key"],
        dirs: &[],
        readers: "sshd sshd-session sshd-auth sshd-keygen ssh-keygen ssh-keysign",
    },
];

/// Programs that log users in, or keep the list of accounts.
const ACCOUNTS: &str = "accounts-daemon atd chage chgpasswd chpasswd cron crond doas dpkg expiry gdm-session-worker \
    gpasswd groupadd groupdel groupmems groupmod grpck grpconv grpunconv lightdm login newgrp newusers nscd passwd \
    pkexec polkit-agent-helper-1 pwck pwconv pwunconv runuser sddm-helper sshd sshd-auth sshd-session sssd su sudo \
    sudo-rs sulogin systemd systemd-executor systemd-homed systemd-logind systemd-sysusers systemd-tmpfiles \
    systemd-userdbd systemd-userwork unix_chkpwd unix_update update-passwd useradd userdel usermod vigr vipw";

/// Where such programs live, separated by spaces: a reader's name elsewhere means nothing.
const PROGRAM_DIRS: &str = "/usr/bin /usr/sbin /bin /sbin /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh \
    /usr/libexec /usr/lib/systemd /lib/systemd /usr/lib/accountsservice /usr/lib/policykit-1 /usr/lib/polkit-1 \
    /usr/libexec/sssd /usr/lib/gdm3";

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    let leaves = SECRETS.iter().flat_map(|s| s.leaves).map(|l| (*l).to_owned()).collect();
    vec![Demand::at(open::ID, Paths { leaves, ..Paths::default() })]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    if !event.can_read() || !event.opens_content() {
        return;
    }
    let Some(place) = path::of(event) else { return };
    let Some(secret) = SECRETS.iter().find(|s| s.is_at(&place)) else { return };
    let exe = event.exe();
    if listed(secret.readers, leaf(exe)) && listed(PROGRAM_DIRS, directory_of(exe)) {
        return;
    }
    emit.fire_as(
        secret.technique,
        place.path.as_ref(),
        [
            ("path", json!(place.path)),
            ("secret", json!(secret.name)),
            ("technique", json!(secret.technique.1)),
            ("path_from_user", json!(place.from_user)),
        ],
    );
}

impl Secret {
    /// The directory may have anything before it: containers, chroots and /proc/<pid>/root show their own under a
    /// longer path. A directory that is not known (a relative or cut path) is not ruled out.
    fn is_at(&self, place: &path::Place<'_>) -> bool {
        let dir = directory_of(&place.path);
        let unknown = place.truncated || place.from_user && !place.path.starts_with('/');
        self.leaves.contains(&leaf(&place.path))
            && (self.dirs.is_empty() || unknown || self.dirs.iter().any(|d| dir.ends_with(d)))
    }
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn listed(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|w| w == word)
}

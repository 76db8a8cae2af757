//! Ways around a rule about file names. Each is caught, or is a blind spot that this table names with its reason.

use anyhow::{Result, ensure};

use super::open::{EVENTS, check, wanted};
use crate::harness::{Context, Test};

pub(super) const TESTS: &[Test] = &[
    ("evade::symlink", |c| evaded(c, "symlink", Seen::Target)),
    ("evade::dotdot", |c| evaded(c, "dotdot", Seen::Target)),
    ("evade::procroot", |c| evaded(c, "procroot", Seen::Target)),
    ("evade::opath", |c| evaded(c, "opath", Seen::Target)),
    // A hard link and a bind mount are names of their own: no lookup leads back to the other name. The inode does, and
    // is in the event; rules name the inode of a watched file for that.
    ("evade::hardlink", |c| evaded(c, "hardlink", Seen::OtherNameSameInode)),
    ("evade::bind", |c| evaded(c, "bind", Seen::OtherNameSameInode)),
    ("evade::chroot", |c| evaded(c, "chroot", Seen::LeafAndInode)),
    ("evade::rules_see_through", see_through),
];

const NAME: &str = "security_file_open";

/// How the agent shows the detour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Under the target's own name.
    Target,
    /// Under the name that was used, with the target's inode.
    OtherNameSameInode,
    /// Under a path that ends in the target's last component, with the target's inode.
    LeafAndInode,
}

fn evaded(context: &Context, by: &str, seen: Seen) -> Result<()> {
    let home = context.dir(&format!("evade-{by}"))?;
    std::fs::create_dir_all(format!("{home}/etc"))?;
    std::fs::create_dir_all(format!("{home}/work"))?;
    let target = format!("{home}/etc/secret");
    std::fs::write(&target, "x")?;
    let (by, target_arg, dir) = (format!("by={by}"), format!("target={target}"), format!("dir={home}/work"));
    let (stopped, did) = context.watch(EVENTS, || context.actor(&["evade", &by, &target_arg, &dir]))?;
    let file: crate::facts::File = did.part("/file")?;
    let used: String = did.part("/used")?;
    let path = match seen {
        Seen::Target => target,
        Seen::OtherNameSameInode => used,
        Seen::LeafAndInode => {
            let lines = stopped.by(NAME, did.me.pid);
            let line = lines.iter().find(|l| l.data("inode") == file.inode && l.data("dev") == file.dev);
            let path = line.map(|l| l.data("pathname")).and_then(|p| p.as_str().map(str::to_owned));
            path.filter(|p| p.ends_with("/secret")).unwrap_or(used)
        }
    };
    let line =
        stopped.one(NAME, did.me.pid, |l| l.data("pathname") == path.as_str() && l.data("inode") == file.inode)?;
    check(line, &did, &wanted(&path, &file, libc::O_CLOEXEC), false)
}

/// How the rule about credential files takes a detour to a file that it watches.
enum Caught {
    Yes,
    /// It is a blind spot, with the reason.
    No(&'static str),
}

const OTHER_NAME: &str = "the rule goes by name, and this is another name of the same inode; making it takes CAP_SYS_ADMIN \
                          or, for a hard link, the right to write beside the file";

const DETOURS: &[(&str, Caught)] = &[
    ("symlink", Caught::Yes),
    ("dotdot", Caught::Yes),
    ("procroot", Caught::Yes),
    ("opath", Caught::Yes),
    ("compat", Caught::Yes),
    ("handle", Caught::Yes),
    ("uring", Caught::Yes),
    ("bind", Caught::No(OTHER_NAME)),
    ("chroot", Caught::No(OTHER_NAME)),
];

const NO_HANDLES: &[&str] = &["Stale file handle", "not supported"];

fn see_through(context: &Context) -> Result<()> {
    let mut wrong = Vec::new();
    for (by, caught) in DETOURS {
        let dir = context.dir(&format!("through-{by}"))?;
        let (by_arg, dir_arg) = (format!("by={by}"), format!("dir={dir}"));
        let seen = context.watch(&[], || match *by {
            "compat" => context.actor(&["open", "how=openat", "path=/etc/shadow", "compat=1"]),
            "handle" | "uring" => context.actor(&["open", &format!("how={by}"), "path=/etc/shadow"]),
            _ => context.actor(&["evade", &by_arg, "target=/etc/shadow", &dir_arg]),
        });
        let (stopped, did) = match seen {
            // The file system of /etc has no handles here: nobody can take this way.
            Err(e) if *by == "handle" && NO_HANDLES.iter().any(|n| format!("{e:#}").contains(n)) => continue,
            seen => seen?,
        };
        let found = stopped.by("sensitive_credential_read", did.me.pid).len();
        match caught {
            Caught::Yes if found == 1 => {}
            Caught::No(_) if found == 0 => {}
            Caught::Yes => wrong.push(format!("{by}: {found} findings")),
            Caught::No(why) => wrong.push(format!("{by}: found {found} times, though {why}: no blind spot any more")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join(", "));
    Ok(())
}

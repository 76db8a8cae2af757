//! File systems mounted and unmounted, by the old calls and by the new ones.

use anyhow::Result;
use haechi_ebpf::event::{security_move_mount, security_sb_mount, security_sb_umount};

use super::deed::{Deed, done};
use crate::harness::{Context, Did, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("mount::mount", |c| done(c, &MOUNT)),
    ("mount::compat_mount", |c| done(c, &Deed { act: |c| mount(c, "mount", true), compat: true, ..MOUNT })),
    ("mount::umount", |c| done(c, &UMOUNT)),
    ("mount::move_mount", |c| done(c, &MOVE)),
];

pub(super) const DEEDS: &[Deed] = &[MOUNT, UMOUNT, MOVE];

const MOUNT: Deed = Deed {
    event: &security_sb_mount::DEF,
    act: |c| mount(c, "mount", false),
    want: |did| {
        Ok(vec![
            text(did, "dev_name", "/device")?,
            text(did, "path", "/path")?,
            text(did, "type", "/type")?,
            flags(did)?,
        ])
    },
    resolved: &[],
    given: &["dev_name", "path", "type"],
    compat: false,
};

const UMOUNT: Deed = Deed {
    event: &security_sb_umount::DEF,
    act: |c| mount(c, "umount2", false),
    want: |did| {
        let place = text(did, "mountpoint", "/path")?;
        Ok(vec![text(did, "dev_name", "/device")?, place, text(did, "type", "/type")?, flags(did)?])
    },
    resolved: &["dev_name", "type"],
    given: &["mountpoint"],
    compat: false,
};

const MOVE: Deed = Deed {
    event: &security_move_mount::DEF,
    act: |c| mount(c, "move_mount", false),
    want: |did| {
        let (device, kind) = (text(did, "dev_name", "/device")?, text(did, "type", "/type")?);
        Ok(vec![device, kind, ("from_path", "/".into()), text(did, "to_path", "/path")?])
    },
    resolved: &["from_path"],
    given: &["to_path"],
    compat: false,
};

fn mount(context: &Context, by: &str, compat: bool) -> Result<Did> {
    let (by, path) = (format!("by={by}"), format!("path={}", context.dir("mounted")?));
    context.actor(&["mount", &by, &path, &format!("compat={}", u8::from(compat))])
}

fn text(did: &Did, field: &'static str, at: &str) -> Result<(&'static str, Want)> {
    Ok((field, did.part::<String>(at)?.into()))
}

fn flags(did: &Did) -> Result<(&'static str, Want)> {
    Ok(("flags", did.number("/flags")?.into()))
}

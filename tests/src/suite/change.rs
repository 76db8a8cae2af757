//! Files deleted, renamed, linked and made: by every call that does it, in both ABIs, seen by every kind of hook.

use anyhow::{Result, ensure};
use haechi_ebpf::event::{
    chmod_common, security_inode_mknod, security_inode_rename, security_inode_symlink, security_inode_unlink,
};

use super::deed::{Deed, done};
use crate::facts::File;
use crate::harness::{Context, Did, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("change::unlink", |c| done(c, &UNLINK)),
    ("change::unlinkat", |c| done(c, &Deed { act: |c| unlink(c, "unlinkat", false), ..UNLINK })),
    ("change::compat_unlink", |c| done(c, &Deed { act: |c| unlink(c, "unlink", true), compat: true, ..UNLINK })),
    ("change::rename", |c| done(c, &RENAME)),
    ("change::renameat", |c| done(c, &Deed { act: |c| rename(c, "renameat", false), ..RENAME })),
    ("change::renameat2", |c| done(c, &Deed { act: |c| rename(c, "renameat2", false), ..RENAME })),
    ("change::compat_renameat", |c| done(c, &Deed { act: |c| rename(c, "renameat", true), compat: true, ..RENAME })),
    ("change::symlink", |c| done(c, &SYMLINK)),
    ("change::symlinkat", |c| done(c, &Deed { act: |c| symlink(c, "symlinkat", false), ..SYMLINK })),
    ("change::compat_symlinkat", |c| {
        done(c, &Deed { act: |c| symlink(c, "symlinkat", true), compat: true, ..SYMLINK })
    }),
    ("change::mknod_pipe", |c| done(c, &MKNOD)),
    ("change::mknodat_device", |c| done(c, &Deed { act: |c| mknod(c, "mknodat", NULL, false), ..MKNOD })),
    ("change::compat_mknod", |c| done(c, &Deed { act: |c| mknod(c, "mknod", FIFO, true), compat: true, ..MKNOD })),
    ("change::chmod", |c| done(c, &CHMOD)),
    ("change::fchmod", |c| done(c, &FCHMOD)),
    ("change::fchmodat", |c| done(c, &Deed { act: |c| chmod(c, "fchmodat", false), ..CHMOD })),
    ("change::compat_chmod", |c| done(c, &Deed { act: |c| chmod(c, "chmod", true), compat: true, ..CHMOD })),
    ("change::regular_files_and_directories", not_reported),
];

pub(super) const DEEDS: &[Deed] = &[UNLINK, RENAME, SYMLINK, MKNOD, CHMOD];

const UNLINK: Deed = Deed {
    event: &security_inode_unlink::DEF,
    act: |c| unlink(c, "unlink", false),
    want: |did| {
        let file: File = did.part("/before")?;
        Ok(vec![
            ("pathname", did.part::<String>("/path")?.into()),
            ("inode", file.inode.into()),
            ("dev", file.dev.into()),
            ("ctime", file.ctime.into()),
        ])
    },
    resolved: &["inode", "dev", "ctime"],
    given: &["pathname"],
    compat: false,
};

const RENAME: Deed = Deed {
    event: &security_inode_rename::DEF,
    act: |c| rename(c, "rename", false),
    want: |did| {
        let file: File = did.part("/before")?;
        Ok(vec![
            ("old_path", did.part::<String>("/path")?.into()),
            ("new_path", did.part::<String>("/to")?.into()),
            ("inode", file.inode.into()),
            ("dev", file.dev.into()),
        ])
    },
    resolved: &["inode", "dev"],
    given: &["old_path", "new_path"],
    compat: false,
};

const SYMLINK: Deed = Deed {
    event: &security_inode_symlink::DEF,
    act: |c| symlink(c, "symlink", false),
    want: |did| {
        Ok(vec![("linkpath", did.part::<String>("/path")?.into()), ("target", did.part::<String>("/to")?.into())])
    },
    resolved: &[],
    given: &["linkpath", "target"],
    compat: false,
};

const MKNOD: Deed = Deed {
    event: &security_inode_mknod::DEF,
    act: |c| mknod(c, "mknod", FIFO, false),
    want: |did| {
        let file: File = did.part("/after")?;
        Ok(vec![
            ("file_name", did.part::<String>("/path")?.into()),
            ("mode", Want::Mode(file.mode)),
            ("dev", file.rdev.into()),
        ])
    },
    resolved: &[],
    given: &["file_name"],
    compat: false,
};

const CHMOD: Deed = Deed {
    event: &chmod_common::DEF,
    act: |c| chmod(c, "chmod", false),
    want: |did| {
        let file: File = did.part("/after")?;
        Ok(vec![
            ("pathname", did.part::<String>("/path")?.into()),
            ("mode", (file.mode & 0o7777).into()),
            ("inode", file.inode.into()),
            ("dev", file.dev.into()),
        ])
    },
    resolved: &["inode", "dev"],
    given: &["pathname"],
    compat: false,
};

/// By its descriptor the file is known to all.
const FCHMOD: Deed = Deed { act: |c| chmod(c, "fchmod", false), resolved: &[], given: &[], ..CHMOD };

/// Mode, as no umask changes it, and device as mknod(2) takes it.
const FIFO: (u32, u32) = (libc::S_IFIFO | 0o600, 0);
const NULL: (u32, u32) = (libc::S_IFCHR | 0o400, 1 << 8 | 3);

fn act(context: &Context, by: &str, path: &str, compat: bool, more: &[String]) -> Result<Did> {
    let (by, path, compat) = (format!("by={by}"), format!("path={path}"), format!("compat={}", u8::from(compat)));
    let mut args = vec!["change", &by, &path, &compat];
    args.extend(more.iter().map(String::as_str));
    context.actor(&args)
}

fn unlink(context: &Context, by: &str, compat: bool) -> Result<Did> {
    act(context, by, &context.file("unlinked", "x")?, compat, &[])
}

fn rename(context: &Context, by: &str, compat: bool) -> Result<Did> {
    let path = context.file("renamed", "x")?;
    let to = format!("to={path}-to-this");
    act(context, by, &path, compat, &[to])
}

fn symlink(context: &Context, by: &str, compat: bool) -> Result<Did> {
    let path = format!("{}/link", context.dir("symlink")?);
    act(context, by, &path, compat, &["to=../no such file".to_owned()])
}

fn chmod(context: &Context, by: &str, compat: bool) -> Result<Did> {
    // A new one each time: it must change.
    let path = format!("{}/permitted", context.dir("chmod")?);
    std::fs::write(&path, "x")?;
    act(context, by, &path, compat, &[format!("mode={}", 0o4751)])
}

fn mknod(context: &Context, by: &str, (mode, dev): (u32, u32), compat: bool) -> Result<Did> {
    let path = format!("{}/node", context.dir("mknod")?);
    act(context, by, &path, compat, &[format!("mode={mode}"), format!("dev={dev}")])
}

/// A directory is not unlinked, and a file that mknod(2) makes is a file like any other.
fn not_reported(context: &Context) -> Result<()> {
    let events = ["--events", "security_inode_unlink,security_inode_mknod"];
    let (stopped, dids) = context.watch(&events, || {
        let file = format!("{}/file", context.dir("regular")?);
        let mode = format!("mode={}", libc::S_IFREG | 0o600);
        Ok([
            act(context, "rmdir", &context.dir("removed")?, false, &[])?,
            act(context, "mknod", &file, false, &[mode])?,
        ])
    })?;
    for did in dids {
        let lines = stopped.by("security_inode_unlink", did.me.pid);
        ensure!(lines.is_empty(), "a directory: {lines:?}");
        let lines = stopped.by("security_inode_mknod", did.me.pid);
        ensure!(lines.is_empty(), "a regular file: {lines:?}");
    }
    Ok(())
}

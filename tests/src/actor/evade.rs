//! Opens a file under another name than its own: what a rule about file names must see through, or say it cannot.

use std::ffi::CString;
use std::fs::{self, File as Handle};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Args;
use super::open::of_fd;
use crate::sys::{Arg, call};

/// `by= target= dir=`: opens `target` by a detour through the empty directory `dir`; mounts are made in a mount
/// namespace of one's own and go with it.
pub(super) fn evade(args: &Args) -> Result<Value> {
    let (target, dir) = (args.need("target")?, args.need("dir")?);
    let (parent, leaf) = target.rsplit_once('/').context("target has no directory")?;
    let detour = format!("{dir}/detour");
    let used = match args.need("by")? {
        "symlink" => {
            symlink(target, &detour)?;
            detour
        }
        "dotdot" => format!("{parent}/../{}/./{leaf}", parent.rsplit('/').next().unwrap_or_default()),
        "procroot" => format!("/proc/self/root{target}"),
        "hardlink" => {
            fs::hard_link(target, &detour)?;
            detour
        }
        "opath" => {
            let handle = Handle::options().read(true).custom_flags(libc::O_PATH).open(target)?;
            return opened(&format!("/proc/self/fd/{}", handle.as_raw_fd()));
        }
        "bind" => {
            own_mounts()?;
            Handle::create(&detour)?;
            mount(target, &detour, "", libc::MS_BIND, "")?;
            detour
        }
        "chroot" => {
            own_mounts()?;
            fs::create_dir(&detour)?;
            mount(parent, &detour, "", libc::MS_BIND, "")?;
            let root = CString::new(detour)?;
            // Seen before the root changes: /proc is not there afterwards.
            let file = crate::facts::File::at(target)?;
            let me = crate::facts::Task::me()?;
            std::env::set_current_dir("/")?;
            call(libc::SYS_chroot, [root.as_c_str().into()])?;
            let used = format!("/{leaf}");
            let handle = Handle::open(&used)?;
            super::print(&json!({ "me": me, "did": { "used": used, "file": file, "fd": handle.as_raw_fd() } }))?;
            std::process::exit(0)
        }
        "overlay" => {
            own_mounts()?;
            mount("none", dir, "tmpfs", 0, "")?;
            for name in ["upper", "work", "merged"] {
                fs::create_dir(format!("{dir}/{name}"))?;
            }
            let options = format!("lowerdir={parent},upperdir={dir}/upper,workdir={dir}/work");
            mount("none", &format!("{dir}/merged"), "overlay", 0, &options)?;
            format!("{dir}/merged/{leaf}")
        }
        "tmpfs" => {
            own_mounts()?;
            mount("none", dir, "tmpfs", 0, "")?;
            fs::write(&detour, "x")?;
            detour
        }
        other => bail!("by={other}"),
    };
    opened(&used)
}

fn opened(used: &str) -> Result<Value> {
    let handle = Handle::open(used).with_context(|| used.to_owned())?;
    Ok(json!({ "used": used, "file": of_fd(handle.as_raw_fd())?, "fd": handle.as_raw_fd() }))
}

/// A mount namespace of one's own that passes nothing back.
pub(super) fn own_mounts() -> Result<()> {
    call(libc::SYS_unshare, [libc::CLONE_NEWNS.into()]).context("unshare")?;
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")
}

/// mount(2).
pub(super) fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> Result<()> {
    let words = [source, target, kind, data].map(CString::new);
    let [source, at, kind, data] = words;
    let (source, at, kind, data) = (source?, at?, kind?, data?);
    let flags = Arg::Num(flags as i64);
    call(
        libc::SYS_mount,
        [source.as_c_str().into(), at.as_c_str().into(), kind.as_c_str().into(), flags, data.as_c_str().into()],
    )
    .with_context(|| format!("mount on {target}"))?;
    Ok(())
}

//! Mounts and unmounts file systems, by the old calls and by the new ones, in a mount namespace of its own: they go with it.

use std::ffi::CString;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Args;
use super::abi::Word::{Num, Str};
use super::abi::make;
use crate::sys::{Low, call};

/// What is mounted says it is this.
const DEVICE: &str = "haechi-e2e-device";

/// `FSCONFIG_SET_STRING` and `FSCONFIG_CMD_CREATE` of include/uapi/linux/mount.h.
const SET_STRING: i64 = 1;
const CREATE: i64 = 6;
/// `MOVE_MOUNT_F_EMPTY_PATH`, the same file.
const FROM_DESCRIPTOR: i64 = 4;

/// `by=mount|umount2|move_mount path= [compat=1]`
pub(super) fn mount(args: &Args) -> Result<Value> {
    let (path, by) = (args.path("path")?, args.need("by")?);
    let text = args.need("path")?;
    let device = CString::new(DEVICE)?;
    call(libc::SYS_unshare, [libc::CLONE_NEWNS.into()]).context("unshare")?;
    let private = (libc::MS_REC | libc::MS_PRIVATE) as i64;
    call(libc::SYS_mount, [c"none".into(), c"/".into(), 0.into(), private.into(), 0.into()]).context("private")?;
    let mut low = if args.flag("compat") { Some(Low::new()?) } else { None };
    let low = low.as_mut();
    let tmpfs = |low, flags: i64| make(low, "mount", [Str(&device), Str(&path), Str(c"tmpfs"), Num(flags), Num(0)]);
    let (flags, only, ret) = match by {
        "mount" => {
            let flags = (libc::MS_NOSUID | libc::MS_NODEV) as i64;
            (flags, json!(["path", text]), tmpfs(low, flags).context("mount")?)
        }
        "umount2" => {
            tmpfs(None, 0).context("mount")?;
            let flags = i64::from(libc::MNT_DETACH);
            (flags, json!(["mountpoint", text]), make(low, by, [Str(&path), Num(flags)]).context("umount2")?)
        }
        "move_mount" => {
            let fs = make(None, "fsopen", [Str(c"tmpfs"), Num(0)]).context("fsopen")?;
            make(None, "fsconfig", [Num(fs), Num(SET_STRING), Str(c"source"), Str(&device), Num(0)])
                .context("source")?;
            make(None, "fsconfig", [Num(fs), Num(CREATE), Num(0), Num(0), Num(0)]).context("create")?;
            let mount = make(None, "fsmount", [Num(fs), Num(0), Num(0)]).context("fsmount")?;
            let here = Num(libc::AT_FDCWD.into());
            let words = [Num(mount), Str(c""), here, Str(&path), Num(FROM_DESCRIPTOR)];
            (0, json!(["to_path", text]), make(low, by, words).context("move_mount")?)
        }
        other => anyhow::bail!("by={other}"),
    };
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(mounts.contains(DEVICE) == (by != "umount2"), "{by} did nothing");
    Ok(json!({ "path": text, "device": DEVICE, "type": "tmpfs", "flags": flags, "ret": ret, "only": only }))
}

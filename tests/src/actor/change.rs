//! Deletes, renames, links and makes files, and changes their permissions, by each call that can.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Args;
use super::abi::Word::{Num, Str};
use super::abi::make;
use crate::facts::File;
use crate::sys::Low;

/// `by=NAME_OF_CALL path= [to=] [mode=] [dev=] [compat=1]`: calls that take a directory are given that of `path`, and the
/// working directory for `to`, which is the same.
pub(super) fn change(args: &Args) -> Result<Value> {
    let (path, by) = (args.path("path")?, args.need("by")?);
    let text = args.need("path")?;
    let parent = Path::new(text).parent().context("path has no directory")?;
    let leaf = |path: &str| Ok::<_, anyhow::Error>(CString::new(path.rsplit('/').next().unwrap_or_default())?);
    let directory = std::fs::File::open(parent)?;
    std::env::set_current_dir(parent)?;
    let (at, here) = (Num(directory.as_raw_fd().into()), Num(libc::AT_FDCWD.into()));
    let to = CString::new(args.get("to").unwrap_or_default())?;
    let (leaf, to_leaf) = (leaf(text)?, leaf(&to.to_string_lossy())?);
    let (mode, dev) = (Num(args.number("mode", 0)?), Num(args.number("dev", 0)?));
    let before = File::of_link(text).ok();
    let (path, leaf): (&CStr, &CStr) = (&path, &leaf);
    let mut low = if args.flag("compat") { Some(Low::new()?) } else { None };
    let low = low.as_mut();
    let ret = match by {
        "unlink" => make(low, by, [Str(path)]),
        "unlinkat" => make(low, by, [at, Str(leaf), Num(0)]),
        "rmdir" => make(low, "unlinkat", [at, Str(leaf), Num(libc::AT_REMOVEDIR.into())]),
        "rename" => make(low, by, [Str(path), Str(&to)]),
        "renameat" => make(low, by, [at, Str(leaf), here, Str(&to_leaf)]),
        "renameat2" => make(low, by, [at, Str(leaf), here, Str(&to_leaf), Num(0)]),
        "symlink" => make(low, by, [Str(&to), Str(path)]),
        "symlinkat" => make(low, by, [Str(&to), at, Str(leaf)]),
        "mknod" => make(low, by, [Str(path), mode, dev]),
        "mknodat" => make(low, by, [at, Str(leaf), mode, dev]),
        "chmod" => make(low, by, [Str(path), mode]),
        "fchmod" => make(low, by, [Num(std::fs::File::open(text)?.into_raw_fd().into()), mode]),
        "fchmodat" => make(low, by, [at, Str(leaf), mode]),
        other => anyhow::bail!("by={other}"),
    };
    let ret = ret.with_context(|| format!("{by} {text}"))?;
    let after = File::of_link(text).ok();
    let mode = |file: &Option<File>| file.as_ref().map(|f| f.mode);
    ensure!(mode(&before) != mode(&after), "{by} changed nothing");
    Ok(json!({ "path": text, "to": args.get("to"), "ret": ret, "before": before, "after": after }))
}

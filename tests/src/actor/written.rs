//! Opens a file that matters to a machine, on an empty file system laid over the real place: the path is that of the
//! real one, and nothing real is touched.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Args;
use super::evade::{mount, own_mounts};
use super::open::open64;
use crate::sys::call;

/// `over= path= flags= [made=1]`: with `made` the file is there before, and came under another name.
pub(super) fn written(args: &Args) -> Result<Value> {
    let (over, path) = (args.need("over")?, args.need("path")?);
    own_mounts()?;
    mount("none", over, "tmpfs", 0, "")?;
    fs::create_dir_all(Path::new(path).parent().context("a path has a directory")?)?;
    if args.flag("made") {
        let made = format!("{over}/made");
        fs::write(&made, "x")?;
        fs::rename(&made, path)?;
    }
    let flags = args.number("flags", 0)? as i32;
    let fd = open64("openat", &args.path("path")?, flags).context("open")?;
    call(libc::SYS_close, [fd.into()])?;
    Ok(json!({ "path": path, "flags": flags }))
}

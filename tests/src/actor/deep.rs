//! Opens a file below a tower of directories whose whole name no single system call takes.

use std::ffi::CString;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Args;
use super::open::of_fd;
use crate::sys::call;

/// `base= n= len=`: `n` directories with names of `len` bytes below `base`, each made and entered by itself; at the
/// bottom a file `leaf`. Everything is removed again.
pub(super) fn deep(args: &Args) -> Result<Value> {
    let (n, len) = (args.number("n", 64)?, args.number("len", 60)? as usize);
    let mut path = args.need("base")?.to_owned();
    std::env::set_current_dir(&path)?;
    let mut names = Vec::new();
    for i in 0..n {
        let name = format!("{i:0>len$}");
        std::fs::create_dir(&name).with_context(|| format!("directory {i}"))?;
        std::env::set_current_dir(&name)?;
        path = format!("{path}/{name}");
        names.push(name);
    }
    path.push_str("/leaf");
    let leaf = CString::new("leaf")?;
    let flags = libc::O_CREAT | libc::O_RDWR;
    let fd = call(libc::SYS_openat, [libc::AT_FDCWD.into(), leaf.as_c_str().into(), flags.into(), 0o644.into()])?;
    let file = of_fd(fd as i32)?;
    call(libc::SYS_close, [fd.into()])?;
    std::fs::remove_file("leaf")?;
    for name in names.iter().rev() {
        std::env::set_current_dir("..")?;
        std::fs::remove_dir(name)?;
    }
    let components = path.split('/').count() - 1;
    Ok(json!({ "path": path, "components": components, "file": file, "flags": flags, "fd": fd }))
}

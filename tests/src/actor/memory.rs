//! Makes files that only memory holds, and runs programs from them.

use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Args;
use super::open::of_fd;
use crate::sys::{self, Low, call, call32};

/// `name= [flags=] [n=] [compat=1]`
pub(super) fn memfd(args: &Args) -> Result<Value> {
    let (name, flags, n) = (args.path("name")?, args.number("flags", 1)?, args.number("n", 1)?);
    let mut fds = Vec::new();
    for _ in 0..n {
        let fd = if args.flag("compat") {
            let mut low = Low::new()?;
            let name = low.put(name.to_bytes_with_nul());
            i64::from(call32(356, [name, flags as u32, 0, 0, 0])?)
        } else {
            call(libc::SYS_memfd_create, [name.as_c_str().into(), flags.into()])?
        };
        call(libc::SYS_close, [fd.into()])?;
        fds.push(fd);
    }
    Ok(json!({ "n": n, "fds": fds, "flags": flags, "name": args.need("name")? }))
}

/// `from=memfd|shm|disk [dir=]`: a copy of this program reports from there.
pub(super) fn fileless(args: &Args) -> Result<Value> {
    let own = fs::read("/proc/self/exe")?;
    let dir = match args.need("from")? {
        "memfd" => return from_memfd(&own),
        "shm" => "/dev/shm",
        "disk" => args.need("dir")?,
        other => bail!("from={other}"),
    };
    let path = format!("{dir}/haechi-e2e-{}", std::process::id());
    fs::write(&path, own)?;
    let ran = run(&path);
    fs::remove_file(&path)?;
    let (pid, file) = ran?;
    Ok(json!({ "path": path, "child": pid, "file": file }))
}

fn run(path: &str) -> Result<(u32, crate::facts::File)> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    let file = crate::facts::File::at(path)?;
    let mut child = Command::new(path).arg("report").spawn()?;
    let pid = child.id();
    ensure!(child.wait()?.success(), "the copy failed");
    Ok((pid, file))
}

fn from_memfd(own: &[u8]) -> Result<Value> {
    let fd = call(libc::SYS_memfd_create, [c"haechi-e2e".into(), 0.into()])? as i32;
    let path = format!("/proc/self/fd/{fd}");
    let mut file = fs::OpenOptions::new().write(true).open(&path).context(path.clone())?;
    file.write_all(own)?;
    drop(file);
    let facts = of_fd(fd)?;
    let argv = [CString::new("from-memory")?, CString::new("report")?];
    let pid = sys::fork(0, || {
        let argv: Vec<_> = argv.iter().map(CString::as_c_str).collect();
        let error = sys::execveat(fd, c"", &argv, &[], libc::AT_EMPTY_PATH);
        error.raw_os_error().unwrap_or(1)
    })?;
    let status = super::life::reap(pid)?;
    ensure!(status == 0, "the program in memory failed: status {status:#x}");
    Ok(json!({ "path": "memfd:haechi-e2e", "child": pid, "file": facts }))
}

/// `[own=1]`: calls process_vm_writev at the parent, or at itself, with nothing to write.
pub(super) fn vm_write(args: &Args) -> Result<Value> {
    let target = if args.flag("own") { std::process::id() } else { std::os::unix::process::parent_id() };
    let none = || 0.into();
    call(libc::SYS_process_vm_writev, [i64::from(target).into(), none(), none(), none(), none(), none()])?;
    Ok(json!({ "target": target }))
}

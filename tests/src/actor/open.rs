//! Opens a file by each call that can, in both ABIs, and with a second thread that takes the descriptor away.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Args;
use crate::facts::File;
use crate::sys::{Low, Uring, call, call32};

/// `how=open|openat|openat2|creat|handle|uring path= [flags=] [n=] [compat=1] [may_fail=1] [above=]`: with `above` the file
/// is opened once before, and then again with all descriptors up to that number in use.
pub(super) fn open(args: &Args) -> Result<Value> {
    let path = args.path("path")?;
    let how = args.need("how")?;
    let flags = args.number("flags", 0)? as i32;
    let n = args.number("n", 1)?;
    let mut low = if args.flag("compat") { Some(Low::new()?) } else { None };
    let mut ring = if how == "uring" { Some(Uring::new().context("io_uring")?) } else { None };
    let mut fds = Vec::new();
    let mut file = None;
    let above = args.number("above", 0)?;
    let first = if above > 0 { Some(open64(how, &path, flags)?) } else { None };
    while let Some(first) = first
        && call(libc::SYS_dup, [first.into()])? < above
    {}
    let mut error = None;
    for _ in 0..n {
        let opened = match (&mut low, &mut ring) {
            (Some(low), _) => open32(low, how, &path, flags),
            (_, Some(ring)) => uring(ring, &path, flags),
            _ => open64(how, &path, flags),
        };
        match opened {
            Ok(fd) => {
                file = Some(of_fd(fd)?);
                call(libc::SYS_close, [fd.into()])?;
                fds.push(fd);
            }
            Err(e) if args.flag("may_fail") => error = e.raw_os_error(),
            Err(e) => return Err(e).with_context(|| format!("{how} {}", path.to_string_lossy())),
        }
    }
    Ok(json!({ "n": n, "low": first, "fd": fds.last(), "file": file, "flags": flags, "error": error }))
}

/// What stands behind a descriptor.
pub(super) fn of_fd(fd: i32) -> Result<File> {
    File::at(format!("/proc/self/fd/{fd}"))
}

fn how_struct(flags: i32) -> [u8; 24] {
    let mode: u64 = if flags & libc::O_CREAT == 0 { 0 } else { 0o644 };
    let mut how = [0; 24];
    how[..8].copy_from_slice(&(flags as u32 as u64).to_le_bytes());
    how[8..16].copy_from_slice(&mode.to_le_bytes());
    how
}

/// Opens by the machine's own ABI.
pub(super) fn open64(how: &str, path: &CStr, flags: i32) -> std::io::Result<i32> {
    let at = libc::AT_FDCWD;
    let fd = match how {
        #[cfg(target_arch = "x86_64")]
        "open" => call(libc::SYS_open, [path.into(), flags.into(), 0o644.into()]),
        #[cfg(target_arch = "x86_64")]
        "creat" => call(libc::SYS_creat, [path.into(), 0o644.into()]),
        "openat" => call(libc::SYS_openat, [at.into(), path.into(), flags.into(), 0o644.into()]),
        "openat2" => call(libc::SYS_openat2, [at.into(), path.into(), (&how_struct(flags)).into(), 24.into()]),
        "handle" => {
            let handle = handle_of(path)?;
            let mount = parent_fd(path)?;
            let fd = call(libc::SYS_open_by_handle_at, [mount.into(), (&handle).into(), flags.into()]);
            call(libc::SYS_close, [mount.into()])?;
            fd
        }
        _ => Err(std::io::ErrorKind::Unsupported.into()),
    };
    fd.map(|fd| fd as i32)
}

const HANDLE: usize = 8 + 128;

fn handle_of(path: &CStr) -> std::io::Result<[u8; HANDLE]> {
    let mut handle = [0; HANDLE];
    handle[..4].copy_from_slice(&128u32.to_le_bytes());
    let mut mount = [0; 4];
    let (handle_out, mount_out): (&mut [u8], &mut [u8]) = (&mut handle, &mut mount);
    let at = libc::AT_FDCWD;
    call(libc::SYS_name_to_handle_at, [at.into(), path.into(), handle_out.into(), mount_out.into(), 0.into()])?;
    Ok(handle)
}

/// A descriptor on the mount that `path` lies on: of its directory.
fn parent_fd(path: &CStr) -> std::io::Result<i64> {
    let text = path.to_string_lossy();
    let dir = text.rsplit_once('/').map_or(".", |p| p.0);
    let dir = std::ffi::CString::new(dir)?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    call(libc::SYS_openat, [libc::AT_FDCWD.into(), dir.as_c_str().into(), flags.into()])
}

/// Numbers in `arch/x86/entry/syscalls/syscall_32.tbl`.
fn open32(low: &mut Low, how: &str, path: &CStr, flags: i32) -> std::io::Result<i32> {
    low.clear();
    let name = low.put(path.to_bytes_with_nul());
    let (at, flags32) = (libc::AT_FDCWD as u32, flags as u32);
    let fd = match how {
        "open" => call32(5, [name, flags32, 0o644, 0, 0]),
        "creat" => call32(8, [name, 0o644, 0, 0, 0]),
        "openat" => call32(295, [at, name, flags32, 0o644, 0]),
        "openat2" => {
            let how = low.put(&how_struct(flags));
            call32(437, [at, name, how, 24, 0])
        }
        "handle" => {
            let handle = low.put(&handle_of(path)?);
            let dir = parent_fd(path)?;
            let fd = call32(342, [dir as u32, handle, flags32, 0, 0]);
            call(libc::SYS_close, [dir.into()])?;
            fd
        }
        _ => Err(std::io::ErrorKind::Unsupported.into()),
    };
    fd.map(|fd| fd as i32)
}

const IORING_OP_OPENAT: u8 = 18;

/// Opens through io_uring: `struct io_uring_sqe` holds opcode at 0, fd at 4, addr at 16, mode at 24, flags at 28.
pub(super) fn uring(ring: &mut Uring, path: &CStr, flags: i32) -> std::io::Result<i32> {
    let mut sqe = [0; 64];
    sqe[0] = IORING_OP_OPENAT;
    sqe[4..8].copy_from_slice(&libc::AT_FDCWD.to_le_bytes());
    sqe[16..24].copy_from_slice(&(path.as_ptr() as u64).to_le_bytes());
    sqe[24..28].copy_from_slice(&0o644u32.to_le_bytes());
    sqe[28..32].copy_from_slice(&flags.to_le_bytes());
    ring.run(&sqe)
}

/// `path= n= by=close|dup2`: another thread closes the descriptor, or puts /dev/null there, as soon as it is there.
pub(super) fn raced(args: &Args) -> Result<Value> {
    let path = args.path("path")?;
    let n = args.number("n", 1000)?;
    let null = call(libc::SYS_openat, [libc::AT_FDCWD.into(), c"/dev/null".into(), libc::O_RDONLY.into()])? as i32;
    let victim = null + 1;
    let dup = match args.need("by")? {
        "dup2" => true,
        "close" => false,
        other => bail!("by={other}"),
    };
    let stop = AtomicBool::new(false);
    let (mut won, mut stolen) = (0_u64, 0_u64);
    thread::scope(|scope| -> Result<()> {
        let thief = scope.spawn(|| {
            let mut hits = 0;
            while !stop.load(Ordering::Relaxed) {
                let took = if dup {
                    // dup3 refuses a descriptor that is not open only if the old one is not; so ask first.
                    call(libc::SYS_fcntl, [victim.into(), libc::F_GETFD.into()])
                        .and_then(|_| call(libc::SYS_dup3, [null.into(), victim.into(), 0.into()]))
                } else {
                    call(libc::SYS_close, [victim.into()])
                };
                hits += u64::from(took.is_ok());
            }
            hits
        });
        for _ in 0..n {
            let fd = call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_c_str().into(), libc::O_RDONLY.into()])?;
            won += u64::from(fd == i64::from(victim));
            // The thief may have been quicker: then there is nothing left to close.
            let _closed_already = call(libc::SYS_close, [fd.into()]);
        }
        stop.store(true, Ordering::Relaxed);
        stolen = thief.join().unwrap_or(0);
        Ok(())
    })?;
    Ok(json!({ "n": n, "at_victim": won, "stolen": stolen }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_opens_the_same_file() {
        let path = c"/proc/self/comm";
        let want = File::at("/proc/self/comm").expect("there is a /proc");
        for how in ["open", "openat", "openat2"] {
            let fd = open64(how, path, 0).expect(how);
            assert_eq!(of_fd(fd).expect("it is open").inode, want.inode, "{how}");
            let mut low = Low::new().expect("there is low memory");
            let fd = open32(&mut low, how, path, 0).expect(how);
            assert_eq!(of_fd(fd).expect("it is open").inode, want.inode, "32-bit {how}");
            call(libc::SYS_close, [fd.into()]).expect("it was open");
        }
    }
}

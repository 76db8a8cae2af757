//! Does one thing very often, and counts; or nothing at all, for as long as it is wanted.

use std::io::{Read, Write as _};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Args;
use crate::sys::call;

/// `n=`
pub(super) fn getppid(args: &Args) -> Result<Value> {
    let n = args.number("n", 1000)?;
    let mut parent = 0;
    for _ in 0..n {
        parent = call(libc::SYS_getppid, [])?;
    }
    Ok(json!({ "n": n, "ret": parent }))
}

/// `path= [n=] [every=MICROSECONDS]`: opens and closes `n` times, or, without `n`, until standard input ends.
pub(super) fn opens(args: &Args) -> Result<Value> {
    let path = args.path("path")?;
    let n = args.number("n", i64::MAX)?;
    let every = Duration::from_micros(args.number("every", 0)? as u64);
    let stop = AtomicBool::new(false);
    let mut done = 0_i64;
    let mut failed = 0_i64;
    thread::scope(|scope| {
        if n == i64::MAX {
            scope.spawn(|| {
                until_eof();
                stop.store(true, Ordering::Relaxed);
            });
        }
        while done < n && !stop.load(Ordering::Relaxed) {
            let opened = call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_c_str().into(), 0.into()]);
            match opened.and_then(|fd| call(libc::SYS_close, [fd.into()])) {
                Ok(_) => done += 1,
                Err(_) => failed += 1,
            }
            if !every.is_zero() {
                thread::park_timeout(every);
            }
        }
    });
    ensure!(failed == 0, "{failed} opens failed");
    Ok(json!({ "n": done }))
}

/// `n=`: runs /bin/true.
pub(super) fn churn(args: &Args) -> Result<Value> {
    let n = args.number("n", 100)?;
    for _ in 0..n {
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
    }
    Ok(json!({ "n": n }))
}

/// Says who it is, then stays until standard input ends.
pub(super) fn wait(_: &Args) -> Result<Value> {
    super::say(&json!({ "waiting": true }))?;
    std::io::stdout().flush()?;
    until_eof();
    Ok(json!({ "waited": true }))
}

pub(super) fn until_eof() {
    // Whatever ends the input ends the wait.
    let _input_ended = std::io::stdin().read_to_end(&mut Vec::new());
}

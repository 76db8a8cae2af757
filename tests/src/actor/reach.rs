//! Reaches out of its own process: makes a BPF map, offers the kernel a module, signals a child, changes namespaces, reads
//! and writes the memory of a child.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Args;
use super::abi::Word::{In, Num, Str};
use super::abi::make;
use super::life::reap;
use crate::facts::{File, Task};
use crate::sys::{Low, address_of, call, fork};

/// `by=bpf|finit_module|kill|tgkill|unshare|setns|readv|writev [path=] [compat=1]`
pub(super) fn reach(args: &Args) -> Result<Value> {
    let by = args.need("by")?;
    let mut low = if args.flag("compat") { Some(Low::new()?) } else { None };
    let low = low.as_mut();
    match by {
        "bpf" => bpf(low),
        "finit_module" => finit_module(args, low),
        "kill" | "tgkill" => kill(by, low),
        "unshare" | "setns" => switch(by, low),
        "readv" | "writev" => memory(by == "writev"),
        other => bail!("by={other}"),
    }
}

/// A map: `union bpf_attr` has type, sizes of key and value, entries in its first words, the name at 28.
fn bpf(low: Option<&mut Low>) -> Result<Value> {
    let mut attr = [0_u8; 72];
    for (word, value) in attr.chunks_mut(4).zip([2_u32, 4, 8, 1]) {
        word.copy_from_slice(&value.to_le_bytes());
    }
    let name = "fifteen_letters";
    attr[28..28 + name.len()].copy_from_slice(name.as_bytes());
    let ret = make(low, "bpf", [Num(0), In(&attr), Num(attr.len() as i64)]).context("bpf")?;
    Ok(json!({ "ret": ret, "cmd": 0, "type": 2, "name": name }))
}

/// A file that is no module: the kernel looks at it, and takes it no further.
fn finit_module(args: &Args, low: Option<&mut Low>) -> Result<Value> {
    let file = std::fs::File::open(args.need("path")?)?;
    let error = match make(low, "finit_module", [Num(file.as_raw_fd().into()), Str(c""), Num(0)]) {
        Ok(_) => bail!("it was taken for a module"),
        Err(error) => error.raw_os_error().unwrap_or_default(),
    };
    Ok(json!({ "ret": -error, "path": args.need("path")?, "file": File::at(args.need("path")?)? }))
}

/// A child that waits until it reads a byte.
fn child() -> Result<(i32, std::io::PipeWriter)> {
    let (mut reader, writer) = std::io::pipe()?;
    let pid = fork(0, || i32::from(reader.read_exact(&mut [0]).is_err()))?;
    Ok((pid, writer))
}

fn kill(by: &str, low: Option<&mut Low>) -> Result<Value> {
    let (pid, writer) = child()?;
    let task = Task::of(pid as u32, pid as u32)?;
    let (own, signal) = (i64::from(std::process::id()), Num(libc::SIGKILL.into()));
    // Neither of these is a signal to another.
    call(libc::SYS_kill, [pid.into(), 0.into()])?;
    call(libc::SYS_kill, [own.into(), libc::SIGCHLD.into()])?;
    let pid_word = Num(pid.into());
    let ret = match by {
        "kill" => make(low, by, [pid_word, signal]),
        _ => make(low, by, [pid_word, pid_word, signal]),
    };
    let ret = ret.with_context(|| by.to_owned())?;
    ensure!(reap(pid)? == libc::SIGKILL, "the child did not die of it");
    drop(writer);
    Ok(json!({ "ret": ret, "signal": libc::SIGKILL, "child": task }))
}

/// Makes a namespace of host names, or goes into the one that it is in: both put all namespaces in place anew.
fn switch(by: &str, low: Option<&mut Low>) -> Result<Value> {
    let own = std::fs::File::open("/proc/self/ns/uts")?;
    let ret = match by {
        "unshare" => make(low, by, [Num(libc::CLONE_NEWUTS.into())]),
        _ => make(low, by, [Num(own.as_raw_fd().into()), Num(0)]),
    };
    let ret = ret.with_context(|| by.to_owned())?;
    let number = |name: &str| Ok::<_, anyhow::Error>(std::fs::metadata(format!("/proc/self/ns/{name}"))?.ino());
    let names = ["mnt", "pid_for_children", "uts", "ipc", "net", "cgroup"];
    let numbers = names.into_iter().map(number).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "ret": ret, "namespaces": numbers }))
}

/// Copies a word between a child and itself: it lies at the same address in both.
fn memory(write: bool) -> Result<Value> {
    let word = 0x5eed_u64;
    let (pid, mut writer) = child()?;
    let piece: Vec<u8> = [address_of(&word), 8].iter().flat_map(|w| w.to_le_bytes()).collect();
    let (nr, piece) = (if write { libc::SYS_process_vm_writev } else { libc::SYS_process_vm_readv }, piece.as_slice());
    let ret = call(nr, [pid.into(), piece.into(), 1.into(), piece.into(), 1.into(), 0.into()]).context("process_vm")?;
    writer.write_all(&[0])?;
    reap(pid)?;
    Ok(json!({ "ret": ret, "pid": pid, "iov": piece.as_ptr() as u64 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_memory_is_read() {
        let did = memory(false).expect("a child can be read");
        assert_eq!(did["ret"], 8);
    }
}

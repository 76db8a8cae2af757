//! Traces a child of one's own: asks to be traced, attaches, writes into its memory.

use std::io::{Read, Write as _};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Args;
use crate::facts::Task;
use crate::sys::{self, Arg, Low, call, call32};

const TRACEME: i64 = 0;
const POKETEXT: i64 = 4;
const POKEDATA: i64 = 5;
const ATTACH: i64 = 16;
const DETACH: i64 = 17;

/// What ptrace does not look at in this request still travels in the event.
const ADDR: i64 = 0x1234_5000;
const DATA: i64 = 0x5678;

/// `what=traceme|poketext|pokedata|attach [compat=1]`
pub(super) fn ptrace(args: &Args) -> Result<Value> {
    let compat = args.flag("compat");
    match args.need("what")? {
        "traceme" => traceme(compat),
        "poketext" => poke(Some(POKETEXT), compat),
        "pokedata" => poke(Some(POKEDATA), compat),
        "attach" => poke(None, compat),
        other => anyhow::bail!("what={other}"),
    }
}

fn request(compat: bool, request: i64, pid: i64, addr: i64, data: i64) -> std::io::Result<i64> {
    if compat {
        return call32(26, [request as u32, pid as u32, addr as u32, data as u32, 0]).map(i64::from);
    }
    call(libc::SYS_ptrace, [request.into(), pid.into(), addr.into(), data.into()])
}

fn traceme(compat: bool) -> Result<Value> {
    let pid = sys::fork(0, || i32::from(request(compat, TRACEME, 0, ADDR, DATA).is_err()))?;
    let child = super::life::zombie(pid)?;
    let status = super::life::reap(pid)?;
    ensure!(status == 0, "the child was not traced: status {status:#x}");
    Ok(json!({ "child": child, "calls": [shown(TRACEME, 0, ADDR, DATA, 0)] }))
}

fn shown(request: i64, pid: i64, addr: i64, data: i64, ret: i64) -> Value {
    json!({ "request": request, "pid": pid, "addr": addr, "data": data, "ret": ret })
}

/// Attaches to a child, writes a word of it where asked for, lets it go.
fn poke(with: Option<i64>, compat: bool) -> Result<Value> {
    let word = 0_u64;
    let mut low = if compat { Some(Low::new()?) } else { None };
    let addr = low.as_mut().map_or_else(|| sys::address_of(&word), |l| u64::from(l.put(&[0; 8]))) as i64;
    let (mut reader, mut writer) = std::io::pipe()?;
    let pid = sys::fork(0, || {
        let mut byte = [0];
        i32::from(reader.read_exact(&mut byte).is_err())
    })?;
    let child = Task::of(pid as u32, pid as u32)?;
    let target = i64::from(pid);
    let mut calls = Vec::new();
    let mut ask = |what, addr, data| -> Result<()> {
        let ret = request(compat, what, target, addr, data).with_context(|| format!("ptrace {what}"))?;
        calls.push(shown(what, target, addr, data, ret));
        Ok(())
    };
    ask(ATTACH, ADDR, DATA)?;
    let mut status = [0; 4];
    let status: &mut [u8] = &mut status;
    call(libc::SYS_wait4, [pid.into(), Arg::Out(status), libc::WUNTRACED.into(), 0.into()])?;
    if let Some(what) = with {
        ask(what, addr, 0x4141)?;
    }
    ask(DETACH, 0, 0)?;
    writer.write_all(b"x")?;
    let status = super::life::reap(pid)?;
    ensure!(status == 0, "the child did not live on: status {status:#x}");
    Ok(json!({ "child": child, "calls": calls }))
}

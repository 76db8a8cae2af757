//! An end of TCP connections that does what it is told, line by line, and tells what came of it: two of them act out
//! what tests of flows need, and each knows its own bytes.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Args, life, say, socket};
use crate::facts::Task;
use crate::sys::{self, call};

/// Where systemd's protocol puts the first listener.
const FIRST_PASSED: i32 = 3;

/// Does what each line of standard input says; ends with it.
pub(super) fn tcp(_: &Args) -> Result<Value> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let args = Args::parse(rest.split_whitespace().map(str::to_owned));
        let did = obey(verb, &args).with_context(|| line.clone())?;
        say(&did)?;
    }
    Ok(json!({}))
}

fn obey(verb: &str, args: &Args) -> Result<Value> {
    let fd = args.number("fd", -1)? as i32;
    let n = args.number("n", i64::MAX)? as u64;
    Ok(match verb {
        "listen" => {
            let (fd, at) = socket::listen(args.need("at")?.parse()?, args.number("protocol", 0)? as i32)?;
            json!({ "fd": fd, "at": at })
        }
        "connect" => connect(args)?,
        "disconnect" => {
            socket::disconnect(fd)?;
            json!({})
        }
        "reconnect" => {
            socket::connect(fd, args.need("to")?.parse()?)?;
            end(fd)?
        }
        "accept" => end(socket::accept(fd)?)?,
        "send" => moved(socket::send(fd, n)),
        "receive" => moved(socket::receive(fd, n)),
        "shutdown" => {
            call(libc::SYS_shutdown, [fd.into(), libc::SHUT_WR.into()])?;
            json!({})
        }
        "close" => {
            match args.get("how") {
                Some("reset") => socket::linger_no_time(fd)?,
                Some("silent") => socket::set(fd, libc::SOL_TCP, socket::TCP_REPAIR, &1_i32.to_ne_bytes())?,
                _ => {}
            }
            socket::close(fd)?;
            json!({})
        }
        "fork" => {
            let conn = socket::accept(fd)?;
            let mut did = end(conn)?;
            did["child"] = json!(serving_child(conn, args)?);
            socket::close(conn)?;
            did
        }
        "prefork" => {
            let children: Result<Vec<Task>> = (0..n).map(|_| serving_child(-1, args)).collect();
            json!({ "children": children? })
        }
        "activate" => {
            let mut child = activated(fd, args)?;
            let task = Task::of(child.id(), child.id())?;
            let served = child.wait()?;
            json!({ "child": task, "success": served.success() })
        }
        "reap" => json!({ "status": life::reap(args.number("pid", -1)? as i32)? }),
        other => bail!("{other} is not known"),
    })
}

/// `to= [from=] [protocol=] [nonblock=1] [syns=] [timeout=MILLISECONDS]`: an error of connect(2) is a result.
fn connect(args: &Args) -> Result<Value> {
    let to: SocketAddr = args.need("to")?.parse()?;
    let (family, _) = socket::sockaddr(to);
    let fd = socket::socket(family, args.number("protocol", 0)? as i32)?;
    if let Some(from) = args.get("from") {
        let (_, address) = socket::sockaddr(from.parse()?);
        call(libc::SYS_bind, [fd.into(), address.as_slice().into(), (address.len() as i32).into()])?;
    }
    for (key, option) in [("syns", libc::TCP_SYNCNT), ("timeout", libc::TCP_USER_TIMEOUT)] {
        if let Some(value) = args.get(key) {
            socket::set(fd, libc::SOL_TCP, option, &value.parse::<i32>()?.to_ne_bytes())?;
        }
    }
    if args.flag("nonblock") {
        call(libc::SYS_fcntl, [fd.into(), libc::F_SETFL.into(), libc::O_NONBLOCK.into()])?;
    }
    let cookie = socket::cookie(fd)?;
    match socket::connect(fd, to) {
        Ok(()) => end(fd),
        Err(e) => Ok(json!({ "fd": fd, "cookie": cookie, "remote": to, "errno": e.raw_os_error() })),
    }
}

/// What names a connection.
pub(super) fn end(fd: i32) -> Result<Value> {
    let (local, remote) = (socket::local(fd)?, socket::remote(fd)?);
    Ok(json!({ "fd": fd, "cookie": socket::cookie(fd)?, "local": local, "remote": remote, "errno": 0 }))
}

fn moved((n, ended): (u64, std::io::Result<()>)) -> Value {
    json!({ "n": n, "errno": ended.err().and_then(|e| e.raw_os_error()).unwrap_or(0) })
}

/// A child that serves `conn`, or, where that is none, the next connection of the listener.
fn serving_child(conn: i32, args: &Args) -> Result<Task> {
    let listener = args.number("fd", -1)? as i32;
    let pid = sys::fork(0, || {
        let dies_with_parent = call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()]);
        if dies_with_parent.is_err() {
            return 1;
        }
        let conn = if conn < 0 { socket::accept(listener).map_err(anyhow::Error::from) } else { Ok(conn) };
        i32::from(conn.and_then(|c| answer(c, args)).and_then(|did| say(&did)).is_err())
    })?;
    Task::of(pid as u32, pid as u32)
}

/// Receives `rx=` bytes, sends `tx=`, waits for the other end to be done, closes.
fn answer(conn: i32, args: &Args) -> Result<Value> {
    let mut did = end(conn)?;
    let (came, ended) = socket::receive(conn, args.number("rx", 0)? as u64);
    ended?;
    let (sent, ended) = socket::send(conn, args.number("tx", 0)? as u64);
    ended?;
    socket::receive(conn, 1).1?;
    socket::close(conn)?;
    (did["rx"], did["tx"]) = (came.into(), sent.into());
    Ok(did)
}

/// Runs `program=` with the listener as descriptor 3, as systemd does.
fn activated(listener: i32, args: &Args) -> Result<std::process::Child> {
    let high: i32 = 100;
    let fd = call(libc::SYS_fcntl, [listener.into(), libc::F_DUPFD.into(), high.into()])? as i32;
    let taken = call(libc::SYS_fcntl, [FIRST_PASSED.into(), libc::F_DUPFD_CLOEXEC.into(), high.into()]);
    call(libc::SYS_dup3, [fd.into(), FIRST_PASSED.into(), 0.into()])?;
    let words = ["rx", "tx"].map(|k| format!("{k}={}", args.get(k).unwrap_or("0")));
    let child = Command::new(args.need("program")?).arg("serve").args(words).spawn();
    socket::close(fd)?;
    match taken {
        Ok(old) => {
            call(libc::SYS_dup3, [(old as i32).into(), FIRST_PASSED.into(), libc::O_CLOEXEC.into()])?;
            socket::close(old as i32)?;
        }
        Err(_) => socket::close(FIRST_PASSED)?,
    }
    Ok(child?)
}

/// `rx= tx=`: serves one connection of the listener that it was started with.
pub(super) fn serve(args: &Args) -> Result<Value> {
    answer(socket::accept(FIRST_PASSED)?, args)
}

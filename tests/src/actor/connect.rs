//! Connects a socket of each family, by each call that can, on any descriptor.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Args;
use super::socket::sockaddr;
use crate::sys::{Low, Uring, call, call32};

/// Whoever listens; dropped when the actor is done.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Nobody,
}

/// `to=inet|inet6|unix|none [path=] [type=stream|dgram] [by=connect|compat|socketcall|uring] [fd=] [n=] [refused=1]`
pub(super) fn connect(args: &Args) -> Result<Value> {
    let kind = if args.get("type") == Some("dgram") { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    let n = args.number("n", 1)?;
    let to = args.need("to")?;
    let (family, listener, address, shown) = target(args, to, kind)?;
    let by = args.get("by").unwrap_or("connect");
    let mut ring = if by == "uring" { Some(Uring::new().context("io_uring")?) } else { None };
    let mut fds = Vec::new();
    let mut results = Vec::new();
    for _ in 0..n {
        let made = call(libc::SYS_socket, [family.into(), kind.into(), 0.into()])? as i32;
        let wanted = args.number("fd", i64::from(made))? as i32;
        if wanted != made {
            call(libc::SYS_dup3, [made.into(), wanted.into(), 0.into()])?;
            call(libc::SYS_close, [made.into()])?;
        }
        let done = match (&mut ring, by) {
            (Some(ring), _) => uring(ring, wanted, &address),
            (_, "compat") => compat(wanted, &address, false),
            (_, "socketcall") => compat(wanted, &address, true),
            _ => call(libc::SYS_connect, [wanted.into(), address.as_slice().into(), (address.len() as i32).into()]),
        };
        match &done {
            Ok(_) => results.push(0),
            Err(e) if args.flag("refused") => results.push(-i64::from(e.raw_os_error().unwrap_or(0))),
            Err(_) => {
                done.with_context(|| format!("connect to {shown}"))?;
            }
        }
        match &listener {
            Listener::Tcp(l) => drop(l.accept()?),
            Listener::Unix(l) => drop(l.accept()?),
            Listener::Nobody => {}
        }
        call(libc::SYS_close, [wanted.into()])?;
        fds.push(wanted);
    }
    Ok(
        json!({ "n": n, "fds": fds, "family": family, "type": kind, "address": address, "shown": shown, "ret": results }),
    )
}

/// Family, listener, `struct sockaddr`, and the address in words.
fn target(args: &Args, to: &str, kind: i32) -> Result<(i32, Listener, Vec<u8>, String)> {
    let ip = match to {
        "inet" => "127.0.0.1",
        "inet6" => "[::1]",
        "unix" => {
            let path = args.need("path")?;
            let listener = Listener::Unix(UnixListener::bind(path)?);
            let mut address = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
            address.extend_from_slice(path.as_bytes());
            address.push(0);
            return Ok((libc::AF_UNIX, listener, address, path.to_owned()));
        }
        "none" => {
            let mut address = (libc::AF_UNSPEC as u16).to_le_bytes().to_vec();
            address.resize(16, 0);
            return Ok((libc::AF_INET, Listener::Nobody, address, "nobody".to_owned()));
        }
        other => bail!("to={other}"),
    };
    let listener = TcpListener::bind(format!("{ip}:0"))?;
    let at = listener.local_addr()?;
    let keep = kind == libc::SOCK_STREAM && !args.flag("refused");
    let (family, address) = sockaddr(at);
    Ok((family, if keep { Listener::Tcp(listener) } else { Listener::Nobody }, address, at.to_string()))
}

/// Numbers in `arch/x86/entry/syscalls/syscall_32.tbl`; 3 is SYS_CONNECT of `socketcall`.
fn compat(fd: i32, address: &[u8], through_socketcall: bool) -> std::io::Result<i64> {
    let mut low = Low::new()?;
    let (at, len) = (low.put(address), address.len() as u32);
    let done = if through_socketcall {
        let words: Vec<u8> = [fd as u32, at, len].iter().flat_map(|w| w.to_le_bytes()).collect();
        let words = low.put(&words);
        call32(102, [3, words, 0, 0, 0])
    } else {
        call32(362, [fd as u32, at, len, 0, 0])
    };
    done.map(i64::from)
}

const IORING_OP_CONNECT: u8 = 16;

/// `struct io_uring_sqe` holds opcode at 0, fd at 4, the length of the address at 8, the address at 16.
fn uring(ring: &mut Uring, fd: i32, address: &[u8]) -> std::io::Result<i64> {
    let mut sqe = [0; 64];
    sqe[0] = IORING_OP_CONNECT;
    sqe[4..8].copy_from_slice(&fd.to_le_bytes());
    sqe[8..16].copy_from_slice(&(address.len() as u64).to_le_bytes());
    sqe[16..24].copy_from_slice(&(address.as_ptr() as u64).to_le_bytes());
    ring.run(&sqe).map(i64::from)
}

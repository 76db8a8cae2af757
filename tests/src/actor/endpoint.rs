//! Makes sockets, names them, listens, accepts, doubles their descriptors: each by its call, in both ABIs.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Args;
use super::abi::Word::{In, Num};
use super::abi::make;
use super::socket::{connect, local, sockaddr};
use crate::sys::{Low, call};

/// `by=socket|bind|listen|accept4|dup|dup2|dup3 to=inet|inet6|unix [path=] [compat=1]`
pub(super) fn endpoint(args: &Args) -> Result<Value> {
    let (by, to) = (args.need("by")?, args.need("to")?);
    let (family, address) = match to {
        "inet" => sockaddr(SocketAddr::from(([127, 0, 0, 1], 0))),
        "inet6" => sockaddr("[::1]:0".parse()?),
        "unix" => {
            let mut address = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
            address.extend_from_slice(args.need("path")?.as_bytes());
            address.push(0);
            (libc::AF_UNIX, address)
        }
        other => bail!("to={other}"),
    };
    let mut low = if args.flag("compat") { Some(Low::new()?) } else { None };
    let low = low.as_mut();
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    if by == "socket" {
        let fd = make(low, by, [Num(family.into()), Num(stream.into()), Num(0)]).context("socket")?;
        return Ok(json!({ "ret": fd, "family": family, "type": libc::SOCK_STREAM }));
    }
    let fd = call(libc::SYS_socket, [family.into(), stream.into(), 0.into()]).context("socket")?;
    let name = [Num(fd), In(&address), Num(address.len() as i64)];
    if by == "bind" {
        let ret = make(low, by, name).context("bind")?;
        return Ok(json!({ "ret": ret, "fd": fd, "given": shown(args, None)?, "at": shown(args, Some(fd))? }));
    }
    make(None, "bind", name).context("bind")?;
    let listening = [Num(fd), Num(7)];
    if by == "listen" {
        let ret = make(low, by, listening).context("listen")?;
        return Ok(json!({ "ret": ret, "fd": fd, "at": shown(args, Some(fd))?, "backlog": 7 }));
    }
    make(None, "listen", listening).context("listen")?;
    let client = call(libc::SYS_socket, [family.into(), stream.into(), 0.into()])? as i32;
    if to == "unix" {
        call(libc::SYS_connect, [client.into(), address.as_slice().into(), (address.len() as i32).into()])?;
    } else {
        connect(client, local(fd as i32)?)?;
    }
    let at = shown(args, Some(fd))?;
    let (from, onto) = (Num(client.into()), 40);
    let ret = match by {
        "accept4" => make(low, by, [Num(fd), Num(0), Num(0), Num(libc::SOCK_CLOEXEC.into())]),
        "dup" => make(low, by, [from]),
        "dup2" => make(low, by, [from, Num(onto)]),
        "dup3" => make(low, by, [from, Num(onto), Num(0)]),
        other => bail!("by={other}"),
    };
    let ret = ret.with_context(|| by.to_owned())?;
    Ok(json!({ "ret": ret, "fd": fd, "at": at, "client": client }))
}

/// An address in the agent's words: that of a socket, or the one that was asked for.
fn shown(args: &Args, fd: Option<i64>) -> Result<Value> {
    let port = match fd {
        Some(fd) if args.need("to")? != "unix" => local(fd as i32)?.port(),
        _ => 0,
    };
    Ok(match args.need("to")? {
        "inet" => json!({ "sa_family": "AF_INET", "sin_addr": "127.0.0.1", "sin_port": port }),
        "inet6" => json!({
            "sa_family": "AF_INET6", "sin6_addr": "::1", "sin6_port": port, "sin6_flowinfo": 0, "sin6_scopeid": 0,
        }),
        _ => json!({ "sa_family": "AF_UNIX", "sun_path": args.need("path")? }),
    })
}

//! TCP sockets by system calls, as numbers of descriptors: what `std` hides (protocol, options, half a close) is what
//! the tests of flows are about.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};

use crate::sys::{Arg, call};

/// `TCP_REPAIR` of include/uapi/linux/tcp.h: a socket in repair is closed without a word to the other end.
pub(super) const TCP_REPAIR: i32 = 19;
/// Longest wait in one call, in seconds: an actor must not outlive its test by much.
const PATIENCE: i64 = 120;

/// The address as the kernel reads it, and its family.
pub(super) fn sockaddr(at: SocketAddr) -> (i32, Vec<u8>) {
    let mut out = Vec::new();
    let family = if at.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    out.extend_from_slice(&(family as u16).to_ne_bytes());
    out.extend_from_slice(&at.port().to_be_bytes());
    match at {
        SocketAddr::V4(v4) => out.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => {
            out.extend_from_slice(&v6.flowinfo().to_be_bytes());
            out.extend_from_slice(&v6.ip().octets());
            out.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    if at.is_ipv4() {
        out.resize(16, 0);
    }
    (family, out)
}

/// A socket for TCP, or for what else `protocol` names.
pub(super) fn socket(family: i32, protocol: i32) -> io::Result<i32> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let fd = call(libc::SYS_socket, [family.into(), kind.into(), protocol.into()])? as i32;
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let time: Vec<u8> = [PATIENCE, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
        set(fd, libc::SOL_SOCKET, option, &time)?;
    }
    Ok(fd)
}

/// Listens at `at` and says where that is.
pub(super) fn listen(at: SocketAddr, protocol: i32) -> Result<(i32, SocketAddr)> {
    let (family, address) = sockaddr(at);
    let fd = socket(family, protocol)?;
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    call(libc::SYS_bind, [fd.into(), address.as_slice().into(), (address.len() as i32).into()])
        .with_context(|| format!("bind {at}"))?;
    call(libc::SYS_listen, [fd.into(), 4096.into()])?;
    Ok((fd, local(fd)?))
}

/// Takes the next connection of a listener.
pub(super) fn accept(fd: i32) -> io::Result<i32> {
    let flags = libc::SOCK_CLOEXEC;
    call(libc::SYS_accept4, [fd.into(), 0.into(), 0.into(), flags.into()]).map(|fd| fd as i32)
}

/// Connects a socket.
pub(super) fn connect(fd: i32, to: SocketAddr) -> io::Result<()> {
    let (_, address) = sockaddr(to);
    call(libc::SYS_connect, [fd.into(), address.as_slice().into(), (address.len() as i32).into()]).map(drop)
}

/// Makes a connected socket one that can connect again: connect(2) to nobody.
pub(super) fn disconnect(fd: i32) -> io::Result<()> {
    let mut nobody = (libc::AF_UNSPEC as u16).to_ne_bytes().to_vec();
    nobody.resize(16, 0);
    call(libc::SYS_connect, [fd.into(), nobody.as_slice().into(), 16.into()]).map(drop)
}

/// Address of this end.
pub(super) fn local(fd: i32) -> Result<SocketAddr> {
    name(fd, libc::SYS_getsockname)
}

/// Address of the other end.
pub(super) fn remote(fd: i32) -> Result<SocketAddr> {
    name(fd, libc::SYS_getpeername)
}

fn name(fd: i32, nr: libc::c_long) -> Result<SocketAddr> {
    let (mut at, mut len) = ([0_u8; 28], 28_i32.to_ne_bytes());
    let out: &mut [u8] = &mut at;
    call(nr, [fd.into(), out.into(), Arg::Out(&mut len)])?;
    let port = u16::from_be_bytes([at[2], at[3]]);
    let ip = match i32::from(u16::from_ne_bytes([at[0], at[1]])) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(at[4], at[5], at[6], at[7])),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(at[8..].first_chunk::<16>().copied().unwrap_or_default())),
        other => bail!("family {other}"),
    };
    Ok(SocketAddr::new(ip, port))
}

/// The kernel's number of the socket.
pub(super) fn cookie(fd: i32) -> io::Result<u64> {
    let (mut value, mut len) = ([0_u8; 8], 8_i32.to_ne_bytes());
    let out: &mut [u8] = &mut value;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_COOKIE);
    call(libc::SYS_getsockopt, [fd.into(), level.into(), option.into(), out.into(), Arg::Out(&mut len)])?;
    Ok(u64::from_ne_bytes(value))
}

/// Sets an option.
pub(super) fn set(fd: i32, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as i32;
    call(libc::SYS_setsockopt, [fd.into(), level.into(), option.into(), value.into(), len.into()]).map(drop)
}

/// Sends `n` bytes; how many went, and the error that ended it.
pub(super) fn send(fd: i32, n: u64) -> (u64, io::Result<()>) {
    let block = [b'h'; 1 << 16];
    let mut sent = 0;
    while sent < n {
        let part = &block[..(n - sent).min(block.len() as u64) as usize];
        let (len, flags) = (part.len() as i64, libc::MSG_NOSIGNAL);
        match call(libc::SYS_sendto, [fd.into(), part.into(), len.into(), flags.into(), 0.into(), 0.into()]) {
            Ok(done) => sent += done as u64,
            Err(e) => return (sent, Err(e)),
        }
    }
    (sent, Ok(()))
}

/// Receives `n` bytes or up to the end; how many came, and the error that ended it.
pub(super) fn receive(fd: i32, n: u64) -> (u64, io::Result<()>) {
    let mut block = [0; 1 << 16];
    let mut came = 0;
    while came < n {
        let want = (n - came).min(block.len() as u64) as usize;
        let part: &mut [u8] = &mut block[..want];
        match call(libc::SYS_recvfrom, [fd.into(), part.into(), (want as i64).into(), 0.into(), 0.into(), 0.into()]) {
            Ok(0) => break,
            Ok(done) => came += done as u64,
            Err(e) => return (came, Err(e)),
        }
    }
    (came, Ok(()))
}

/// Closes a descriptor.
pub(super) fn close(fd: i32) -> io::Result<()> {
    call(libc::SYS_close, [fd.into()]).map(drop)
}

/// `struct linger` for a close that resets.
pub(super) fn linger_no_time(fd: i32) -> io::Result<()> {
    let linger: Vec<u8> = [1_i32, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

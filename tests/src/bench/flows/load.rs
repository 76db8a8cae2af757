//! The loads that talk to themselves: both ends of each connection in one thread, in a network namespace of its own. No
//! scheduler comes between, so a step costs what the kernel and whoever watches it make it cost.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail};

use super::super::load::Step;
use crate::actor::Args;
use crate::sys::{Arg, call};

/// Bytes of one write in bulk.
const CHUNK: usize = 64 << 10;
/// Bytes of a step of the bulk load.
const MEGABYTE: u64 = 1_000_000;
/// Bytes of one message of the ping-pong.
const MESSAGE: usize = 100;

/// What the first word means.
pub(in super::super) fn step(kind: &str, args: &Args) -> Result<Step> {
    network(kind != "network")?;
    Ok(match kind {
        // Only a place for others.
        "network" => Box::new(|| Ok(())),
        "tcp-bulk" => {
            let (mut pair, mut buffer) = (Place::new()?.pair()?, vec![0; CHUNK]);
            Box::new(move || pair.pump(MEGABYTE, &mut buffer))
        }
        "tcp-pingpong" => {
            let (mut pair, mut message) = (Place::new()?.pair()?, [7; MESSAGE]);
            pair.near.set_nodelay(true)?;
            pair.far.set_nodelay(true)?;
            Box::new(move || pair.exchange(&mut message))
        }
        "tcp-once" => {
            let (place, bytes, mut buffer) = (Place::new()?, args.number("bytes", 0)? as u64, vec![0; CHUNK]);
            Box::new(move || {
                let mut pair = place.pair()?;
                if bytes > 0 {
                    pair.pump(bytes, &mut buffer)?;
                }
                pair.close()
            })
        }
        "tcp-churn" => {
            let (place, mut pairs) = held(args)?;
            Box::new(move || {
                pairs.pop_front().context("a connection")?.close()?;
                let mut pair = place.pair()?;
                pair.exchange(&mut [7])?;
                pairs.push_back(pair);
                Ok(())
            })
        }
        "tcp-touch" => {
            let (_, mut pairs) = held(args)?;
            Box::new(move || {
                pairs.front_mut().context("a connection")?.exchange(&mut [7])?;
                pairs.rotate_left(1);
                Ok(())
            })
        }
        _ => bail!("there is no load {kind}"),
    })
}

/// A network of our own with a loopback. With `forget`, ends of connections leave nothing behind: as many as a load
/// makes would fill the tables and make each next one slower.
fn network(forget: bool) -> Result<()> {
    const FLAGS_AT: usize = 16;
    call(libc::SYS_unshare, [libc::CLONE_NEWNET.into()]).context("a network namespace: must be root")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let fd = i64::from(socket.as_raw_fd());
    // `struct ifreq`: a name, then what is asked.
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    call(libc::SYS_ioctl, [fd.into(), (libc::SIOCGIFFLAGS as i64).into(), Arg::Out(&mut request)])?;
    request[FLAGS_AT] |= libc::IFF_UP as u8;
    call(libc::SYS_ioctl, [fd.into(), (libc::SIOCSIFFLAGS as i64).into(), (&request).into()])?;
    if forget {
        fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0").context("tcp_max_tw_buckets")?;
    }
    Ok(())
}

/// Where connections are accepted.
struct Place(TcpListener);

impl Place {
    fn new() -> Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))
    }

    fn pair(&self) -> Result<Pair> {
        let near = TcpStream::connect(self.0.local_addr()?)?;
        let (far, _) = self.0.accept()?;
        Ok(Pair { near, far })
    }
}

/// Both ends of a connection.
struct Pair {
    near: TcpStream,
    far: TcpStream,
}

impl Pair {
    /// Moves so many bytes to the other end.
    fn pump(&mut self, bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.near.set_nonblocking(true)?;
        self.far.set_nonblocking(true)?;
        let (mut sent, mut received) = (0_u64, 0_u64);
        while received < bytes {
            let chunk = buffer.len().min((bytes - sent) as usize);
            if chunk > 0 {
                sent += moved(self.near.write(&buffer[..chunk]))?;
            }
            while received < sent {
                match moved(self.far.read(buffer))? {
                    0 => break,
                    n => received += n,
                }
            }
        }
        Ok(())
    }

    /// A message there and one back.
    fn exchange(&mut self, message: &mut [u8]) -> Result<()> {
        self.near.write_all(message)?;
        self.far.read_exact(message)?;
        self.far.write_all(message)?;
        Ok(self.near.read_exact(message)?)
    }

    /// Both ends say that they are done, each in its turn.
    fn close(self) -> Result<()> {
        // Without it the near end, closed first, would be forgotten before the far end's FIN: see `network`.
        self.near.shutdown(Shutdown::Write)?;
        drop(self.far);
        Ok(())
    }
}

/// Bytes that moved; 0 when none can right now.
fn moved(result: std::io::Result<usize>) -> Result<u64> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => Ok(result? as u64),
    }
}

/// `held` connections, each used once.
fn held(args: &Args) -> Result<(Place, VecDeque<Pair>)> {
    let count = args.number("held", 1)?;
    // `struct rlimit64`: soft, hard.
    let mut limits = [0; 16];
    let descriptors = i64::from(libc::RLIMIT_NOFILE);
    call(libc::SYS_prlimit64, [0.into(), descriptors.into(), 0.into(), Arg::Out(&mut limits)])?;
    limits.copy_within(8.., 0);
    call(libc::SYS_prlimit64, [0.into(), descriptors.into(), (&limits).into(), 0.into()])?;
    let place = Place::new()?;
    let pairs: Result<VecDeque<Pair>> = (0..count)
        .map(|_| {
            let mut pair = place.pair()?;
            pair.exchange(&mut [7])?;
            Ok(pair)
        })
        .collect();
    let pairs = pairs.with_context(|| format!("{count} connections"))?;
    Ok((place, pairs))
}

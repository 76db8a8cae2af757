//! Many TCP connections: made or accepted by threads, counted, each with the same bytes both ways.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{Args, load, say, socket};

/// What one side moved.
#[derive(Default)]
struct Sums {
    n: AtomicU64,
    rx: AtomicU64,
    tx: AtomicU64,
}

impl Sums {
    fn add(&self, rx: u64, tx: u64) {
        self.n.fetch_add(1, Ordering::Relaxed);
        self.rx.fetch_add(rx, Ordering::Relaxed);
        self.tx.fetch_add(tx, Ordering::Relaxed);
    }

    fn did(&self) -> Value {
        json!({ "n": self.n, "rx": self.rx, "tx": self.tx })
    }
}

/// `at= n= [threads=] [rx=] [tx=] [hold=1]`: says where it listens, accepts `n`, receives and sends on each, waits for the
/// other end to be done. With `hold` all stay open until standard input ends.
pub(super) fn server(args: &Args) -> Result<Value> {
    let (listener, at) = socket::listen(args.need("at")?.parse()?, 0)?;
    say(&json!({ "at": at }))?;
    side(args, |rx, tx, hold| {
        let conn = socket::accept(listener)?;
        let (came, ended) = socket::receive(conn, rx);
        ended?;
        let (sent, ended) = socket::send(conn, tx);
        ended?;
        if !hold {
            socket::receive(conn, 1).1?;
            socket::close(conn)?;
        }
        Ok((conn, came, sent))
    })
}

/// `to= n= [threads=] [tx=] [rx=] [hold=1]`: makes `n` connections, sends and receives on each, closes it.
pub(super) fn client(args: &Args) -> Result<Value> {
    let to: SocketAddr = args.need("to")?.parse()?;
    let (family, _) = socket::sockaddr(to);
    side(args, |rx, tx, hold| {
        let conn = socket::socket(family, 0)?;
        socket::connect(conn, to)?;
        let (sent, ended) = socket::send(conn, tx);
        ended?;
        let (came, ended) = socket::receive(conn, rx);
        ended?;
        if !hold {
            socket::close(conn)?;
        }
        Ok((conn, came, sent))
    })
}

/// Has threads do it `n` times in all.
fn side(args: &Args, once: impl Fn(u64, u64, bool) -> Result<(i32, u64, u64)> + Sync) -> Result<Value> {
    let (rx, tx, hold) = (args.number("rx", 0)? as u64, args.number("tx", 0)? as u64, args.flag("hold"));
    let (left, sums) = (AtomicI64::new(args.number("n", 1)?), Sums::default());
    let held = Mutex::new(Vec::new());
    thread::scope(|scope| -> Result<()> {
        let worker = || -> Result<()> {
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                let (conn, came, sent) = once(rx, tx, hold)?;
                ensure!(came == rx && sent == tx, "{came} of {rx} came, {sent} of {tx} went");
                sums.add(came, sent);
                if hold {
                    held.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..args.number("threads", 1)?).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            worker.join().map_err(|e| anyhow!("a thread died: {e:?}"))??;
        }
        Ok(())
    })?;
    if hold {
        say(&sums.did())?;
        load::until_eof();
        for conn in held.into_inner().unwrap_or_else(PoisonError::into_inner) {
            socket::close(conn)?;
        }
    }
    Ok(sums.did())
}

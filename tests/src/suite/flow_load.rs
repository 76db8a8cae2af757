//! Very many connections, very many bytes: each connection once at each end, the sums equal, every loss told.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::flow::{Direction, Phase, mark};

use super::flow_help::{ACCEPT, Ends, FLOW, last, progress, says, spec, ss, wants};
use crate::harness::{Context, Did, Line, Said, Skip, Spec, Stopped, Test};

pub(super) const TESTS: &[Test] = &[
    ("flow::churn", churn),
    ("flow::gigabyte", gigabyte),
    ("flow::burst", |c| burst(c, 4)),
    ("flow::hundred_thousand", hundred_thousand),
];

const TX: u64 = 700;
const RX: u64 = 1_300;

/// Servers, clients, and how many connections each pair makes.
pub(super) struct Load {
    servers: Vec<Said>,
    clients: Vec<Said>,
    each: u64,
}

/// What one end of a load did, and in which direction its connections go.
pub(super) type Done = Vec<(Did, Direction)>;

impl Load {
    pub(super) fn start(context: &Context, pairs: u64, each: u64, more: &[&str]) -> Result<Self> {
        let mut load = Self { servers: Vec::new(), clients: Vec::new(), each };
        let n = format!("n={each}");
        for pair in 1..=pairs {
            // An address for each pair: each has all ports.
            let (at, rx, tx) = (format!("at=127.0.9.{pair}:0"), format!("rx={TX}"), format!("tx={RX}"));
            let mut server = context.busy_actor(&[&["tcp-server", &at, &n, &rx, &tx, "threads=4"], more].concat())?;
            let at: SocketAddr = server.hear()?.part("/at")?;
            let (to, rx, tx) = (format!("to={at}"), format!("rx={RX}"), format!("tx={TX}"));
            let client = context.busy_actor(&[&["tcp-client", &to, &n, &rx, &tx, "threads=4"], more].concat())?;
            load.servers.push(server);
            load.clients.push(client);
        }
        Ok(load)
    }

    /// Waits until all say that they have all connections open.
    pub(super) fn open(&mut self) -> Result<()> {
        for side in self.clients.iter_mut().chain(&mut self.servers) {
            let did = side.hear()?;
            ensure!(did.number("/n")? as u64 == self.each, "{}", did.did);
        }
        Ok(())
    }

    /// The first server.
    pub(super) fn server(&self) -> u32 {
        self.servers[0].pid()
    }

    pub(super) fn end(self) -> Result<Done> {
        let mut done = Vec::new();
        for (sides, direction) in [(self.clients, Direction::Outgoing), (self.servers, Direction::Incoming)] {
            for side in sides {
                let did = side.stop()?;
                ensure!(did.number("/n")? as u64 == self.each, "{}", did.did);
                done.push((did, direction));
            }
        }
        Ok(done)
    }
}

/// Each connection ended once at each end, owned by who made it, with its bytes; what is missing was lost, and said so.
pub(super) fn equation(context: &Context, stopped: &Stopped, done: &Done) -> Result<u64> {
    let lost = stopped.lost(FLOW)?;
    let inherited = if stopped.lost(ACCEPT)? == 0 { 0 } else { u64::from(mark::INHERITED) };
    let (mut names, mut cookies) = (HashSet::new(), HashSet::new());
    let (mut made, mut came) = (0, 0);
    for (did, direction) in done {
        let n = did.number("/n")? as u64;
        let ends: Vec<&Line> =
            stopped.by(FLOW, did.me.pid).into_iter().filter(|l| l.data("phase") == Phase::End as u32).collect();
        let sum = |field: &str| ends.iter().filter_map(|l| l.data(field).as_u64()).sum::<u64>();
        for end in &ends {
            ensure!(end.data("direction") == *direction as u32, "direction: {}", end.0);
            // Its accept may be among those lost.
            let marks = end.data("marks").as_u64().unwrap_or_default() & !inherited;
            ensure!(marks == 0, "marks: {}", end.0);
            // The number alone may be that of a socket that is gone.
            let name = (end.data("cookie").as_u64(), end.data("start_time").as_u64());
            ensure!(names.insert(name), "twice: {}", end.0);
            ensure!(context.machine.own_numbers || cookies.insert(name.0), "the number of another: {}", end.0);
        }
        let each = (did.number("/tx")? as u64 / n, did.number("/rx")? as u64 / n);
        let got = ends.len() as u64;
        ensure!(sum("tx_bytes") == got * each.0 && sum("rx_bytes") == got * each.1, "bytes of {got} connections");
        let all = |f: &dyn Fn(&Line) -> bool| stopped.lines.iter().filter(|l| l.name() == FLOW && f(l)).count();
        ensure!(
            got <= n && got + lost >= n,
            "{} made {n}, {got} came, {lost} were lost; failed {}, of nobody {}, in all {}: {:?}",
            did.me.pid,
            all(&|l| l.data("phase") == Phase::Failed as u32),
            all(&|l| l.pid() == 0),
            all(&|_| true),
            stopped.words
        );
        made += n;
        came += got;
    }
    ensure!(came <= made && made <= came + lost, "made {made}, came {came}, lost {lost}: {:?}", stopped.words);
    Ok(lost)
}

/// A queue to standard output in which all of it has room: reading it is not what is tested.
fn roomy() -> Spec {
    let spec = spec();
    let config = format!("{}limits:\n  sink_queue: 100000\n", spec.config);
    spec.config(config)
}

/// As fast as it goes, while all are looked at every second.
fn churn(context: &Context) -> Result<()> {
    let n = 10_000 / u64::from(context.machine.slow);
    let agent = context.agent(&roomy())?;
    let begun = std::time::Instant::now();
    let done = Load::start(context, 1, n, &[])?.end()?;
    let took = begun.elapsed().as_secs_f64();
    let stopped = agent.stop()?;
    let lost = equation(context, &stopped, &done)?;
    println!("         {n} connections at {:.0} a second, {lost} records lost", n as f64 / took);
    ensure!(lost == 0, "so many fit: {:?}", stopped.words);
    Ok(())
}

/// A gigabyte on the host: as the applications count, as `ss` counts.
fn gigabyte(context: &Context) -> Result<()> {
    let n = (1 << 30) / u64::from(context.machine.slow * context.machine.slow);
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, n, 77)?;
    for (end, tx, rx) in [(&ends.0, n, 77), (&ends.1, 77, n)] {
        progress(&agent, end.cookie, tx, rx)?;
        let ss = ss(end, None)?;
        let number = |name: &str| ss.get(name).copied().unwrap_or_default();
        ensure!(number("bytes_sent") - number("bytes_retrans") == tx, "{ss:?}");
        // The SYN of who connected is acknowledged too.
        ensure!(number("bytes_acked") == tx + u64::from(tx == n), "{ss:?}");
        ensure!(number("bytes_received") == rx, "{ss:?}");
    }
    actors.close(&ends)?;
    for (end, direction, tx, rx) in [(&ends.0, Direction::Outgoing, n, 77), (&ends.1, Direction::Incoming, 77, n)] {
        says(&last(&agent, end.cookie)?, &end.owner, &wants(end, direction, tx, rx))?;
    }
    actors.stop()?;
    agent.stop().map(drop)
}

/// Thousands open at once, then all closed: memory stays bounded, and the sum holds whatever was lost.
fn burst(context: &Context, pairs: u64) -> Result<()> {
    let each = 5_000 / u64::from(context.machine.slow);
    let agent = context.agent(&spec())?;
    let mut load = Load::start(context, pairs, each, &["hold=1"])?;
    load.open()?;
    let one = u64::from(load.server());
    agent.wait_for("a look at them", |l| l.name() == FLOW && l.pid() == one && l.data("phase") == 1)?;
    let done = load.end()?;
    let resident = resident(agent.pid())?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}: {:?}", stopped.status, stopped.words);
    let lost = equation(context, &stopped, &done)?;
    println!("         {} connections at once, {lost} records lost, {} MiB", pairs * each, resident >> 10);
    ensure!(resident < 300 << 10, "{resident} KiB for {} connections", pairs * each);
    Ok(())
}

/// 100,000 connections, which are 200,000 sockets; a process here may have 20,000 descriptors.
fn hundred_thousand(context: &Context) -> Result<()> {
    ensure!(std::env::var_os("HAECHI_E2E_LONG").is_some(), Skip::because("takes a minute: set HAECHI_E2E_LONG"));
    burst(context, 20)
}

/// KiB of memory that a process has at most had.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("no VmHWM")?;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("VmHWM")
}

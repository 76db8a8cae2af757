//! What the tests of flows share: two actors that are the ends of connections, what the agent must say of each end, and
//! what `ss` says of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::event::net_flow::DEF;
use haechi_ebpf::flow::{Direction, Phase, Reason, tcp};

use crate::facts::Task;
use crate::harness::{Agent, Context, Did, Line, Netns, Said, Spec, Want, fields};
use crate::machines;

pub(super) const FLOW: &str = "net_flow";
pub(super) const CONNECT: &str = "net_tcp_connect";
pub(super) const ACCEPT: &str = "net_tcp_accept";

/// An agent that shows our connections, and looks at them every second.
pub(super) fn spec() -> Spec {
    // Others on this machine may make more of them than a queue holds.
    spec_of(&format!("tree={}", std::process::id()))
}

/// The same for connections that are perhaps nobody's.
pub(super) fn spec_of(scope: &str) -> Spec {
    let events = "net_flow,net_tcp_connect,net_tcp_accept";
    Spec::run(&["--no-default-rules", "--events", events, "--scope", scope]).config("flows:\n  poll_seconds: 1\n")
}

/// One end of a connection, as who holds it knows it.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub cookie: u64,
    pub fd: i64,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub owner: Task,
}

impl End {
    pub(super) fn of(did: &Did) -> Result<Self> {
        ensure!(did.number("/errno")? == 0, "not connected: {}", did.did);
        Ok(Self {
            cookie: cookie(did)?,
            fd: did.number("/fd")?,
            local: did.part("/local")?,
            remote: did.part("/remote")?,
            owner: did.me.clone(),
        })
    }
}

/// Two actors and the listener of one of them.
pub(super) struct Ends {
    pub client: Said,
    pub server: Said,
    pub listener: i64,
    pub at: SocketAddr,
}

impl Ends {
    /// Both on this host; the server listens at `at`.
    pub(super) fn new(context: &Context, at: &str) -> Result<Self> {
        Self::with(context.busy_actor(&["tcp"])?, context.busy_actor(&["tcp"])?, &format!("at={at}"))
    }

    /// Each in a network namespace.
    pub(super) fn between(context: &Context, client: &Netns, server: &Netns, at: &str) -> Result<Self> {
        let (client, server) = (context.busy_actor_in(client, &["tcp"])?, context.busy_actor_in(server, &["tcp"])?);
        Self::with(client, server, &format!("at={at}"))
    }

    pub(super) fn with(client: Said, mut server: Said, listen: &str) -> Result<Self> {
        let listening = server.ask(&format!("listen {listen}"))?;
        Ok(Self { client, server, listener: listening.number("/fd")?, at: listening.part("/at")? })
    }

    /// A connection to `to`, or to where the server listens.
    pub(super) fn connect(&mut self, to: Option<SocketAddr>) -> Result<(End, End)> {
        let client = self.start(to)?;
        Ok((client, self.accept()?))
    }

    /// A connection that nobody accepted yet.
    pub(super) fn start(&mut self, to: Option<SocketAddr>) -> Result<End> {
        End::of(&self.client.ask(&format!("connect to={}", to.unwrap_or(self.at)))?)
    }

    pub(super) fn accept(&mut self) -> Result<End> {
        End::of(&self.server.ask(&format!("accept fd={}", self.listener))?)
    }

    /// Bytes from the client to the server, and back.
    pub(super) fn exchange(&mut self, ends: &(End, End), there: u64, back: u64) -> Result<()> {
        transfer(&mut self.client, ends.0.fd, &mut self.server, ends.1.fd, there)?;
        transfer(&mut self.server, ends.1.fd, &mut self.client, ends.0.fd, back)
    }

    /// The client is done first, then the server.
    pub(super) fn close(&mut self, ends: &(End, End)) -> Result<()> {
        self.client.ask(&format!("close fd={}", ends.0.fd))?;
        let end = self.server.ask(&format!("receive fd={} n=1", ends.1.fd))?;
        ensure!(end.number("/n")? == 0 && end.number("/errno")? == 0, "not the end: {}", end.did);
        self.server.ask(&format!("close fd={}", ends.1.fd))?;
        Ok(())
    }

    pub(super) fn stop(self) -> Result<()> {
        self.client.stop()?;
        self.server.stop()?;
        Ok(())
    }
}

/// Sends `n` bytes, and has them received.
pub(super) fn transfer(from: &mut Said, fd: i64, to: &mut Said, to_fd: i64, n: u64) -> Result<()> {
    to.tell(&format!("receive fd={to_fd} n={n}"))?;
    let sent = from.ask(&format!("send fd={fd} n={n}"))?;
    let came = to.hear()?;
    for did in [&sent, &came] {
        ensure!(did.number("/n")? as u64 == n && did.number("/errno")? == 0, "{n} bytes: {}", did.did);
    }
    Ok(())
}

/// Set in what stands for the number of a socket where that is not SO_COOKIE: its two ports.
const PORTS: u64 = 1 << 63;

/// What tells the connection that an actor speaks of from others.
pub(super) fn cookie(did: &Did) -> Result<u64> {
    if !machines::detect()?.own_numbers {
        return did.part("/cookie");
    }
    let remote: SocketAddr = did.part("/remote")?;
    // One that failed gave its port back.
    let local: SocketAddr = did.part("/local").unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    Ok(PORTS | u64::from(local.port()) << 16 | u64::from(remote.port()))
}

/// Whether a line is about the connection `cookie`.
pub(super) fn of(line: &Line, cookie: u64) -> bool {
    if cookie & PORTS == 0 {
        return line.data("cookie") == cookie;
    }
    let (local, remote) = if line.name() == ACCEPT { ("dst_port", "src_port") } else { ("src_port", "dst_port") };
    let port = cookie >> 16 & 0xffff;
    (port == 0 || line.data(local) == port) && line.data(remote) == cookie & 0xffff
}

/// What the number of a connection must be.
pub(super) fn numbered(cookie: u64) -> Want {
    if cookie & PORTS == 0 { cookie.into() } else { Want::Fits(|v| v.as_u64().is_some_and(|n| n > 0)) }
}

/// Whether a line is a record of the connection `cookie` in this phase.
pub(super) fn is(line: &Line, cookie: u64, phase: Phase) -> bool {
    line.name() == FLOW && of(line, cookie) && line.data("phase") == phase as u32
}

/// The last record of a connection.
pub(super) fn last(agent: &Agent, cookie: u64) -> Result<Line> {
    agent.wait_for(&format!("the end of connection {cookie}"), |l| {
        is(l, cookie, Phase::End) || is(l, cookie, Phase::Failed)
    })
}

/// A record of a connection that lives, with these bytes.
pub(super) fn progress(agent: &Agent, cookie: u64, tx: u64, rx: u64) -> Result<Line> {
    agent.wait_for(&format!("a look at connection {cookie} with {tx} sent and {rx} received"), |l| {
        is(l, cookie, Phase::Progress) && l.data("tx_bytes") == tx && l.data("rx_bytes") == rx
    })
}

/// An address as it is shown: one of IPv4 as such, whatever the socket.
pub(super) fn shown(at: SocketAddr) -> String {
    at.ip().to_canonical().to_string()
}

pub(super) type Wants = Vec<(&'static str, Want)>;

/// What the last record of a connection must say that ended well.
pub(super) fn wants(end: &End, direction: Direction, tx: u64, rx: u64) -> Wants {
    let some = || Want::Fits(|v| v.as_u64().is_some_and(|n| n > 0));
    let any = || Want::Fits(|v| v.as_u64().is_some());
    let outgoing = direction as u32 == Direction::Outgoing as u32;
    vec![
        ("cookie", numbered(end.cookie)),
        ("phase", (Phase::End as u32).into()),
        ("direction", (direction as u32).into()),
        ("protocol", 6_u32.into()),
        ("src", shown(end.local).into()),
        ("src_port", u32::from(end.local.port()).into()),
        ("dst", shown(end.remote).into()),
        ("dst_port", u32::from(end.remote.port()).into()),
        ("state", (if outgoing { tcp::FIN_WAIT2 } else { tcp::LAST_ACK }).into()),
        ("start_time", some()),
        ("tx_bytes", tx.into()),
        ("rx_bytes", rx.into()),
        // A SYN is answered before there is a socket.
        ("tx_segments", if outgoing { some() } else { any() }),
        ("rx_segments", some()),
        // A busy machine makes a segment look lost on loopback too; `ss` and nstat are compared with where it matters.
        ("retransmits", any()),
        ("lost", any()),
        ("srtt", some()),
        ("min_rtt", any()),
        ("connect_latency", if outgoing { some() } else { Want::Absent }),
        ("reason", (Reason::Fin as u32).into()),
        ("error", 0_u32.into()),
        ("marks", 0_u32.into()),
        ("group", Want::Absent),
    ]
}

/// Changes what a field must be.
pub(super) fn but(mut wants: Wants, changes: impl IntoIterator<Item = (&'static str, Want)>) -> Wants {
    for (name, want) in changes {
        wants.retain(|w| w.0 != name);
        wants.push((name, want));
    }
    wants
}

/// Checks a record and who it belongs to.
pub(super) fn says(line: &Line, owner: &Task, wants: &Wants) -> Result<()> {
    fields(line, &DEF, wants)?;
    crate::harness::who(line, owner)
}

/// What `ss` shows of one end of an established connection: numbers by name.
pub(super) fn ss(end: &End, netns: Option<&Netns>) -> Result<HashMap<String, u64>> {
    let filter = format!("sport = :{} and dport = :{}", end.local.port(), end.remote.port());
    let mut command = match netns {
        Some(netns) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", netns.path().display())).arg("ss");
            command
        }
        None => Command::new("ss"),
    };
    let out = command.args(["-tinOH", &filter]).output().context("ss")?;
    let text = String::from_utf8(out.stdout)?;
    ensure!(text.lines().count() == 1, "ss -tin {filter}: {text}");
    let pairs = text.split_whitespace().filter_map(|w| w.split_once(':'));
    // `retrans:0/3` is those in flight and all.
    let number = |v: &str| v.rsplit('/').next().and_then(|n| n.parse().ok());
    Ok(pairs.filter_map(|(k, v)| Some((k.to_owned(), number(v)?))).collect())
}

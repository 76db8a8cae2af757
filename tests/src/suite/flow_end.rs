//! How connections end, or do not begin: refused, unanswered, reset by either end, half open, half closed.

use anyhow::{Result, ensure};
use haechi_ebpf::flow::{Direction, Phase, Reason, tcp};

use super::flow_help::{CONNECT, End, Ends, Wants, but, cookie, is, last, says, spec, transfer, wants};
use super::flow_net::pair;
use crate::harness::{Agent, Context, Did, Line, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("flow::refused", refused),
    ("flow::unanswered", unanswered),
    ("flow::unanswered_to_the_end", timed_out),
    ("flow::unreachable", unreachable),
    ("flow::reset_with_unread_data", unread),
    ("flow::reset_by_linger", linger),
    ("flow::half_open", half_open),
    ("flow::half_closed", half_closed),
    ("flow::data_after_close", after_close),
    ("flow::peer_vanished", vanished),
    ("flow::listener_closed", listener_closed),
];

const SENT: u64 = 10_007;

/// What the last record of a connection must say that was never established. This end's port was given back.
fn failed(did: &Did, remote: std::net::SocketAddr, reason: Reason, error: i32) -> Result<Wants> {
    let nobody: std::net::SocketAddr = "0.0.0.0:0".parse()?;
    let end = End { cookie: cookie(did)?, fd: did.number("/fd")?, local: nobody, remote, owner: did.me.clone() };
    let any = || Want::Fits(|v| v.as_u64().is_some());
    Ok(but(
        wants(&end, Direction::Outgoing, 0, 0),
        [
            ("phase", (Phase::Failed as u32).into()),
            ("state", tcp::SYN_SENT.into()),
            ("src", Want::Fits(|v| v.is_string())),
            ("src_port", Want::Fits(|v| v.as_u64().is_some_and(|p| p > 0))),
            ("connect_latency", Want::Absent),
            ("srtt", any()),
            ("rx_segments", any()),
            ("reason", (reason as u32).into()),
            ("error", error.into()),
        ],
    ))
}

fn no_connect(agent: Agent, pid: u32) -> Result<()> {
    let stopped = agent.stop()?;
    ensure!(stopped.by(CONNECT, pid).is_empty(), "a failed connect is shown as one that worked");
    Ok(())
}

fn refused(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    actors.server.ask(&format!("close fd={}", actors.listener))?;
    let did = actors.client.ask(&format!("connect to={}", actors.at))?;
    ensure!(did.number("/errno")? == i64::from(libc::ECONNREFUSED), "{}", did.did);
    let line = last(&agent, cookie(&did)?)?;
    says(&line, &did.me, &failed(&did, actors.at, Reason::ResetByPeer, libc::ECONNREFUSED)?)?;
    actors.stop()?;
    no_connect(agent, did.me.pid)
}

/// Seen as long as it tries, with every SYN that it sent again.
fn unanswered(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let net = pair("unanswered")?;
    let to = net.silent()?;
    let mut client = context.busy_actor_in(&net.a, &["tcp"])?;
    let did = client.ask(&format!("connect to={to} nonblock=1"))?;
    ensure!(did.number("/errno")? == i64::from(libc::EINPROGRESS), "{}", did.did);
    let number = cookie(&did)?;
    let again = |n: u64| move |l: &Line| is(l, number, Phase::Progress) && l.data("retransmits").as_u64() >= Some(n);
    let line = agent.wait_for("a SYN that was sent again", again(2))?;
    let retries = line.data("retransmits").as_u64().unwrap_or_default();
    let trying = but(
        failed(&did, to, Reason::None, 0)?,
        [("phase", (Phase::Progress as u32).into()), ("retransmits", retries.into())],
    );
    says(&line, &did.me, &trying)?;
    let counted = net.counter(&net.a, "TcpRetransSegs")?;
    ensure!(retries <= counted, "{retries} of {counted} retries that nstat counts");
    client.ask(&format!("close fd={}", did.number("/fd")?))?;
    let line = last(&agent, number)?;
    let counted = net.counter(&net.a, "TcpRetransSegs")?;
    let want = but(failed(&did, to, Reason::Abandoned, 0)?, [("retransmits", counted.into())]);
    says(&line, &did.me, &want)?;
    client.stop()?;
    no_connect(agent, did.me.pid)
}

fn timed_out(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let net = pair("timed-out")?;
    let to = net.silent()?;
    let mut client = context.busy_actor_in(&net.a, &["tcp"])?;
    let did = client.ask(&format!("connect to={to} syns=1"))?;
    ensure!(did.number("/errno")? == i64::from(libc::ETIMEDOUT), "{}", did.did);
    let line = last(&agent, cookie(&did)?)?;
    // Not one for the one that was asked for: newer kernels are more patient.
    let counted = net.counter(&net.a, "TcpRetransSegs")?;
    ensure!(counted > 0, "no SYN was sent again: the test does not test");
    let want = failed(&did, to, Reason::TimedOut, libc::ETIMEDOUT)?;
    let want = but(want, [("retransmits", counted.into())]);
    says(&line, &did.me, &want)?;
    client.stop()?;
    no_connect(agent, did.me.pid)
}

/// Nobody has the address: told by ICMP.
fn unreachable(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let net = pair("unreachable")?;
    let to = net.nobody()?;
    let mut client = context.busy_actor_in(&net.a, &["tcp"])?;
    let did = client.ask(&format!("connect to={to}"))?;
    ensure!(did.number("/errno")? == i64::from(libc::EHOSTUNREACH), "{}", did.did);
    let line = last(&agent, cookie(&did)?)?;
    says(&line, &did.me, &failed(&did, to, Reason::Error, libc::EHOSTUNREACH)?)?;
    client.stop()?;
    no_connect(agent, did.me.pid)
}

/// What both ends must say of a reset by one of them.
fn reset(
    agent: &Agent,
    (by, tx, rx): (&End, u64, u64),
    (of, of_tx, of_rx): (&End, u64, u64),
    client: &End,
) -> Result<()> {
    let direction = |e: &End| if e.cookie == client.cookie { Direction::Outgoing } else { Direction::Incoming };
    let ends = [(by, tx, rx, Reason::ResetLocally, 0), (of, of_tx, of_rx, Reason::ResetByPeer, libc::ECONNRESET)];
    for (end, tx, rx, reason, error) in ends {
        let want = but(
            wants(end, direction(end), tx, rx),
            [("state", tcp::ESTABLISHED.into()), ("reason", (reason as u32).into()), ("error", error.into())],
        );
        says(&last(agent, end.cookie)?, &end.owner, &want)?;
    }
    Ok(())
}

/// Bytes that came count, though nobody reads them.
fn unread(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 5, 7)?;
    actors.client.ask(&format!("send fd={} n={SENT}", ends.0.fd))?;
    actors.server.ask(&format!("close fd={}", ends.1.fd))?;
    reset(&agent, (&ends.1, 7, SENT + 5), (&ends.0, SENT + 5, 7), &ends.0)?;
    actors.stop()?;
    agent.stop().map(drop)
}

fn linger(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "[::1]:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, SENT, SENT + 1)?;
    actors.client.ask(&format!("close fd={} how=reset", ends.0.fd))?;
    reset(&agent, (&ends.0, SENT, SENT + 1), (&ends.1, SENT + 1, SENT), &ends.0)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// One end is gone without a word, as after a crash; the other finds out when it says something.
fn half_open(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, SENT, 3)?;
    actors.server.ask(&format!("close fd={} how=silent", ends.1.fd))?;
    last(&agent, ends.1.cookie)?;
    ensure!(agent.newest(|l| is(l, ends.0.cookie, Phase::End)).is_none(), "the other end cannot know");
    actors.client.ask(&format!("send fd={} n=11", ends.0.fd))?;
    reset(&agent, (&ends.1, 3, SENT), (&ends.0, SENT + 11, 3), &ends.0)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// Done in one direction long before the other.
fn half_closed(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    transfer(&mut actors.client, ends.0.fd, &mut actors.server, ends.1.fd, 9)?;
    actors.client.ask(&format!("shutdown fd={}", ends.0.fd))?;
    transfer(&mut actors.server, ends.1.fd, &mut actors.client, ends.0.fd, SENT)?;
    for (end, tx, rx, state) in [(&ends.0, 9, SENT, tcp::FIN_WAIT2), (&ends.1, SENT, 9, tcp::CLOSE_WAIT)] {
        let line = super::flow_help::progress(&agent, end.cookie, tx, rx)?;
        ensure!(line.data("state") == state, "not in state {state}: {}", line.0);
    }
    actors.server.ask(&format!("close fd={}", ends.1.fd))?;
    says(&last(&agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 9, SENT))?;
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, SENT, 9))?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// Who says something to an end that is closed is reset by it. That end ended well.
fn after_close(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 9, 10)?;
    actors.client.ask(&format!("close fd={}", ends.0.fd))?;
    says(&last(&agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 9, 10))?;
    actors.server.ask(&format!("send fd={} n={SENT}", ends.1.fd))?;
    let want = but(
        wants(&ends.1, Direction::Incoming, SENT + 10, 9),
        [
            ("state", tcp::CLOSE_WAIT.into()),
            ("reason", (Reason::ResetByPeer as u32).into()),
            ("error", libc::EPIPE.into()),
        ],
    );
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &want)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// The other end's address is gone: what is said is said again, then given up.
fn vanished(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let net = pair("vanished")?;
    let server = context.busy_actor_in(&net.b, &["tcp"])?;
    let client = context.busy_actor_in(&net.a, &["tcp"])?;
    let mut actors = Ends::with(client, server, &format!("at={}:0", net.b4))?;
    let did = actors.client.ask(&format!("connect to={} timeout=1500", actors.at))?;
    let ends = (End::of(&did)?, actors.accept()?);
    actors.exchange(&ends, SENT, 4)?;
    net.hide_b()?;
    actors.client.ask(&format!("send fd={} n=100", ends.0.fd))?;
    let line = last(&agent, ends.0.cookie)?;
    let counted = net.counter(&net.a, "TcpRetransSegs")?;
    ensure!(counted > 0, "nothing was sent again: the test does not test");
    let want = but(
        wants(&ends.0, Direction::Outgoing, SENT + 100, 4),
        [
            ("state", tcp::ESTABLISHED.into()),
            ("reason", (Reason::TimedOut as u32).into()),
            ("error", libc::ETIMEDOUT.into()),
            ("retransmits", counted.into()),
            ("lost", Want::Fits(|v| v.as_u64().is_some_and(|n| n > 0))),
        ],
    );
    says(&line, &ends.0.owner, &want)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// Connections that wait to be accepted go with the listener.
fn listener_closed(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let client = actors.start(None)?;
    actors.client.ask(&format!("send fd={} n={SENT}", client.fd))?;
    let closed = actors.server.ask(&format!("close fd={}", actors.listener))?;
    let line = last(&agent, client.cookie)?;
    ensure!(line.data("reason") == Reason::ResetByPeer as u32 && line.data("tx_bytes") == SENT, "{}", line.0);
    let port = u32::from(client.local.port());
    let line = agent.wait_for("the end that nobody accepted", |l| {
        l.name() == "net_flow" && l.data("dst_port") == port && l.data("phase") == Phase::End as u32
    })?;
    ensure!(line.data("rx_bytes") == SENT && line.data("reason") == Reason::ResetLocally as u32, "{}", line.0);
    ensure!(line.data("marks") == haechi_ebpf::flow::mark::INHERITED, "not the listener's: {}", line.0);
    crate::harness::who(&line, &closed.me)?;
    actors.stop()?;
    agent.stop().map(drop)
}

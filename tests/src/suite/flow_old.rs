//! Connections that are older than the agent: who connected, whose they are, and totals that are exact in the end.

use anyhow::{Result, ensure};
use haechi_ebpf::flow::{Direction, Phase, Reason, mark, tcp};

use super::flow_help::{
    CONNECT, End, Ends, Wants, but, cookie, is, last, progress, says, spec, spec_of, transfer, wants,
};
use crate::harness::{Context, Netns, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("flow::older_idle", |c| older(c, "127.0.0.1:0", 5_000, 70_000)),
    ("flow::older_idle_inet6", |c| older(c, "[::1]:0", 123, 0)),
    ("flow::older_without_a_byte", |c| older(c, "127.0.0.1:0", 0, 0)),
    ("flow::older_one_way_back", |c| older(c, "127.0.0.1:0", 0, 99)),
    ("flow::older_unread", unread),
    ("flow::older_half_closed", half_closed),
    ("flow::older_listener", listener),
    ("flow::older_connecting", connecting),
    ("flow::agent_restarted", restarted),
];

/// When it began nobody knows; that is when the agent found it.
fn adopted(end: &End, direction: Direction, tx: u64, rx: u64) -> Wants {
    but(wants(end, direction, tx, rx), [("marks", mark::ADOPTED.into()), ("connect_latency", Want::Absent)])
}

fn found(end: &End, direction: Direction, tx: u64, rx: u64) -> Wants {
    but(
        adopted(end, direction, tx, rx),
        [
            ("phase", (Phase::Progress as u32).into()),
            ("state", tcp::ESTABLISHED.into()),
            ("reason", (Reason::None as u32).into()),
        ],
    )
}

/// Found though nothing moves, with what it moved before; then more is moved.
fn older(context: &Context, at: &str, there: u64, back: u64) -> Result<()> {
    let mut actors = Ends::new(context, at)?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, there, back)?;
    let agent = context.agent(&spec())?;
    let both = [(&ends.0, Direction::Outgoing, there, back), (&ends.1, Direction::Incoming, back, there)];
    for (end, direction, tx, rx) in both {
        says(&progress(&agent, end.cookie, tx, rx)?, &end.owner, &found(end, direction, tx, rx))?;
    }
    actors.exchange(&ends, 17, 19)?;
    actors.close(&ends)?;
    let line = last(&agent, ends.0.cookie)?;
    says(&line, &ends.0.owner, &adopted(&ends.0, Direction::Outgoing, there + 17, back + 19))?;
    let line = last(&agent, ends.1.cookie)?;
    says(&line, &ends.1.owner, &adopted(&ends.1, Direction::Incoming, back + 19, there + 17))?;
    actors.stop()?;
    let stopped = agent.stop()?;
    ensure!(stopped.by(CONNECT, ends.0.owner.pid).is_empty(), "it connected before the agent was there");
    Ok(())
}

/// More is on its way than the other end has room for: sent is sent, whether it was acknowledged or not.
fn unread(context: &Context) -> Result<()> {
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 3, 5)?;
    actors.client.ask(&format!("send fd={} n=200000", ends.0.fd))?;
    let agent = context.agent(&spec())?;
    let line = agent.wait_for("the sender", |l| is(l, ends.0.cookie, Phase::Progress))?;
    ensure!(line.data("direction") == Direction::Outgoing as u32, "{}", line.0);
    let line = agent.wait_for("the receiver", |l| is(l, ends.1.cookie, Phase::Progress))?;
    ensure!(line.data("direction") == Direction::Incoming as u32, "{}", line.0);
    let came = actors.server.ask(&format!("receive fd={} n=200000", ends.1.fd))?;
    ensure!(came.number("/n")? == 200_000, "{}", came.did);
    actors.close(&ends)?;
    let (line, want) = (last(&agent, ends.0.cookie)?, adopted(&ends.0, Direction::Outgoing, 200_003, 5));
    says(&line, &ends.0.owner, &want)?;
    let (line, want) = (last(&agent, ends.1.cookie)?, adopted(&ends.1, Direction::Incoming, 5, 200_003));
    says(&line, &ends.1.owner, &want)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// A FIN was sent, and is no byte.
fn half_closed(context: &Context) -> Result<()> {
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    // The other way round too: who accepted is done first.
    let (first, second) = (actors.connect(None)?, actors.connect(None)?);
    for ends in [&first, &second] {
        actors.exchange(ends, 6, 7)?;
    }
    actors.client.ask(&format!("shutdown fd={}", first.0.fd))?;
    actors.server.ask(&format!("shutdown fd={}", second.1.fd))?;
    let agent = context.agent(&spec())?;
    let cases = [
        (&first.0, Direction::Outgoing, 6, 7, tcp::FIN_WAIT2),
        (&first.1, Direction::Incoming, 7, 6, tcp::CLOSE_WAIT),
        (&second.0, Direction::Outgoing, 6, 7, tcp::CLOSE_WAIT),
        (&second.1, Direction::Incoming, 7, 6, tcp::FIN_WAIT2),
    ];
    for (end, direction, tx, rx, state) in cases {
        let line = agent.wait_for("a look", |l| is(l, end.cookie, Phase::Progress))?;
        says(&line, &end.owner, &but(found(end, direction, tx, rx), [("state", state.into())]))?;
    }
    transfer(&mut actors.server, first.1.fd, &mut actors.client, first.0.fd, 100)?;
    actors.server.ask(&format!("close fd={}", first.1.fd))?;
    transfer(&mut actors.client, second.0.fd, &mut actors.server, second.1.fd, 100)?;
    actors.client.ask(&format!("close fd={}", second.0.fd))?;
    let cases = [
        (&first.0, Direction::Outgoing, 6, 107, tcp::FIN_WAIT2),
        (&first.1, Direction::Incoming, 107, 6, tcp::LAST_ACK),
        (&second.0, Direction::Outgoing, 106, 7, tcp::LAST_ACK),
        (&second.1, Direction::Incoming, 7, 106, tcp::FIN_WAIT2),
    ];
    for (end, direction, tx, rx, state) in cases {
        let want = but(adopted(end, direction, tx, rx), [("state", state.into())]);
        says(&last(&agent, end.cookie)?, &end.owner, &want)?;
    }
    actors.stop()?;
    agent.stop().map(drop)
}

/// A listener of old, a connection that waits in its queue, and new ones.
fn listener(context: &Context) -> Result<()> {
    let net = Netns::new("older-listener")?;
    let mut actors = Ends::between(context, &net, &net, "127.0.0.1:0")?;
    let queued = actors.start(None)?;
    let agent = context.agent(&spec_of(&format!("netns={}", net.inode()?)))?;
    let queued = (queued, actors.accept()?);
    let ends = actors.connect(None)?;
    for ends in [&queued, &ends] {
        actors.exchange(ends, 21, 22)?;
        actors.close(ends)?;
    }
    says(&last(&agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 21, 22))?;
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, 22, 21))?;
    says(&last(&agent, queued.0.cookie)?, &queued.0.owner, &adopted(&queued.0, Direction::Outgoing, 21, 22))?;
    // No descriptor held the queued one when the agent looked: whose it is and who connected may stay unknown.
    let line = last(&agent, queued.1.cookie)?;
    ensure!(line.data("tx_bytes") == 22 && line.data("rx_bytes") == 21, "{}", line.0);
    ensure!(line.data("direction") != Direction::Outgoing as u32, "{}", line.0);
    ensure!(line.pid() == 0 || line.pid() == u64::from(queued.1.owner.pid), "a stranger's: {}", line.0);
    actors.stop()?;
    agent.stop().map(drop)
}

/// Its SYN was on the way when the agent came.
fn connecting(context: &Context) -> Result<()> {
    let net = super::flow_net::pair("connecting")?;
    let to = net.silent()?;
    let mut client = context.busy_actor_in(&net.a, &["tcp"])?;
    let did = client.ask(&format!("connect to={to} nonblock=1"))?;
    let number = cookie(&did)?;
    let agent = context.agent(&spec())?;
    let line = agent.wait_for("a look", |l| is(l, number, Phase::Progress))?;
    ensure!(line.data("state") == tcp::SYN_SENT && line.data("direction") == Direction::Outgoing as u32, "{}", line.0);
    ensure!(line.data("marks") == mark::ADOPTED, "{}", line.0);
    client.ask(&format!("close fd={}", did.number("/fd")?))?;
    let line = last(&agent, number)?;
    ensure!(line.data("phase") == Phase::Failed as u32, "{}", line.0);
    ensure!(line.data("reason") == Reason::Abandoned as u32, "{}", line.0);
    crate::harness::who(&line, &did.me)?;
    client.stop()?;
    agent.stop().map(drop)
}

/// One agent goes while bytes flow, the next sees the rest, and has the whole.
fn restarted(context: &Context) -> Result<()> {
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let part = 40_000_000 / u64::from(context.machine.slow);
    let first = context.agent(&spec())?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, part, 1_000)?;
    actors.server.tell(&format!("receive fd={} n={}", ends.1.fd, 2 * part))?;
    actors.client.tell(&format!("send fd={} n={}", ends.0.fd, 2 * part))?;
    let stopped = first.stop()?;
    ensure!(stopped.lines.iter().any(|l| is(l, ends.0.cookie, Phase::Progress)), "its last look is missing");
    let agent = context.agent(&spec())?;
    for side in [&mut actors.client, &mut actors.server] {
        let did = side.hear()?;
        ensure!(did.number("/n")? as u64 == 2 * part, "{}", did.did);
    }
    actors.exchange(&ends, part, 1_000)?;
    actors.close(&ends)?;
    let (line, want) = (last(&agent, ends.0.cookie)?, adopted(&ends.0, Direction::Outgoing, 4 * part, 2_000));
    says(&line, &ends.0.owner, &want)?;
    let (line, want) = (last(&agent, ends.1.cookie)?, adopted(&ends.1, Direction::Incoming, 2_000, 4 * part));
    says(&line, &ends.1.owner, &want)?;
    actors.stop()?;
    agent.stop().map(drop)
}

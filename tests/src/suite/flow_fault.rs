//! What goes wrong around flows: namespaces that vanish, owners that are killed, clocks that are set, memory that is
//! refused, rings that overflow.

use std::process::Command;

use anyhow::{Result, ensure};
use haechi_ebpf::flow::{Direction, Phase, Reason, mark, tcp};

use super::flow_help::{End, Ends, FLOW, but, is, last, progress, says, spec, spec_of, wants};
use super::flow_load::{Load, equation};
use crate::harness::{Agent, Context, Did, Netns, Skip, Spec, Test, wait_until, who};
use crate::sys;

pub(super) const TESTS: &[Test] = &[
    ("flow::owner_killed", killed),
    ("flow::namespaces_vanish", vanish),
    ("flow::storage_refused", refused),
    ("flow::tiny_ring", tiny_ring),
    ("flow::unseen_ends", unseen),
    ("flow::clock_set", clock),
    ("flow::reconnected_socket", reconnected),
];

/// A whole connection, to see that the agent still works.
fn works(context: &Context, agent: &Agent) -> Result<()> {
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 31, 32)?;
    actors.close(&ends)?;
    says(&last(agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 31, 32))?;
    says(&last(agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, 32, 31))?;
    actors.stop()
}

/// The kernel closes for it: with data unread, by a reset.
fn killed(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let (well, unread) = (actors.connect(None)?, actors.connect(None)?);
    for ends in [&well, &unread] {
        actors.exchange(ends, 41, 42)?;
    }
    actors.client.ask(&format!("send fd={} n=43", unread.0.fd))?;
    let Ends { mut client, server, .. } = actors;
    server.kill()?;
    client.ask(&format!("receive fd={}", well.0.fd))?;
    client.ask(&format!("close fd={}", well.0.fd))?;
    let cases = [
        (&well.0, Direction::Outgoing, 41, 42, tcp::LAST_ACK, Reason::Fin, 0),
        (&well.1, Direction::Incoming, 42, 41, tcp::FIN_WAIT2, Reason::Fin, 0),
        (&unread.0, Direction::Outgoing, 84, 42, tcp::ESTABLISHED, Reason::ResetByPeer, libc::ECONNRESET),
        (&unread.1, Direction::Incoming, 42, 84, tcp::ESTABLISHED, Reason::ResetLocally, 0),
    ];
    for (end, direction, tx, rx, state, reason, error) in cases {
        let want = but(
            wants(end, direction, tx, rx),
            [("state", state.into()), ("reason", (reason as u32).into()), ("error", error.into())],
        );
        says(&last(&agent, end.cookie)?, &end.owner, &want)?;
    }
    client.stop()?;
    agent.stop().map(drop)
}

/// With hundreds of live connections, while they are looked at.
fn vanish(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    for round in 0..4 {
        let net = Netns::new("vanishes")?;
        let mut server = context.busy_actor_in(&net, &["tcp-server", "at=127.0.0.1:0", "n=300", "tx=5", "hold=1"])?;
        let at: String = server.hear()?.part("/at")?;
        let to = format!("to={at}");
        let mut client = context.busy_actor_in(&net, &["tcp-client", &to, "n=300", "rx=5", "hold=1"])?;
        let (did, pid) = (client.hear()?, u64::from(client.pid()));
        ensure!(did.number("/n")? == 300, "{}", did.did);
        server.hear()?;
        if round % 2 == 0 {
            // Once it is known, its name goes first, then its processes: with the last of them all of its sockets.
            agent.wait_for("a look into it", |l| l.pid() == pid && l.data("phase") == Phase::Progress as u32)?;
        }
        drop(net);
        client.kill()?;
        server.kill()?;
        let ended = |l: &crate::harness::Line| l.pid() == pid && l.data("phase") == Phase::End as u32;
        agent.wait_for("an end there", ended)?;
    }
    works(context, &agent)?;
    let stopped = agent.stop()?;
    let said = stopped.words.join("\n");
    ensure!(stopped.status.success() && !said.contains("cannot be looked at"), "{said}");
    Ok(())
}

/// No memory beside the socket: bytes are exact all the same, and who accepted is known.
fn refused(context: &Context) -> Result<()> {
    let net = Netns::new("refused")?;
    let agent = context.agent(&spec_of(&format!("netns={}", net.inode()?)))?;
    net.run("sysctl -w net.core.optmem_max=1")
        .map_err(|e| Skip::because(format!("no limit of a namespace's own here: {e:#}")))?;
    let mut actors = Ends::between(context, &net, &net, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 51, 52)?;
    actors.close(&ends)?;
    for (end, tx, rx) in [(&ends.0, 51, 52), (&ends.1, 52, 51)] {
        let line = last(&agent, end.cookie)?;
        ensure!(line.data("marks") == mark::FORGOTTEN, "it was remembered, the test does not test: {}", line.0);
        ensure!(line.data("direction") == Direction::Unknown as u32, "{}", line.0);
        ensure!(line.data("tx_bytes") == tx && line.data("rx_bytes") == rx, "{}", line.0);
        ensure!(line.data("reason") == Reason::Fin as u32, "{}", line.0);
    }
    who(&last(&agent, ends.1.cookie)?, &ends.1.owner)?;
    net.run("sysctl -w net.core.optmem_max=131072")?;
    let ends = actors.connect(None)?;
    actors.close(&ends)?;
    says(&last(&agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 0, 0))?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// An agent whose ring of flows is so small that it must overflow while nobody reads it.
fn small(spec: Spec) -> Spec {
    let config = format!("{}kernel:\n  flow_ring_bytes: 65536\nlimits:\n  sink_queue: 100000\n", spec.config);
    spec.config(config)
}

/// Does something while the agent is stopped.
fn unread<T>(agent: &Agent, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let signal = |name: &str| -> Result<()> {
        let sent = Command::new("kill").args([name, &agent.pid().to_string()]).status()?;
        ensure!(sent.success(), "kill {name}: {sent}");
        Ok(())
    };
    signal("-STOP")?;
    let done = work();
    signal("-CONT")?;
    done
}

/// Ends that were lost are found by looking at all that live; those that live stay known.
fn unseen(context: &Context) -> Result<()> {
    let file = context.dir("unseen-ends")? + "/metrics";
    let mut spec = small(spec());
    spec.args.extend(["--metrics-file".to_owned(), file.clone()]);
    let agent = context.agent(&spec)?;
    let mut lives = Ends::new(context, "127.0.0.1:0")?;
    let ends = lives.connect(None)?;
    lives.exchange(&ends, 81, 82)?;
    let mut load = Load::start(context, 1, 1_000, &["hold=1"])?;
    load.open()?;
    let one = u64::from(load.server());
    agent.wait_for("a look at them", |l| l.name() == FLOW && l.pid() == one && l.data("phase") == 1)?;
    unread(&agent, || load.end())?;
    let metric = |name: &str| -> Option<f64> {
        let text = std::fs::read_to_string(&file).ok()?;
        text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
    };
    let found =
        wait_until(context.patience() * 3, || Ok(metric("haechi_flows_unseen_ends_total").is_some_and(|n| n > 0.0)))?;
    ensure!(found, "{:?} unseen ends", metric("haechi_flows_unseen_ends_total"));
    lives.exchange(&ends, 83, 84)?;
    lives.close(&ends)?;
    says(&last(&agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 81 + 83, 82 + 84))?;
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, 82 + 84, 81 + 83))?;
    lives.stop()?;
    agent.stop().map(drop)
}

/// A ring so small that it must overflow while nobody reads it: the sum still holds.
fn tiny_ring(context: &Context) -> Result<()> {
    let agent = context.agent(&small(spec()))?;
    let each = 5_000 / u64::from(context.machine.slow);
    let done = unread(&agent, || Load::start(context, 1, each, &[]).and_then(Load::end))?;
    let stopped = agent.stop()?;
    let lost = equation(context, &stopped, &done)?;
    ensure!(lost > 0, "so small a ring held it all: the test does not test");
    Ok(())
}

/// The clock of the wall is set; flows know the one that counts from the boot.
fn clock(context: &Context) -> Result<()> {
    ensure!(context.machine.name != "host", Skip::because("the clock of this machine is not ours to set"));
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let mut all = Vec::new();
    for step in ["+3 hours", "-5 hours", "+2 hours"] {
        let before = sys::since_boot()?;
        let ends = actors.connect(None)?;
        let after = sys::since_boot()?;
        let out = Command::new("date").args(["--set", &format!("now {step}")]).output()?;
        ensure!(out.status.success(), "date: {}", String::from_utf8_lossy(&out.stderr));
        actors.exchange(&ends, 61, 62)?;
        progress(&agent, ends.0.cookie, 61, 62)?;
        all.push((before..=after, ends));
    }
    for (range, ends) in all {
        actors.close(&ends)?;
        for (end, tx, rx) in [(&ends.0, 61, 62), (&ends.1, 62, 61)] {
            let line = last(&agent, end.cookie)?;
            let start = line.data("start_time").as_i64().unwrap_or_default();
            ensure!(range.contains(&start), "it began at {start}, not in {range:?}: {}", line.0);
            ensure!(line.data("tx_bytes") == tx && line.data("rx_bytes") == rx, "{}", line.0);
            let latency = line.data("connect_latency").as_i64().unwrap_or_default();
            ensure!(latency < range.end() - range.start(), "{latency} ns to connect: {}", line.0);
        }
    }
    actors.stop()?;
    agent.stop().map(drop)
}

/// One socket, one cookie, two connections: connect, disconnect, connect.
fn reconnected(context: &Context) -> Result<()> {
    ensure!(!context.machine.own_numbers, Skip::because("the number of a socket cannot be known here"));
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let first = actors.connect(None)?;
    actors.exchange(&first, 71, 72)?;
    progress(&agent, first.0.cookie, 71, 72)?;
    actors.client.ask(&format!("disconnect fd={}", first.0.fd))?;
    let reset = but(
        wants(&first.0, Direction::Outgoing, 71, 72),
        [("state", tcp::ESTABLISHED.into()), ("reason", (Reason::ResetLocally as u32).into())],
    );
    let line = last(&agent, first.0.cookie)?;
    says(&line, &first.0.owner, &but(reset, [("error", crate::harness::Want::Fits(|v| v.as_u64().is_some()))]))?;
    let again: Did = actors.client.ask(&format!("reconnect fd={} to={}", first.0.fd, actors.at))?;
    let second = (End::of(&again)?, actors.accept()?);
    ensure!(second.0.cookie == first.0.cookie, "another cookie: {}", again.did);
    actors.exchange(&second, 73, 74)?;
    actors.close(&second)?;
    let start = line.data("start_time");
    let line = agent
        .wait_for("the end of the second", |l| is(l, second.0.cookie, Phase::End) && l.data("start_time") != start)?;
    says(&line, &second.0.owner, &wants(&second.0, Direction::Outgoing, 73, 74))?;
    actors.stop()?;
    let stopped = agent.stop()?;
    let ends = stopped.lines.iter().filter(|l| l.name() == FLOW && is(l, second.0.cookie, Phase::End)).count();
    ensure!(ends == 2, "{ends} ends of two connections of one socket");
    Ok(())
}

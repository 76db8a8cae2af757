//! MPTCP: a connection is one flow for each of its paths, all with the same group, at the owner of the connection.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use haechi_ebpf::flow::{Direction, Phase, mark};

use super::flow_help::{ACCEPT, End, Ends, FLOW, spec, spec_of};
use super::flow_net::pair;
use crate::harness::{Agent, Context, Line, Skip, Test, wait_until, who};

pub(super) const TESTS: &[Test] = &[
    ("flow::mptcp_one_path", one_path),
    ("flow::mptcp_two_paths", two_paths),
    ("flow::mptcp_listener_of_tcp", fallback),
    ("flow::mptcp_older_listener", older),
];

/// `IPPROTO_MPTCP` of include/uapi/linux/in.h.
const MPTCP: i32 = 262;
const THERE: u64 = 300_007;
const BACK: u64 = 50_021;

fn listening(context: &Context, server: crate::harness::Said, client: crate::harness::Said, at: &str) -> Result<Ends> {
    let there = std::path::Path::new("/proc/sys/net/mptcp/enabled").exists();
    ensure!(there, Skip::because(format!("no MPTCP in the kernel of {}", context.machine.name)));
    Ends::with(client, server, &format!("at={at} protocol={MPTCP}"))
}

fn connect(actors: &mut Ends, protocol: i32) -> Result<(End, End)> {
    let client = End::of(&actors.client.ask(&format!("connect to={} protocol={protocol}", actors.at))?)?;
    Ok((client, actors.accept()?))
}

/// Last records of all paths of this direction to or from `port`, where there are `paths` of them.
fn paths(context: &Context, agent: &Agent, direction: Direction, port: u16, paths: usize) -> Result<Vec<Line>> {
    let name = if direction as u32 == Direction::Outgoing as u32 { "dst_port" } else { "src_port" };
    let mut ended = Vec::new();
    let came = wait_until(context.patience(), || {
        ended = agent.all(|l| {
            l.name() == FLOW
                && l.data("phase") == Phase::End as u32
                && l.data("direction") == direction as u32
                && l.data(name) == u32::from(port)
        });
        Ok(ended.len() >= paths)
    })?;
    ensure!(came && ended.len() == paths, "{} paths {direction:?}, not {paths}: {ended:?}", ended.len());
    Ok(ended)
}

fn sum(paths: &[Line], field: &str) -> u64 {
    paths.iter().filter_map(|l| l.data(field).as_u64()).sum()
}

fn groups(paths: &[Line]) -> HashSet<Option<u64>> {
    paths.iter().map(|l| l.data("group").as_u64().filter(|g| *g != 0)).collect()
}

/// One path moves what the applications move, and no more; older kernels spend a byte on the end.
fn moved(path: &[Line], tx: u64, rx: u64) -> Result<()> {
    let (sent, came) = (sum(path, "tx_bytes"), sum(path, "rx_bytes"));
    ensure!((tx..=tx + 1).contains(&sent) && (rx..=rx + 1).contains(&came), "{sent} and {came}: {path:?}");
    Ok(())
}

/// One group, one owner, the bytes of the application at least.
fn group(context: &Context, agent: &Agent, ends: &(End, End), n: usize) -> Result<()> {
    let port = ends.0.remote.port();
    let cases = [(&ends.0, Direction::Outgoing, THERE, BACK), (&ends.1, Direction::Incoming, BACK, THERE)];
    for (end, direction, tx, rx) in cases {
        let all = paths(context, agent, direction, port, n)?;
        ensure!(groups(&all).len() == 1 && groups(&all).iter().all(Option::is_some), "not one group: {all:?}");
        for path in &all {
            let marks = path.data("marks").as_u64().unwrap_or_default() & !u64::from(mark::INHERITED);
            ensure!(marks == u64::from(mark::MPTCP), "marks: {}", path.0);
            who(path, &end.owner)?;
        }
        ensure!(sum(&all, "tx_bytes") >= tx && sum(&all, "rx_bytes") >= rx, "fewer bytes than {tx} and {rx}: {all:?}");
    }
    Ok(())
}

fn one_path(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let (server, client) = (context.busy_actor(&["tcp"])?, context.busy_actor(&["tcp"])?);
    let mut actors = listening(context, server, client, "127.0.0.1:0")?;
    let ends = connect(&mut actors, MPTCP)?;
    actors.exchange(&ends, THERE, BACK)?;
    actors.close(&ends)?;
    group(context, &agent, &ends, 1)?;
    let accepted = agent.wait_for("the accept", |l| l.name() == ACCEPT && l.pid() == u64::from(ends.1.owner.pid))?;
    let incoming = paths(context, &agent, Direction::Incoming, ends.0.remote.port(), 1)?;
    ensure!(accepted.data("cookie") == incoming[0].data("cookie"), "another cookie: {} {}", accepted.0, incoming[0].0);
    ensure!(incoming[0].data("marks") == mark::MPTCP, "accepted: {}", incoming[0].0);
    moved(&paths(context, &agent, Direction::Outgoing, ends.0.remote.port(), 1)?, THERE, BACK)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// The kernel opens the second path by itself, in nobody's name.
fn two_paths(context: &Context) -> Result<()> {
    let net = pair("mptcp")?;
    let no = |e| Skip::because(format!("no second path here: {e:#}"));
    net.a.ip("addr add 10.231.7.11/24 dev eth0")?;
    net.a.ip("mptcp limits set subflows 2 add_addr_accepted 2").map_err(no)?;
    net.b.ip("mptcp limits set subflows 2 add_addr_accepted 2").map_err(no)?;
    net.a.ip("mptcp endpoint add 10.231.7.11 dev eth0 subflow").map_err(no)?;
    let (server, client) = (context.busy_actor_in(&net.b, &["tcp"])?, context.busy_actor_in(&net.a, &["tcp"])?);
    let agent = context.agent(&spec_of("netns!=0"))?;
    let mut actors = listening(context, server, client, &format!("{}:0", net.b4))?;
    let ends = connect(&mut actors, MPTCP)?;
    actors.exchange(&ends, 1_000, 1_000)?;
    let second = wait_until(context.patience(), || Ok(net.counter(&net.b, "MPTcpExtMPJoinAckRx")? == 1))?;
    ensure!(second, "the kernel did not open a second path");
    actors.exchange(&ends, THERE - 1_000, BACK - 1_000)?;
    actors.close(&ends)?;
    group(context, &agent, &ends, 2)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// Who listens for MPTCP, as Go's servers do, and is connected to by TCP.
fn fallback(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let (server, client) = (context.busy_actor(&["tcp"])?, context.busy_actor(&["tcp"])?);
    let mut actors = listening(context, server, client, "127.0.0.1:0")?;
    let ends = connect(&mut actors, 0)?;
    actors.exchange(&ends, THERE, BACK)?;
    actors.close(&ends)?;
    let port = ends.0.remote.port();
    let cases = [(&ends.0, Direction::Outgoing, THERE, BACK), (&ends.1, Direction::Incoming, BACK, THERE)];
    for (end, direction, tx, rx) in cases {
        let path = paths(context, &agent, direction, port, 1)?.remove(0);
        who(&path, &end.owner)?;
        ensure!(path.data("tx_bytes") == tx && path.data("rx_bytes") == rx, "bytes: {}", path.0);
        ensure!(path.data("marks") == 0 && path.data("group").is_null(), "not MPTCP: {}", path.0);
    }
    actors.stop()?;
    agent.stop().map(drop)
}

/// A listener that is older than the agent: some kernels do not let it be found, and then how it began is not known.
fn older(context: &Context) -> Result<()> {
    let (server, client) = (context.busy_actor(&["tcp"])?, context.busy_actor(&["tcp"])?);
    let mut actors = listening(context, server, client, "127.0.0.1:0")?;
    let agent = context.agent(&spec())?;
    let ends = connect(&mut actors, MPTCP)?;
    actors.exchange(&ends, THERE, BACK)?;
    actors.close(&ends)?;
    let path = paths(context, &agent, Direction::Incoming, ends.0.remote.port(), 1)?.remove(0);
    who(&path, &ends.1.owner)?;
    moved(std::slice::from_ref(&path), BACK, THERE)?;
    let marks = path.data("marks").as_u64().unwrap_or_default();
    ensure!(marks & !u64::from(mark::FORGOTTEN) == u64::from(mark::MPTCP), "marks: {}", path.0);
    actors.stop()?;
    agent.stop().map(drop)
}

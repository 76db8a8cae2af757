//! net_flow, net_tcp_connect, net_tcp_accept: both ends of connections over IPv4, IPv6 and one as the other, to the byte.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use haechi_ebpf::event::{net_tcp_accept, net_tcp_connect};
use haechi_ebpf::flow::{Direction, Phase, Reason, tcp};

use super::flow_help::{
    ACCEPT, CONNECT, End, Ends, but, is, last, numbered, of, progress, says, shown, spec, ss, wants,
};
use crate::harness::{Agent, Context, Spec, Test, Want, fields, wait_until, who};
use crate::sys;

pub(super) const TESTS: &[Test] = &[
    ("flow::inet", |c| exact(c, "127.0.0.1:0", None)),
    ("flow::inet6", |c| exact(c, "[::1]:0", None)),
    ("flow::mapped", |c| exact(c, "[::]:0", Some("::ffff:127.0.0.1"))),
    ("flow::inet_to_dual_stack", |c| exact(c, "[::]:0", Some("127.0.0.1"))),
    ("flow::nothing_sent", nothing),
    ("flow::only_what_is_asked_for", |c| quiet(c, "poll_seconds: 1")),
    ("flow::connects_without_flows", |c| quiet(c, "enabled: false")),
];

const THERE: u64 = 100_003;
const BACK: u64 = 1_234_567;

fn exact(context: &Context, at: &str, to: Option<&str>) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, at)?;
    let to = to.map(|ip| Ok::<_, anyhow::Error>(SocketAddr::new(ip.parse::<IpAddr>()?, actors.at.port())));
    let before = sys::since_boot()?;
    let ends = actors.connect(to.transpose()?)?;
    let after = sys::since_boot()?;
    actors.exchange(&ends, THERE, BACK)?;
    actors.exchange(&ends, 1, 1)?;
    let totals =
        [(&ends.0, Direction::Outgoing, THERE + 1, BACK + 1), (&ends.1, Direction::Incoming, BACK + 1, THERE + 1)];
    for (end, direction, tx, rx) in totals {
        let line = progress(&agent, end.cookie, tx, rx)?;
        says(&line, &end.owner, &alive(end, direction, tx, rx))?;
        same_as_ss(context, &agent, end)?;
    }
    actors.close(&ends)?;
    for (end, direction, tx, rx) in totals {
        let line = last(&agent, end.cookie)?;
        says(&line, &end.owner, &wants(end, direction, tx, rx))?;
        let start = line.data("start_time").as_i64().unwrap_or_default();
        ensure!((before..=after).contains(&start), "it began at {start}, not in {before}..{after}");
    }
    actors.stop()?;
    let stopped = agent.stop()?;
    let (client, server) = (&ends.0, &ends.1);
    let latency = last_latency(&stopped.lines, client);
    let line = stopped.one(CONNECT, client.owner.pid, |l| of(l, client.cookie))?;
    who(line, &client.owner)?;
    fields(line, &net_tcp_connect::DEF, &named(client, client, latency.into()))?;
    let line = stopped.one(ACCEPT, server.owner.pid, |l| of(l, server.cookie))?;
    who(line, &server.owner)?;
    let mut want = named(server, &turned(server), Want::Absent);
    want.retain(|w| w.0 != "connect_latency");
    fields(line, &net_tcp_accept::DEF, &want)?;
    ensure!(stopped.by(CONNECT, server.owner.pid).is_empty(), "who accepts does not connect");
    ensure!(stopped.lost("net_flow")? == 0, "{:?}", stopped.words);
    Ok(())
}

/// What a look at a living connection must say.
fn alive(end: &End, direction: Direction, tx: u64, rx: u64) -> super::flow_help::Wants {
    but(
        wants(end, direction, tx, rx),
        [
            ("phase", (Phase::Progress as u32).into()),
            ("state", tcp::ESTABLISHED.into()),
            ("reason", (Reason::None as u32).into()),
        ],
    )
}

/// `ss` counts the same.
fn same_as_ss(context: &Context, agent: &Agent, end: &End) -> Result<()> {
    let mut differ = String::new();
    let same = wait_until(context.patience(), || {
        let (line, ss) = (agent.newest(|l| is(l, end.cookie, Phase::Progress)), ss(end, None)?);
        let number = |name: &str| ss.get(name).copied().unwrap_or_default();
        let pairs = [
            ("tx_bytes", number("bytes_sent") - number("bytes_retrans")),
            ("rx_bytes", number("bytes_received")),
            ("tx_segments", number("segs_out")),
            ("rx_segments", number("segs_in")),
            ("retransmits", number("retrans")),
        ];
        let said = |name: &str| line.as_ref().and_then(|l| l.data(name).as_u64());
        differ = format!("{:?}, and ss {ss:?}", line.as_ref().map(|l| l.brief()));
        Ok(pairs.iter().all(|(name, n)| said(name) == Some(*n)))
    })?;
    ensure!(same, "not as ss: {differ}");
    Ok(())
}

fn last_latency(lines: &[crate::harness::Line], end: &End) -> u64 {
    let line = lines.iter().find(|l| is(l, end.cookie, Phase::End));
    line.and_then(|l| l.data("connect_latency").as_u64()).unwrap_or_default()
}

fn turned(end: &End) -> End {
    End { local: end.remote, remote: end.local, ..end.clone() }
}

/// Fields that name both ends: `from` connected.
fn named(end: &End, from: &End, latency: Want) -> super::flow_help::Wants {
    vec![
        ("cookie", numbered(end.cookie)),
        ("src", shown(from.local).into()),
        ("src_port", u32::from(from.local.port()).into()),
        ("dst", shown(from.remote).into()),
        ("dst_port", u32::from(from.remote.port()).into()),
        ("connect_latency", latency),
    ]
}

/// Not one byte is made up: SYN and FIN are none.
fn nothing(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.close(&ends)?;
    says(&last(&agent, ends.0.cookie)?, &ends.0.owner, &wants(&ends.0, Direction::Outgoing, 0, 0))?;
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, 0, 0))?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// Who asks for connects alone gets them, and no flows, whether these are watched or not.
fn quiet(context: &Context, flows: &str) -> Result<()> {
    let tree = format!("tree={}", std::process::id());
    let spec = Spec::run(&["--no-default-rules", "--events", CONNECT, "--scope", &tree]);
    let agent = context.agent(&spec.config(format!("flows:\n  {flows}\n")))?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 10, 10)?;
    actors.close(&ends)?;
    agent.wait_for("the connect", |l| l.name() == CONNECT && of(l, ends.0.cookie))?;
    actors.stop()?;
    let stopped = agent.stop()?;
    let others = stopped.lines.iter().find(|l| l.name() != CONNECT && l.name() != "lost_events");
    ensure!(others.is_none(), "nobody asked for {others:?}");
    Ok(())
}

//! Network namespaces as pods: joined by a veth, by a bridge, by VXLAN between two nodes; one agent sees all of them. And
//! networks that lose, delay and reorder.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::flow::Direction;

use super::flow_help::{Ends, FLOW, but, last, of, progress, says, spec, spec_of, ss, wants};
use crate::harness::{Context, Line, Netns, Skip, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("flow::pods_on_a_veth", |c| pods(c, &pair("veth")?, false)),
    ("flow::pods_on_a_veth_inet6", |c| pods(c, &pair("veth6")?, true)),
    ("flow::pods_on_a_bridge", |c| pods(c, &bridged()?, false)),
    ("flow::pods_on_two_nodes", |c| pods(c, &vxlan()?, false)),
    ("flow::pods_on_two_nodes_inet6", |c| pods(c, &vxlan()?, true)),
    ("flow::scope_netns", scope),
    ("flow::loss", |c| netem(c, "loss 10%")),
    ("flow::reordering", |c| netem(c, "delay 4ms reorder 50% 25%")),
];

/// Two namespaces that reach each other.
pub(super) struct Net {
    pub a: Netns,
    pub b: Netns,
    pub b4: String,
    b6: String,
    /// The link of `a`.
    link: &'static str,
    /// Namespaces between them.
    _between: Vec<Netns>,
}

/// Joins two namespaces by a veth.
fn veth(a: &Netns, a_link: &str, b: &Netns, b_link: &str) -> Result<()> {
    a.ip(&format!("link add {a_link} type veth peer name {b_link} netns {}", b.name()))?;
    a.ip(&format!("link set {a_link} up"))?;
    b.ip(&format!("link set {b_link} up"))
}

fn addresses(pod: &Netns, link: &str, n: u8) -> Result<()> {
    pod.ip(&format!("addr add 10.231.7.{n}/24 dev {link}"))?;
    pod.ip(&format!("addr add fd00:e2e::{n}/64 dev {link} nodad"))
}

fn joined(a: Netns, b: Netns, between: Vec<Netns>) -> Result<Net> {
    addresses(&a, "eth0", 1)?;
    addresses(&b, "eth0", 2)?;
    Ok(Net { a, b, b4: "10.231.7.2".into(), b6: "[fd00:e2e::2]".into(), link: "eth0", _between: between })
}

/// One veth, an end in each.
pub(super) fn pair(name: &str) -> Result<Net> {
    let (a, b) = (Netns::new(&format!("{name}-a"))?, Netns::new(&format!("{name}-b"))?);
    veth(&a, "eth0", &b, "eth0")?;
    joined(a, b, Vec::new())
}

fn bridge(node: &Netns) -> Result<()> {
    node.ip("link add br0 type bridge")?;
    node.ip("link set br0 up")
}

fn plug(pod: &Netns, node: &Netns, port: &str) -> Result<()> {
    veth(pod, "eth0", node, port)?;
    node.ip(&format!("link set {port} master br0"))
}

fn bridged() -> Result<Net> {
    let (a, b, node) = (Netns::new("pod-a")?, Netns::new("pod-b")?, Netns::new("node")?);
    bridge(&node)?;
    plug(&a, &node, "pod-a")?;
    plug(&b, &node, "pod-b")?;
    joined(a, b, vec![node])
}

/// A pod on each of two nodes, which speak VXLAN with each other.
fn vxlan() -> Result<Net> {
    let (a, b) = (Netns::new("pod-a")?, Netns::new("pod-b")?);
    let nodes = [Netns::new("node-a")?, Netns::new("node-b")?];
    veth(&nodes[0], "up0", &nodes[1], "up0")?;
    for (node, pod, own, other) in [(&nodes[0], &a, 1, 2), (&nodes[1], &b, 2, 1)] {
        node.ip(&format!("addr add 10.232.7.{own}/24 dev up0"))?;
        bridge(node)?;
        let ends = format!("local 10.232.7.{own} remote 10.232.7.{other}");
        node.ip(&format!("link add vx0 type vxlan id 42 dstport 4789 {ends}"))
            .map_err(|e| Skip::because(format!("no VXLAN here: {e:#}")))?;
        node.ip("link set vx0 master br0")?;
        node.ip("link set vx0 up")?;
        plug(pod, node, "pod")?;
        pod.ip("link set eth0 mtu 1450")?;
    }
    joined(a, b, Vec::from(nodes))
}

impl Net {
    /// An address that `b` does not have, though `a` thinks so: what is sent there is dropped without a word.
    pub(super) fn silent(&self) -> Result<SocketAddr> {
        let mac = self.mac_of_b()?;
        self.a.ip(&format!("neigh replace 10.231.7.66 lladdr {mac} dev {} nud permanent", self.link))?;
        Ok("10.231.7.66:4242".parse()?)
    }

    fn mac_of_b(&self) -> Result<String> {
        let shown = self.b.run("ip -o link show eth0")?;
        let mac = shown.split_once("link/ether ").and_then(|l| l.1.split_whitespace().next());
        mac.map(str::to_owned).context("a veth without an address")
    }

    /// An address that nobody answers for.
    pub(super) fn nobody(&self) -> Result<SocketAddr> {
        Ok("10.231.7.77:4242".parse()?)
    }

    /// `b` loses its address; nothing tells `a`.
    pub(super) fn hide_b(&self) -> Result<()> {
        let mac = self.mac_of_b()?;
        self.a.ip(&format!("neigh replace {} lladdr {mac} dev {} nud permanent", self.b4, self.link))?;
        self.b.ip("addr flush dev eth0 scope global")
    }

    /// What nstat counts in a namespace since it was made.
    pub(super) fn counter(&self, netns: &Netns, name: &str) -> Result<u64> {
        let text = netns.run(&format!("nstat -asz {name}"))?;
        let line = text.lines().find(|l| l.starts_with(name)).with_context(|| text.clone())?;
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("nstat without a number")
    }
}

const THERE: u64 = 3_000_017;
const BACK: u64 = 70_001;

/// A connection from one pod to the other, each with its own listener, seen from the host.
fn pods(context: &Context, net: &Net, six: bool) -> Result<()> {
    let agent = context.agent(&spec())?;
    let at = format!("{}:0", if six { &net.b6 } else { &net.b4 });
    let mut actors = Ends::between(context, &net.a, &net.b, &at)?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, THERE, BACK)?;
    let cases = [
        (&ends.0, &net.a, Direction::Outgoing, THERE, BACK, "TcpActiveOpens"),
        (&ends.1, &net.b, Direction::Incoming, BACK, THERE, "TcpPassiveOpens"),
    ];
    for (end, netns, _, tx, rx, _) in cases {
        progress(&agent, end.cookie, tx, rx)?;
        let ss = ss(end, Some(netns))?;
        let sent = ss.get("bytes_sent").copied().unwrap_or_default();
        let again = ss.get("bytes_retrans").copied().unwrap_or_default();
        ensure!(sent - again == tx, "ss says {sent} - {again} bytes were sent: {ss:?}");
        ensure!(ss.get("bytes_received").copied().unwrap_or_default() == rx, "{ss:?}");
    }
    actors.close(&ends)?;
    for (end, netns, direction, tx, rx, opens) in cases {
        let line = last(&agent, end.cookie)?;
        says(&line, &end.owner, &wants(end, direction, tx, rx))?;
        let again = net.counter(netns, "TcpRetransSegs")?;
        ensure!(line.data("retransmits") == again, "{again} segments were sent again: {}", line.0);
        ensure!(net.counter(netns, opens)? == 1, "{opens}");
    }
    actors.stop()?;
    let stopped = agent.stop()?;
    let ended = |l: &&Line| l.name() == FLOW && (of(l, ends.0.cookie) || of(l, ends.1.cookie));
    let ended = stopped.lines.iter().filter(ended).filter(|l| l.data("phase") == 2).count();
    ensure!(ended == 2, "{ended} ends of one connection, over however many links it went");
    Ok(())
}

/// The namespace of the socket decides.
fn scope(context: &Context) -> Result<()> {
    let net = pair("scope")?;
    let agent = context.agent(&spec_of(&format!("netns={}", net.b.inode()?)))?;
    let mut actors = Ends::between(context, &net.a, &net.b, &format!("{}:0", net.b4))?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 11, 12)?;
    actors.close(&ends)?;
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, 12, 11))?;
    actors.stop()?;
    let stopped = agent.stop()?;
    let other = stopped.lines.iter().find(|l| l.pid() == u64::from(ends.0.owner.pid));
    ensure!(other.is_none(), "out of scope: {:?}", other.map(Line::brief));
    Ok(())
}

/// What is sent again is no byte more.
fn netem(context: &Context, how: &str) -> Result<()> {
    let net = pair("netem")?;
    for netns in [&net.a, &net.b] {
        netns
            .run(&format!("tc qdisc add dev eth0 root netem {how}"))
            .map_err(|e| Skip::because(format!("no netem here: {e:#}")))?;
    }
    let agent = context.agent(&spec())?;
    let mut actors = Ends::between(context, &net.a, &net.b, &format!("{}:0", net.b4))?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, THERE, BACK)?;
    actors.close(&ends)?;
    let cases =
        [(&ends.0, &net.a, Direction::Outgoing, THERE, BACK), (&ends.1, &net.b, Direction::Incoming, BACK, THERE)];
    let mut again = 0;
    for (end, netns, direction, tx, rx) in cases {
        let line = last(&agent, end.cookie)?;
        let want = wants(end, direction, tx, rx);
        says(&line, &end.owner, &but(want, [("state", Want::Fits(|v| v.as_u64().is_some()))]))?;
        let (said, counted) = (line.data("retransmits").as_u64(), net.counter(netns, "TcpRetransSegs")?);
        // A FIN that is lost after the last record was made is sent again by what is left of the socket.
        ensure!(said.is_some_and(|n| n <= counted), "{counted} segments were sent again: {}", line.0);
        again += said.unwrap_or_default();
    }
    ensure!(again > 0 || !how.starts_with("loss"), "a tenth is lost, and nothing was sent again");
    actors.stop()?;
    agent.stop().map(drop)
}

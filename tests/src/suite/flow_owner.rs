//! Whose a connection is that one process listens for and another accepts.

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::flow::{Direction, Phase, mark, tcp};

use super::flow_help::{ACCEPT, End, Ends, FLOW, but, last, of, progress, says, spec, wants};
use crate::facts::Task;
use crate::harness::{Agent, Context, Did, Test, who};

pub(super) const TESTS: &[Test] = &[
    ("flow::accept_then_fork", forked),
    ("flow::prefork", prefork),
    ("flow::activation", activation),
    ("flow::not_yet_accepted", waiting),
    ("flow::accepted_when_it_has_ended", late),
];

const RX: u64 = 333;
const TX: u64 = 4_444;

/// Asks for `TX` bytes with `RX` bytes, and is done.
fn ask(actors: &mut Ends, client: &End) -> Result<()> {
    actors.client.ask(&format!("send fd={} n={RX}", client.fd))?;
    let came = actors.client.ask(&format!("receive fd={} n={TX}", client.fd))?;
    ensure!(came.number("/n")? as u64 == TX, "{}", came.did);
    actors.client.ask(&format!("close fd={}", client.fd))?;
    Ok(())
}

/// Both ends, where `served` says what the other did, and `owner` accepted it.
fn both(agent: &Agent, client: &End, served: &Did, owner: &Task) -> Result<()> {
    says(&last(agent, client.cookie)?, &client.owner, &wants(client, Direction::Outgoing, RX, TX))?;
    let server = End { owner: owner.clone(), ..End::of(served)? };
    ensure!(served.number("/rx")? as u64 == RX && served.number("/tx")? as u64 == TX, "{}", served.did);
    let line = last(agent, server.cookie)?;
    says(&line, owner, &wants(&server, Direction::Incoming, TX, RX))?;
    let accepted = |l: &crate::harness::Line| l.name() == ACCEPT && of(l, server.cookie);
    who(&agent.wait_for("the accept", accepted)?, owner)
}

/// As sshd does: it belongs to who accepted it, whoever serves it.
fn forked(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let client = actors.start(None)?;
    let parent = actors.server.ask(&format!("fork fd={} rx={RX} tx={TX}", actors.listener))?;
    ask(&mut actors, &client)?;
    let served = actors.server.hear()?;
    ensure!(served.me.pid == parent.part::<Task>("/child")?.pid, "not the child served: {}", served.did);
    both(&agent, &client, &served, &parent.me)?;
    actors.server.ask(&format!("reap pid={}", served.me.pid))?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// As nginx does: the parent listens, its children accept.
fn prefork(context: &Context) -> Result<()> {
    const CHILDREN: usize = 4;
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "[::1]:0")?;
    let parent = actors.server.ask(&format!("prefork fd={} n={CHILDREN} rx={RX} tx={TX}", actors.listener))?;
    let children: Vec<Task> = parent.part("/children")?;
    for _ in 0..CHILDREN {
        let client = actors.start(None)?;
        ask(&mut actors, &client)?;
        let served = actors.server.hear()?;
        let child = children.iter().find(|c| c.pid == served.me.pid).context("a stranger served")?;
        both(&agent, &client, &served, child)?;
        actors.server.ask(&format!("reap pid={}", child.pid))?;
    }
    actors.stop()?;
    agent.stop().map(drop)
}

/// As systemd does: another program than the one that listened.
fn activation(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let program = context.scratch.path().join("activated-service");
    std::fs::copy(&context.actor, &program)?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    // Established when the service does not run yet.
    let client = actors.start(None)?;
    let words = format!("activate fd={} rx={RX} tx={TX} program={}", actors.listener, program.display());
    actors.server.tell(&words)?;
    ask(&mut actors, &client)?;
    let served = actors.server.hear()?;
    let launched = actors.server.hear()?;
    ensure!(launched.did["success"] == true && launched.me.pid != served.me.pid, "{}", launched.did);
    ensure!(served.me.exe == program.display().to_string(), "{}", served.me.exe);
    both(&agent, &client, &served, &served.me)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// Until somebody accepts it, a connection is the listener's, and says that.
fn waiting(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let client = actors.start(None)?;
    actors.client.ask(&format!("send fd={} n={RX}", client.fd))?;
    let port = u32::from(client.local.port());
    let line = agent.wait_for("a look at what nobody accepted", |l| {
        l.name() == FLOW
            && l.data("dst_port") == port
            && l.data("phase") == Phase::Progress as u32
            && l.data("rx_bytes") == RX
    })?;
    let server = actors.accept()?;
    let inherited = but(
        wants(&server, Direction::Incoming, 0, RX),
        [
            ("phase", (Phase::Progress as u32).into()),
            ("state", tcp::ESTABLISHED.into()),
            ("reason", 0_u32.into()),
            ("marks", mark::INHERITED.into()),
        ],
    );
    says(&line, &server.owner, &inherited)?;
    actors.client.ask(&format!("send fd={} n=1", client.fd))?;
    let line = progress(&agent, server.cookie, 0, RX + 1)?;
    ensure!(line.data("marks") == 0, "accepted by now: {}", line.0);
    actors.server.ask(&format!("receive fd={} n={}", server.fd, RX + 1))?;
    let ends = (client, server);
    actors.close(&ends)?;
    says(&last(&agent, ends.1.cookie)?, &ends.1.owner, &wants(&ends.1, Direction::Incoming, 0, RX + 1))?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// The other end was done before anybody accepted.
fn late(context: &Context) -> Result<()> {
    let agent = context.agent(&spec())?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let client = actors.start(None)?;
    actors.client.ask(&format!("send fd={} n={RX}", client.fd))?;
    actors.client.ask(&format!("close fd={}", client.fd))?;
    says(&last(&agent, client.cookie)?, &client.owner, &wants(&client, Direction::Outgoing, RX, 0))?;
    let server = actors.accept()?;
    let came = actors.server.ask(&format!("receive fd={}", server.fd))?;
    ensure!(came.number("/n")? as u64 == RX, "{}", came.did);
    actors.server.ask(&format!("close fd={}", server.fd))?;
    says(&last(&agent, server.cookie)?, &server.owner, &wants(&server, Direction::Incoming, 0, RX))?;
    actors.stop()?;
    agent.stop().map(drop)
}

//! Where a connection is and who is at its other end: containers by their network namespaces, peers by the addresses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::flow::Phase;

use super::flow_help::{End, Ends, FLOW, is, last, of, progress, spec_of};
use super::flow_net::{Net, pair};
use crate::facts::File;
use crate::harness::{Agent, Cgroup, Context, Line, Netns, Test};

pub(super) const TESTS: &[Test] =
    &[("flow::container_by_namespace", by_namespace), ("flow::host_is_nobodys_container", host)];

/// What stands for a container: its first process, in a cgroup and a pid namespace of its own.
struct Container {
    id: String,
    first: Child,
    // After the process: a cgroup goes when it is empty.
    _cgroup: Cgroup,
}

impl Container {
    /// Begins it in `netns`, else in that of the host; it is there when this returns.
    fn new(number: u32, netns: Option<&Netns>) -> Result<Self> {
        let id = format!("{:0>8x}{number:0>56x}", std::process::id());
        let cgroup = Cgroup::made(&format!("docker-{id}.scope"))?;
        let net = netns.map_or("/proc/self/ns/net".into(), |n| n.path().display().to_string());
        // Its input ends with the test, and so does it.
        let script = "echo $$ > \"$0/cgroup.procs\" && exec nsenter --net=\"$1\" unshare --pid --fork --kill-child cat";
        let path = cgroup.path().display().to_string();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, &path, &net]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut made = Self { id, first: command.spawn()?, _cgroup: cgroup };
        let (input, output) = (made.first.stdin.as_mut(), made.first.stdout.as_mut());
        input.context("no input")?.write_all(b"there\n")?;
        let mut answer = String::new();
        BufReader::new(output.context("no output")?).read_line(&mut answer)?;
        ensure!(answer == "there\n", "the container did not begin: {answer:?}");
        Ok(made)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.first.stdin.take());
        if let Err(e) = self.first.wait() {
            eprintln!("e2e: a container is not waited for: {e}");
        }
    }
}

/// Neither end's process is in a container: their namespaces are.
fn by_namespace(context: &Context) -> Result<()> {
    let net = pair("place")?;
    let before = Container::new(21, Some(&net.a))?;
    let agent = context.agent(&spec_of("netns!=0"))?;
    let after = Container::new(22, Some(&net.b))?;
    let mut actors = Ends::between(context, &net.a, &net.b, &format!("{}:0", net.b4))?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 11, 12)?;
    progress(&agent, ends.0.cookie, 11, 12)?;
    progress(&agent, ends.1.cookie, 12, 11)?;
    // Both are known from here on.
    actors.exchange(&ends, 1, 1)?;
    let lines = [progress(&agent, ends.0.cookie, 12, 13)?, progress(&agent, ends.1.cookie, 13, 12)?];
    placed(&net, &lines, &ends, &before.id, &after.id)?;
    actors.close(&ends)?;
    let lines = [last(&agent, ends.0.cookie)?, last(&agent, ends.1.cookie)?];
    placed(&net, &lines, &ends, &before.id, &after.id)?;
    actors.stop()?;
    agent.stop().map(drop)
}

/// The lines of both ends say where they are, and name each other.
fn placed(net: &Net, lines: &[Line; 2], ends: &(End, End), a: &str, b: &str) -> Result<()> {
    let sides = [(&net.a, a, &ends.1, &net.b, b), (&net.b, b, &ends.0, &net.a, a)];
    for (line, (here, id, other, there, other_id)) in lines.iter().zip(sides) {
        ensure!(line.at("/workload/container").is_null(), "its process is in none: {}", line.0);
        ensure!(line.at("/network/namespace") == here.inode()?, "namespace: {}", line.0);
        ensure!(line.at("/network/container/id") == id, "container of the namespace: {}", line.0);
        // Both ends are told under numbers; on some kernels the socket itself has another.
        let number = lines.iter().find(|l| of(l, other.cookie)).map(|l| l.data("cookie").to_string());
        ensure!(line.at("/peer/cookie").as_str() == number.as_deref(), "its number: {}", line.0);
        ensure!(line.at("/peer/kind") == "process", "peer: {}", line.0);
        ensure!(line.at("/peer/process/host_pid") == other.owner.pid, "peer, not {}: {}", other.owner.pid, line.0);
        ensure!(line.at("/peer/process/executable/path") == other.owner.exe.as_str(), "its program: {}", line.0);
        ensure!(line.at("/peer/container").is_null(), "the peer is in none: {}", line.0);
        ensure!(line.at("/peer/network/namespace") == there.inode()?, "the peer's namespace: {}", line.0);
        ensure!(line.at("/peer/network/container/id") == other_id, "whose that is: {}", line.0);
    }
    Ok(())
}

/// A container with the network of the host does not get the host's connections; nor do two that share a namespace.
fn host(context: &Context) -> Result<()> {
    let net = Netns::new("shared")?;
    let _on_the_host = Container::new(23, None)?;
    let _sharing = [Container::new(24, Some(&net))?, Container::new(25, Some(&net))?];
    let agent = context.agent(&spec_of("netns!=0"))?;
    let here = File::at("/proc/self/ns/net")?.inode;
    let mut hosts = Ends::new(context, "127.0.0.1:0")?;
    let mut shared = Ends::between(context, &net, &net, "127.0.0.1:0")?;
    for (actors, netns) in [(&mut hosts, here), (&mut shared, net.inode()?)] {
        let ends = actors.connect(None)?;
        actors.exchange(&ends, 5, 6)?;
        actors.close(&ends)?;
        for end in [&ends.0, &ends.1] {
            let line = last(&agent, end.cookie)?;
            ensure!(line.at("/network/namespace") == netns, "namespace: {}", line.0);
            ensure!(line.at("/network/container").is_null(), "nobody's: {}", line.0);
        }
        one_names_the_other(&agent, &ends)?;
    }
    hosts.stop()?;
    shared.stop()?;
    agent.stop().map(drop)
}

/// Whichever was told of last knew the other.
fn one_names_the_other(agent: &Agent, ends: &(End, End)) -> Result<()> {
    for end in [&ends.0, &ends.1] {
        ensure!(is(&last(agent, end.cookie)?, end.cookie, Phase::End), "it failed");
    }
    let told = agent.all(|l| l.name() == FLOW && (of(l, ends.0.cookie) || of(l, ends.1.cookie)));
    let line = told.last().context("nothing was told")?;
    let other = if of(line, ends.0.cookie) { &ends.1 } else { &ends.0 };
    ensure!(line.at("/peer/process/host_pid") == other.owner.pid, "peer, not {}: {}", other.owner.pid, line.0);
    Ok(())
}

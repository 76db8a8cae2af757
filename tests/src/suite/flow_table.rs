//! `haechi flows`: the table and the lines, what the filters take and leave, and flows that a reload switches on.

use super::flow_help::{End, Ends, FLOW, of};
use crate::facts::File;
use crate::harness::{Agent, Context, Line, Spec, Test};
use anyhow::{Result, ensure};

pub(super) const TESTS: &[Test] = &[
    ("flows::table", table),
    ("flows::filters", filters),
    ("flows::filters_that_mean_nothing", nonsense),
    ("flow::reload_switches_on", reload),
];

/// `haechi flows` with these arguments.
fn flows(context: &Context, args: &[String]) -> Result<Agent> {
    let config = context.config("log: warn\n")?;
    let mut command: Vec<String> = ["flows", "--config", &config].map(str::to_owned).to_vec();
    command.extend(args.iter().cloned());
    context.agent(&Spec { command: Some(command), ..Spec::default() })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A row says who, with whom, how much, and who that is.
fn table(context: &Context) -> Result<()> {
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let actors_at = actors.at;
    let agent = flows(context, &words(&format!("--port {} --sort bytes --number 5", actors_at.port())))?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 700, 900)?;
    let row = |end: &End, other: &End, arrow: &str, bytes: [u64; 2]| {
        let leaf = |end: &End| end.owner.exe.rsplit('/').next().unwrap_or_default().to_owned();
        let (pid, to) = (end.owner.pid, format!("{arrow} {}", end.remote));
        let moved = format!(" {} {:>9} ", bytes[0], bytes[1]);
        let parts = [leaf(end), format!(" {pid} "), end.local.to_string(), to, "established".into(), moved];
        let peer = format!("{}[{}]", leaf(other), other.owner.pid);
        move |l: &Line| parts.iter().chain([&peer]).all(|part| l.text().contains(part.as_str()))
    };
    agent.wait_for("the client's row", row(&ends.0, &ends.1, "->", [700, 900]))?;
    agent.wait_for("the server's row", row(&ends.1, &ends.0, "<-", [900, 700]))?;
    actors.close(&ends)?;
    agent.wait_for("the end in the table", |l| {
        l.text().contains(&ends.0.local.to_string()) && l.text().contains(" fin ")
    })?;
    actors.stop()?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}: {}", stopped.status, stopped.words.join("\n"));
    ensure!(stopped.lines.iter().any(|l| l.text().starts_with("PROCESS ")), "no heading");
    let port = format!(":{}", actors_at.port());
    let known = ["PROCESS ", "and ", &port, " lost here: "];
    let strange = |l: &&Line| !l.text().is_empty() && !known.iter().any(|k| l.text().contains(k));
    let strange: Vec<_> = stopped.lines.iter().filter(strange).map(Line::text).collect();
    ensure!(strange.is_empty(), "not asked for: {strange:?}");
    Ok(())
}

/// Each filter takes one of two connections, or one of its ends, and leaves the rest.
fn filters(context: &Context) -> Result<()> {
    let (mut actors, mut others) = (Ends::new(context, "127.0.0.1:0")?, Ends::new(context, "127.0.0.1:0")?);
    let (port, netns) = (actors.at.port(), File::at("/proc/self/ns/net")?.inode);
    let (client, exe) = (actors.client.pid(), context.actor.display().to_string());
    let leaf = exe.rsplit('/').next().unwrap_or_default().to_owned();
    // What is asked for, and which of: client, server, other client, other server.
    let cases: [(String, [bool; 4]); 6] = [
        (format!("--process {client}"), [true, false, false, false]),
        (format!("--process {leaf} --port {port} --address 127.0.0.0/8"), [true, true, false, false]),
        (format!("--direction incoming --process {exe} --port {port}"), [false, true, false, false]),
        (format!("--state established --netns {netns} --process {leaf}"), [true; 4]),
        (format!("--netns {} --netns 1 --process {leaf}", netns + 1), [false; 4]),
        (format!("--state syn_sent --process {leaf}"), [false; 4]),
    ];
    let start = |(what, _): &(String, _)| flows(context, &words(&format!("--json {what}")));
    let agents: Vec<Agent> = cases.iter().map(start).collect::<Result<_>>()?;
    let ours = actors.connect(None)?;
    let theirs = others.connect(None)?;
    let ends = [&ours.0, &ours.1, &theirs.0, &theirs.1];
    actors.exchange(&ours, 41, 42)?;
    others.exchange(&theirs, 43, 44)?;
    for (agent, (what, takes)) in agents.iter().zip(&cases) {
        for (end, _) in ends.iter().zip(takes).filter(|(_, takes)| **takes) {
            let line = agent.wait_for(&format!("{what}: {end:?}"), |l| l.name() == FLOW && of(l, end.cookie))?;
            ensure!(line.at("/network/namespace") == netns, "{what}: namespace: {}", line.0);
        }
    }
    actors.close(&ours)?;
    others.close(&theirs)?;
    actors.stop()?;
    others.stop()?;
    for (agent, (what, takes)) in agents.into_iter().zip(&cases) {
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "{what}: {}: {}", stopped.status, stopped.words.join("\n"));
        for (end, _) in ends.iter().zip(takes).filter(|(_, takes)| !**takes) {
            let shown = stopped.lines.iter().find(|l| l.name() == FLOW && of(l, end.cookie));
            ensure!(shown.is_none(), "{what} does not ask for {shown:?}");
        }
        let of_ours = |l: &Line| l.name() == FLOW && ends.iter().any(|e| of(l, e.cookie));
        let ended = stopped.lines.iter().find(|l| of_ours(l) && l.data("phase") != 1_u32 && what.contains("--state"));
        ensure!(ended.is_none(), "{what} does not ask for {ended:?}");
    }
    Ok(())
}

fn nonsense(context: &Context) -> Result<()> {
    for args in ["--address 10.0.0.0/99", "--state open", "--direction up", "--netns host", "--port 70000"] {
        let mut command = vec!["flows".to_owned()];
        command.extend(words(args));
        let agent = context.start(&Spec { command: Some(command), ..Spec::default() })?;
        let stopped = agent.end()?;
        ensure!(stopped.status.code() == Some(2), "{args}: {}: {:?}", stopped.status, stopped.words);
        ensure!(stopped.lines.is_empty(), "{args}: {:?}", stopped.lines);
    }
    Ok(())
}

/// A rule in Rego that fires for each connection with `port` at one end.
fn rule(port: u16) -> String {
    format!(
        r#"package tracee.flow_of_the_tests

__rego_metadoc__ := {{
    "id": "TST-FLOW", "version": "1.0.0", "name": "flow_of_the_tests", "eventName": "flow_of_the_tests",
    "description": "A connection of the tests", "tags": ["test"], "properties": {{ "Severity": 1 }},
}}

tracee_selected_events[eventSelector] {{
    eventSelector := {{ "source": "tracee", "name": "net_flow", "origin": "*" }}
}}

tracee_match {{
    input.eventName == "net_flow"
    arg := input.args[_]
    {{"src_port", "dst_port"}}[arg.name]
    arg.value == {port}
}}
"#
    )
}

/// A rule about connections where flows are off: the programs come with it, and what was open is taken in.
fn reload(context: &Context) -> Result<()> {
    let rules = context.dir("rules-of-flows")?;
    let agent = context.agent(
        &Spec::run(&["--no-default-rules"])
            .config(format!("flows:\n  enabled: false\n  poll_seconds: 1\nrules:\n  dirs: [{rules}]\n")),
    )?;
    let mut actors = Ends::new(context, "127.0.0.1:0")?;
    let ends = actors.connect(None)?;
    actors.exchange(&ends, 71, 72)?;
    std::fs::write(format!("{rules}/flows.rego"), rule(actors.at.port()))?;
    let event = |l: &Line| Line::new(l.at("/detected_from").to_string());
    let found = |direction: &'static str| {
        move |l: &Line| l.name() == "flow_of_the_tests" && event(l).data("direction") == direction
    };
    for (end, direction, tx) in [(&ends.0, "outgoing", 71_u64), (&ends.1, "incoming", 72)] {
        let line = agent.wait_for("a finding about a connection of old", found(direction))?;
        ensure!(line.pid() == u64::from(end.owner.pid), "not of {}: {}", end.owner.pid, line.0);
        let line = event(&line);
        ensure!(line.data("tx_bytes") == tx, "{}", line.0);
        ensure!(line.data("marks") == "adopted", "{}", line.0);
    }
    actors.close(&ends)?;
    actors.stop()?;
    agent.stop().map(drop)
}

//! Who watches an agent from outside gets what it says itself: byte for byte, without gap or repeat, each loss told.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use haechi_agent::servers::address::Address;
use haechi_agent::servers::client::{Request, Watch, connect};
use haechi_agent::servers::wire::proto::{
    Form, GetStatusRequest, ListEventsRequest, ListSignaturesRequest, WatchEventsRequest,
};
use serde_json::Value;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::cli::haechi;
use super::flow_load::{Load, equation};
use crate::harness::{Agent, Context, Line, Spec, Stopped, Test};

pub(super) const TESTS: &[Test] = &[
    ("serve::findings", findings),
    ("serve::resume", resume),
    ("serve::slow_client", slow),
    ("serve::hundred_clients", hundred),
    ("serve::flows", flows),
    ("serve::refusals", refusals),
    ("serve::status_health_reflection", speaks),
];

/// Where an agent of this test serves.
fn address(context: &Context, name: &str) -> Result<String> {
    Ok(format!("unix:{}/agent.sock", context.dir(name)?))
}

/// An agent that serves there, with more settings of the section `serve`, and besides.
fn serving(address: &str, serve: &str, config: &str) -> Spec {
    Spec::run(&["--serve"]).config(format!("serve:\n  address: {address}\n{serve}{config}"))
}

/// Someone who watches.
fn watch(context: &Context, address: &str, args: &[&str]) -> Result<Agent> {
    let mut command = vec!["watch".to_owned()];
    command.extend(args.iter().map(|a| (*a).to_owned()));
    command.extend(["--output", "json", "--server", address].map(str::to_owned));
    context.agent(&Spec { command: Some(command), ..Spec::default() })
}

/// Where it says that one can go on.
fn position(watched: &Stopped) -> Result<&str> {
    let words = watched.words.iter().find_map(|w| w.split_once("go on with --since "));
    Ok(words.with_context(|| format!("it does not say where: {:?}", watched.words))?.1)
}

/// Opens `path` so many times.
fn open(context: &Context, path: &str, n: u64) -> Result<()> {
    let did = context.actor(&["opens", &format!("path={path}"), &format!("n={n}")])?;
    ensure!(did.number("/n")? as u64 == n, "{}", did.did);
    Ok(())
}

fn of_path(line: &Line, path: &str) -> bool {
    line.name() == "security_file_open" && line.data("pathname") == path
}

/// The lines are the agent's own; at SIGTERM the watch ends well, with all of them.
fn findings(context: &Context) -> Result<()> {
    let address = address(context, "serve-findings")?;
    let agent = context.agent(&serving(&address, "", ""))?;
    let socket = address.trim_start_matches("unix:");
    let mode = std::fs::metadata(socket)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the socket has mode {mode:o}");
    let all = watch(context, &address, &[])?;
    let some = watch(context, &address, &["findings", "--signature", "ptrace_*", "--severity", "high"])?;

    let read = context.actor(&["open", "how=openat", "path=/etc/shadow"])?;
    let poked = context.actor(&["ptrace", "what=poketext"])?;
    let of = |name: &'static str, pid: u32| move |l: &Line| l.name() == name && l.pid() == u64::from(pid);
    for watcher in [&agent, &all] {
        watcher.wait_for("the first finding", of("sensitive_credential_read", read.me.pid))?;
        watcher.wait_for("the second finding", of("ptrace_code_injection", poked.me.pid))?;
    }
    some.wait_for("the second finding alone", of("ptrace_code_injection", poked.me.pid))?;
    agent.signal(libc::SIGTERM)?;
    let (agent, all, some) = (agent.end()?, all.end()?, some.end()?);
    for ended in [&agent, &all, &some] {
        ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.words);
    }
    // Others on this machine may have been found out before the watch began.
    let texts = |of: &Stopped| of.lines.iter().map(|l| l.text().to_owned()).collect::<Vec<_>>();
    ensure!(texts(&agent).ends_with(&texts(&all)), "{:?}, not {:?}", texts(&all), texts(&agent));
    ensure!(some.by("sensitive_credential_read", read.me.pid).is_empty(), "it was not asked for");
    ensure!(!std::path::Path::new(socket).exists(), "the socket is still there");
    Ok(())
}

/// Away for a while, and back: nothing is missing, nothing comes twice. Of another run the watch says so.
fn resume(context: &Context) -> Result<()> {
    let address = address(context, "serve-resume")?;
    let path = context.file("opened-while-away", "x")?;
    let spec = serving(&address, "", &format!("events: ['security_file_open.data.pathname={path}']\n"));
    let agent = context.agent(&spec)?;
    let first = watch(context, &address, &["events"])?;
    open(context, &path, 30)?;
    first.wait_for("an event", |l| of_path(l, &path))?;
    let mut parts = vec![first.stop()?];
    for _ in 0..2 {
        open(context, &path, 30)?;
        let since = position(parts.last().context("there is one")?)?.to_owned();
        let next = watch(context, &address, &["events", "--since", &since])?;
        next.wait_for("what came in between", |l| of_path(l, &path))?;
        open(context, &path, 30)?;
        parts.push(next.stop()?);
    }
    let since = position(parts.last().context("there is one")?)?.to_owned();
    let last = watch(context, &address, &["events", "--since", &since])?;
    let agent = agent.stop()?;
    parts.push(last.end()?);
    let own: Vec<&str> = agent.lines.iter().filter(|l| of_path(l, &path)).map(Line::text).collect();
    let seen: Vec<&str> = parts.iter().flat_map(|p| &p.lines).filter(|l| of_path(l, &path)).map(Line::text).collect();
    ensure!(own.len() == 150, "{} were seen at all: {:?}", own.len(), agent.words);
    ensure!(own == seen, "{} lines, the watches have {}", own.len(), seen.len());

    let agent = context.agent(&spec)?;
    open(context, &path, 1)?;
    agent.wait_for("an event", |l| of_path(l, &path))?;
    let again = watch(context, &address, &["events", "--since", &since])?;
    again.wait_for_words("started anew")?;
    again.wait_for("what there is", |l| of_path(l, &path))?;
    again.stop()?;
    agent.stop().map(drop)
}

/// Runs a client.
fn client<T>(acts: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(acts)
}

/// A client that counts what it gets.
struct Counting {
    watch: Watch,
    patience: Duration,
    got: u64,
    lost: u64,
}

impl Counting {
    async fn start(context: &Context, address: &str) -> Result<Self> {
        let request = WatchEventsRequest { form: Form::Json as i32, ..WatchEventsRequest::default() };
        let mut watch = Watch::start(&address.parse()?, Request::Events(request)).await?;
        let begin = watch.next().await?.context("no beginning")?;
        ensure!(begin.begin.is_some(), "{begin:?}");
        Ok(Self { watch, patience: context.patience(), got: 0, lost: 0 })
    }

    /// Reads until so many came or were lost.
    async fn read(&mut self, all: u64) -> Result<()> {
        while self.got + self.lost < all {
            let step = timeout(self.patience, self.watch.next()).await;
            let step = step.with_context(|| format!("{} came and {} were lost of {all}", self.got, self.lost))??;
            let step = step.context("the stream has ended")?;
            let line: Value = serde_json::from_slice(step.lost.as_ref().map_or(&step.line, |l| l.line.as_bytes()))?;
            match &step.lost {
                Some(lost) => {
                    ensure!(line["name"] == "lost_events", "{line}");
                    self.lost += lost.records;
                }
                // What the agent lost of others.
                None if line["name"] == "lost_events" => {}
                None => {
                    ensure!(line["name"] == "security_file_open", "{line}");
                    self.got += 1;
                }
            }
        }
        ensure!(self.got + self.lost == all, "{} came and {} were lost of {all}", self.got, self.lost);
        Ok(())
    }
}

/// One that does not read is told what it lost; one that does has everything.
fn slow(context: &Context) -> Result<()> {
    const CHUNK: u64 = 500;
    const CHUNKS: u64 = 20;
    let address = address(context, "serve-slow")?;
    let path = context.file("opened-fast", "x")?;
    // Room for more than a chunk, and for less than all.
    let serve = format!("  events: ['security_file_open.data.pathname={path}']\n  ring_bytes: 1048576\n");
    let agent = context.agent(&serving(&address, &serve, ""))?;
    let (fast, slow) = client(async {
        let mut slow = Counting::start(context, &address).await?;
        let mut fast = Counting::start(context, &address).await?;
        for chunk in 1..=CHUNKS {
            open(context, &path, CHUNK)?;
            fast.read(chunk * CHUNK).await?;
        }
        slow.read(CHUNKS * CHUNK).await?;
        let status = connect(&address.parse()?).await?.get_status(GetStatusRequest {}).await?.into_inner();
        let events = status.streams.iter().find(|s| s.name == "events").context("no such stream")?;
        ensure!(events.lost == slow.lost, "it counted {} lost: {events:?}", slow.lost);
        Ok((fast, slow))
    })?;
    println!("         the slow one got {} and lost {}", slow.got, slow.lost);
    ensure!(fast.lost == 0, "the fast one lost {}", fast.lost);
    ensure!(slow.lost > 0 && slow.got > 0, "{} came and {} were lost", slow.got, slow.lost);
    let stopped = agent.stop()?;
    // Others on this machine may have been found out.
    let shown = stopped.lines.iter().find(|l| l.name() == "security_file_open");
    ensure!(shown.is_none(), "what is only served is not shown: {shown:?}");
    ensure!(stopped.lost("security_file_open")? == 0, "the agent lost some: {:?}", stopped.words);
    Ok(())
}

/// Each of a hundred has everything, or is told.
fn hundred(context: &Context) -> Result<()> {
    let n = 300 / u64::from(context.machine.slow);
    let address = address(context, "serve-many")?;
    let path = context.file("opened-for-many", "x")?;
    let serve = format!("  events: ['security_file_open.data.pathname={path}']\n  watchers: 100\n");
    let agent = context.agent(&serving(&address, &serve, ""))?;
    client(async {
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(Counting::start(context, &address).await?);
        }
        let Err(error) = Counting::start(context, &address).await else { bail!("there was room for one more") };
        ensure!(error.to_string().contains("serve.watchers"), "{error:#}");
        open(context, &path, n)?;
        for client in &mut clients {
            client.read(n).await?;
            ensure!(client.lost == 0, "{} were lost of {n}", client.lost);
        }
        Ok(())
    })?;
    agent.stop().map(drop)
}

/// As fast as it goes: each connection came once at each end, or is counted.
fn flows(context: &Context) -> Result<()> {
    let n = 10_000 / u64::from(context.machine.slow);
    let address = address(context, "serve-flows")?;
    let scope = format!("scope: ['tree={}']\nflows:\n  poll_seconds: 1\n", std::process::id());
    let agent = context.agent(&serving(&address, "", &scope))?;
    let begun = std::time::Instant::now();
    let done = Load::start(context, 1, n, &[])?.end()?;
    let took = begun.elapsed().as_secs_f64();
    // Whoever comes late has them all: the store has room for so many.
    let watcher = watch(context, &address, &["flows", "--since", "0"])?;
    let one = u64::from(done.first().context("somebody connected")?.0.me.pid);
    let port = watcher.wait_for("a connection", |l| l.pid() == one)?.data("src_port");
    let some = watch(
        context,
        &address,
        &["flows", "--since", "0", "--process", &one.to_string(), "--port", &port.to_string()],
    )?;
    some.wait_for("the connection of that port", |l| l.data("src_port") == port)?;
    let agent = agent.stop()?;
    let (watched, some) = (watcher.end()?, some.end()?);
    let shown = agent.lines.iter().find(|l| l.name() == "net_flow");
    ensure!(shown.is_none(), "connections were not asked for: {shown:?}");
    ensure!(watched.status.success() && some.status.success(), "{:?} {:?}", watched.words, some.words);
    let strange = |l: &&Line| {
        l.name() == "net_flow" && (l.pid() != one || (l.data("src_port") != port && l.data("dst_port") != port))
    };
    ensure!(some.lines.iter().find(strange).is_none(), "{:?}", some.lines.iter().find(strange));
    let missed: Vec<&Line> = watched.lines.iter().filter(|l| l.data("event") == "flows").collect();
    ensure!(missed.is_empty(), "there was room: {missed:?}");
    // What came, by the watch; what was lost, by the agent.
    let both = Stopped { lines: watched.lines, words: agent.words, status: agent.status };
    let lost = equation(context, &both, &done)?;
    println!("         {n} connections at {:.0} a second, {lost} records lost", n as f64 / took);
    Ok(())
}

/// Clear words for who may not, and for who is not there.
fn refusals(context: &Context) -> Result<()> {
    let address = address(context, "serve-refusals")?;
    let refused = |args: &[&str], code: i32, words: &str| {
        let out = haechi(context, args)?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.code() == Some(code) && said.contains(words), "{args:?}: {}: {said}", out.status);
        Ok(())
    };
    refused(&["watch", "--server", &address], 1, "no agent serves at unix:/")?;
    let afar = context.config("serve:\n  address: tcp:0.0.0.0:4466\n")?;
    refused(&["run", "--serve", "--config", &afar], 2, "can be reached from other hosts")?;
    let config = context.config(&format!("serve:\n  address: {address}\n"))?;
    let socket = address.trim_start_matches("unix:");
    std::fs::write(socket, "no socket")?;
    refused(&["run", "--serve", "--config", &config], 1, "is no socket")?;
    std::fs::remove_file(socket)?;

    // One that was killed leaves its socket; the next one takes its place.
    let killed = context.agent(&serving(&address, "", ""))?;
    killed.signal(libc::SIGKILL)?;
    killed.end()?;
    ensure!(std::path::Path::new(socket).exists(), "who would have removed it?");
    let agent = context.agent(&serving(&address, "", "events: [ptrace]\n"))?;
    refused(&["run", "--serve", "--config", &config], 1, &format!("another agent serves at {address}"))?;
    let at = ["--server", &address];
    refused(&[&["watch", "events", "-e", "memfd_create"], &at[..]].concat(), 2, "not served: memfd_create")?;
    refused(&[&["watch", "events", "-e", "ptrase"], &at[..]].concat(), 2, "did you mean `ptrace`")?;
    refused(&[&["watch", "flows", "--state", "half-open"], &at[..]].concat(), 2, "half-open")?;
    refused(&[&["watch", "--since", "999999999"], &at[..]].concat(), 2, "there is no record 999999999 yet")?;
    agent.stop().map(drop)
}

/// Through a port of this host, by whatever client there is: how it fares, what there is, what can be called.
fn speaks(context: &Context) -> Result<()> {
    let agent = context.agent(&serving("tcp:127.0.0.1:0", "", "events: [ptrace]\n"))?;
    let words = agent.wait_for_words("serving address=")?;
    let at = words.split_once("serving address=").context("no address")?.1.trim().to_owned();
    let address = Address::Tcp(at.parse().with_context(|| at.clone())?);
    client(async {
        let channel = Endpoint::from_shared(format!("http://{at}"))?.connect().await?;
        let mut haechi = connect(&address).await?;
        let status = haechi.get_status(GetStatusRequest {}).await?.into_inner();
        ensure!(status.version == env!("CARGO_PKG_VERSION") && status.streams.len() == 3, "{status:?}");
        let events = haechi.list_events(ListEventsRequest {}).await?.into_inner().events;
        let served =
            |name: &str| events.iter().find(|e| e.name == name).is_some_and(|e| e.served && !e.fields.is_empty());
        ensure!(served("ptrace") && served("net_flow") && !served("memfd_create"), "{events:?}");
        let rules = haechi.list_signatures(ListSignaturesRequest {}).await?.into_inner().signatures;
        ensure!(rules.iter().any(|r| r.name == "fileless_execution" && !r.remedy.is_empty()), "{rules:?}");

        let mut health = HealthClient::new(channel.clone());
        let asked = HealthCheckRequest { service: "haechi.v1.Haechi".into() };
        let healthy = health.check(asked).await?.into_inner();
        ensure!(healthy.status == 1, "not serving: {healthy:?}");

        let mut reflection = ServerReflectionClient::new(channel);
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers =
            reflection.server_reflection_info(tonic::codegen::tokio_stream::once(question)).await?.into_inner();
        let answer = answers.message().await?.and_then(|a| a.message_response).context("no answer")?;
        let MessageResponse::ListServicesResponse(services) = answer else { bail!("{answer:?}") };
        ensure!(services.service.iter().any(|s| s.name == "haechi.v1.Haechi"), "{services:?}");
        Ok(())
    })?;
    agent.stop().map(drop)
}

//! A web server at full speed: wrk on one processor, nginx on the other, connections kept. Both processors are busy, so
//! what the agent itself uses counts as much as what its programs cost.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::agent::{Agent, settings};
use super::child::{Child, last_cpu, pinned, silent};
use super::contest::{self, Outcome};
use super::gate::pause;
use super::report::Measured;
use super::stats::median;

const CONNECTIONS: u32 = 16;

pub(super) fn web(bench: &Bench) -> Result<Measured> {
    let server = Server::start(bench, None)?;
    let (outcome, share) = server.contest(bench, &settings(bench, "", &[])?, &[])?;
    // Each against its own neighbours: the ratio of the two ratios to bare.
    let bare_ratio = |p: contest::Pair| p.with / p.bare;
    let mut measured = outcome.measured(|r| bare_ratio(r.agent) / bare_ratio(r.floor));
    measured.extra.insert("agent_rps", outcome.of(|r| r.agent.with).0);
    measured.extra.insert("agent_over_bare", outcome.of(|r| bare_ratio(r.agent)).0);
    measured.extra.insert("floor_over_bare", outcome.of(|r| bare_ratio(r.floor)).0);
    measured.extra.insert("agent_cpu_percent", 100.0 * share);
    measured.notes.push(format!("requests a second, {CONNECTIONS} connections kept, a file of 1 KiB"));
    Ok(measured)
}

/// nginx with one worker on the last processor.
pub(super) struct Server {
    nginx: Child,
    url: String,
    /// Whose network it is in; ours if nobody's.
    network: Option<u32>,
}

impl Server {
    /// Starts it, in the network of a process.
    pub(super) fn start(bench: &Bench, network: Option<u32>) -> Result<Self> {
        for program in ["nginx", "wrk"] {
            let found = silent(Command::new(program).arg("-v")).status();
            found.with_context(|| format!("{program} is missing: apt-get install nginx-light wrk"))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        bench.place.file("www/file", vec![b'x'; 1024])?;
        let dir = bench.place.path().display();
        let mut text = String::from("daemon off; master_process off; user root;\n");
        writeln!(text, "pid {dir}/nginx.pid; error_log {dir}/nginx.log;")?;
        writeln!(text, "events {{ worker_connections 256; }}")?;
        writeln!(text, "http {{ access_log off; keepalive_requests 1000000000; default_type text/plain;")?;
        for body in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{body}_temp_path {dir}/{body};")?;
        }
        writeln!(text, "server {{ listen 127.0.0.1:{port}; root {dir}/www; }} }}")?;
        let config = bench.place.file("nginx.conf", text)?;
        let mut nginx = inside(network, last_cpu(), "nginx");
        nginx.args(["-c", &config, "-p"]).arg(bench.place.path());
        let pid_file = bench.place.path().join("nginx.pid");
        // One of another row may have left its own.
        let _ = std::fs::remove_file(&pid_file);
        let nginx = Child::start(silent(&mut nginx))?;
        let end = Instant::now() + Duration::from_secs(10);
        // It is written when the sockets listen.
        while !pid_file.exists() {
            ensure!(Instant::now() < end, "nginx does not listen");
            pause(Duration::from_millis(10));
        }
        Ok(Self { nginx, url: format!("http://127.0.0.1:{port}/file"), network })
    }

    /// Compares the requests a second, each with these headers; with the part of a core that the agent took.
    pub(super) fn contest(&self, bench: &Bench, settings: &[String], headers: &[&str]) -> Result<(Outcome, f64)> {
        let seconds = if bench.quick { 1 } else { 4 };
        let mut share = Vec::new();
        let outcome = contest::run(bench, settings, &[self.nginx.pid()], &mut |agent| {
            let before = agent.map(Agent::cpu);
            let rate = self.requests(seconds, headers)?;
            if let (Some(agent), Some(before)) = (agent, before) {
                share.push((agent.cpu() - before) / f64::from(seconds));
            }
            Ok(rate)
        })?;
        Ok((outcome, median(&share)))
    }

    /// Requests a second over so many seconds, each with these headers.
    fn requests(&self, seconds: u32, headers: &[&str]) -> Result<f64> {
        let mut wrk = inside(self.network, 0, "wrk");
        wrk.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
        for header in headers {
            wrk.args(["--header", header]);
        }
        let out = wrk.args(["--duration", &format!("{seconds}s"), &self.url]).output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success() && !text.contains("Non-2xx"), "wrk: {text}");
        let rate = text.lines().find_map(|l| l.strip_prefix("Requests/sec:")?.trim().parse().ok());
        rate.with_context(|| format!("wrk: {text}"))
    }
}

/// A command in the network of a process, kept to one processor.
fn inside(network: Option<u32>, cpu: usize, program: &str) -> Command {
    match network {
        None => pinned(cpu, program),
        Some(pid) => {
            let mut words = pinned(cpu, "nsenter");
            words.arg(format!("--net=/proc/{pid}/ns/net")).args(["--", program]);
            words
        }
    }
}

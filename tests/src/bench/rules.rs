//! How many events a second one core judges: 60 % opens of watched files, 20 % execs, 20 % connects, under the built-in
//! rules and two more in Rego that a quarter of the events reach. What is turned away before any rule is asked is
//! measured apart.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use haechi_ebpf::event::{
    EventDef, sched_process_exec as exec, security_file_open as open, security_socket_connect as connect,
};
use haechi_ebpf::wire::View;
use haechi_signatures::engine::{Config, Engine};
use haechi_signatures::flat::Host;
use haechi_signatures::model::{Event, Finding, Image, Process, ProcessKey, Processes};
use haechi_signatures::record::Builder;
use haechi_signatures::sources::{Source, Sources};
use serde_json::json;

use super::Bench;
use super::report::Measured;
use super::stats::{median, spread, thread_seconds};

/// Sees every exec.
const EXECS: &str = r#"package tracee.EXECS
import data.tracee.helpers
__rego_metadoc__ := {"id": "EXECS", "eventName": "execs"}
tracee_selected_events[s] { s := {"source": "tracee", "name": "sched_process_exec"} }
servers := {"nginx", "httpd", "postgres"}
tracee_match {
    servers[input.processName]
    endswith(helpers.get_tracee_argument("pathname"), "/bash")
}
tracee_match { startswith(helpers.get_tracee_argument("pathname"), "/tmp/.") }"#;

/// Sees, by its hint, a part of the opens.
const OPENS: &str = r#"package tracee.OPENS
import data.tracee.helpers
__rego_metadoc__ := {"id": "OPENS", "eventName": "opens", "properties": {"haechi_paths": {"leaves": ["opasswd"]}}}
tracee_selected_events[s] { s := {"source": "tracee", "name": "security_file_open", "origin": "*"} }
tracee_match {
    helpers.is_file_write(helpers.get_tracee_argument("flags"))
    startswith(helpers.get_tracee_argument("pathname"), "/etc/")
}"#;

/// The part of the events that must reach Rego.
const REACHED: f64 = 0.25;

pub(super) fn rules(bench: &Bench) -> Result<Measured> {
    let unwatched = vec![opened("/var/lib/postgresql/data/base/16384/2619")];
    let (mixed, reached) = rates(bench, &mix())?;
    ensure!(reached >= REACHED, "only {reached} of the events reach Rego");
    let (turned_away, _) = rates(bench, &unwatched)?;
    let mut measured =
        Measured { value: median(&mixed), spread: spread(&mixed), rounds: mixed.len(), ..Measured::default() };
    measured.extra.insert("rego_share", reached);
    measured.extra.insert("prefilter_rejections_m_per_s", median(&turned_away));
    measured.notes.push("records are built, the process is one that reads files every day".into());
    Ok(measured)
}

struct One(Process);

impl Processes for One {
    fn get(&self, key: ProcessKey) -> Option<&Process> {
        (key == self.0.key).then_some(&self.0)
    }
}

/// Millions of events a second in each round, and the part that reached Rego.
fn rates(bench: &Bench, records: &[Vec<u8>]) -> Result<(Vec<f64>, f64)> {
    let key = ProcessKey { pid: 7, start: 1 };
    let image = Arc::new(Image { exec_id: 1, exe: "/usr/bin/sudo".into(), comm: "sudo".into(), ..Image::default() });
    let world = One(Process { key, images: vec![image], ..Process::default() });
    let file = |name: &str, text: &str| Source { file: name.to_owned(), text: text.to_owned() };
    let sources = Sources(vec![file("execs.rego", EXECS), file("opens.rego", OPENS)]);
    let (mut engine, report) = Config::default().build(Host::default(), &sources)?;
    ensure!(report.errors.is_empty(), "{:?}", report.errors);
    // As in the agent: every rule's time is taken.
    let start = Instant::now();
    engine.set_clock(Box::new(move || start.elapsed().as_nanos() as u64));
    let views: Vec<_> = records.iter().map(|r| View::parse(r)).collect::<Result<_, _>>()?;
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        bench.gate.wait_for_processor();
        rounds.push(round(&mut engine, &views, &world, if bench.quick { 40_000 } else { 400_000 }));
    }
    Ok((rounds, reached(&engine)))
}

fn round(engine: &mut Engine, views: &[View<'_>], world: &One, events: usize) -> f64 {
    let mut found: Vec<Finding> = Vec::new();
    let began = thread_seconds();
    for i in 0..events {
        engine.judge(&Event::join(views[i % views.len()], world), &mut found);
        found.clear();
    }
    black_box(&found);
    events as f64 / (thread_seconds() - began) / 1e6
}

fn reached(engine: &Engine) -> f64 {
    let of = |name| engine.counters().find(|(n, _)| *n == name).map_or((0, 0), |(_, c)| (c.seen, c.evaluated));
    let (opens, execs, connects) = (of("opens"), of("execs"), of("stdio_over_socket"));
    (opens.1 + execs.1) as f64 / (opens.0 + execs.0 + connects.0) as f64
}

fn head(def: &'static EventDef) -> Builder {
    Builder::new(def).time(1).process(7, 1, 1).comm("sudo")
}

fn opened(path: &str) -> Vec<u8> {
    head(&open::DEF)
        .text(open::field::pathname, path)
        .number(open::field::flags, 0o2_000_000)
        .number(open::field::dev, 8 << 20 | 1)
        .number(open::field::inode, 1234)
        .number(open::field::ctime, 1 << 60)
        .number(open::field::inode_mode, 0o100_640)
        .finish()
}

fn executed() -> Vec<u8> {
    head(&exec::DEF)
        .text(exec::field::cmdpath, "/usr/bin/python3")
        .text(exec::field::pathname, "/usr/bin/python3.11")
        .text(exec::field::interpreter_pathname, "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
        .text(exec::field::interp, "/usr/bin/python3")
        .text(exec::field::prev_comm, "bash")
        .text(exec::field::pwd, "/srv/app")
        .strings(exec::field::argv, ["python3", "-m", "http.server", "8080", "--bind", "127.0.0.1"])
        .number(exec::field::inode, 5678)
        .number(exec::field::inode_mode, 0o100_755)
        .number(exec::field::euid, 0)
        .number(exec::field::cap_effective, u64::MAX)
        .number(exec::field::nlink, 1)
        .finish()
}

fn connected() -> Vec<u8> {
    let b = head(&connect::DEF).number(connect::field::sockfd, 5).number(connect::field::family, 2);
    b.named("remote_addr", &json!("10.0.0.9:443")).map(Builder::finish).unwrap_or_default()
}

/// Twenty events: twelve opens of watched leaves, two of which reach Rego, four execs, four connects.
fn mix() -> Vec<Vec<u8>> {
    let mut mix = Vec::new();
    for i in 0..4 {
        mix.extend([opened("/etc/shadow"), opened("/etc/gshadow"), executed()]);
        mix.extend([opened(if i % 2 == 0 { "/etc/security/opasswd" } else { "/etc/passwd-" }), connected()]);
    }
    mix
}

//! How many events a second one core judges: 60 % opens of watched files, 20 % execs, 20 % connects, with the built-in
//! rules and a signature in Rego that at least a quarter of the events reach. What is turned away before any rule is
//! asked is measured apart. Prints one JSON object a line.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

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

/// The same, in a form from which it cannot be told which arguments it reads: all are built.
const EXECS_ALL: &str = r#"package tracee.EXECS
__rego_metadoc__ := {"id": "EXECS", "eventName": "execs"}
tracee_selected_events[s] { s := {"source": "tracee", "name": "sched_process_exec"} }
servers := {"nginx", "httpd", "postgres"}
path = p { a := input.args[_]; a.name == "pathname"; p := a.value }
tracee_match { servers[input.processName]; endswith(path, "/bash") }
tracee_match { startswith(path, "/tmp/.") }"#;

/// Sees, by its hint, a part of the opens.
const OPENS: &str = r#"package tracee.OPENS
import data.tracee.helpers
__rego_metadoc__ := {"id": "OPENS", "eventName": "opens", "properties": {"haechi_paths": {"leaves": ["opasswd"]}}}
tracee_selected_events[s] { s := {"source": "tracee", "name": "security_file_open", "origin": "*"} }
tracee_match {
    helpers.is_file_write(helpers.get_tracee_argument("flags"))
    startswith(helpers.get_tracee_argument("pathname"), "/etc/")
}"#;

struct One(Process);

impl Processes for One {
    fn get(&self, key: ProcessKey) -> Option<&Process> {
        (key == self.0.key).then_some(&self.0)
    }
}

fn main() {
    let exe = std::env::args().nth(1).unwrap_or_else(|| "/usr/bin/sudo".to_owned());
    let key = ProcessKey { pid: 7, start: 1 };
    let image = Arc::new(Image { exec_id: 1, exe: exe.as_str().into(), comm: "sudo".into(), ..Image::default() });
    let world = One(Process { key, images: vec![image], ..Process::default() });
    let (mix, unwatched) = (mix(), vec![opened("/var/lib/postgresql/data/base/16384/2619")]);
    let rows =
        [("rules", &mix, EXECS), ("rules-all-arguments", &mix, EXECS_ALL), ("rules-prefiltered", &unwatched, EXECS)];
    for (id, records, execs) in rows {
        let (mut engine, report) = engine(execs);
        let start = Instant::now();
        engine.set_clock(Box::new(move || start.elapsed().as_nanos() as u64));
        assert!(report.is_empty(), "{report}");
        let views: Vec<_> = records.iter().filter_map(|r| View::parse(r).ok()).collect();
        let mut rounds: Vec<f64> = (0..7).map(|_| round(&mut engine, &views, &world)).collect();
        rounds.sort_by(f64::total_cmp);
        let median = rounds[rounds.len() / 2];
        let reached = reached(&engine);
        println!(
            "{}",
            json!({"id": id, "value": median / 1e6, "unit": "M events/s", "goal": 0.5, "better": "more",
                   "holds": median >= 0.5e6, "rounds": rounds.len(), "spread": [rounds[0] / 1e6, rounds[6] / 1e6],
                   "rego_share": reached})
        );
    }
}

fn engine(execs: &str) -> (Engine, String) {
    let file = |name: &str, text: &str| Source { file: name.to_owned(), text: text.to_owned() };
    let sources = Sources(vec![file("execs.rego", execs), file("opens.rego", OPENS)]);
    match Config::default().build(Host::default(), &sources) {
        Ok((engine, report)) => (engine, report.errors.iter().map(ToString::to_string).collect()),
        Err(error) => panic!("{error}"),
    }
}

/// Judges for a while; events a second.
fn round(engine: &mut Engine, views: &[View<'_>], world: &One) -> f64 {
    const EVENTS: usize = 400_000;
    let mut found: Vec<Finding> = Vec::new();
    let start = Instant::now();
    for i in 0..EVENTS {
        engine.judge(&Event::join(views[i % views.len()], world), &mut found);
        found.clear();
    }
    black_box(&found);
    EVENTS as f64 / start.elapsed().as_secs_f64()
}

/// The part of all events that reached a signature in Rego.
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
    let text = |b: Builder, f, t: &str| b.text(f, t);
    let b = text(head(&exec::DEF), exec::field::cmdpath, "/usr/bin/python3");
    let b = text(b, exec::field::pathname, "/usr/bin/python3.11");
    let b = text(b, exec::field::interpreter_pathname, "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    let b = text(b, exec::field::interp, "/usr/bin/python3");
    let b = text(b, exec::field::prev_comm, "bash");
    let b = text(b, exec::field::pwd, "/srv/app");
    b.strings(exec::field::argv, ["python3", "-m", "http.server", "8080", "--bind", "127.0.0.1"])
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

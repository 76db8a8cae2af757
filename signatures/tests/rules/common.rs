//! What the tests share: a made-up world of processes, and an engine to show its events to.

use std::sync::Arc;

use haechi_ebpf::event;
use haechi_ebpf::wire::View;
use haechi_signatures::engine::{Config, Engine, ReloadReport};
use haechi_signatures::flat::Host;
use haechi_signatures::model::{Container, Event, Finding, Image, Process, ProcessKey, Processes};
use haechi_signatures::record::Builder;
use haechi_signatures::sources::{Source, Sources};

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Processes, found by walking.
#[derive(Default)]
pub(crate) struct World(pub(crate) Vec<Process>);

impl Processes for World {
    fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.0.iter().find(|p| p.key == key)
    }
}

impl World {
    /// Adds a process that has run `exes`, the last one with the exec id that is their number.
    pub(crate) fn process(mut self, pid: u32, parent: u32, exes: &[&str], container: Option<&str>) -> Self {
        let image = |(i, exe): (usize, &&str)| {
            let comm = exe.rsplit('/').next().unwrap_or_default().into();
            Arc::new(Image { exec_id: i as u32 + 1, exe: (*exe).into(), comm, ..Image::default() })
        };
        self.0.push(Process {
            key: key(pid),
            parent: key(parent),
            ns_pid: pid,
            images: exes.iter().enumerate().map(image).collect(),
            container: container.map(|id| Arc::new(Container { id: id.to_owned(), ..Container::default() })),
            ..Process::default()
        });
        self
    }
}

/// Every process of the world starts at a time made from its number.
pub(crate) fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start: u64::from(pid) * SECOND }
}

/// A record of the event called `name`, made by process `pid` in its first program.
pub(crate) fn record(name: &str, pid: u32) -> Builder {
    let ProcessKey { pid, start } = key(pid);
    Builder::new(event::by_name(name).expect("an event")).process(pid, start, 1).comm("task")
}

/// Text files, by name.
pub(crate) fn sources(files: &[(&str, &str)]) -> Sources {
    Sources(files.iter().map(|(f, t)| Source { file: (*f).to_owned(), text: (*t).to_owned() }).collect())
}

/// An engine with these files.
pub(crate) fn engine(config: &Config, files: &[(&str, &str)]) -> (Engine, ReloadReport) {
    config.build(Host { name: "node".into(), boot: 0 }, &sources(files)).expect("sound settings")
}

/// What `engine` finds in a record.
pub(crate) fn judge(engine: &mut Engine, world: &World, record: &[u8]) -> Vec<Finding> {
    let mut found = Vec::new();
    engine.judge(&Event::join(View::parse(record).expect("a record"), world), &mut found);
    found
}

/// Rule names and targets of findings.
pub(crate) fn told(findings: &[Finding]) -> Vec<(String, String, u64)> {
    findings.iter().map(|f| (f.about.name.clone(), f.target.clone(), f.count)).collect()
}

/// A signature in Rego that watches `event`, with these lines in it.
pub(crate) fn rego(name: &str, event: &str, body: &str) -> String {
    format!(
        "package tracee.{name}\nimport data.tracee.helpers\n\
         __rego_metadoc__ := {{\"id\": \"{name}\", \"eventName\": \"{name}\", \"properties\": {{\"Severity\": 2}}}}\n\
         tracee_selected_events[s] {{ s := {{\"source\": \"tracee\", \"name\": \"{event}\"}} }}\n{body}\n"
    )
}

//! JSON lines in the shape of Tracee's main branch, for events and findings alike. A finding is the event that its rule
//! makes: `threat` says what it means, `detected_from` which event made the rule fire.

use std::io;

use haechi_ebpf::event::{by_name, lost_events, syscall};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{View, at, flag};
use haechi_signatures::model::Finding;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::line::{
    DetectedFrom, Line, MitreLine, Named, NetworkLine, PeerLine, Process, Technique, Thread, Threat, User, Workload,
    executable, unique_id,
};
use super::{Context, Happening, Item, datum, event_id, finding_id};
use crate::escape;
use crate::time::Utc;

/// Writes `item` as one line, with its newline.
pub fn write(item: &Item, context: &Context, out: &mut Vec<u8>) {
    let line = match item {
        Item::Event(happening) => happening.view().map(|view| of_event(happening, &view, context)),
        Item::Finding(finding) => Some(of_finding(finding, context)),
    };
    let Some(line) = line else { return };
    // Memory takes everything.
    let _ = line.serialize(&mut Serializer::with_formatter(&mut *out, TerminalSafe(CompactFormatter)));
    out.push(b'\n');
}

fn of_event<'a>(happening: &'a Happening, view: &View<'a>, context: &Context) -> Line<'a> {
    let process = (view.event() != lost_events::ID).then(|| process(happening, view, context.host.boot));
    Line {
        timestamp: Utc::of_boot(view.time(), context.host.boot).to_string(),
        id: event_id(view.event(), happening.name),
        name: happening.name,
        workload: Workload::of(process, happening.container.as_deref()),
        data: datum::of_record(view, context.decoded, &context.env),
        threat: None,
        detected_from: None,
        target: None,
        evidence: None,
        count: None,
        hook: view.step().map(Step::name),
        network: happening.place.as_deref().map(|p| NetworkLine::of(p.netns, p.tenant.as_ref())),
        peer: happening
            .place
            .as_deref()
            .and_then(|p| p.peer.as_ref().map(|name| PeerLine::of(name, p.peer_tenant.as_ref()))),
    }
}

fn process<'a>(happening: &'a Happening, view: &View<'a>, boot: u64) -> Process<'a> {
    let ((pid, start), tid) = (view.process(), view.header_u32(at::TID));
    let leader = pid == tid;
    // A connection is told of a process, whose own numbers only the tree knows.
    let own = |number| Some(view.header_u32(number)).filter(|n| *n != 0).unwrap_or(happening.ns_pid);
    let (process_id, image) = (unique_id(pid, start), happening.image.as_ref());
    Process {
        executable: image.and_then(|i| executable(&i.exe, None)),
        unique_id: process_id,
        host_pid: pid,
        pid: own(at::NS_TGID),
        real_user: User { id: view.header_u32(at::UID) },
        thread: Some(Thread {
            start_time: leader.then(|| Utc::of_boot(start, boot).to_string()),
            name: match (view.comm(), image) {
                // A connection has no thread; its process has a name.
                ([], Some(image)) => (&*image.comm).into(),
                (comm, _) => String::from_utf8_lossy(comm),
            },
            unique_id: if leader { process_id } else { unique_id(tid, start) },
            host_tid: tid,
            tid: own(at::NS_TID),
            syscall: view.def().tags.contains(&"syscalls").then_some(happening.name),
            compat: view.flags() & flag::COMPAT != 0,
            io_uring: view.flags() & flag::IO_URING != 0,
        }),
        ..Process::default()
    }
}

fn of_finding<'a>(finding: &'a Finding, context: &Context) -> Line<'a> {
    let (about, event, boot) = (&*finding.about, &finding.event, context.host.boot);
    let mut process = Process::of_info(&finding.process, boot);
    process.ancestors = finding.ancestors.iter().map(|a| Process::of_info(a, boot)).collect();
    let number = |key: &str| event[key].as_u64().and_then(|n| u32::try_from(n).ok());
    if let Some(thread) = &mut process.thread
        && let (Some(host_tid), Some(tid)) = (number("hostThreadId"), number("threadId"))
    {
        if host_tid != thread.host_tid {
            thread.start_time = None;
            thread.unique_id = unique_id(host_tid, finding.process.start);
        }
        (thread.host_tid, thread.tid) = (host_tid, tid);
        if let Some(name) = event["processName"].as_str() {
            thread.name = name.into();
        }
        thread.syscall = event["syscall"].as_str();
        thread.compat = event["contextFlags"]["isCompat"] == true;
    }
    let name = event["eventName"].as_str().unwrap_or_default();
    let id = by_name(name).map_or(syscall::ID, |def| def.id);
    Line {
        timestamp: Utc::of_boot(finding.time, boot).to_string(),
        id: finding_id(about),
        name: &about.name,
        workload: Workload::of(Some(process), finding.container.as_ref()),
        data: finding.evidence.iter().map(|(k, v)| datum::Datum::fact(k, v)).collect(),
        threat: Some(Threat {
            description: &about.description,
            mitre: MitreLine {
                tactic: Named { name: &about.mitre.tactic },
                technique: Technique { id: &about.mitre.id, name: &about.mitre.technique },
            },
            severity: about.severity as u8,
            name: &about.title,
            properties: [("id", &*about.id), ("version", &*about.version), ("remedy", &*about.remedy)].into(),
        }),
        detected_from: Some(DetectedFrom {
            id: event_id(id, name),
            name,
            data: datum::of_flat(event, &context.env),
            hook: event["hook"].as_str(),
        }),
        target: Some(&finding.target),
        evidence: Some(finding.evidence.iter().cloned().collect()),
        count: Some(finding.count),
        hook: None,
        network: None,
        peer: None,
    }
}

/// JSON allows DEL, C1 controls and changes of direction in strings; terminals act on them.
struct TerminalSafe(CompactFormatter);

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| escape::is_unsafe(*c)) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            // All of them lie below U+10000.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }
}

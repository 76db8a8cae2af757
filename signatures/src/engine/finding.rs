//! Puts a finding together: who did it, under whom, where. Everything is copied out of the event, which will be gone.

use std::sync::Arc;

use haechi_ebpf::wire::at;
use serde_json::Value;

use crate::model::{About, Event, Finding, Image, Process, ProcessInfo};
use crate::rule::Hit;

/// Parents that a finding names.
pub(super) const ANCESTORS: usize = 16;
/// What audit calls "none".
const UNSET: u32 = u32::MAX;

pub(super) fn assemble(about: &Arc<About>, event: &Event<'_>, flat: &Value, hit: Hit) -> Finding {
    let about = match hit.mitre {
        Some(mitre) => Arc::new(About { mitre, ..About::clone(about) }),
        None => about.clone(),
    };
    Finding {
        about,
        time: event.view.time(),
        target: hit.target,
        evidence: hit.evidence,
        event: flat.clone(),
        process: doer(event),
        ancestors: event.ancestors(ANCESTORS).map(parent).collect(),
        container: event.container().cloned(),
        count: 1,
    }
}

/// Who did it; where the process is unknown, what the record itself says.
fn doer(event: &Event<'_>) -> ProcessInfo {
    let key = event.key();
    let known = event.image.map(image).unwrap_or_default();
    let comm = String::from_utf8_lossy(event.view.comm()).into_owned();
    ProcessInfo {
        pid: key.pid,
        start: key.start,
        ns_pid: event.view.header_u32(at::NS_TGID),
        uid: event.view.header_u32(at::UID),
        comm: if known.comm.is_empty() { comm } else { known.comm },
        euid: event.image.map_or(event.view.header_u32(at::UID), |i| i.euid),
        ..known
    }
}

fn parent(process: &Process) -> ProcessInfo {
    ProcessInfo {
        pid: process.key.pid,
        start: process.key.start,
        ns_pid: process.ns_pid,
        uid: process.uid,
        ..process.images.last().map(|i| image(i)).unwrap_or_default()
    }
}

fn image(image: &Image) -> ProcessInfo {
    ProcessInfo {
        exe: image.exe.to_string(),
        comm: image.comm.to_string(),
        argv: image.argv.to_vec(),
        cwd: image.cwd.to_string(),
        euid: image.euid,
        login_uid: Some(image.login_uid).filter(|u| *u != UNSET),
        session: Some(image.session).filter(|s| *s != UNSET),
        tty: Some(image.tty.to_string()).filter(|t| !t.is_empty()),
        ..ProcessInfo::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Mitre, ProcessKey, Processes, Severity};
    use crate::record::Builder;
    use haechi_ebpf::event::ptrace;
    use haechi_ebpf::wire::View;

    pub(in crate::engine) fn about(name: &str) -> Arc<About> {
        Arc::new(About {
            id: name.to_uppercase(),
            name: name.to_owned(),
            version: String::new(),
            title: String::new(),
            description: String::new(),
            remedy: String::new(),
            severity: Severity::Low,
            mitre: Mitre::default(),
            tags: Vec::new(),
            excuses: Vec::new(),
        })
    }

    pub(in crate::engine) fn example(target: &str, time: u64) -> Finding {
        let bytes = Builder::new(&ptrace::DEF).time(time).process(2, 20, 1).comm("x").finish();
        let event = Event::join(View::parse(&bytes).expect("a record"), &());
        assemble(
            &about("r"),
            &event,
            &Value::Null,
            Hit { target: target.to_owned(), evidence: Vec::new(), mitre: None },
        )
    }

    /// Each process is the child of the one before it.
    struct Chain(Vec<Process>);

    impl Processes for Chain {
        fn get(&self, key: ProcessKey) -> Option<&Process> {
            self.0.get(key.pid as usize).filter(|p| p.key == key)
        }
    }

    #[test]
    fn parents_are_named_up_to_a_depth() {
        let key = |pid: u32| ProcessKey { pid, start: 10 * u64::from(pid) };
        let process = |pid: u32| Process {
            key: key(pid),
            parent: key(pid.saturating_sub(1)),
            images: vec![Arc::new(Image {
                exe: format!("/bin/{pid}").into(),
                login_uid: UNSET,
                session: 3,
                ..Image::default()
            })],
            ..Process::default()
        };
        let chain = Chain((0..30).map(process).collect());
        let bytes = Builder::new(&ptrace::DEF).process(29, 290, 0).comm("thread").finish();
        let event = Event::join(View::parse(&bytes).expect("a record"), &chain);
        let hit = Hit { target: "t".into(), evidence: Vec::new(), mitre: None };
        let finding = assemble(&about("r"), &event, &Value::Null, hit);
        assert_eq!((finding.process.exe.as_str(), finding.process.comm.as_str()), ("/bin/29", "thread"));
        assert_eq!((finding.process.login_uid, finding.process.session), (None, Some(3)));
        assert_eq!(finding.ancestors.len(), ANCESTORS);
        assert_eq!((finding.ancestors[0].pid, finding.ancestors[15].exe.as_str()), (28, "/bin/13"));
    }

    #[test]
    fn an_unknown_process_is_told_as_far_as_the_record_goes() {
        let finding = example("t", 5);
        let ProcessInfo { pid, start, exe, comm, .. } = finding.process;
        assert_eq!((pid, start, exe.as_str(), comm.as_str(), finding.time), (2, 20, "", "x", 5));
    }
}

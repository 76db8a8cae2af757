//! The scopes: what is common to all events and can be filtered on. One table.

use std::borrow::Cow;

use haechi_ebpf::wire::at;
use haechi_signatures::model::Event;

use super::Error;
use super::test::{Got, Op, Subject, Test, Want};
use crate::suggest;

/// How far up `tree` looks.
const TREE_DEPTH: usize = 64;

/// Something that all events have.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) name: &'static str,
    /// Tracee's other names for it.
    aliases: &'static [&'static str],
    pub(super) numeric: bool,
    pub(super) get: for<'a> fn(&Event<'a>) -> Got<'a>,
    doc: &'static str,
}

const SCOPES: &[Scope] = &[
    Scope {
        name: "uid",
        aliases: &["userId"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::UID).into()),
        doc: "real user",
    },
    Scope {
        name: "pid",
        aliases: &["hostPid", "hostProcessId", "processId"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::TGID).into()),
        doc: "process, in the host's numbering",
    },
    Scope {
        name: "tid",
        aliases: &["hostTid", "hostThreadId", "threadId"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::TID).into()),
        doc: "thread, in the host's numbering",
    },
    Scope {
        name: "ppid",
        aliases: &["hostParentProcessId", "parentProcessId"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::PPID).into()),
        doc: "parent process, in the host's numbering",
    },
    Scope {
        name: "tree",
        aliases: &[],
        numeric: true,
        get: |e| {
            let own = i128::from(e.view.header_u32(at::TGID));
            Got::Any(std::iter::once(own).chain(e.ancestors(TREE_DEPTH).map(|p| p.key.pid.into())).collect())
        },
        doc: "process, or any of its ancestors",
    },
    Scope {
        name: "comm",
        aliases: &["processName"],
        numeric: false,
        get: |e| Got::Text(String::from_utf8_lossy(e.view.comm())),
        doc: "name of the thread",
    },
    Scope {
        name: "exe",
        aliases: &["executable", "exec", "binary", "bin"],
        numeric: false,
        get: |e| Got::Text(Cow::Borrowed(e.exe())),
        doc: "path of the program",
    },
    Scope {
        name: "mntns",
        aliases: &["mountNamespace"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::MNT_NS).into()),
        doc: "mount namespace",
    },
    Scope {
        name: "pidns",
        aliases: &["pidNamespace"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::PID_NS).into()),
        doc: "pid namespace",
    },
    Scope {
        name: "netns",
        aliases: &[],
        numeric: true,
        get: |e| Got::Number(e.view.header_u32(at::NET_NS).into()),
        doc: "network namespace",
    },
    Scope {
        name: "cgroup",
        aliases: &["cgroupId"],
        numeric: true,
        get: |e| Got::Number(e.view.header_u64(at::CGROUP).into()),
        doc: "cgroup v2 id",
    },
    Scope {
        name: "container",
        aliases: &["containerId"],
        numeric: false,
        get: |e| e.container().map_or(Got::Nothing, |c| Got::Text(Cow::Borrowed(&c.id))),
        doc: "id of the container, or its beginning; alone: any container",
    },
    Scope {
        name: "podUid",
        aliases: &[],
        numeric: false,
        get: |e| {
            let uid = e.container().and_then(|c| c.pod_uid.as_deref());
            uid.map_or(Got::Nothing, |uid| Got::Text(Cow::Borrowed(uid)))
        },
        doc: "uid of the pod",
    },
];

/// Names and meanings, for help and docs.
pub fn docs() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCOPES.iter().map(|s| (s.name, s.doc))
}

pub(super) fn subject(name: &str) -> Result<Subject, Error> {
    let known = SCOPES.iter().find(|s| s.name == name || s.aliases.contains(&name));
    known.map(Subject::Scope).ok_or_else(|| {
        let names = SCOPES.iter().flat_map(|s| std::iter::once(s.name).chain(s.aliases.iter().copied()));
        Error::UnknownScope { name: name.to_owned(), hint: suggest::hint(name, names) }
    })
}

/// Reads one `--scope`.
pub(super) fn parse(text: &str) -> Result<Test, Error> {
    let any_container = |op| Ok(Test { subject: subject("container")?, op, values: vec![Want::Present] });
    match text {
        "container" => return any_container(Op::Is),
        "not-container" | "!container" | "host" => return any_container(Op::Not),
        _ => {}
    }
    let Some((name, op, values)) = Op::split(text) else {
        subject(text)?;
        return Err(Error::Form { text: text.to_owned(), problem: "a scope needs a value" });
    };
    let mut test = Test::new(text, subject(name)?, op, values)?;
    if let Subject::Scope(scope) = test.subject
        && scope.name == "container"
    {
        for value in &mut test.values {
            if let Want::Exact(id) = value {
                *value = Want::Prefix(std::mem::take(id));
            }
        }
    }
    Ok(test)
}

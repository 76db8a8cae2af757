//! The shape of a JSON line: Tracee's current one, with our keys after its own. What is unknown is left out.

use haechi_signatures::model::{Container, ProcessInfo};
use serde::Serialize;
use serde_json::Value as Json;

use super::datum::Datum;
use crate::flows::Tenant;
use crate::flows::names::Name;

#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) timestamp: String,
    pub(super) id: u32,
    pub(super) name: &'a str,
    pub(super) workload: Workload<'a>,
    pub(super) data: Vec<Datum<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) threat: Option<Threat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detected_from: Option<DetectedFrom<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evidence: Option<serde_json::Map<String, Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// The kind of hook that saw the event, as `haechi check` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hook: Option<&'a str>,
    /// Where the socket of a connection is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<NetworkLine<'a>>,
    /// Who is at the other end of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<PeerLine<'a>>,
}

/// A network namespace, and whose it is: the process need not be in that container.
#[derive(Serialize)]
pub(super) struct NetworkLine<'a> {
    namespace: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<K8s<'a>>,
}

impl<'a> NetworkLine<'a> {
    pub(super) fn of(namespace: u32, tenant: Option<&'a Tenant>) -> Self {
        Self {
            namespace,
            container: tenant.and_then(Tenant::container).map(ContainerLine::of),
            k8s: tenant.and_then(Tenant::pod_uid).map(K8s::of),
        }
    }
}

#[derive(Serialize)]
pub(super) struct PeerLine<'a> {
    kind: &'static str,
    /// Number of its socket, as in the records of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    /// A process of this node.
    #[serde(flatten)]
    workload: Workload<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkLine<'a>>,
}

impl<'a> PeerLine<'a> {
    pub(super) fn of(name: &'a Name, tenant: Option<&'a Tenant>) -> Self {
        let peer = name.process.as_ref();
        let process = peer.filter(|p| p.process.pid != 0).map(|p| Process {
            executable: p.image.as_deref().and_then(|i| executable(&i.exe, None)),
            unique_id: unique_id(p.process.pid, p.process.start),
            host_pid: p.process.pid,
            pid: p.ns_pid,
            real_user: User { id: p.uid },
            ..Process::default()
        });
        Self {
            kind: name.kind.name(),
            cookie: peer.map(|p| p.flow.0.to_string()),
            name: name.text(),
            workload: Workload::of(process, peer.and_then(|p| p.container.as_deref())),
            network: peer.map(|p| NetworkLine::of(p.netns, tenant)),
        }
    }
}

#[derive(Default, Serialize)]
pub(super) struct Workload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<ContainerLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) k8s: Option<K8s<'a>>,
}

impl<'a> Workload<'a> {
    pub(super) fn of(process: Option<Process<'a>>, container: Option<&'a Container>) -> Self {
        Self {
            process,
            container: container.map(ContainerLine::of),
            k8s: container.and_then(|c| c.pod_uid.as_deref()).map(K8s::of),
        }
    }
}

#[derive(Default, Serialize)]
pub(super) struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) executable: Option<Executable<'a>>,
    pub(super) unique_id: u32,
    pub(super) host_pid: u32,
    pub(super) pid: u32,
    pub(super) real_user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thread: Option<Thread<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ancestors: Vec<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) argv: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tty: Option<&'a str>,
}

impl<'a> Process<'a> {
    /// All that a finding tells of a process.
    pub(super) fn of_info(info: &'a ProcessInfo, boot: u64) -> Self {
        Self {
            executable: executable(&info.exe, info.sha256.as_deref()),
            unique_id: unique_id(info.pid, info.start),
            host_pid: info.pid,
            pid: info.ns_pid,
            real_user: User { id: info.uid },
            thread: Some(Thread {
                start_time: Some(crate::time::Utc::of_boot(info.start, boot).to_string()),
                name: (&*info.comm).into(),
                unique_id: unique_id(info.pid, info.start),
                host_tid: info.pid,
                tid: info.ns_pid,
                ..Thread::default()
            }),
            ancestors: Vec::new(),
            argv: Some(&info.argv).filter(|a| !a.is_empty()).map(Vec::as_slice),
            cwd: some(&info.cwd),
            effective_user: Some(User { id: info.euid }),
            login_user: info.login_uid.map(|id| User { id }),
            session: info.session,
            tty: info.tty.as_deref().and_then(some),
        }
    }
}

/// The path of a program and its hash, where known.
pub(super) fn executable<'a>(path: &'a str, sha256: Option<&'a str>) -> Option<Executable<'a>> {
    some(path).map(|path| Executable { path, sha256 })
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// A number that stands for a process or thread for ever, made of its number and its start.
pub(super) fn unique_id(id: u32, start: u64) -> u32 {
    let bytes = id.to_le_bytes().into_iter().chain(start.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash: u32, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[derive(Serialize)]
pub(super) struct Executable<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
}

#[derive(Default, Serialize)]
pub(super) struct User {
    pub(super) id: u32,
}

#[derive(Default, Serialize)]
pub(super) struct Thread<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<String>,
    pub(super) name: std::borrow::Cow<'a, str>,
    pub(super) unique_id: u32,
    pub(super) host_tid: u32,
    pub(super) tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) syscall: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) compat: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) io_uring: bool,
}

#[derive(Serialize)]
pub(super) struct ContainerLine<'a> {
    id: &'a str,
    started: bool,
    runtime: &'a str,
}

impl<'a> ContainerLine<'a> {
    fn of(container: &'a Container) -> Self {
        Self { id: &container.id, started: true, runtime: container.runtime }
    }
}

#[derive(Serialize)]
pub(super) struct K8s<'a> {
    pod: Pod<'a>,
}

impl<'a> K8s<'a> {
    fn of(uid: &'a str) -> Self {
        Self { pod: Pod { uid } }
    }
}

#[derive(Serialize)]
struct Pod<'a> {
    uid: &'a str,
}

#[derive(Serialize)]
pub(super) struct Threat<'a> {
    pub(super) description: &'a str,
    pub(super) mitre: MitreLine<'a>,
    pub(super) severity: u8,
    pub(super) name: &'a str,
    pub(super) properties: std::collections::BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
pub(super) struct MitreLine<'a> {
    pub(super) tactic: Named<'a>,
    pub(super) technique: Technique<'a>,
}

#[derive(Serialize)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct Technique<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct DetectedFrom<'a> {
    pub(super) id: u32,
    pub(super) name: &'a str,
    pub(super) data: Vec<Datum<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hook: Option<&'a str>,
}

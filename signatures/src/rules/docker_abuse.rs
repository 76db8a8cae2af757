//! TRC-1019: a process in a container talks to the runtime that runs it.

use haechi_ebpf::event::security_socket_connect as connect;
use serde_json::json;

use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::path::leaf;
use crate::rule::{AboutDef, Emit};
use crate::sockaddr::SockAddr;

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1019",
    name: "docker_abuse",
    version: "1",
    title: "A container talks to the container runtime",
    description: "A process in a container connected to the socket of Docker, containerd, CRI-O or Podman. Who \
                  can talk to the runtime can start a container with the host's disk in it, and so is root on the \
                  host.",
    remedy: "Look at why the socket is mounted in this container; hardly anything needs it. If it was not you, \
             treat the host as broken into. For an agent of yours that does need it, add an exception with its \
             container and path.",
    severity: Severity::Medium,
    mitre: ("Privilege Escalation", "T1068", "Exploitation for Privilege Escalation"),
    tags: &["container"],
    excuses: &[],
};

/// Sockets of runtimes.
const SOCKETS: &[&str] = &["docker.sock", "containerd.sock", "crio.sock", "podman.sock", "dockershim.sock"];

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::of(connect::ID)]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    let Some(SockAddr::Unix(path)) = event.text(connect::field::remote_addr).and_then(|t| SockAddr::parse(t.bytes))
    else {
        return;
    };
    let path = String::from_utf8_lossy(path);
    if SOCKETS.contains(&leaf(&path)) && event.container().is_some() {
        emit.fire(path.as_ref(), [("socket", json!(path))]);
    }
}

//! TRC-101, its simple form: standard input, output or error is a socket that is being connected to the network.

use haechi_ebpf::event::security_socket_connect as connect;
use serde_json::json;

use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::rule::{AboutDef, Emit};
use crate::sockaddr::SockAddr;

const ABOUT: AboutDef = AboutDef {
    id: "TRC-101",
    name: "stdio_over_socket",
    version: "1",
    title: "Standard input or output is a network connection",
    description: "A process connects a socket that is its standard input, output or error. This is how a reverse shell \
                  is built: whoever is at the other end types commands into this process.",
    remedy: "Look at the remote address and at the parents of the process. If you do not know them, cut the \
             connection, isolate the workload, and find the service that was broken into: it is usually the nearest \
             parent that listens on the network.",
    severity: Severity::High,
    mitre: ("Execution", "T1059.004", "Command and Scripting Interpreter: Unix Shell"),
    tags: &["linux", "container", "network"],
    excuses: &[],
};

const STDIO: [&str; 3] = ["standard input", "standard output", "standard error"];

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::of(connect::ID)]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    // A negative descriptor is a huge one here.
    let Some(fd) = event.number(connect::field::sockfd).filter(|fd| *fd < STDIO.len() as u64) else { return };
    let addr = event.text(connect::field::remote_addr).and_then(|t| SockAddr::parse(t.bytes)?.inet());
    let Some(addr) = addr.filter(|a| a.port() != 0) else { return };
    emit.fire(
        addr.to_string(),
        [
            ("descriptor", json!(fd)),
            ("stream", json!(STDIO[fd as usize])),
            ("address", json!(addr.ip().to_string())),
            ("port", json!(addr.port())),
        ],
    );
}

//! HCH-002: a process that connected to the network became a shell whose standard input is a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use haechi_ebpf::event::{sched_process_exec as exec, security_socket_connect as connect};
use serde_json::json;

use super::known::{is_shell, program_before};
use crate::demand::Demand;
use crate::model::{About, Event, ProcessKey, Severity};
use crate::rule::{AboutDef, Emit, Signature};
use crate::sockaddr::SockAddr;

const ABOUT: AboutDef = AboutDef {
    id: "HCH-002",
    name: "reverse_shell",
    version: "1",
    title: "A shell takes its commands from the network",
    description: "A process connected to another machine and then became a shell whose standard input is a \
                  socket: whoever is at the other end types commands. `bash -i >& /dev/tcp/..`, `nc -e` and the \
                  one-liners that exec a shell end like this; one that is started as a child (Python's subprocess, PHP's \
                  exec, `socat EXEC`) is not seen by this rule. A shell that sshd itself becomes is left alone: it gives users one over a socket, and may have asked a directory of users before.",
    remedy: "Cut the connection and isolate the workload. Then look for the service that was broken into: it is \
             usually the nearest parent that listens on the network. Everything that this user can reach is in \
             doubt.",
    severity: Severity::High,
    mitre: ("Execution", "T1059.004", "Command and Scripting Interpreter: Unix Shell"),
    tags: &["linux", "container", "network"],
    excuses: &[],
};

/// What sshd runs as, before it becomes the shell of a user.
const SSHD: &[&str] = &["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session"];

const SOCK_STREAM: u64 = 1;
const S_IFMT: u64 = 0o170_000;
const S_IFSOCK: u64 = 0o140_000;
/// Processes remembered; the one that connected first gives way.
const REMEMBERED: usize = 1024;

pub(super) struct Rule {
    about: Arc<About>,
    /// Where each process connected to, and when it was remembered.
    connected: BTreeMap<ProcessKey, (SocketAddr, u64)>,
    order: BTreeMap<u64, ProcessKey>,
    next: u64,
}

impl Rule {
    pub(super) fn new() -> Self {
        Self { about: ABOUT.about(), connected: BTreeMap::new(), order: BTreeMap::new(), next: 0 }
    }

    fn remember(&mut self, process: ProcessKey, to: SocketAddr) {
        self.next += 1;
        if let Some((_, old)) = self.connected.insert(process, (to, self.next)) {
            self.order.remove(&old);
        }
        self.order.insert(self.next, process);
        if self.order.len() > REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.connected.remove(&oldest);
        }
    }
}

impl Signature for Rule {
    fn about(&self) -> &Arc<About> {
        &self.about
    }

    fn demands(&self) -> Vec<Demand> {
        vec![Demand::of(connect::ID), Demand::of(exec::ID)]
    }

    fn on_event(&mut self, event: &Event<'_>, emit: &mut Emit) {
        if event.view.event() == connect::ID {
            let stream = event.number(connect::field::r#type).is_none_or(|t| t == SOCK_STREAM);
            let addr = event.text(connect::field::remote_addr).and_then(|t| SockAddr::parse(t.bytes)?.inet());
            if let Some(addr) = addr.filter(|a| stream && a.port() != 0) {
                self.remember(event.key(), addr);
            }
            return;
        }
        if event.number(exec::field::stdin_type).is_none_or(|t| t & S_IFMT != S_IFSOCK) {
            return;
        }
        let Some(path) = event.str(exec::field::pathname) else { return };
        if !is_shell(path) && !event.str(exec::field::cmdpath).is_some_and(is_shell) {
            return;
        }
        if SSHD.contains(&program_before(event)) {
            return;
        }
        if let Some((to, _)) = self.connected.get(&event.key()) {
            emit.fire(
                to.to_string(),
                [("shell", json!(path)), ("address", json!(to.ip().to_string())), ("port", json!(to.port()))],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut rule = Rule::new();
        let to = SocketAddr::from(([10, 0, 0, 1], 1));
        for pid in 0..REMEMBERED as u32 + 10 {
            for _ in 0..3 {
                rule.remember(ProcessKey { pid, start: 1 }, to);
            }
        }
        assert_eq!((rule.connected.len(), rule.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!rule.connected.contains_key(&ProcessKey { pid: 9, start: 1 }), "the oldest went first");
    }
}

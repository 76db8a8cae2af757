//! Sockets made, named, listened on, asked for a connection, and put at another descriptor.

use anyhow::{Result, ensure};
use haechi_ebpf::event::{
    security_socket_accept, security_socket_bind, security_socket_create, security_socket_listen, socket_dup,
};
use serde_json::Value;

use super::deed::{Deed, RAW, done};
use crate::harness::{Context, Did, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("endpoint::socket", |c| done(c, &SOCKET)),
    ("endpoint::compat_socket", |c| done(c, &Deed { act: |c| act(c, "socket", "unix", true), compat: true, ..SOCKET })),
    ("endpoint::bind_inet", bound),
    ("endpoint::bind_inet6", |c| done(c, &Deed { act: |c| at_once(c, "inet6", false), ..BIND })),
    ("endpoint::bind_unix", |c| done(c, &BIND)),
    ("endpoint::compat_bind", |c| done(c, &Deed { act: |c| at_once(c, "unix", true), compat: true, ..BIND })),
    ("endpoint::listen_inet", |c| done(c, &LISTEN)),
    ("endpoint::listen_inet6", |c| done(c, &Deed { act: |c| act(c, "listen", "inet6", false), ..LISTEN })),
    ("endpoint::listen_unix", |c| done(c, &Deed { act: |c| act(c, "listen", "unix", false), ..LISTEN })),
    ("endpoint::compat_listen", |c| done(c, &Deed { act: |c| act(c, "listen", "inet", true), compat: true, ..LISTEN })),
    ("endpoint::accept_inet", |c| done(c, &ACCEPT)),
    ("endpoint::accept_unix", |c| done(c, &Deed { act: |c| act(c, "accept4", "unix", false), ..ACCEPT })),
    ("endpoint::compat_accept", |c| {
        done(c, &Deed { act: |c| act(c, "accept4", "inet6", true), compat: true, ..ACCEPT })
    }),
    ("endpoint::both_kinds_of_accept", both),
    ("endpoint::dup_inet", |c| done(c, &DUP)),
    ("endpoint::dup2_inet6", |c| done(c, &Deed { act: |c| act(c, "dup2", "inet6", false), ..DUP })),
    ("endpoint::dup3_unix", |c| done(c, &Deed { act: |c| act(c, "dup3", "unix", false), ..DUP })),
    ("endpoint::compat_dup2", |c| done(c, &Deed { act: |c| act(c, "dup2", "inet", true), compat: true, ..DUP })),
];

pub(super) const DEEDS: &[Deed] = &[SOCKET, BIND, LISTEN, ACCEPT, DUP];

const SOCKET: Deed = Deed {
    event: &security_socket_create::DEF,
    act: |c| act(c, "socket", "inet", false),
    want: |did| {
        let (family, kind) = (did.number("/family")?, did.number("/type")?);
        Ok(vec![("family", family.into()), ("type", kind.into()), ("protocol", 0.into()), ("kern", 0.into())])
    },
    resolved: &[],
    given: &[],
    compat: false,
};

const BIND: Deed = Deed {
    event: &security_socket_bind::DEF,
    act: |c| at_once(c, "unix", false),
    want: |did| Ok(vec![("sockfd", did.number("/fd")?.into()), address(did, "local_addr", "/at")?]),
    resolved: &[],
    given: &[],
    compat: false,
};

const LISTEN: Deed = Deed {
    event: &security_socket_listen::DEF,
    act: |c| act(c, "listen", "inet", false),
    want: |did| {
        let (fd, backlog) = (did.number("/fd")?, did.number("/backlog")?);
        Ok(vec![("sockfd", fd.into()), address(did, "local_addr", "/at")?, ("backlog", backlog.into())])
    },
    resolved: &[],
    given: &[],
    compat: false,
};

const ACCEPT: Deed = Deed {
    event: &security_socket_accept::DEF,
    act: |c| act(c, "accept4", "inet", false),
    want: |did| Ok(vec![("sockfd", did.number("/fd")?.into()), address(did, "local_addr", "/at")?]),
    resolved: &[],
    given: &[],
    compat: false,
};

const DUP: Deed = Deed {
    event: &socket_dup::DEF,
    act: |c| act(c, "dup", "inet", false),
    want: |did| {
        let (old, new) = (did.number("/client")?, did.number("/ret")?);
        Ok(vec![("oldfd", old.into()), ("newfd", new.into()), address(did, "remote_addr", "/at")?])
    },
    resolved: &[],
    given: &[],
    compat: false,
};

fn act(context: &Context, by: &str, to: &str, compat: bool) -> Result<Did> {
    let path = format!("path={}/socket", context.dir("endpoint")?);
    let (by, to) = (format!("by={by}"), format!("to={to}"));
    context.actor(&["endpoint", &by, &to, &path, &format!("compat={}", u8::from(compat))])
}

/// Binds to an address that is the same before and after: no port is left to be chosen, or only the program's word for it
/// is looked at.
fn at_once(context: &Context, to: &str, compat: bool) -> Result<Did> {
    let mut did = act(context, "bind", to, compat)?;
    if context.machine.step(security_socket_bind::DEF.name) != Some(RAW) {
        did.did["at"] = did.did["given"].clone();
    }
    Ok(did)
}

/// Port 0 is asked for and some port is got: the hook sees the one, the end of the call the other.
fn bound(context: &Context) -> Result<()> {
    done(context, &Deed { act: |c| at_once(c, "inet", false), ..BIND })
}

/// One call is two events, and both are told.
fn both(context: &Context) -> Result<()> {
    let events = ["--events", "security_socket_accept,net_tcp_accept"];
    let (stopped, did) = context.watch(&events, || act(context, "accept4", "inet", false))?;
    for name in ["security_socket_accept", "net_tcp_accept"] {
        let lines = stopped.by(name, did.me.pid);
        ensure!(lines.len() == 1, "{} of one {name}", lines.len());
    }
    Ok(())
}

fn address(did: &Did, field: &'static str, at: &str) -> Result<(&'static str, Want)> {
    Ok((field, Want::Is(did.part::<Value>(at)?)))
}

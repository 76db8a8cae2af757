//! security_socket_connect: every family, every call that connects, both ABIs, io_uring.

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::event::security_socket_connect::DEF;
use serde_json::{Value, json};

use super::open::seen_at_the_end;
use crate::harness::{Context, Did, Line, Skip, Test, Want, fields, who};

pub(super) const TESTS: &[Test] = &[
    ("connect::inet", |c| connected(c, "inet", "connect", "stream")),
    ("connect::inet6", |c| connected(c, "inet6", "connect", "stream")),
    ("connect::unix", |c| connected(c, "unix", "connect", "stream")),
    ("connect::datagram", |c| connected(c, "inet", "connect", "dgram")),
    ("connect::nobody", |c| connected(c, "none", "connect", "dgram")),
    ("connect::refused", refused),
    ("connect::compat_inet", |c| connected(c, "inet", "compat", "stream")),
    ("connect::compat_inet6", |c| connected(c, "inet6", "compat", "stream")),
    ("connect::compat_unix", |c| connected(c, "unix", "compat", "stream")),
    ("connect::socketcall", socketcall),
    ("connect::uring_inet", |c| connected(c, "inet", "uring", "stream")),
    ("connect::uring_unix", |c| connected(c, "unix", "uring", "stream")),
    ("connect::descriptor_zero", descriptor_zero),
];

const NAME: &str = "security_socket_connect";
const EVENTS: &[&str] = &["--events", NAME];

fn act(context: &Context, to: &str, by: &str, kind: &str, more: &[&str]) -> Result<Did> {
    let path = context.scratch.path().join(format!("socket-{by}"));
    // A socket file stays when its listener goes.
    let _first_time = std::fs::remove_file(&path);
    let words = [format!("to={to}"), format!("by={by}"), format!("type={kind}"), format!("path={}", path.display())];
    let mut args = vec!["connect"];
    args.extend(words.iter().map(String::as_str));
    args.extend(more);
    context
        .actor(&args)
        .map_err(|e| if format!("{e:#}").contains("io_uring") { Skip::because(format!("{e:#}")) } else { e })
}

/// The address as the agent must show it.
fn address(did: &Did) -> Result<Value> {
    let shown: String = did.part("/shown")?;
    let family = did.number("/family")? as i32;
    if shown == "nobody" {
        return Ok(json!({ "sa_family": "AF_UNSPEC" }));
    }
    Ok(match family {
        libc::AF_UNIX => json!({ "sa_family": "AF_UNIX", "sun_path": shown }),
        libc::AF_INET => {
            let (ip, port) = shown.rsplit_once(':').unwrap_or_default();
            json!({ "sa_family": "AF_INET", "sin_addr": ip, "sin_port": port.parse::<u16>()? })
        }
        _ => {
            let (ip, port) = shown.rsplit_once(':').unwrap_or_default();
            json!({
                "sa_family": "AF_INET6", "sin6_addr": ip.trim_matches(['[', ']']), "sin6_port": port.parse::<u16>()?,
                "sin6_flowinfo": 0, "sin6_scopeid": 0,
            })
        }
    })
}

fn wanted(did: &Did) -> Result<Vec<(&'static str, Want)>> {
    let fd: Vec<i32> = did.part("/fds")?;
    Ok(vec![
        ("sockfd", fd[0].into()),
        ("type", did.number("/type")?.into()),
        ("remote_addr", Want::Is(address(did)?)),
        ("family", did.number("/family")?.into()),
    ])
}

fn only<'a>(stopped: &'a crate::harness::Stopped, did: &Did) -> Result<&'a Line> {
    stopped.one(NAME, did.me.pid, |_| true)
}

fn connected(context: &Context, to: &str, by: &str, kind: &str) -> Result<()> {
    let (stopped, did) = context.watch(EVENTS, || act(context, to, by, kind, &[]))?;
    let line = match by {
        // The kernel tries without waiting first, and passes the hook again when that was not enough.
        "uring" => stopped.by(NAME, did.me.pid).into_iter().next().context("no connect")?,
        _ => only(&stopped, &did)?,
    };
    who(line, &did.me)?;
    let mut want = wanted(&did)?;
    if by == "uring" {
        ensure!(line.io_uring(), "not shown as io_uring: {}", line.0);
        // No connect(2): where the hook sees the socket, it has no descriptor; where it sees the request, it has.
        want[0].1 = Want::Fits(|v| v.is_null() || v.as_u64().is_some());
        if seen_at_the_end(context) {
            // The request is seen before the kernel looks its socket up.
            (want[1].1, want[3].1) = (Want::Absent, Want::Absent);
        }
    }
    fields(line, &DEF, &want)?;
    ensure!(line.compat() == (by == "compat"), "compat is {}: {}", line.compat(), line.0);
    let marked = line.from_user("remote_addr");
    ensure!(marked == seen_at_the_end(context) || by == "uring", "user memory: {marked}: {}", line.0);
    Ok(())
}

fn refused(context: &Context) -> Result<()> {
    let (stopped, did) = context.watch(EVENTS, || act(context, "inet", "connect", "stream", &["refused=1"]))?;
    let line = only(&stopped, &did)?;
    ensure!(did.number("/ret/0")? == -i64::from(libc::ECONNREFUSED), "{}", did.did);
    fields(line, &DEF, &wanted(&did)?)
}

/// The 32-bit call that bundles all socket calls. Where hooks are on system calls this is a blind spot that
/// `haechi check` names; the call itself can be asked for.
fn socketcall(context: &Context) -> Result<()> {
    let events = ["--events", "security_socket_connect,socketcall"];
    let (stopped, did) = context.watch(&events, || act(context, "inet", "socketcall", "stream", &[]))?;
    if seen_at_the_end(context) {
        ensure!(stopped.by(NAME, did.me.pid).is_empty(), "no longer a blind spot: change the plan's text");
        let line = stopped.one("socketcall", did.me.pid, |_| true)?;
        ensure!(line.compat(), "not shown as 32-bit: {}", line.0);
        return who(line, &did.me);
    }
    let line = only(&stopped, &did)?;
    let mut want = wanted(&did)?;
    want[0].1 = Want::Fits(|v| v.is_null() || v.as_u64().is_some());
    fields(line, &DEF, &want)
}

fn descriptor_zero(context: &Context) -> Result<()> {
    let (stopped, did) = context.watch(EVENTS, || act(context, "inet", "connect", "stream", &["fd=0"]))?;
    let line = only(&stopped, &did)?;
    ensure!(line.data("sockfd") == 0, "descriptor: {}", line.0);
    fields(line, &DEF, &wanted(&did)?)
}

//! What a connection costs from its beginning to its end: in a loop that does nothing else, and in a web server that
//! closes after every answer. The agent has no rules here, but where it may not hook functions it learns of accepts
//! from the tracepoint of all system calls, and every call pays for that.

use anyhow::Result;

use super::super::Bench;
use super::super::agent::settings;
use super::super::contest::{self, Pair};
use super::super::loader::Loader;
use super::super::report::Measured;
use super::super::web::Server;
use super::{NO_RULES, OFF};

/// Connect, accept, and both ends closed.
pub(in super::super) fn connection(bench: &Bench) -> Result<Measured> {
    let mut load = Loader::start(&["tcp-once"])?;
    let on = settings(bench, NO_RULES, &[])?;
    let off = settings(bench, &format!("{NO_RULES}{OFF}"), &[])?;
    let (time, pids) = (if bench.quick { 200 } else { 600 }, [load.pid()]);
    let outcome = contest::run_beside(bench, &on, Some(&off), &pids, &mut |_| Ok(load.time(time)?.median))?;
    let added = |p: Pair| p.with - p.bare;
    let mut measured = outcome.measured(|r| added(r.agent));
    measured.extra.insert("agent", outcome.of(|r| r.agent.with).0);
    measured.extra.insert("floor_over_bare", outcome.of(|r| added(r.floor)).0);
    measured.extra.insert("over_floor", outcome.of(|r| added(r.agent) - added(r.floor)).0);
    measured.extra.insert("off_over_bare", outcome.of(|r| r.other.map_or(0.0, added)).0);
    measured.notes.push(format!("floor: {} empty programs on the same hooks; no rules", outcome.hooks));
    measured.notes.extend(outcome.losses.last().map(|lost| format!("the agent's last word: {lost}")));
    Ok(measured)
}

/// Requests a second, a connection for each.
pub(in super::super) fn web_connect(bench: &Bench) -> Result<Measured> {
    let mut network = Loader::start(&["network"])?;
    network.count(1)?;
    let server = Server::start(bench, Some(network.pid()))?;
    let (outcome, share) = server.contest(bench, &settings(bench, NO_RULES, &[])?, &["Connection: close"])?;
    let ratio = |p: Pair| p.with / p.bare;
    let mut measured = outcome.measured(|r| ratio(r.agent));
    measured.extra.insert("agent_rps", outcome.of(|r| r.agent.with).0);
    measured.extra.insert("floor_over_bare", outcome.of(|r| ratio(r.floor)).0);
    measured.extra.insert("agent_over_floor", outcome.of(|r| ratio(r.agent) / ratio(r.floor)).0);
    measured.extra.insert("agent_cpu_percent", 100.0 * share);
    measured.notes.push(format!(
        "requests a second with `Connection: close`, a file of 1 KiB; floor: {} empty programs; no rules",
        outcome.hooks
    ));
    measured.notes.extend(outcome.losses.last().map(|lost| format!("the agent's last word: {lost}")));
    Ok(measured)
}

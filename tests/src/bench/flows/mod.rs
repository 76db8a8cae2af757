//! What it costs that every connection is known: nothing a byte, little a connection, a look now and then at those that
//! live, and memory beside each. Loads live in a network namespace of their own, so that their ports are theirs alone
//! and nothing lingers in the host's.

mod bulk;
mod connect;
mod held;
mod load;
mod memory;
mod metrics;
mod poll;
mod ratio;
mod runs;

use std::fs;

use anyhow::{Context as _, Result};

pub(super) use bulk::bulk;
pub(super) use connect::{connection, web_connect};
pub(super) use load::step;
pub(super) use memory::{kernel_memory, resident};
pub(super) use poll::{poll, poll_many};
pub(super) use ratio::{pingpong, throughput};

/// No rules: what is left is what connections need.
const NO_RULES: &str = "rules:\n  builtin: false\n  dirs: []\n";
/// No connections.
const OFF: &str = "flows:\n  enabled: false\n";
/// The poll as often as it goes.
const EVERY_SECOND: &str = "flows:\n  poll_seconds: 1\n";

/// Bytes that a process holds in memory.
fn resident_bytes(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes = line.trim().strip_suffix(" kB").and_then(|n| n.parse::<f64>().ok());
    Ok(kilobytes.with_context(|| format!("VmRSS is {line}"))? * 1024.0)
}

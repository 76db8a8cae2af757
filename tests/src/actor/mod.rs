//! Tiny programs that each provoke one behaviour, and print a JSON line with who did it and what was done. They know
//! the kernel; they must not know the agent.

mod abi;
mod args;
mod change;
mod connect;
mod deep;
mod elf32;
mod endpoint;
mod evade;
mod exec;
mod life;
mod load;
mod memory;
mod mount;
mod open;
mod reach;
mod socket;
mod tcp;
mod tcp_load;
mod trace;
mod written;

pub use args::Args;
pub use elf32::program as elf32_program;

use std::io::Write as _;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::facts::Task;

type Verb = fn(&Args) -> Result<Value>;

/// All behaviours.
pub const VERBS: &[(&str, Verb)] = &[
    ("open", open::open),
    ("raced", open::raced),
    ("change", change::change),
    ("mount", mount::mount),
    ("reach", reach::reach),
    ("endpoint", endpoint::endpoint),
    ("evade", evade::evade),
    ("deep", deep::deep),
    ("written", written::written),
    ("connect", connect::connect),
    ("ptrace", trace::ptrace),
    ("memfd", memory::memfd),
    ("fileless", memory::fileless),
    ("vmwrite", memory::vm_write),
    ("exec", exec::exec),
    ("report", exec::report),
    ("fork", life::fork),
    ("thread", life::thread),
    ("exit", life::exit),
    ("cgroup", life::cgroup),
    ("getppid", load::getppid),
    ("opens", load::opens),
    ("churn", load::churn),
    ("wait", load::wait),
    ("tcp", tcp::tcp),
    ("serve", tcp::serve),
    ("tcp-server", tcp_load::server),
    ("tcp-client", tcp_load::client),
];

/// Runs the verb named first.
///
/// # Errors
/// When there is no such verb, or what it does fails.
pub fn run(mut args: impl Iterator<Item = String>) -> Result<()> {
    let name = args.next().unwrap_or_default();
    let Some((_, verb)) = VERBS.iter().find(|v| v.0 == name) else {
        bail!("no verb {name:?}; there are: {}", VERBS.iter().map(|v| v.0).collect::<Vec<_>>().join(" "));
    };
    let args = Args::parse(args);
    let did = verb(&args)?;
    say(&did)
}

/// Prints a line: who we are, and what was done.
fn say(did: &Value) -> Result<()> {
    print(&json!({ "me": Task::me()?, "did": did }))
}

fn print(line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

//! The floor: what it costs to be called at all. Empty programs on the very hooks that the agent uses.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use haechi_agent::kernel::Btf;
use haechi_ebpf::program::{Hook, by_name};

use super::Bench;
use super::bpf::{Attach, Fd, attach_empty};

/// Programs that the agent would attach with these settings, as it says itself.
pub(super) fn programs(bench: &Bench, settings: &[String]) -> Result<Vec<String>> {
    let out = Command::new(&bench.haechi).args(["check", "--json"]).args(settings).output()?;
    ensure!(out.status.success(), "haechi check: {}", String::from_utf8_lossy(&out.stderr));
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).context("haechi check --json")?;
    let names = said["programs"].as_array().context("no list of programs")?;
    Ok(names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect())
}

/// Empty programs, attached as long as it lives.
pub(super) struct Floor(Vec<[Fd; 2]>);

impl Floor {
    /// One for each of `programs`, on its hook.
    pub(super) fn attach(btf: &Btf, programs: &[String]) -> Result<Self> {
        let mut held = Vec::new();
        for name in programs {
            let hook = by_name(name).with_context(|| format!("program {name} is not in the table"))?.hook;
            let (attach, target) = match hook {
                Hook::TpBtf(point) => (Attach::RawTp, btf.tracepoint_id(point)),
                Hook::Fexit(names) => (Attach::Fexit, names.iter().find_map(|n| btf.function_id(n))),
                // An iterator runs when it is read, and what sys_exit hands over to hangs nowhere.
                Hook::Iter(_) | Hook::SysExit => continue,
                _ => anyhow::bail!("there is no empty program for the hook of {name}"),
            };
            let target = target.with_context(|| format!("the kernel has no hook for {name}"))?;
            held.push(attach_empty(attach, target).with_context(|| format!("an empty program beside {name}"))?);
        }
        Ok(Self(held))
    }

    /// How many hang.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

//! How often each program of an agent ran, as the kernel counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};

use super::super::bpf::runs;

/// What programs of the agent ran, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Ran(BTreeMap<String, [u64; 2]>);

impl Ran {
    /// What the programs that a process holds have run so far.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the agent's descriptors")?.flatten() {
            // One that was closed meanwhile is no program.
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            ids.extend(text.lines().filter_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
        }
        let mut ran = BTreeMap::new();
        for id in ids {
            let program = runs(id).with_context(|| format!("program {id}"))?;
            let entry: &mut [u64; 2] = ran.entry(program.name).or_default();
            entry[0] += program.count;
            entry[1] += program.ns;
        }
        Ok(Self(ran))
    }

    /// What was run since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let of = |(name, now): (&String, &[u64; 2])| {
            let then = before.0.get(name).copied().unwrap_or_default();
            (name.clone(), [now[0].saturating_sub(then[0]), now[1].saturating_sub(then[1])])
        };
        Self(self.0.iter().map(of).collect())
    }

    /// Runs of the programs that are chosen by name.
    pub(super) fn count(&self, chosen: impl Fn(&str) -> bool) -> f64 {
        self.0.iter().filter(|(name, _)| chosen(name)).fold(0.0, |sum, (_, ran)| sum + ran[0] as f64)
    }

    /// Every program that ran: its runs, and nanoseconds of one.
    pub(super) fn words(&self) -> String {
        let ran = self.0.iter().filter(|(_, ran)| ran[0] > 0);
        let words: Vec<String> =
            ran.map(|(name, [count, ns])| format!("{name} {count} x {:.0} ns", *ns as f64 / *count as f64)).collect();
        words.join(", ")
    }
}

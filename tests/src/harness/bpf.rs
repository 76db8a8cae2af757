//! What the kernel holds of BPF, by bpftool: another's eyes than the agent's.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Skip;

/// Ids of programs and links, and the programs' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bpf {
    /// Programs: id and name (the kernel keeps 15 bytes of it, bpftool finds the rest in BTF).
    pub programs: BTreeSet<(u64, String)>,
    /// Links: id, and the id of the program they hold.
    pub links: BTreeSet<(u64, u64)>,
}

impl Bpf {
    /// What there is now.
    ///
    /// # Errors
    /// [`Skip`] without bpftool.
    pub fn now() -> Result<Self> {
        let programs =
            list("prog")?.iter().map(|p| (id(p), p["name"].as_str().unwrap_or_default().to_owned())).collect();
        let links = list("link")?.iter().map(|l| (id(l), l["prog_id"].as_u64().unwrap_or_default())).collect();
        Ok(Self { programs, links })
    }

    /// What is here and was not in `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            programs: self.programs.difference(&before.programs).cloned().collect(),
            links: self.links.difference(&before.links).copied().collect(),
        }
    }

    /// Names of the programs that are attached by a link.
    pub fn attached(&self) -> impl Iterator<Item = &str> {
        let linked = |id: u64| self.links.iter().any(|l| l.1 == id);
        self.programs.iter().filter(move |p| linked(p.0)).map(|p| p.1.as_str())
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty()
    }
}

fn id(item: &Value) -> u64 {
    item["id"].as_u64().unwrap_or_default()
}

fn list(kind: &str) -> Result<Vec<Value>> {
    let out = match Command::new("bpftool").args(["-j", kind, "show"]).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Skip::because("bpftool is not installed")),
        other => other.context("bpftool")?,
    };
    ensure!(out.status.success(), "bpftool {kind} show: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).with_context(|| format!("bpftool {kind} show: {text}"))
}

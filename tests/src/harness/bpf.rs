//! What the kernel holds of BPF, by bpftool: another's eyes than the agent's.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Skip;

/// All that agents of this run ever held: at the end none of it may be there. Others on this machine have theirs.
static EVER: Mutex<Vec<Bpf>> = Mutex::new(Vec::new());

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
    fn now() -> Result<Self> {
        let programs =
            list("prog")?.iter().map(|p| (id(p), p["name"].as_str().unwrap_or_default().to_owned())).collect();
        let links = list("link")?.iter().map(|l| (id(l), l["prog_id"].as_u64().unwrap_or_default())).collect();
        Ok(Self { programs, links })
    }

    /// What the process `pid` holds open.
    ///
    /// # Errors
    /// [`Skip`] without bpftool; when it is gone.
    pub fn held_by(pid: u32) -> Result<Self> {
        let (mut programs, mut links) = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed meanwhile.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let number = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok());
            programs.extend(number("prog_id:"));
            links.extend(number("link_id:"));
        }
        let now = Self::now()?;
        let held = Self {
            links: now.links.into_iter().filter(|l| links.contains(&l.0)).collect(),
            programs: now.programs.into_iter().filter(|p| programs.contains(&p.0)).collect(),
        };
        EVER.lock().unwrap_or_else(PoisonError::into_inner).push(held.clone());
        Ok(held)
    }

    /// What of it the kernel still has.
    ///
    /// # Errors
    /// [`Skip`] without bpftool.
    pub fn left(&self) -> Result<Self> {
        let now = Self::now()?;
        Ok(Self {
            programs: self.programs.intersection(&now.programs).cloned().collect(),
            links: self.links.intersection(&now.links).copied().collect(),
        })
    }

    /// What the kernel still has of all that was ever asked about.
    ///
    /// # Errors
    /// [`Skip`] without bpftool.
    pub(super) fn ever_left() -> Result<Self> {
        let ever = EVER.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = Self::default();
        for held in ever {
            all.programs.extend(held.programs);
            all.links.extend(held.links);
        }
        all.left()
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

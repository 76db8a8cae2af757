//! Memory that connections take because they are watched: of the kernel beside each socket, and of the agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::Bench;
use super::super::agent::{Agent, Lines, settings};
use super::super::gate::pause;
use super::super::report::Measured;
use super::super::stats::{median, spread};
use super::held::{Doing, Held, open};
use super::resident_bytes;

/// Ends that are opened to see what one takes.
const SOCKETS: usize = 10_000;
/// Ends that the agent knows at once.
const MANY: usize = 100_000;

/// Bytes of kernel memory an end. What is kept beside a socket is charged to the control group of the agent; where
/// that cannot be read, all memory of the kernel's allocator with the agent and without is compared.
pub(in super::super) fn kernel_memory(bench: &Bench) -> Result<Measured> {
    let settings = settings(bench, "", &[])?;
    let (mut charged, mut slabs) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.min(3) {
        bench.gate.wait();
        let (_, bare) = grown(slab_bytes)?;
        let group = Group::make();
        let agent = match &group {
            Some(group) => {
                let script = bench.place.file("haechi-in-group", group.script(bench))?;
                fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
                let mut agent = Agent::spawn_by(script.as_ref(), &settings, Lines::Dropped)?;
                agent.ready()?;
                agent
            }
            None => Agent::start(bench, &settings, Lines::Dropped)?,
        };
        let both = || anyhow::Ok((slab_bytes()?, group.as_ref().map(Group::kernel_bytes).transpose()?.unwrap_or(0.0)));
        // It gives back what starting took.
        pause(Duration::from_secs(3));
        let before = both()?;
        let (loads, sockets) = open(SOCKETS, Doing::Nothing)?;
        let after = both()?;
        drop(loads);
        agent.stop()?;
        slabs.push((after.0 - before.0) / sockets as f64 - bare);
        if group.is_some() {
            charged.push((after.1 - before.1) / sockets as f64);
        }
    }
    let taken = if charged.is_empty() { &slabs } else { &charged };
    let mut measured =
        Measured { value: median(taken), spread: spread(taken), rounds: taken.len(), ..Measured::default() };
    measured.extra.insert("slab_difference", median(&slabs));
    measured.notes.push(if charged.is_empty() {
        "by /proc/slabinfo with the agent and without; others' memory is in it".into()
    } else {
        "charged to the control group of the agent; slab_difference: kmalloc of everybody, with it and without".into()
    });
    Ok(measured)
}

/// How many ends were opened, and how much of something each made.
fn grown(measure: impl Fn() -> Result<f64>) -> Result<(usize, f64)> {
    let before = measure()?;
    let (_loads, sockets) = open(SOCKETS, Doing::Nothing)?;
    Ok((sockets, (measure()? - before) / sockets as f64))
}

/// Bytes of the allocator's caches that are made by size and not for one kind of object.
fn slab_bytes() -> Result<f64> {
    let text = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|name| name.starts_with("kmalloc-"))?;
        let (active, _all, size) = (words.next()?, words.next()?, words.next()?);
        Some(active.parse::<f64>().ok()? * size.parse::<f64>().ok()?)
    };
    Ok(text.lines().filter_map(of).sum())
}

/// A control group below ours, for one agent.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |root: &str, prefix: &str| {
            let line = ours.lines().find_map(|l| l.split_once(':')?.1.strip_prefix(prefix))?;
            Some(PathBuf::from(format!("{root}{line}")).join(format!("haechi-bench-{}", std::process::id())))
        };
        let places = [path("/sys/fs/cgroup/memory", "memory:"), path("/sys/fs/cgroup", ":")];
        places.into_iter().flatten().find_map(|dir| {
            fs::create_dir(&dir).ok()?;
            let group = Self(dir);
            group.kernel_bytes().ok()?;
            Some(group)
        })
    }

    /// A program that becomes the agent inside.
    fn script(&self, bench: &Bench) -> String {
        format!(
            "#!/bin/sh\necho $$ > '{}/cgroup.procs' && exec '{}' \"$@\"\n",
            self.0.display(),
            bench.haechi.display()
        )
    }

    /// Kernel memory that is charged to it.
    fn kernel_bytes(&self) -> Result<f64> {
        if let Ok(text) = fs::read_to_string(self.0.join("memory.kmem.usage_in_bytes")) {
            return Ok(text.trim().parse()?);
        }
        let text = fs::read_to_string(self.0.join("memory.stat")).context("memory.stat")?;
        let line = text.lines().find_map(|l| l.strip_prefix("slab ")).context("no slab in memory.stat")?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("haechi-bench: left behind: {}: {error}", self.0.display());
        }
    }
}

/// Megabytes of the agent that knows very many connections.
pub(in super::super) fn resident(bench: &Bench) -> Result<Measured> {
    let agent = Agent::start(bench, &settings(bench, "", &[])?, Lines::Dropped)?;
    let alone = resident_bytes(agent.pid())?;
    agent.stop()?;
    let (held, known) = Held::start(bench, MANY, Doing::Nothing)?;
    let bytes = resident_bytes(held.agent.pid())?;
    let said = held.stop()?;
    let mut measured = Measured { value: bytes / 1e6, rounds: 1, ..Measured::default() };
    measured.extra.insert("flows", known.live);
    measured.extra.insert("idle_mb", alone / 1e6);
    measured.extra.insert("bytes_a_flow", (bytes - alone) / known.live);
    measured.notes.push(format!("the agent's last word: {said}"));
    Ok(measured)
}

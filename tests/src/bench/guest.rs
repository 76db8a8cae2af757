//! Counting instructions: this very benchmark inside a virtual machine whose clock ticks once an instruction.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::agent::{Agent, Lines, settings};
use super::child::command;
use super::loader::{Loader, Took};
use super::stats::{median, spread};

/// The kernel to count in: the oldest that users of a current Debian have.
const KERNEL: &str = "6.1";
/// What marks the answer among a booting machine's words.
const MARK: &str = "haechi-bench-guest ";

/// Instructions a spawn: by the spawning process and its children, and all that went by meanwhile.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Counted {
    own: f64,
    all: f64,
}

/// What the guest found: samples without and with the agent, in turn.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Guest {
    bare: Vec<Counted>,
    agent: Vec<Counted>,
}

impl Guest {
    fn ratios(&self, of: impl Fn(&Counted) -> f64) -> Vec<f64> {
        // Each with the bare ones before and after it.
        let around = self.bare.windows(2).map(|w| f64::midpoint(of(&w[0]), of(&w[1])));
        self.agent.iter().zip(around).map(|(agent, bare)| of(agent) / bare).collect()
    }

    pub(super) fn own_ratio(&self) -> f64 {
        median(&self.ratios(|c| c.own))
    }

    pub(super) fn all_ratio(&self) -> f64 {
        median(&self.ratios(|c| c.all))
    }

    pub(super) fn spread(&self) -> Option<[f64; 2]> {
        spread(&self.ratios(|c| c.own))
    }

    pub(super) fn bare(&self) -> f64 {
        median(&self.bare.iter().map(|c| c.own).collect::<Vec<_>>())
    }

    pub(super) fn rounds(&self) -> usize {
        self.agent.len()
    }
}

/// Boots the machine and asks.
pub(super) fn outside(bench: &Bench) -> Result<Guest> {
    let xtask = bench.xtask.as_ref().context("no --xtask to start a virtual machine with: use `cargo xtask bench`")?;
    let mut vm = command(xtask);
    vm.args(["vm", KERNEL, "--icount", "--deadline", "900", "--"]);
    vm.arg(std::env::current_exe()?).args(["--guest", "--haechi"]).arg(&bench.haechi);
    vm.args(["--rounds", if bench.quick { "1" } else { "3" }]);
    let out = vm.stdin(Stdio::null()).output().context("xtask")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let answer = text.lines().find_map(|l| l.split_once(MARK)).with_context(|| {
        let errors = String::from_utf8_lossy(&out.stderr);
        let last: Vec<&str> = errors.lines().rev().take(3).collect();
        format!("the virtual machine gave no answer ({}): {}", out.status, last.join(" / "))
    })?;
    serde_json::from_str(answer.1).context("the answer of the virtual machine")
}

/// What runs inside.
pub(super) fn inside(bench: &Bench) -> Result<()> {
    // The root file system comes from the host by a protocol whose waits are no instructions: spawn from memory.
    let root = small_root(bench)?;
    let mut loader = Loader::start(&["spawn", &format!("root={}", root.display())])?;
    let settings = settings(bench, "", &[])?;
    let steps = 60;
    let of = |took: Took| Counted { own: took.cpu, all: took.mean };
    loader.count(10)?;
    let mut guest = Guest { bare: vec![of(loader.count(steps)?)], agent: Vec::new() };
    for _ in 0..bench.rounds {
        let agent = Agent::start(bench, &settings, Lines::Dropped)?;
        loader.count(10)?;
        guest.agent.push(of(loader.count(steps)?));
        eprintln!("haechi-bench: in the guest: {}", agent.stop()?);
        loader.count(10)?;
        guest.bare.push(of(loader.count(steps)?));
    }
    println!("{MARK}{}", serde_json::to_string(&guest)?);
    Ok(())
}

/// A root with /bin/true and what it is linked with.
fn small_root(bench: &Bench) -> Result<PathBuf> {
    let root = bench.place.path().join("root");
    let listed = Command::new("ldd").arg("/bin/true").output().context("ldd")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|w| w.starts_with('/'));
    let mut copied = 0;
    for file in ["/bin/true"].into_iter().chain(libraries) {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
        fs::copy(file, &to).with_context(|| file.to_owned())?;
        copied += 1;
    }
    ensure!(copied >= 3, "/bin/true is linked with less than it needs: {listed}");
    Ok(root)
}

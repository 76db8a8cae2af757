//! Counting instructions: this very benchmark inside a virtual machine whose clock ticks once an instruction.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::agent::{Agent, Lines, settings};
use super::child::command;
use super::floor::{self, Floor};
use super::loader::{Loader, Took};
use super::stats::{median, spread};

/// The kernel to count in: the oldest that users of a current Debian have.
const KERNEL: &str = "6.1";
/// Seconds of the guest's own clock, which runs ahead of ours whenever the guest waits for its files.
const DEADLINE: &str = "9000";
/// What marks the answer among a booting machine's words.
const MARK: &str = "haechi-bench-guest ";

/// Instructions a spawn: by the spawning process and its children, and all that went by meanwhile.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Counted {
    own: f64,
    all: f64,
}

/// What the guest found: samples without and with the agent, in turn; and what calls cost under two plans.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Guest {
    bare: Vec<Counted>,
    agent: Vec<Counted>,
    costs: Vec<Cost>,
}

/// Instructions of one step of a load, the agent's own left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cost {
    load: String,
    /// Whether the agent had to do with the raw system call tracepoints, as on a locked-down host.
    pub(super) raw: bool,
    pub(super) bare: f64,
    pub(super) floor: f64,
    pub(super) agent: f64,
}

/// Loads whose cost is counted: name, words (`@deep`, `@plain`: files in memory), whether the deep file is asked for.
const COSTS: &[(&str, &[&str], bool)] = &[
    ("syscall-unwatched", &["getppid"], false),
    ("open-close", &["open", "path=@plain"], false),
    ("open-watched", &["open", "path=@deep"], true),
];
/// What makes the agent take the raw tracepoints.
const RAW: &[&str] = &["--without", "fexit", "--without", "lsm", "--without", "fexit-syscall", "--without", "kprobe"];

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

    /// What a row's load costs there, plan by plan.
    pub(super) fn costs(&self, row: &str) -> impl Iterator<Item = &Cost> {
        self.costs.iter().filter(move |c| c.load == row)
    }
}

/// Boots the machine and asks, the first time.
pub(super) fn outside(bench: &Bench) -> Result<&Guest> {
    let known = bench.guest.get_or_init(|| {
        let once_more = |error: anyhow::Error| {
            eprintln!("haechi-bench: once more: {error:#}");
            boot(bench)
        };
        boot(bench).or_else(once_more).map_err(|error| format!("{error:#}"))
    });
    known.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn boot(bench: &Bench) -> Result<Guest> {
    let xtask = bench.xtask.as_ref().context("no --xtask to start a virtual machine with: use `cargo xtask bench`")?;
    let mut vm = command(xtask);
    vm.args(["vm", KERNEL, "--icount", "--deadline", DEADLINE, "--"]);
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
pub(super) fn inside(bench: &mut Bench) -> Result<()> {
    // So is the agent started from memory.
    let haechi = bench.place.path().join("haechi");
    fs::copy(&bench.haechi, &haechi).context("the agent")?;
    bench.haechi = haechi;
    // The root file system comes from the host by a protocol whose waits are no instructions: spawn from memory.
    let root = small_root(bench)?;
    let mut loader = Loader::start(&["spawn", &format!("root={}", root.display())])?;
    let settings = settings(bench, "", &[])?;
    let steps = 60;
    let of = |took: Took| Counted { own: took.cpu, all: took.mean };
    loader.count(10)?;
    let mut guest = Guest { bare: vec![of(loader.count(steps)?)], ..Guest::default() };
    for _ in 0..bench.rounds {
        let agent = Agent::start(bench, &settings, Lines::Dropped)?;
        loader.count(10)?;
        guest.agent.push(of(loader.count(steps)?));
        eprintln!("haechi-bench: in the guest: {}", agent.stop()?);
        loader.count(10)?;
        guest.bare.push(of(loader.count(steps)?));
    }
    drop(loader);
    guest.costs = costs(bench)?;
    println!("{MARK}{}", serde_json::to_string(&guest)?);
    Ok(())
}

fn costs(bench: &Bench) -> Result<Vec<Cost>> {
    let (deep, plain) = (bench.place.deep_file()?, bench.place.file("etc/hostname", "x")?);
    let mut costs = Vec::new();
    for (name, words, asked) in COSTS {
        let words: Vec<String> = words.iter().map(|w| w.replace("@deep", &deep).replace("@plain", &plain)).collect();
        let mut loader = Loader::start(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        let filter = format!("security_file_open.data.pathname={deep}");
        let mut count = || -> Result<f64> {
            loader.count(200)?;
            // Few enough for the ring: this one processor has no time left for a reader.
            Ok(loader.count(2000)?.cpu)
        };
        for raw in [false, true] {
            let mut args: Vec<&str> = if *asked { vec!["--events", &filter] } else { Vec::new() };
            args.extend(if raw { RAW } else { &[] });
            let settings = settings(bench, "", &args)?;
            let bare = count()?;
            let hooks = floor::programs(bench, &settings)?;
            let empty = Floor::attach(&bench.btf, &hooks)?;
            let floor = count()?;
            drop(empty);
            let running = Agent::start(bench, &settings, Lines::Dropped)?;
            let agent = count()?;
            eprintln!("haechi-bench: in the guest: {name}, {} programs: {}", hooks.len(), running.stop()?);
            costs.push(Cost { load: (*name).to_owned(), raw, bare, floor, agent });
        }
    }
    Ok(costs)
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

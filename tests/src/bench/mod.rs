//! The benchmark: one row for each promise of speed. It drives the released agent from outside, as users do, on loads
//! that stand beside those of other tools, and compares within one run only: this machine's own speed drifts.
//!
//! [`ROWS`] says what is measured and what must be reached; each row has its own file or shares one with its kin.
//! Nothing here is a test: a goal that is missed is a line in the table, not a failure.

mod agent;
mod bpf;
mod child;
mod contest;
mod cost;
mod decode;
mod facts;
mod floor;
mod flows;
mod gate;
mod guest;
mod idle;
mod latency;
mod life;
mod load;
mod loader;
mod options;
mod place;
mod report;
mod rules;
mod start;
mod stats;
mod web;

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use haechi_agent::kernel::Btf;

use gate::Gate;
use guest::Guest;
use options::{Mode, Options};
use place::Place;
use report::{Better, Measured, Row};

/// What a row is called, what it must reach, and how it is had.
#[derive(Clone, Copy)]
struct Def {
    group: &'static str,
    id: &'static str,
    unit: &'static str,
    goal: f64,
    better: Better,
    run: fn(&Bench) -> Result<Measured>,
}

impl Def {
    /// Whether it is meant by the name of a row or of a group.
    fn named(&self, name: &str) -> bool {
        self.id == name || self.group == name
    }
}

const fn lower(id: &'static str, unit: &'static str, goal: f64, run: fn(&Bench) -> Result<Measured>) -> Def {
    Def { group: EVENTS, id, unit, goal, better: Better::Lower, run }
}

const fn higher(id: &'static str, unit: &'static str, goal: f64, run: fn(&Bench) -> Result<Measured>) -> Def {
    Def { group: EVENTS, id, unit, goal, better: Better::Higher, run }
}

const fn of_flows(def: Def) -> Def {
    Def { group: FLOWS, ..def }
}

/// Groups of rows: what happens, and who talks to whom.
const EVENTS: &str = "events";
const FLOWS: &str = "flows";

const ROWS: &[Def] = &[
    lower("syscall-unwatched", "ns over the floor", 6.0, cost::unwatched),
    lower("open-close", "ns over bare", 200.0, cost::open_close),
    lower("open-watched", "ns over bare", 400.0, cost::open_watched),
    lower("process-life", "x bare", 1.02, life::process_life),
    higher("web", "x floor", 0.97, web::web),
    higher("ring-decode", "M records/s", 5.0, decode::ring_decode),
    higher("rules", "M events/s", 0.5, rules::rules),
    lower("latency", "ms, p99", 10.0, latency::latency),
    lower("idle-cpu", "% of a core", 0.3, idle::cpu),
    lower("rss-idle", "MB", 50.0, idle::memory),
    lower("start", "s", 1.0, start::start),
    of_flows(lower("tcp-bulk", "runs besides polls", 20.0, flows::bulk)),
    of_flows(higher("tcp-throughput", "x flows off", 0.99, flows::throughput)),
    of_flows(higher("tcp-pingpong", "x flows off", 0.99, flows::pingpong)),
    of_flows(higher("tcp-connect", "x bare", 0.97, flows::web_connect)),
    of_flows(lower("per-connection", "ns over bare", 500.0, flows::connection)),
    of_flows(lower("poll", "ns a socket", 1000.0, flows::poll)),
    of_flows(lower("poll-100k", "ns a socket", 1500.0, flows::poll_many)),
    of_flows(lower("flow-memory", "bytes a socket", 400.0, flows::kernel_memory)),
    of_flows(lower("rss-flows", "MB", 100.0, flows::resident)),
];

/// What every row works with.
struct Bench {
    haechi: PathBuf,
    xtask: Option<PathBuf>,
    place: Place,
    btf: Btf,
    gate: Gate,
    guest: OnceCell<Result<Guest, String>>,
    rounds: usize,
    quick: bool,
}

impl Bench {
    fn open(options: &Options) -> Result<Self> {
        ensure!(options.haechi.exists(), "{} is not there: cargo xtask build --release", options.haechi.display());
        let types = std::fs::read("/sys/kernel/btf/vmlinux")?;
        Ok(Self {
            haechi: options.haechi.clone(),
            xtask: options.xtask.clone(),
            place: Place::make()?,
            btf: Btf::parse(&types)?,
            gate: Gate::new(options.quick),
            guest: OnceCell::new(),
            rounds: options.rounds,
            quick: options.quick,
        })
    }
}

/// Runs what the command line asks for.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let done = Options::parse(args).and_then(|mode| match mode {
        Mode::Load(words) => load::serve(&words).map(|()| ExitCode::SUCCESS),
        Mode::Guest(options) => guest::inside(&mut Bench::open(&options)?).map(|()| ExitCode::SUCCESS),
        Mode::List => {
            ROWS.iter().for_each(|def| println!("{}", def.id));
            Ok(ExitCode::SUCCESS)
        }
        Mode::Rows(options) => crate::sys::close_inherited().map_err(Into::into).and_then(|()| rows(&options)),
    });
    done.unwrap_or_else(|error| {
        eprintln!("haechi-bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn rows(options: &Options) -> Result<ExitCode> {
    for id in &options.only {
        let names = || ROWS.iter().map(|d| d.id).collect::<Vec<_>>().join(", ");
        ensure!(ROWS.iter().any(|d| d.named(id)), "no row `{id}`; there are {EVENTS}, {FLOWS}; {}", names());
    }
    let bench = Bench::open(options)?;
    eprintln!("{}", facts::machine());
    let mut failed = false;
    let mut rows = Vec::new();
    for def in ROWS.iter().filter(|d| options.only.is_empty() || options.only.iter().any(|id| d.named(id))) {
        eprintln!("haechi-bench: {} ..", def.id);
        bench.gate.refill();
        let row = match (def.run)(&bench) {
            Ok(measured) => Row::of(def.id, def.unit, def.goal, def.better, measured),
            Err(error) => {
                failed = true;
                Row::missing(def.id, def.unit, def.goal, def.better, &format!("could not be measured: {error:#}"))
            }
        };
        if options.json {
            println!("{}", row.json());
        }
        rows.push(row);
    }
    if !options.json {
        print!("{}", report::table(&rows));
    }
    Ok(ExitCode::from(u8::from(failed)))
}

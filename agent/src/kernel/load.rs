//! Opening the kernel: type information, object, maps, programs; then keeping it in step with what is wanted.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use aya::maps::{MapData, PerCpuArray};
use aya::programs::Program;
use aya::{Btf as AyaBtf, Ebpf, EbpfLoader, include_bytes_aligned};
use haechi_ebpf::event::{EVENTS, EventId, MAX_EVENTS, Ring as RingKind};
use haechi_ebpf::fact::{self, FACTS};
use haechi_ebpf::loss::{Loss, column};
use haechi_ebpf::program::{Step, owner, plans};
use haechi_ebpf::wire::{ARGUMENTS_MAX, SCRATCH_PER_CPU};
use haechi_signatures::demand::Demand;

use super::filters::{Compiled, STATE, compile};
use super::log::ToTracing;
use super::maps::{Filters, take};
use super::parking::Parking;
use super::plan::{Choice, choose};
use super::programs::{Programs, Types};
use super::ring::Ring;
use super::sys::{ProgramFacts, program_facts};
use super::{Drain, Poller, flows, seed};
use crate::batch::Batch;
use crate::loss::Ledger;

/// The kernel object; empty when it was not built.
static OBJECT: &[u8] = include_bytes_aligned!(env!("HAECHI_KERNEL_OBJECT"));

/// Where the kernel shows its type information.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// How to open the kernel.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is wanted of the kernel.
    pub demands: Vec<Demand>,
    /// Bytes of the ring for records that the agent's own knowledge rests on; a power of two.
    pub critical_ring_bytes: u32,
    /// Bytes of the ring for all others; a power of two.
    pub bulk_ring_bytes: u32,
    /// Bytes of the ring for connections; a power of two.
    pub flow_ring_bytes: u32,
    /// Bytes of environment copied at exec; 0 for none.
    pub env_bytes: u32,
    /// Print what the kernel programs log.
    pub debug_log: bool,
    /// Steps that must not be used: for tests, and for hosts where one is known to harm.
    pub without: Vec<Step>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            demands: Vec::new(),
            critical_ring_bytes: 2 << 20,
            bulk_ring_bytes: 4 << 20,
            flow_ring_bytes: 8 << 20,
            env_bytes: 0x2000,
            debug_log: false,
            without: Vec::new(),
        }
    }
}

/// Why the kernel could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent was built without the kernel programs.
    #[error("this binary holds no kernel programs: build it with `cargo xtask build`")]
    NoObject,
    /// No type information.
    #[error("cannot read {VMLINUX}: {0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y and /sys be mounted")]
    NoTypes(io::Error),
    /// Type information that cannot be understood.
    #[error("cannot use {VMLINUX}: {0}")]
    BadTypes(String),
    /// Not allowed to use BPF.
    #[error(
        "the kernel does not let this process use BPF ({0}): run as root, or with CAP_BPF, CAP_PERFMON and \
         CAP_SYS_PTRACE (CAP_SYS_ADMIN before Linux 5.8); a container also needs them allowed by its seccomp profile"
    )]
    NotAllowed(String),
    /// The object could not be loaded.
    #[error("cannot load the kernel programs: {0}")]
    Load(String),
    /// A map is not what it must be, or refuses an entry.
    #[error("map {name}: {reason}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Nothing at all could be attached.
    #[error("no program could be attached; the first refusal: {0}")]
    Nothing(String),
    /// The process iterator failed.
    #[error("cannot list the processes: {0}")]
    Seed(String),
}

/// An open kernel: programs attached, maps filled. Dropping it detaches everything.
pub struct Kernel {
    object: Ebpf,
    programs: Programs,
    filters: Filters,
    counters: PerCpuArray<MapData, u64>,
    choices: Vec<Choice>,
    drain: Option<Drain>,
    poller: Option<Arc<Poller>>,
    survey: flows::Survey,
    without: Vec<Step>,
    /// Misses of programs that were detached since.
    missed_before: Vec<u64>,
    logger: Option<aya_log::EbpfLogger<ToTracing>>,
}

impl Kernel {
    /// Loads and attaches what `config` demands.
    ///
    /// # Errors
    /// When nothing useful can be attached; a refused hook alone is no error.
    pub fn open(config: &Config) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::NoObject);
        }
        let types = Types::read()?;
        let mut facts = types.own.facts();
        for (fact, value) in FACTS.iter().zip(&facts).filter(|(_, v)| **v == u32::MAX) {
            tracing::debug!(fact = fact.name, value, "absent in this kernel");
        }
        facts.resize(haechi_ebpf::fact::MAX_FACTS, u32::MAX);
        let mut object = load_object(&types.aya, &facts, config)?;
        let logger = if config.debug_log { start_logger(&mut object) } else { None };
        let parking = Parking::of(
            take(&mut object, "PARKED")?,
            [ring_map(&object, "CRITICAL")?, ring_map(&object, "BULK")?, ring_map(&object, "FLOWS")?],
        )?;
        let drain = Drain {
            parking,
            critical: map_ring(&object, "CRITICAL", config.critical_ring_bytes)?,
            bulk: map_ring(&object, "BULK", config.bulk_ring_bytes)?,
            flows: map_ring(&object, "FLOWS", config.flow_ring_bytes)?,
        };
        let mut kernel = Self {
            filters: Filters::take(&mut object)?,
            counters: take(&mut object, "COUNTERS")?,
            drain: Some(drain),
            poller: None,
            survey: Arc::new(Mutex::new(take(&mut object, "SURVEY")?)),
            programs: Programs::new(types, facts),
            object,
            choices: Vec::new(),
            without: config.without.clone(),
            missed_before: vec![0; MAX_EVENTS],
            logger,
        };
        kernel.set_demands(&config.demands)?;
        match kernel.choices.iter().find(|c| c.step.is_some()) {
            Some(_) => Ok(kernel),
            None => {
                let first = kernel.choices.iter().flat_map(|c| &c.refused).next();
                Err(Error::Nothing(first.map_or_else(String::new, |r| format!("{}: {}", r.program, r.reason))))
            }
        }
    }

    /// How each demanded event is produced.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Names of the programs that are attached.
    #[must_use]
    pub fn attached(&self) -> Vec<&'static str> {
        // What runs once and is done hangs nowhere.
        self.programs.attached().filter(|p| !flows::adopts(p)).collect()
    }

    /// Changes what is wanted. Hooks that are newly needed are attached first, then all filters change at one instant,
    /// then hooks that nobody needs any more are detached. What stays is not touched.
    ///
    /// # Errors
    /// When a filter map refuses an entry; the filters in force stay.
    pub fn set_demands(&mut self, demands: &[Demand]) -> Result<(), Error> {
        let mut events: BTreeSet<EventId> = STATE.into_iter().collect();
        events.extend(demands.iter().map(|d| d.event).filter(|id| !plans(*id).is_empty()));
        let dear = |id: &EventId| STATE.contains(id) || demands.iter().any(|d| d.event == *id && !d.if_cheap);
        let (first, then): (Vec<_>, Vec<_>) = events.into_iter().partition(dear);
        let mut choices: Vec<Choice> = Vec::new();
        for (events, cheap) in [(first, false), (then, true)] {
            // What is there anyway costs no more.
            let cheap = cheap && !choices.iter().any(|c| c.step_kind == Some(Step::RawSyscall));
            for id in events {
                choices.push(choose(id, &self.without, cheap, |p| self.programs.attach(&mut self.object, p)));
            }
        }
        choices.sort_by_key(|c| c.id);
        let step = |id| choices.iter().find(|c| c.id == id).and_then(|c| c.step_kind);
        self.filters.apply(compile(demands, step))?;
        let needed: BTreeSet<_> = choices.iter().flat_map(|c| &c.programs).copied().collect();
        let idle: Vec<_> = self.programs.attached().filter(|p| !needed.contains(p) && *p != ITERATOR).collect();
        for program in idle {
            if let Some(event) = owner(program) {
                self.missed_before[event as usize] += self.facts_of(program).map_or(0, |f| f.misses);
            }
            self.programs.detach(&mut self.object, program);
            if flows::polls(program).is_some() {
                self.poller = None;
            }
        }
        self.choices = choices;
        self.programs.rest();
        Ok(())
    }

    /// From now on nothing at all is sent; what is attached stays so until this is dropped.
    ///
    /// # Errors
    /// When a filter map refuses to be emptied.
    pub fn hush(&mut self) -> Result<(), Error> {
        self.filters.apply(Compiled::default())
    }

    /// One `existing_process` record for every process there is, parents before children.
    ///
    /// # Errors
    /// When the iterator cannot be loaded or read.
    pub fn seed(&mut self) -> Result<Batch, Error> {
        let fault = |e: &dyn std::fmt::Display| Error::Seed(e.to_string());
        self.programs.attach(&mut self.object, ITERATOR).map_err(|refusal| Error::Seed(refusal.reason))?;
        self.programs.rest();
        seed::read(self.iterate(ITERATOR)?).map_err(|e| fault(&e))
    }

    /// Opens a loaded iterator.
    fn iterate(&mut self, name: &'static str) -> Result<std::fs::File, Error> {
        let fault = |e: &dyn std::fmt::Display| Error::Seed(e.to_string());
        let Some(Program::Iter(iterator)) = self.object.program_mut(name) else {
            return Err(Error::Seed(format!("{name} is not in the kernel object")));
        };
        let link = iterator.attach().map_err(|e| fault(&e))?;
        iterator.take_link(link).map_err(|e| fault(&e))?.into_file().map_err(|e| fault(&e))
    }

    /// Takes in the sockets that are open already. To be called once flows are watched: what opens in between is seen
    /// both ways, which does no harm.
    ///
    /// # Errors
    /// When the iterator cannot be read. Where the kernel has none, nothing is done: the plan says so.
    pub fn adopt_sockets(&mut self) -> Result<(), Error> {
        let Some(program) = self.programs.attached().find(|p| flows::adopts(p)) else { return Ok(()) };
        let file = self.iterate(program)?;
        flows::exhaust(file).map(drop).map_err(|e| Error::Seed(e.to_string()))
    }

    /// Who can look at all sockets at any time, as long as the same programs are attached; `None` where flows are not
    /// watched.
    pub fn poller(&mut self) -> Option<Arc<Poller>> {
        let (program, map) = self.programs.attached().find_map(|p| Some((p, flows::polls(p)?)))?;
        if self.poller.is_none() {
            let poller = Poller::of(&self.object, program, map, self.survey.clone());
            self.poller =
                poller.map_err(|error| tracing::warn!(%error, "connections cannot be polled")).ok().map(Arc::new);
        }
        self.poller.clone()
    }

    /// The reading end of the rings. Can be taken once; it may live in another thread.
    pub fn take_drain(&mut self) -> Option<Drain> {
        self.drain.take()
    }

    /// Brings the kernel's counters up to date in `ledger`.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn read_losses(&mut self, ledger: &mut Ledger) -> Result<(), Error> {
        let missed = self.missed();
        for event in EVENTS.iter().filter(|e| e.ring != RingKind::None) {
            let cell = |column: usize| -> Result<u64, Error> {
                let index = (event.id as usize * column::COUNT + column) as u32;
                let values = self.counters.get(&index, 0);
                let values = values.map_err(|e| Error::Map { name: "COUNTERS", reason: e.to_string() })?;
                Ok(values.iter().sum())
            };
            ledger.set_tried(event.id, cell(column::TRIED)? + missed[event.id as usize]);
            for cause in &Loss::ALL[..Loss::KERNEL] {
                ledger.set_lost(event.id, *cause, cell(column::LOSS + *cause as usize)?);
            }
            ledger.set_lost(event.id, Loss::Missed, missed[event.id as usize]);
        }
        Ok(())
    }

    /// Runs that the kernel skipped, by the event that owns the program.
    fn missed(&self) -> Vec<u64> {
        let mut out = self.missed_before.clone();
        for program in self.programs.attached() {
            if let Some(event) = owner(program) {
                out[event as usize] += self.facts_of(program).map_or(0, |f| f.misses);
            }
        }
        out
    }

    fn facts_of(&self, program: &str) -> Option<ProgramFacts> {
        let fd = self.object.program(program)?.fd().ok()?;
        program_facts(fd).ok()
    }

    /// What the kernel tells of each attached program.
    #[must_use]
    pub fn program_facts(&self) -> Vec<(&'static str, ProgramFacts)> {
        self.programs.attached().filter_map(|p| Some((p, self.facts_of(p)?))).collect()
    }

    /// Passes on what the kernel programs logged since, where that was asked for.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// The number of this process as the programs see it; 0, which is nobody, where it has another one in its own pid
/// namespace.
fn own_process() -> u32 {
    /// `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
    const HOST: &str = "pid:[4026531836]";
    match std::fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) if namespace.as_os_str() == HOST => std::process::id(),
        _ => 0,
    }
}

/// Sockets and listeners known at a time by kernels that keep nothing beside a socket (before 5.11).
const CONNECTIONS: u32 = 1 << 17;
const LISTENERS: u32 = 1 << 14;

/// The program behind [`Kernel::seed`].
const ITERATOR: &str = "tasks";

fn load_object(btf: &AyaBtf, facts: &[u32], config: &Config) -> Result<Ebpf, Error> {
    let cpus = aya::util::nr_cpus().map_err(|(path, e)| Error::Load(format!("{path}: {e}")))? as u32;
    let level: u8 = if config.debug_log { u8::MAX } else { 0 };
    let (own, env) = (own_process(), config.env_bytes.min(ARGUMENTS_MAX));
    let by_address = facts[fact::HELPER_SOCK_FROM_FILE.0 as usize] == fact::ABSENT;
    let key = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    EbpfLoader::new()
        .btf(Some(btf))
        .override_global("FACTS", facts, true)
        .override_global("OWN_TGID", &own, true)
        .override_global("ENV_MAX", &env, true)
        .override_global("FLOW_RING", &config.flow_ring_bytes, true)
        .override_global("ADDRESS_KEY", &key, true)
        .override_global(aya_log::LEVEL, &level, true)
        // A ring must be there; one that nobody writes to need not be large.
        .map_max_entries("AYA_LOGS", if config.debug_log { 1 << 20 } else { 1 << 12 })
        .map_max_entries("CRITICAL", config.critical_ring_bytes)
        .map_max_entries("BULK", config.bulk_ring_bytes)
        .map_max_entries("FLOWS", config.flow_ring_bytes)
        .map_max_entries("CONNECTIONS", if by_address { CONNECTIONS } else { 1 })
        .map_max_entries("LISTENERS", if by_address { LISTENERS } else { 1 })
        .map_max_entries("SCRATCH", cpus * SCRATCH_PER_CPU)
        .map_max_entries("SCRATCH_USERS", cpus * SCRATCH_PER_CPU)
        .load(OBJECT)
        .map_err(|error| {
            let text = causes(&error);
            if text.contains("Operation not permitted") { Error::NotAllowed(text) } else { Error::Load(text) }
        })
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn ring_map<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a MapData, Error> {
    let map = object.map(name).ok_or(Error::Map { name, reason: "not in the kernel object".into() })?;
    match map {
        aya::maps::Map::RingBuf(data) => Ok(data),
        _ => Err(Error::Map { name, reason: "is no ring buffer".into() }),
    }
}

fn map_ring(object: &Ebpf, name: &'static str, size: u32) -> Result<Ring, Error> {
    Ring::map(ring_map(object, name)?.fd(), size).map_err(|e| Error::Map { name, reason: e.to_string() })
}

fn start_logger(object: &mut Ebpf) -> Option<aya_log::EbpfLogger<ToTracing>> {
    match aya_log::EbpfLogger::init_with_logger(object, ToTracing) {
        Ok(logger) => Some(logger),
        Err(error) => {
            tracing::warn!(%error, "no log from the kernel programs");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_carries_types_and_no_debug_sections() {
        if OBJECT.is_empty() {
            println!("skipped: the kernel programs were not built");
            return;
        }
        let has = |section: &[u8]| OBJECT.windows(section.len()).any(|w| w == section);
        assert!(has(b".BTF\0") && has(b".BTF.ext\0"));
        if std::process::Command::new("llvm-objcopy").arg("--version").output().is_err() {
            println!("skipped: no llvm-objcopy to take the debug sections out");
            return;
        }
        assert!(!has(b".debug_info\0"), "{} bytes", OBJECT.len());
    }
}

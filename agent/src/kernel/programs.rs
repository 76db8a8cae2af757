//! One program at a time: load it, attach it, say why not. What a program is for is decided in [`super::plan`].

use std::collections::BTreeMap;

use aya::maps::ProgramArray;
use aya::programs::{Program, ProgramError};
use aya::{Btf as AyaBtf, Ebpf};
use haechi_ebpf::fact::{ABSENT, FACTS};
use haechi_ebpf::program::{Hook, PROGRAMS, ProgramDef, by_name, owner};

use super::btf::Btf;
use super::load::{Error, VMLINUX};

/// Why a program cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What the kernel said, or lacks.
    pub(super) reason: String,
    /// What would help.
    pub(super) remedy: &'static str,
}

/// The kernel's type information, as we read it and as aya does. Dozens of megabytes, needed only while programs are
/// being loaded.
pub(super) struct Types {
    pub(super) own: Btf,
    pub(super) aya: AyaBtf,
}

impl Types {
    pub(super) fn read() -> Result<Self, Error> {
        let bytes = std::fs::read(VMLINUX).map_err(Error::NoTypes)?;
        let own = Btf::parse(&bytes).map_err(|e| Error::BadTypes(e.to_string()))?;
        let aya = AyaBtf::from_sys_fs().map_err(|e| Error::BadTypes(e.to_string()))?;
        Ok(Self { own, aya })
    }
}

/// What has been tried.
pub(super) struct Programs {
    types: Option<Types>,
    facts: Vec<u32>,
    tried: BTreeMap<&'static str, Result<(), Refusal>>,
}

const NEWER: &str = "a newer kernel";
const LSM: &str = "boot with `bpf` in the lsm= list (cat /sys/kernel/security/lsm)";
const FUNCTION: &str = "none: this kernel was built without it, or the compiler inlined it";
const PERMISSION: &str = "root or CAP_BPF and CAP_PERFMON; no lockdown; on kernels before 5.8 CAP_SYS_ADMIN";
const CONFIG: &str = "a kernel built with CONFIG_KPROBES, CONFIG_FUNCTION_TRACER and CONFIG_BPF_EVENTS";

impl Programs {
    pub(super) fn new(types: Types, facts: Vec<u32>) -> Self {
        Self { types: Some(types), facts, tried: BTreeMap::new() }
    }

    /// Gives the memory of the type information back until it is needed again.
    pub(super) fn rest(&mut self) {
        self.types = None;
        super::sys::trim();
    }

    /// Makes sure that a program is attached. A refusal is remembered.
    pub(super) fn attach(&mut self, object: &mut Ebpf, name: &'static str) -> Result<(), Refusal> {
        if let Some(known) = self.tried.get(name) {
            return known.clone();
        }
        let result = match PROGRAMS.iter().find(|p| p.name == name) {
            Some(def) => self.try_attach(object, def),
            None => Err(Refusal { reason: format!("there is no program {name}"), remedy: "" }),
        };
        self.tried.insert(name, result.clone());
        result
    }

    /// Detaches a program and unloads it.
    pub(super) fn detach(&mut self, object: &mut Ebpf, name: &'static str) {
        if self.tried.get(name) == Some(&Ok(())) {
            self.tried.remove(name);
            let def = by_name(name).filter(|d| d.hook == Hook::SysExit);
            let kept = def.map(|d| take_back(object, d));
            let unloaded = object.program_mut(name).map(unload);
            if let Some(error) = kept.into_iter().chain(unloaded).find_map(Result::err) {
                tracing::warn!(program = name, %error, "cannot unload");
            }
        }
    }

    /// Programs that are attached.
    pub(super) fn attached(&self) -> impl Iterator<Item = &'static str> {
        self.tried.iter().filter(|(_, r)| r.is_ok()).map(|(name, _)| *name)
    }

    fn try_attach(&mut self, object: &mut Ebpf, def: &ProgramDef) -> Result<(), Refusal> {
        if let Some(missing) = def.needs.iter().find(|f| self.facts.get(f.0 as usize) == Some(&ABSENT)) {
            let reason = format!("this kernel has no {}", FACTS[missing.0 as usize].name);
            return Err(Refusal { reason, remedy: NEWER });
        }
        let types = match self.types.take().map_or_else(Types::read, Ok) {
            Ok(types) => self.types.insert(types),
            Err(error) => return Err(Refusal { reason: error.to_string(), remedy: "" }),
        };
        let targets = targets(def.hook, &types.own)?;
        let program = object
            .program_mut(def.name)
            .ok_or_else(|| Refusal { reason: "not in the kernel object".into(), remedy: "cargo xtask build" })?;
        let attached = attach(program, def.hook, &targets, &types.aya);
        let attached = attached.and_then(|()| if def.hook == Hook::SysExit { hand_over(object, def) } else { Ok(()) });
        let program = object.program_mut(def.name);
        attached.map_err(|error| {
            tracing::debug!(program = def.name, %error, "refused");
            let _ = program.map(unload);
            Refusal { reason: short(&error), remedy: remedy(def.hook, &error) }
        })
    }
}

/// Whether BPF is among the security modules that are asked; where that cannot be seen, it may be.
fn lsm_is_on() -> bool {
    let list = std::fs::read_to_string("/sys/kernel/security/lsm");
    list.map_or(true, |list| list.trim().split(',').any(|module| module == "bpf"))
}

/// Where `sys_exit` finds the programs that it hands over to.
const AT_EXIT: &str = "AT_EXIT";

fn slot(def: &ProgramDef) -> u32 {
    owner(def.name).map_or(0, u32::from)
}

/// Enters a loaded program where `sys_exit` looks for it.
fn hand_over(object: &mut Ebpf, def: &ProgramDef) -> Result<(), ProgramError> {
    let fd = match object.program(def.name) {
        Some(program) => program.fd()?.try_clone()?,
        None => return Err(ProgramError::NotLoaded),
    };
    match object.map_mut(AT_EXIT) {
        Some(map) => Ok(ProgramArray::try_from(map)?.set(slot(def), &fd, 0)?),
        None => Err(ProgramError::NotLoaded),
    }
}

fn take_back(object: &mut Ebpf, def: &ProgramDef) -> Result<(), ProgramError> {
    match object.map_mut(AT_EXIT) {
        Some(map) => Ok(ProgramArray::try_from(map)?.clear_index(&slot(def))?),
        None => Ok(()),
    }
}

/// Where the kernel says that breakpoints can be set. Looked at before a program is verified, which is dear and in vain.
const BREAKPOINTS: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Functions of a hook that this kernel has; an error when it has none.
fn targets(hook: Hook, types: &Btf) -> Result<Vec<&'static str>, Refusal> {
    if matches!(hook, Hook::Kprobe(_) | Hook::Kretprobe(_)) {
        let there = std::fs::metadata(BREAKPOINTS);
        there.map_err(|error| Refusal { reason: format!("`{BREAKPOINTS}`: {error}"), remedy: CONFIG })?;
    }
    let have = |names: &[&'static str]| names.iter().copied().filter(|n| types.has_function(n)).collect();
    let (found, wanted): (Vec<_>, String) = match hook {
        Hook::Fexit(names) | Hook::Kprobe(names) | Hook::Kretprobe(names) => (have(names), names.join(" or ")),
        Hook::TpBtf(name) if !types.has_tracepoint(name) => (Vec::new(), format!("tracepoint {name}")),
        Hook::Lsm(name) if !types.has_function(&format!("bpf_lsm_{name}")) => (Vec::new(), format!("bpf_lsm_{name}")),
        // Such a program loads and attaches nevertheless, and is then never called.
        Hook::Lsm(_) if !lsm_is_on() => {
            return Err(Refusal { reason: "the kernel does not ask BPF programs".into(), remedy: LSM });
        }
        _ => return Ok(Vec::new()),
    };
    if found.is_empty() {
        return Err(Refusal { reason: format!("this kernel has no {wanted}"), remedy: FUNCTION });
    }
    Ok(found)
}

fn attach(program: &mut Program, hook: Hook, targets: &[&'static str], btf: &AyaBtf) -> Result<(), ProgramError> {
    match (program, hook) {
        (Program::BtfTracePoint(p), Hook::SysExit) => p.load("sys_exit", btf),
        (Program::BtfTracePoint(p), Hook::TpBtf(name)) => {
            p.load(name, btf)?;
            p.attach().map(drop)
        }
        (Program::FExit(p), Hook::Fexit(_)) => {
            p.load(targets[0], btf)?;
            p.attach().map(drop)
        }
        (Program::Lsm(p), Hook::Lsm(name)) => {
            p.load(name, btf)?;
            p.attach().map(drop)
        }
        (Program::KProbe(p), Hook::Kprobe(_)) => {
            p.load()?;
            p.attach(targets[0], 0).map(drop)
        }
        (Program::KProbe(p), Hook::Kretprobe(_)) => {
            p.load()?;
            targets.iter().try_for_each(|target| p.attach(target, 0).map(drop))
        }
        (Program::TracePoint(p), Hook::Tracepoint(category, name)) => {
            p.load()?;
            p.attach(category, name).map(drop)
        }
        (Program::Iter(p), Hook::Iter(name)) => p.load(name, btf),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Lines with which the verifier ends its log whatever happened.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// The last thing the kernel said, without pages of verifier log.
fn short(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|l| !l.trim().is_empty() && !STATISTICS.iter().any(|s| l.starts_with(s)));
            match last {
                Some(last) => format!("load: {io_error}: {}", last.trim()),
                None => format!("load: {io_error}"),
            }
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            text
        }
    }
}

fn remedy(hook: Hook, error: &ProgramError) -> &'static str {
    match (hook, error) {
        (_, ProgramError::LoadError { io_error, .. }) if io_error.kind() == std::io::ErrorKind::PermissionDenied => {
            PERMISSION
        }
        (Hook::Lsm(_), _) => LSM,
        (Hook::Kprobe(_) | Hook::Kretprobe(_) | Hook::Fexit(_) | Hook::Tracepoint(..), _) => CONFIG,
        _ => NEWER,
    }
}

/// Detaches and unloads a program that may not even be loaded.
fn unload(program: &mut Program) -> Result<(), ProgramError> {
    if program.fd().is_err() {
        return Ok(());
    }
    match program {
        Program::BtfTracePoint(p) => p.unload(),
        Program::FExit(p) => p.unload(),
        Program::Lsm(p) => p.unload(),
        Program::KProbe(p) => p.unload(),
        Program::TracePoint(p) => p.unload(),
        Program::Iter(p) => p.unload(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

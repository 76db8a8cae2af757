//! One thing done, and what the agent must say of it, whichever kind of hook sees it: by the best one of the machine, and
//! by each of the others that it allows.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::event::{EventDef, security_bpf, switch_task_ns};
use haechi_ebpf::program::plans;
use serde_json::Value;

use crate::harness::{Context, Did, Line, Skip, Spec, Stopped, Test, Want, fields, who};

pub(super) const TESTS: &[Test] = &[("deed::by_each_hook", by_each_hook)];

/// What the fields must be.
pub(super) type Wants = Result<Vec<(&'static str, Want)>>;

/// Something that an actor does.
pub(super) struct Deed {
    /// The event that it is.
    pub event: &'static EventDef,
    /// Has it done.
    pub act: fn(&Context) -> Result<Did>,
    /// What each field must be, where a hook sees the kernel's own objects.
    pub want: fn(&Did) -> Wants,
    /// Where only the system call is seen: fields that are missing.
    pub resolved: &'static [&'static str],
    /// There as well: fields that are the program's word, and must say so.
    pub given: &'static [&'static str],
    /// Whether it is done in the 32-bit ABI.
    pub compat: bool,
}

/// The kind of hook that sees nothing but the system call.
pub(super) const RAW: &str = "raw-syscall";

/// Has it done under the best hook that the machine has.
pub(super) fn done(context: &Context, deed: &Deed) -> Result<()> {
    let (stopped, did) = context.watch(&["--events", deed.event.name], || (deed.act)(context))?;
    let kind = context.machine.step(deed.event.name).context("the machine has no such event")?;
    check(line(&stopped, deed, &did)?, deed, &did, kind)
}

/// The event that it is. What was done to prepare it may be one too: where the doer says by which field the one that
/// counts is known (`only`), it is the one that has this value there.
fn line<'a>(stopped: &'a Stopped, deed: &Deed, did: &Did) -> Result<&'a Line> {
    let only: Option<(String, Value)> = did.part("/only").ok();
    stopped.one(deed.event.name, did.me.pid, |l| only.as_ref().is_none_or(|(field, v)| l.data(field) == *v))
}

/// One deed of each event.
fn deeds() -> impl Iterator<Item = &'static Deed> {
    [super::change::DEEDS, super::mount::DEEDS, super::endpoint::DEEDS, super::reach::DEEDS].into_iter().flatten()
}

/// Has each done under each other kind of hook; one agent for each kind.
fn by_each_hook(context: &Context) -> Result<()> {
    let deeds: Vec<&Deed> = deeds().collect();
    if deeds.iter().all(|d| context.machine.step(d.event.name) == Some(RAW)) {
        return Err(Skip::because("this machine has no other hooks"));
    }
    let lsm = fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|l| l.trim().split(',').any(|m| m == "bpf"));
    // An agent takes long to start under emulation: what one machine cannot have, the other need not try, and what is handed
    // over by sys_exit is seen in full where nothing else is.
    let kinds: &[(&str, &str, usize)] = if lsm {
        &[("lsm", "fexit", 1)]
    } else {
        &[("kprobe", "fexit, fexit-syscall", 1), (RAW, "fexit, fexit-syscall, kprobe", 4)]
    };
    for (kind, without, each) in kinds {
        let has = |d: &&&Deed| plans(d.event.id).iter().any(|p| p.step.name() == *kind);
        let deeds: Vec<&Deed> = deeds.iter().filter(has).step_by(*each).copied().collect();
        let names: Vec<_> = deeds.iter().map(|d| d.event.name).collect();
        let config = format!("kernel:\n  without: [{without}]\n");
        let spec = Spec::run(&["--events", &names.join(","), "--no-default-rules"]).config(config);
        let act = || deeds.iter().map(|d| (d.act)(context)).collect::<Result<Vec<_>>>();
        let (stopped, dids) = context.watch_with(&spec, act)?;
        for (deed, did) in deeds.iter().zip(&dids) {
            check(line(&stopped, deed, did)?, deed, did, kind).with_context(|| format!("by {kind}"))?;
        }
    }
    Ok(())
}

fn check(line: &Line, deed: &Deed, did: &Did, kind: &str) -> Result<()> {
    ensure!(line.at("/hook") == kind, "seen by {}, not {kind}: {}", line.at("/hook"), line.0);
    who(line, &did.me)?;
    let mut want = (deed.want)(did)?;
    if kind == RAW {
        want.iter_mut().filter(|w| deed.resolved.contains(&w.0)).for_each(|w| w.1 = Want::Absent);
    }
    fields(line, deed.event, &want)?;
    for (field, _) in &want {
        let marked = kind == RAW && deed.given.contains(field);
        ensure!(line.from_user(field) == marked, "{field}: the program's word: {}, not {marked}: {}", !marked, line.0);
    }
    let ret = match kind {
        // Kernels differ in where the verdict of one stands, and the other has none.
        "fexit" if [security_bpf::ID, switch_task_ns::ID].contains(&deed.event.id) => None,
        "fexit" => Some(0),
        RAW | "fexit-syscall" => Some(did.number("/ret")?),
        "kprobe" if !deed.event.tags.contains(&"lsm_hooks") && line.ret().is_some() => Some(did.number("/ret")?),
        _ => None,
    };
    ensure!(line.ret() == ret, "returned {:?}, not {ret:?}: {}", line.ret(), line.0);
    ensure!(line.compat() == deed.compat, "compat is {}: {}", line.compat(), line.0);
    Ok(())
}

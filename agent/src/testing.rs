//! What tests of several stages share: records as the kernel writes them, and a start to build the core from.

use haechi_ebpf::event::{sched_process_exec as exec, sched_process_fork as fork, security_file_open as open};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{at, flag};
use haechi_signatures::flat::Host;
use haechi_signatures::record::Builder;
use haechi_signatures::sources::{Source, Sources};

use crate::batch::Batch;
use crate::config::Config;
use crate::core::Start;

/// Nanoseconds since the epoch at which the host of the tests booted: 2026-11-24T09:00:00Z.
pub(crate) const BOOT: u64 = 1_795_510_800_000_000_000;

/// A process of the tests: number, start, and which program of it.
#[derive(Clone, Copy)]
pub(crate) struct Who(pub(crate) u32, pub(crate) u64, pub(crate) u32);

pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Start {
    let mut config = Config { executable_hash: false, ..Config::default() };
    change(&mut config);
    Start {
        host: Host { name: "node-1".into(), boot: BOOT },
        time: 0,
        options: config.options(),
        sources: Sources::default(),
    }
}

/// A rule that fires when `path` is opened.
pub(crate) fn rule(name: &str, path: &str) -> Source {
    let text = format!(
        "package tracee.{name}\n\
         __rego_metadoc__ := {{\"id\": \"TST-7\", \"version\": \"1\", \"name\": \"{name}\", \"eventName\": \"{name}\",\n\
         \"description\": \"a file was opened\", \"properties\": {{\"Severity\": 2}}}}\n\
         tracee_selected_events[e] {{ e := {{\"source\": \"tracee\", \"name\": \"security_file_open\"}} }}\n\
         tracee_match {{ a := input.args[_]; a.name == \"pathname\"; a.value == \"{path}\" }}\n"
    );
    Source { file: format!("{name}.rego"), text }
}

pub(crate) fn batch(records: impl IntoIterator<Item = Vec<u8>>) -> Batch {
    let mut batch = Batch::default();
    for (i, record) in records.into_iter().enumerate() {
        batch.push(i as u64, &record);
    }
    batch
}

/// A record of `who`, whose comm is `comm`.
pub(crate) fn of(def: &'static haechi_ebpf::event::EventDef, time: u64, who: Who, comm: &str) -> Builder {
    Builder::new(def).time(time).process(who.0, who.1, who.2).header_u32(at::UID, 1000).comm(comm)
}

pub(crate) fn opened(time: u64, who: Who, path: &str) -> Vec<u8> {
    let hook = (Step::Fexit as u16) << flag::STEP_SHIFT;
    let record = of(&open::DEF, time, who, "reader").flags(hook).text(open::field::pathname, path);
    record.number(open::field::flags, 0).ret(0).finish()
}

pub(crate) fn executed(time: u64, who: Who, parent: u32, path: &str) -> Vec<u8> {
    let comm = path.rsplit('/').next().unwrap_or_default();
    of(&exec::DEF, time, who, comm)
        .header_u32(at::PPID, parent)
        .text(exec::field::pathname, path)
        .number(exec::field::inode, 77)
        .number(exec::field::dev, 8)
        .number(exec::field::ctime, 99)
        .strings(exec::field::argv, [path, "-x"])
        .text(exec::field::pwd, "/root")
        .number(exec::field::euid, 0)
        .finish()
}

pub(crate) fn forked(time: u64, parent: Who, child: Who) -> Vec<u8> {
    of(&fork::DEF, time, parent, "sh")
        .number(fork::field::parent_pid, parent.0.into())
        .number(fork::field::parent_start_time, parent.1)
        .number(fork::field::child_tid, child.0.into())
        .number(fork::field::child_pid, child.0.into())
        .number(fork::field::child_ns_pid, child.0.into())
        .number(fork::field::leader_start_time, child.1)
        .number(fork::field::child_exec_id, child.2.into())
        .finish()
}

//! Demands into kernel filters: assigns sets, fills the idle generation, flips it.
//!
//! Compiling is a pure step ([`compile`]) so that it can be tested without a kernel; [`Filters::apply`] writes the
//! result. See `haechi_ebpf::filter` for the layout.

use std::collections::BTreeMap;

use haechi_ebpf::event::{self, EventId, MAX_EVENTS, sched_process_exit, sched_process_fork, syscall};
use haechi_ebpf::filter::{Action, ENTRIES, LEAF_KEY, LEAF_NAME, PREFIX_DATA, SETS, SUFFIX_DATA, has, word};
use haechi_ebpf::program::Step;
use haechi_ebpf::syscall::{Abi, REPORTED_AT_ENTER, SyscallDef, USES, by_name};
use haechi_signatures::demand::{Choice, Demand, Paths};

/// Events that keep the agent's own knowledge true; wanted always.
pub(super) const STATE: [EventId; 6] = [
    event::sched_process_fork::ID,
    event::sched_process_exec::ID,
    event::sched_process_exit::ID,
    event::cgroup_mkdir::ID,
    event::cgroup_rmdir::ID,
    event::cgroup_attach_task::ID,
];

/// An event's entry.
pub(super) type Words = [u64; word::COUNT];

/// Filters of one generation, as maps hold them but for the generation in the keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compiled {
    pub(super) events: BTreeMap<EventId, Words>,
    pub(super) uids: BTreeMap<u32, [u64; 2]>,
    pub(super) comms: BTreeMap<[u8; 16], [u64; 2]>,
    pub(super) cgroups: BTreeMap<u64, [u64; 2]>,
    pub(super) leaves: BTreeMap<Vec<u8>, u64>,
    pub(super) prefixes: BTreeMap<Vec<u8>, u64>,
    pub(super) suffixes: BTreeMap<Vec<u8>, u64>,
    pub(super) actions: BTreeMap<(bool, u16), Action>,
}

/// Turns demands into filters. `step` says how an event is produced.
pub(super) fn compile(demands: &[Demand], step: impl Fn(EventId) -> Option<Step>) -> Compiled {
    let mut out = Compiled::default();
    let mut sets = 0;
    for id in STATE {
        let threads =
            demands.iter().any(|d| d.event == id) && [sched_process_fork::ID, sched_process_exit::ID].contains(&id);
        let words = out.events.entry(id).or_default();
        any(words, 1);
        words[word::HAS] |= if threads { has::THREADS } else { 0 };
    }
    for (id, scoped) in grouped(demands) {
        // Out of sets: one that takes everything is right, only dearer.
        for demand in scoped {
            sets += 1;
            let words = out.events.entry(id).or_default();
            if sets >= SETS - 1 {
                any(words, 1 << (SETS - 1));
            } else {
                add(&mut out, id, 1 << sets, &demand);
            }
        }
    }
    widen(&mut out);
    spread_prefixes(&mut out.prefixes);
    spread_prefixes(&mut out.suffixes);
    actions(&mut out.actions, demands, step);
    out
}

/// A map that would be over its limit is left empty, and its dimension takes anything: right, only dearer.
fn widen(out: &mut Compiled) {
    let over = |len: usize| len > ENTRIES as usize;
    let mut take_any = |name: &str, index: usize| {
        tracing::warn!(map = name, limit = ENTRIES, "too many entries: the kernel does not filter by it");
        for words in out.events.values_mut() {
            words[index] |= words[word::WANTED];
        }
    };
    if over(out.leaves.len()) || over(out.prefixes.len()) || over(out.suffixes.len()) {
        take_any("paths", word::PATH_ANY);
        (out.leaves, out.prefixes, out.suffixes) = Default::default();
    }
    if over(out.uids.len()) {
        take_any("users", word::UID_ANY);
        out.uids.clear();
    }
    if over(out.comms.len()) {
        take_any("names", word::COMM_ANY);
        out.comms.clear();
    }
    if over(out.cgroups.len()) {
        take_any("cgroups", word::CGROUP_ANY);
        out.cgroups.clear();
    }
}

/// Demands by event; those without a scope of their own are made one.
fn grouped(demands: &[Demand]) -> BTreeMap<EventId, Vec<Demand>> {
    let mut out: BTreeMap<EventId, Vec<Demand>> = BTreeMap::new();
    for demand in demands.iter().filter(|d| !STATE.contains(&d.event) && (d.event as usize) < MAX_EVENTS) {
        let list = out.entry(demand.event).or_default();
        let same = list.iter_mut().find(|d| scope(d) == scope(demand));
        match same {
            Some(same) if same.paths.is_any() || demand.paths.is_any() => same.paths = Paths::default(),
            Some(same) => {
                same.paths.leaves.extend_from_slice(&demand.paths.leaves);
                same.paths.prefixes.extend_from_slice(&demand.paths.prefixes);
                same.paths.suffixes.extend_from_slice(&demand.paths.suffixes);
            }
            None => list.push(demand.clone()),
        }
    }
    out
}

/// What tells two demands of an event apart besides their paths.
fn scope(demand: &Demand) -> (&Choice<u32>, &Choice<String>, &Choice<u64>, bool) {
    (&demand.uids, &demand.comms, &demand.cgroups, demand.writes)
}

fn any(words: &mut Words, set: u64) {
    for index in [word::WANTED, word::PATH_ANY, word::UID_ANY, word::COMM_ANY, word::CGROUP_ANY] {
        words[index] |= set;
    }
}

fn add(out: &mut Compiled, id: EventId, set: u64, demand: &Demand) {
    let words = out.events.entry(id).or_default();
    words[word::WANTED] |= set;
    let mut paths = |list: &[String], map: &mut BTreeMap<Vec<u8>, u64>, bit, key: fn(&str) -> Vec<u8>| {
        for text in list {
            *map.entry(key(text)).or_default() |= set;
            words[word::HAS] |= bit;
        }
    };
    paths(&demand.paths.leaves, &mut out.leaves, has::LEAF, leaf_key);
    paths(&demand.paths.prefixes, &mut out.prefixes, has::PREFIX, prefix_key);
    paths(&demand.paths.suffixes, &mut out.suffixes, has::SUFFIX, suffix_key);
    for leaf in &demand.paths.leaves {
        words[word::LEAF_LENGTHS] |= 1 << leaf_key(leaf).len();
        words[word::LEAF_FIRSTS] |= 1 << (leaf.as_bytes().first().unwrap_or(&0) & 63);
    }
    if demand.paths.is_any() {
        words[word::PATH_ANY] |= set;
    }
    if !demand.paths.prefixes.is_empty() || !demand.paths.suffixes.is_empty() {
        words[word::ENDS] |= set;
    }
    if demand.writes {
        words[word::WRITES] |= set;
    }
    words[word::UID_ANY] |= choice(&demand.uids, set, |v| *v, |_| true, &mut out.uids);
    words[word::COMM_ANY] |= choice(&demand.comms, set, |v| comm_key(v), |v| v.len() < 16, &mut out.comms);
    words[word::CGROUP_ANY] |= choice(&demand.cgroups, set, |v| *v, |_| true, &mut out.cgroups);
    for (is_any, bit) in
        [(demand.uids.is_any(), has::UID), (demand.comms.is_any(), has::COMM), (demand.cgroups.is_any(), has::CGROUP)]
    {
        words[word::HAS] |= if is_any { 0 } else { bit };
    }
}

/// Enters the values of one dimension; returns the set if it takes any value that is not entered. A value that the key
/// cannot hold whole (not `exact`) is not refused by its beginning.
fn choice<T, K: Ord>(
    choice: &Choice<T>,
    set: u64,
    key: impl Fn(&T) -> K,
    exact: impl Fn(&T) -> bool,
    map: &mut BTreeMap<K, [u64; 2]>,
) -> u64 {
    for value in &choice.only {
        map.entry(key(value)).or_default()[0] |= set;
    }
    for value in choice.not.iter().filter(|v| exact(v)) {
        map.entry(key(value)).or_default()[1] |= set;
    }
    if choice.only.is_empty() { set } else { 0 }
}

fn comm_key(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    let len = name.len().min(15);
    key[..len].copy_from_slice(&name.as_bytes()[..len]);
    key
}

fn leaf_key(name: &str) -> Vec<u8> {
    name.as_bytes()[..name.len().min(LEAF_NAME - 1)].to_vec()
}

fn prefix_key(path: &str) -> Vec<u8> {
    path.as_bytes()[..path.len().min(PREFIX_DATA - 1)].to_vec()
}

fn suffix_key(path: &str) -> Vec<u8> {
    path.bytes().rev().take(SUFFIX_DATA - 1).collect()
}

/// A look-up finds only the longest key, so each must carry the sets of the shorter ones.
fn spread_prefixes(map: &mut BTreeMap<Vec<u8>, u64>) {
    let all: Vec<(Vec<u8>, u64)> = map.iter().map(|(k, v)| (k.clone(), *v)).collect();
    for (key, sets) in map.iter_mut() {
        for (_, more) in all.iter().filter(|(short, _)| key.starts_with(short)) {
            *sets |= more;
        }
    }
}

fn actions(out: &mut BTreeMap<(bool, u16), Action>, demands: &[Demand], step: impl Fn(EventId) -> Option<Step>) {
    for used in USES {
        let Some(step) = step(used.event) else { continue };
        let single = [event::ptrace::ID, event::memfd_create::ID].contains(&used.event)
            && matches!(step, Step::Kprobe | Step::SyscallTracepoint);
        if demands.iter().any(|d| d.event == used.event) && (step == Step::RawSyscall || single) {
            each_number(used.call, |compat, number| {
                let action = out.entry((compat, number)).or_insert(Action::IDLE);
                if action.event != 0 {
                    action.also = used.event;
                    return;
                }
                (action.event, action.path_arg) = (used.event, used.path);
                (action.dir_arg, action.flags_arg) = (used.dir, used.flags);
                action.raw = step == Step::RawSyscall;
            });
        }
    }
    for name in demands.iter().filter(|d| d.event == syscall::ID).filter_map(|d| d.syscall) {
        each_number(name, |compat, number| {
            let action = out.entry((compat, number)).or_insert(Action::IDLE);
            action.named = true;
            action.at_enter = REPORTED_AT_ENTER.contains(&name);
        });
    }
}

/// The numbers of a call on this machine: native and 32-bit.
fn each_number(name: &str, mut put: impl FnMut(bool, u16)) {
    let Some(call): Option<&SyscallDef> = by_name(name) else { return };
    let native = if cfg!(target_arch = "aarch64") { Abi::Arm64 } else { Abi::X86_64 };
    if let Some(number) = call.number(native) {
        put(false, number);
    }
    if let (Abi::X86_64, Some(number)) = (native, call.number(Abi::I386)) {
        put(true, number);
    }
}

/// A leaf key of a generation.
pub(super) fn leaf_bytes(generation: u64, name: &[u8]) -> [u8; LEAF_KEY] {
    let mut key = [0; LEAF_KEY];
    key[..8].copy_from_slice(&generation.to_ne_bytes());
    key[8..8 + name.len()].copy_from_slice(name);
    key
}

/// A prefix or suffix key of a generation: bits that count, data.
pub(super) fn trie_bytes<const N: usize>(generation: u64, path: &[u8]) -> (u32, [u8; N]) {
    let mut data = [0; N];
    data[0] = generation as u8;
    data[1..=path.len()].copy_from_slice(path);
    (8 + 8 * path.len() as u32, data)
}

/// A thread name key of a generation.
pub(super) fn comm_words(generation: u64, name: &[u8; 16]) -> [u64; 3] {
    let word = |i: usize| name[i..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
    [generation, word(0), word(8)]
}

#[cfg(test)]
mod superset;

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::{ptrace, security_file_open as open};

    fn paths(leaves: &[&str], prefixes: &[&str]) -> Paths {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Paths { leaves: own(leaves), prefixes: own(prefixes), suffixes: Vec::new() }
    }

    #[test]
    fn state_is_always_wanted_and_threads_only_when_asked() {
        let compiled = compile(&[Demand::of(sched_process_fork::ID)], |_| None);
        assert!(STATE.iter().all(|id| compiled.events[id][word::WANTED] == 1));
        assert_eq!(compiled.events[&sched_process_fork::ID][word::HAS], has::THREADS);
        assert_eq!(compiled.events[&sched_process_exit::ID][word::HAS], 0);
    }

    #[test]
    fn unscoped_demands_of_an_event_share_a_set() {
        let demands =
            [Demand::at(open::ID, paths(&["shadow"], &[])), Demand::at(open::ID, paths(&[], &["/etc/", "/etc/ssh/"]))];
        let compiled = compile(&demands, |_| None);
        let words = compiled.events[&open::ID];
        assert_eq!(words[word::WANTED].count_ones(), 1);
        assert_eq!(words[word::PATH_ANY], 0);
        assert_eq!(words[word::HAS], has::LEAF | has::PREFIX);
        let any = compile(&[demands[0].clone(), Demand::of(open::ID)], |_| None);
        assert_eq!(any.events[&open::ID][word::PATH_ANY], any.events[&open::ID][word::WANTED]);
        assert!(any.leaves.is_empty());
    }

    #[test]
    fn opens_for_writing_have_a_set_of_their_own() {
        let etc = paths(&[], &["/etc/"]);
        let demands =
            [Demand::at(open::ID, paths(&["shadow"], &[])), Demand::written(etc.clone()), Demand::written(etc)];
        let words = compile(&demands, |_| None).events[&open::ID];
        assert_eq!((words[word::WANTED].count_ones(), words[word::WRITES].count_ones()), (2, 1));
        assert_eq!(words[word::ENDS], words[word::WRITES], "a path is walked only for what can write");
    }

    #[test]
    fn a_long_prefix_carries_the_sets_of_a_short_one() {
        let scoped = |uid, prefix: &str| Demand {
            uids: Choice { only: vec![uid], not: vec![] },
            ..Demand::at(open::ID, paths(&[], &[prefix]))
        };
        let compiled = compile(&[scoped(0, "/etc"), scoped(7, "/etc/ssh")], |_| None);
        let (short, long) = (compiled.prefixes[&b"/etc".to_vec()], compiled.prefixes[&b"/etc/ssh".to_vec()]);
        assert_eq!((short.count_ones(), long.count_ones()), (1, 2));
        assert_eq!(compiled.uids[&7][0], long & !short);
        assert_eq!(compiled.events[&open::ID][word::UID_ANY], 0);
    }

    #[test]
    fn more_demands_than_sets_widen_instead_of_failing() {
        let demands: Vec<_> = (0..100)
            .map(|uid| Demand { uids: Choice { only: vec![uid], not: vec![] }, ..Demand::of(ptrace::ID) })
            .collect();
        let words = compile(&demands, |_| None).events[&ptrace::ID];
        assert_eq!(words[word::UID_ANY], 1 << 63);
    }

    #[test]
    fn calls_act_only_where_the_plan_needs_them() {
        let demands = [Demand::of(ptrace::ID), Demand { syscall: Some("getppid"), ..Demand::of(syscall::ID) }];
        let fexit = compile(&demands, |_| Some(Step::FexitSyscall)).actions;
        assert!(fexit.values().all(|a| a.named && a.event == 0), "{fexit:?}");
        let raw = compile(&demands, |_| Some(Step::RawSyscall)).actions;
        assert!(raw.values().any(|a| a.event == ptrace::ID && a.raw));
        let exit = [Demand { syscall: Some("exit_group"), ..Demand::of(syscall::ID) }];
        assert!(compile(&exit, |_| None).actions.values().all(|a| a.at_enter));
    }
}

//! The kernel half of the filters: what no rule, sink or command asked for goes no further.
//!
//! Cheapest test first; maps that hold nothing for an event are not looked up. See `haechi_ebpf::filter`.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    bpf_map_lookup_elem, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
};
use haechi_ebpf::event::{EventDef, EventId, MAX_EVENTS};
use haechi_ebpf::filter::{LEAF_KEY, LEAF_NAME, PREFIX_DATA, SUFFIX_DATA, WRITE_FLAGS, has, live, word};

use crate::maps::{self, CGROUPS, COMMS, LEAVES, PREFIXES, SUFFIXES, UIDS};
use crate::mem::{Mem, Ptr, mask};
use crate::path::{self, Link, UNREAD, Walked};
use crate::record::{KEYS, Scratch, lost_for_scratch};

/// What is still asked for after the tests so far.
#[derive(Clone, Copy)]
pub struct Gate {
    generation: u64,
    entry: usize,
    /// Sets that are satisfied so far.
    pub sets: u64,
}

impl Gate {
    /// Before any test: all sets that want the event.
    #[inline(always)]
    fn of(event: EventId) -> Self {
        let generation = generation();
        let entry = live::EVENTS + (generation as usize * MAX_EVENTS + event as usize) * live::EVENT_BYTES;
        let gate = Self { generation, entry, sets: 0 };
        Self { sets: gate.word(word::WANTED), ..gate }
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        maps::live(self.entry + 8 * index)
    }

    /// Whether a map holds anything for the event.
    #[inline(always)]
    pub fn has(&self, bit: u64) -> bool {
        self.word(word::HAS) & bit != 0
    }

    /// What is left of it for a file that is opened with these flags.
    #[inline(always)]
    pub fn with_flags(self, flags: u32) -> Self {
        let unmet = if flags & WRITE_FLAGS == 0 { self.word(word::WRITES) } else { 0 };
        Self { sets: self.sets & !unmet, ..self }
    }

    /// Whether a set that is left asks for the beginning or the end of the path.
    #[inline(always)]
    pub fn asks_for_ends(&self) -> bool {
        self.sets & self.word(word::ENDS) != 0
    }

    /// Sets that take any path.
    #[inline(always)]
    pub fn any_path(&self) -> u64 {
        self.sets & self.word(word::PATH_ANY)
    }
}

/// The generation in force.
#[inline(always)]
pub fn generation() -> u64 {
    maps::live::<u64>(live::GENERATION) & 1
}

/// Whether anybody wants an event at all, for hooks in which the current task says nothing.
#[inline(always)]
pub fn wanted(event: EventId) -> bool {
    Gate::of(event).sets != 0
}

/// Passes an event whose user, name and cgroup somebody wants, of a process that is not the agent.
#[inline(always)]
pub fn open(event: EventId) -> Option<Gate> {
    let mut gate = Gate::of(event);
    // SAFETY: no preconditions.
    if gate.sets == 0 || (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32 == maps::own_tgid() {
        return None;
    }
    if gate.has(has::UID | has::COMM | has::CGROUP) {
        gate.sets = scope(&gate);
        if gate.sets == 0 {
            return None;
        }
    }
    Some(gate)
}

/// Walks a path, if anybody wants it. The cheap test comes first: the name, then the whole path.
#[inline(always)]
pub fn path<M: Mem>(gate: Gate, def: &'static EventDef, dentry: Ptr, mnt: Ptr) -> Option<(Scratch, Walked)> {
    let mut sets = gate.any_path();
    if sets == 0 && gate.has(has::LEAF) {
        sets = match path::last::<M>(dentry, mnt) {
            Some(link) => gate.sets & leaf(&gate, link),
            None => gate.sets,
        };
    }
    if sets == 0 && !gate.asks_for_ends() {
        return None;
    }
    let Some(scratch) = Scratch::take() else {
        // Counted as tried and lost: the path was not looked at, so it may have been one that is wanted.
        lost_for_scratch(def);
        return None;
    };
    let walked = path::walk::<M>(&scratch, dentry, mnt);
    if sets == 0 && gate.sets & ends(&gate, scratch.memory, walked) == 0 {
        scratch.give();
        return None;
    }
    Some((scratch, walked))
}

/// Keeps the sets that take the current user, thread name and cgroup.
#[inline(always)]
fn scope(gate: &Gate) -> u64 {
    let mut sets = gate.sets;
    if gate.has(has::UID) {
        // SAFETY: no preconditions.
        let key = [gate.generation as u32, unsafe { bpf_get_current_uid_gid() } as u32];
        // SAFETY: the value is plain numbers.
        sets &= choose(unsafe { UIDS.get(&key) }, gate.word(word::UID_ANY));
    }
    if gate.has(has::COMM) {
        let mut key = [gate.generation, 0, 0];
        // SAFETY: the last 16 bytes of the key are written.
        let known = unsafe {
            bpf_get_current_comm(key.as_mut_ptr().add(1).cast(), 16);
            COMMS.get(&key)
        };
        sets &= choose(known, gate.word(word::COMM_ANY));
    }
    if gate.has(has::CGROUP) {
        // SAFETY: no preconditions.
        let key = [gate.generation, unsafe { bpf_get_current_cgroup_id() }];
        // SAFETY: as above.
        sets &= choose(unsafe { CGROUPS.get(&key) }, gate.word(word::CGROUP_ANY));
    }
    sets
}

/// Sets that a value satisfies: those that take any or this one, less those that refuse it.
#[inline(always)]
fn choose(known: Option<&[u64; 2]>, any: u64) -> u64 {
    match known {
        Some([takes, refuses]) => (any | takes) & !refuses,
        None => any,
    }
}

/// Sets that take the last component of a path.
#[inline(always)]
fn leaf(gate: &Gate, link: Link) -> u64 {
    let len = if link.len > LEAF_NAME as u32 - 1 { LEAF_NAME as u32 - 1 } else { link.len };
    if gate.word(word::LEAF_LENGTHS) >> (len & 63) & 1 == 0 {
        return 0;
    }
    if link.first != UNREAD && gate.word(word::LEAF_FIRSTS) >> (link.first & 63) & 1 == 0 {
        return 0;
    }
    let mut key = [0_u64; LEAF_KEY / 8];
    key[0] = gate.generation;
    // SAFETY: the name part of the key is written; a longer name is cut, here as in the agent.
    unsafe {
        bpf_probe_read_kernel_str(key.as_mut_ptr().add(1).cast(), LEAF_NAME as u32, link.name.cast());
        lookup((&raw const LEAVES).cast(), key.as_ptr().cast())
    }
}

/// Sets that take the beginning or the end of a walked path.
#[inline(always)]
fn ends(gate: &Gate, scratch: *mut u8, walked: Walked) -> u64 {
    // Only the end of it is known: what it begins with cannot be judged here.
    if gate.has(has::PREFIX) && walked.true_len > walked.len {
        return gate.sets;
    }
    let mut sets = 0;
    let len = walked.len;
    if gate.has(has::PREFIX) {
        let want = if len > PREFIX_DATA as u64 - 1 { PREFIX_DATA as u64 - 1 } else { mask::<0xff>(len) as u64 };
        let want = mask::<0xff>(want);
        // SAFETY: the key area holds 4 + 1 + 255 bytes; `want` is masked to 255.
        unsafe {
            let key = scratch.add(KEYS);
            core::ptr::write_volatile(key.cast::<u32>(), 8 + 8 * want as u32);
            core::ptr::write_volatile(key.add(4), gate.generation as u8);
            bpf_probe_read_kernel(key.add(5).cast(), want as u32, scratch.add(walked.start).cast());
            sets |= lookup((&raw const PREFIXES).cast(), key);
        }
    }
    if gate.has(has::SUFFIX) {
        sets |= suffix(gate, scratch, walked);
    }
    sets
}

/// Looks up the last bytes of a walked path, in reverse. The path ends at a fixed place, so the offsets are constant.
#[inline(always)]
fn suffix(gate: &Gate, scratch: *mut u8, walked: Walked) -> u64 {
    const MAX: usize = SUFFIX_DATA - 1;
    let len = if walked.len > MAX as u64 { MAX } else { walked.len as usize };
    // SAFETY: the walk area ends, and the key area holds, where the constants say.
    unsafe {
        let key = scratch.add(KEYS);
        let end = scratch.add(crate::record::WALK + crate::record::WALK_END);
        core::ptr::write_volatile(key.cast::<u32>(), 8 + 8 * len as u32);
        core::ptr::write_volatile(key.add(4), gate.generation as u8);
        for i in 0..MAX {
            core::ptr::write_volatile(key.add(5 + i), core::ptr::read_volatile(end.sub(1 + i)));
        }
        lookup((&raw const SUFFIXES).cast(), key)
    }
}

/// Looks a key up in a map whose values are sets; a key this size must not be copied to the stack.
#[inline(always)]
unsafe fn lookup(map: *const u8, key: *const u8) -> u64 {
    // SAFETY: the caller gives a map and a key of its size.
    unsafe {
        let value = bpf_map_lookup_elem(map.cast_mut().cast(), key.cast()) as *const u64;
        if value.is_null() { 0 } else { *value }
    }
}

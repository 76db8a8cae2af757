//! Maps and read-only globals: what the programs share with the agent. Sizes marked "set at load" are only a floor.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use haechi_ebpf::event::MAX_EVENTS;
use haechi_ebpf::fact::MAX_FACTS;
use haechi_ebpf::filter::{ENTRIES, LEAF_KEY, PREFIX_DATA, SUFFIX_DATA, live};
use haechi_ebpf::loss::column;
use haechi_ebpf::wire::SCRATCH_PER_CPU;

/// Bytes of a scratch buffer; its parts are in [`crate::record`].
pub const SCRATCH_BYTES: usize = 0x1_4400;

/// Facts about the kernel; set before loading.
#[unsafe(no_mangle)]
static FACTS: [u32; MAX_FACTS] = [u32::MAX; MAX_FACTS];

/// Reads a fact. Volatile: the compiler must not see the value that is in the object.
#[inline(always)]
pub fn raw_fact(index: u16) -> u32 {
    // SAFETY: `index` comes from the table, which is shorter than the array.
    unsafe { core::ptr::read_volatile((&raw const FACTS).cast::<u32>().add(index as usize)) }
}

/// The agent's own process, whose doings are not reported; set before loading.
#[unsafe(no_mangle)]
static OWN_TGID: u32 = 0;
/// Bytes of environment to copy at exec; set before loading.
#[unsafe(no_mangle)]
static ENV_MAX: u32 = 0;

/// Bytes of the ring of flows; set before loading.
#[unsafe(no_mangle)]
static FLOW_RING: u32 = 0;

/// Bytes of the ring of flows.
#[inline(always)]
pub fn flow_ring_bytes() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const FLOW_RING) }.into()
}

/// Makes addresses unreadable; random, set before loading.
#[unsafe(no_mangle)]
static ADDRESS_KEY: u64 = 0;

/// What addresses are made unreadable with.
#[inline(always)]
pub fn address_key() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const ADDRESS_KEY) }
}

/// The agent's own process.
#[inline(always)]
pub fn own_tgid() -> u32 {
    // SAFETY: a read of a global; volatile for the reason above.
    unsafe { core::ptr::read_volatile(&raw const OWN_TGID) }
}

/// Bytes of environment to copy at exec.
#[inline(always)]
pub fn env_max() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const ENV_MAX) }.into()
}

/// What changes while the programs run; `haechi_ebpf::filter::live` says what lies where.
#[unsafe(no_mangle)]
static mut LIVE: [u64; live::BYTES / 8] = [0; live::BYTES / 8];

/// Reads a `T` of the live block. `offset` must be bounded for the verifier.
#[inline(always)]
pub fn live<T: Copy>(offset: usize) -> T {
    // SAFETY: the callers' offsets are inside the block; the agent changes it meanwhile, hence volatile.
    unsafe { core::ptr::read_volatile((&raw const LIVE).cast::<u8>().add(offset).cast()) }
}

/// State-bearing records. Size set at load.
#[map]
pub static CRITICAL: RingBuf = RingBuf::with_byte_size(4096, 0);
/// Everything else. Size set at load.
#[map]
pub static BULK: RingBuf = RingBuf::with_byte_size(4096, 0);
/// Connections. Size set at load.
#[map]
pub static FLOWS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What is known of a socket besides what the kernel keeps in it. 56 bytes: with what the kernel puts before them they
/// fill an allocation of 128.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Known {
    /// When it began, nanoseconds since boot.
    pub began: u64,
    /// When its owner started.
    pub owner_start: u64,
    /// Cgroup of its owner.
    pub cgroup: u64,
    /// What a poll told last; see `sock::activity`.
    pub told: u64,
    /// Its owner; 0 where unknown.
    pub tgid: u32,
    /// Which program of its owner.
    pub exec_id: u32,
    /// Real user of its owner.
    pub uid: u32,
    /// How long the connect took, in steps of 64 ns; 0: not established.
    pub latency: u32,
    /// See `haechi_ebpf::flow::mark`.
    pub marks: u32,
    /// See `flow::role`.
    pub role: u32,
}

impl Known {
    /// Nothing is known.
    pub const EMPTY: Self = Self {
        began: 0,
        owner_start: 0,
        cgroup: 0,
        told: 0,
        tgid: 0,
        exec_id: 0,
        uid: 0,
        latency: 0,
        marks: 0,
        role: 0,
    };
}

/// `BPF_F_NO_PREALLOC | BPF_F_CLONE` of include/uapi/linux/bpf.h: a socket that a listener makes starts with a copy of
/// what is known of the listener. aya-ebpf's own type has no room for the second flag.
const SOCKETS_FLAGS: usize = 1 | 1 << 9;
/// `BPF_MAP_TYPE_SK_STORAGE`, the same file.
const SK_STORAGE: usize = 24;

/// A map as its type describes it: numbers are lengths of arrays.
#[repr(C)]
pub struct SocketMap {
    r#type: *const [i32; SK_STORAGE],
    key: *const i32,
    value: *const Known,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; SOCKETS_FLAGS],
}

// SAFETY: it is a description; nobody reads it at run time.
unsafe impl Sync for SocketMap {}

/// What is known of sockets; goes with the socket.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static SOCKETS: SocketMap = SocketMap {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// The same by the socket's address, for kernels that let tracing programs put nothing beside a socket. Size set at load.
#[map]
pub static CONNECTIONS: HashMap<u64, Known> = HashMap::with_max_entries(1, NO_PREALLOC);
/// Who listens, by network namespace and port, for the same kernels. Size set at load.
#[map]
pub static LISTENERS: LruHashMap<[u32; 2], Known> = LruHashMap::with_max_entries(1, 0);

/// Not 0 while the reader of the rings sleeps until it is woken: the first record then wakes it.
#[map]
pub static PARKED: Array<u64> = Array::with_max_entries(1, 0);

/// Changes when every connection is to be told of once more, whether it changed or not.
#[map]
pub static SURVEY: Array<u64> = Array::with_max_entries(1, 0);

/// User (generation, id) to the sets that take it and the sets that do not.
#[map]
pub static UIDS: HashMap<[u32; 2], [u64; 2]> = HashMap::with_max_entries(2 * ENTRIES, NO_PREALLOC);
/// Thread name (generation, name) to the same.
#[map]
pub static COMMS: HashMap<[u64; 3], [u64; 2]> = HashMap::with_max_entries(2 * ENTRIES, NO_PREALLOC);
/// Cgroup (generation, id) to the same.
#[map]
pub static CGROUPS: HashMap<[u64; 2], [u64; 2]> = HashMap::with_max_entries(2 * ENTRIES, NO_PREALLOC);
/// Last path component to the sets that take it.
#[map]
pub static LEAVES: HashMap<[u8; LEAF_KEY], u64> = HashMap::with_max_entries(2 * ENTRIES, NO_PREALLOC);
/// Beginning of a path to the sets that take it.
#[map]
pub static PREFIXES: LpmTrie<[u8; PREFIX_DATA], u64> = LpmTrie::with_max_entries(2 * ENTRIES, NO_PREALLOC);
/// End of a path, in reverse, to the sets that take it.
#[map]
pub static SUFFIXES: LpmTrie<[u8; SUFFIX_DATA], u64> = LpmTrie::with_max_entries(2 * ENTRIES, NO_PREALLOC);
/// `tried` and the losses, per event.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries((MAX_EVENTS * column::COUNT) as u32, 0);
/// Sequence numbers, per ring.
#[map]
pub static SEQUENCE: PerCpuArray<u32> = PerCpuArray::with_max_entries(3, 0);

/// Scratch buffers of all CPUs. Number set at load.
#[map]
pub static SCRATCH: Array<[u8; SCRATCH_BYTES]> = Array::with_max_entries(SCRATCH_PER_CPU, 0);
/// Who holds them. Number set at load.
#[map]
pub static SCRATCH_USERS: Array<u64> = Array::with_max_entries(SCRATCH_PER_CPU, 0);

/// Programs that `sys_exit` hands over to, by the event that the call stands for.
#[map]
pub static AT_EXIT: ProgramArray = ProgramArray::with_max_entries(MAX_EVENTS as u32, 0);

/// Name of a task before its last rename, by thread.
#[map]
pub static RENAMES: LruHashMap<u32, [u8; 16]> = LruHashMap::with_max_entries(1024, 0);

/// Processes (start, number) that were said to have ended, lately.
#[map]
pub static ENDED: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(1024, 0);

/// Entries are few; memory is taken when one is made.
const NO_PREALLOC: u32 = 1;

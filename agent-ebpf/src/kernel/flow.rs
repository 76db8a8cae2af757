//! Flows: every TCP connection of every network namespace, at no cost per packet.
//!
//! The kernel counts bytes, segments and round trips in each socket anyway. What it does not keep (who opened it, when)
//! is put beside the socket once, when its state changes; an iterator over what was put there shows all live sockets
//! with their counters, and the last change of state their final totals.
//!
//! Kernels before 5.11 let no tracing program use the storage beside a socket: there it is a hash of our own, by the
//! socket's address. [`Store`] is the difference.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_ringbuf_query, bpf_seq_write, bpf_sk_storage_get,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use haechi_ebpf::event::{net_flow, net_tcp_connect};
use haechi_ebpf::fact;
use haechi_ebpf::flow::{Direction, Phase, Reason, mark, tcp};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{HEADER, at, flag};

use crate::apart::apart;
use crate::gate;
use crate::maps::{CONNECTIONS, FLOWS, Known, LISTENERS, SOCKETS, SURVEY, flow_ring_bytes};
use crate::mem::{Btf, Mem, Probe, Ptr, field, pointer, with_current};
use crate::record::{InRing, Slots};
use crate::sock::{
    ENDS_BYTES, Ends, activity, is_tcp, mptcp_group, net_ns, number_of_address, put_counters, put_ends, tcp_sock,
};
use crate::task::{PF_KTHREAD, Who};

/// `BPF_SK_STORAGE_GET_F_CREATE` of include/uapi/linux/bpf.h.
const CREATE: u64 = 1;
/// `BPF_RB_AVAIL_DATA`, the same file.
const AVAILABLE: u64 = 0;

/// What a socket is to us; kept in `Known`.
pub mod role {
    /// Nothing: closed, or not yet established.
    pub const NONE: u32 = 0;
    /// It connected.
    pub const OUTGOING: u32 = 1;
    /// It was accepted.
    pub const INCOMING: u32 = 2;
    /// It listens; what is known of it is copied to the sockets it makes.
    pub const LISTENER: u32 = 3;
}

/// What the reader of the poll gets for a socket that has to wait.
static MORE: u8 = b'+';

/// Ends of a flow record.
const ENDS: Ends = Ends {
    local: net_flow::field::src,
    local_port: net_flow::field::src_port,
    remote: net_flow::field::dst,
    remote_port: net_flow::field::dst_port,
    at: HEADER + 8 * net_flow::SLOTS,
};
/// Ends of a record of a connect.
const CONNECT_ENDS: Ends = Ends {
    local: net_tcp_connect::field::src,
    local_port: net_tcp_connect::field::src_port,
    remote: net_tcp_connect::field::dst,
    remote_port: net_tcp_connect::field::dst_port,
    at: HEADER + 8 * net_tcp_connect::SLOTS,
};

/// A flow record, which has always the same length.
type Flow = InRing<{ (ENDS.at + ENDS_BYTES) as u64 }>;
/// A record of a connect, too.
type Connect = InRing<{ (CONNECT_ENDS.at + ENDS_BYTES) as u64 }>;

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`, include/trace/events/sock.h. At the end of
/// a connection it fires after the port was given back, but before the socket is torn down.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn flow_state(ctx: BtfTracePointContext) -> i32 {
    if matters(ctx.arg(2)) { apart(ctx, |ctx| changed::<Beside>(ctx.arg(0), ctx.arg(1), ctx.arg(2))) } else { 0 }
}

/// The same for kernels before 5.11.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn flow_state_old(ctx: BtfTracePointContext) -> i32 {
    if matters(ctx.arg(2)) { apart(ctx, |ctx| changed::<ByAddress>(ctx.arg(0), ctx.arg(1), ctx.arg(2))) } else { 0 }
}

/// Changes that say something new; the others only lead from one of these to the next.
#[inline(always)]
fn matters(new: u32) -> bool {
    new == tcp::ESTABLISHED || new == tcp::SYN_SENT || new == tcp::CLOSE || new == tcp::LISTEN
}

/// A socket's state changed.
#[inline(always)]
fn changed<S: Store>(sk: Ptr, old: u32, new: u32) {
    if !gate::wanted(net_flow::ID) && !gate::wanted(net_tcp_connect::ID) {
        return;
    }
    let time = now();
    if new == tcp::SYN_SENT || new == tcp::LISTEN {
        if is_tcp::<Btf>(sk) {
            begin::<S>(sk, if new == tcp::LISTEN { role::LISTENER } else { role::OUTGOING }, time);
        }
        return;
    }
    let Some(tp) = tcp_sock(sk) else { return };
    let tell = if new == tcp::ESTABLISHED { established::<S>(tp, old, time) } else { closed::<S>(tp, old) };
    if let Some(tell) = tell
        && gate::wanted(net_flow::ID)
    {
        report::<S, Btf>(tp, &tell, time);
    }
    if new == tcp::CLOSE {
        S::forget(tp);
    }
}

/// What is to be told of a connection.
struct Tell {
    known: Known,
    role: u32,
    phase: Phase,
    state: u32,
    step: Step,
}

/// Where what is known of a socket is kept.
pub trait Store {
    /// How the socket is read where only the store led to it.
    type Mem: Mem;
    /// What is known; all zeroes where it is new.
    fn known(sk: Ptr, create: bool) -> Option<&'static mut Known>;
    /// A socket listens.
    fn listens(sk: Ptr, known: &Known);
    /// Takes over what is known of the listener that made the socket, where that is not done already.
    fn inherit(sk: Ptr, known: &mut Known);
    /// Nothing more will be asked.
    fn forget(sk: Ptr);
    /// A number for the connection, the same as long as it lives.
    fn number(sk: Ptr, known: &Known) -> u64;
}

/// In the kernel's storage beside the socket, which goes with it; a listener's is copied to the sockets that it makes.
pub struct Beside;

impl Store for Beside {
    type Mem = Btf;

    #[inline(always)]
    fn known(sk: Ptr, create: bool) -> Option<&'static mut Known> {
        // SAFETY: the verifier knows the type of `sk`. A new value is all zeroes.
        let known = unsafe {
            let map = (&raw const SOCKETS).cast_mut().cast();
            bpf_sk_storage_get(map, sk.cast_mut().cast(), core::ptr::null_mut(), if create { CREATE } else { 0 })
        };
        // SAFETY: the value is ours; two programs that touch it at once touch different members.
        unsafe { known.cast::<Known>().as_mut() }
    }

    #[inline(always)]
    fn listens(_: Ptr, _: &Known) {}

    #[inline(always)]
    fn inherit(_: Ptr, _: &mut Known) {}

    #[inline(always)]
    fn forget(_: Ptr) {}

    #[inline(always)]
    fn number(sk: Ptr, _: &Known) -> u64 {
        match field::<Btf, u64>(sk, fact::SK_COOKIE) {
            // SAFETY: the verifier knows the type of `sk`.
            0 => unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) },
            cookie => cookie,
        }
    }
}

/// In a hash by the socket's address. Listeners are found by namespace and port.
pub struct ByAddress;

impl Store for ByAddress {
    type Mem = Probe;

    #[inline(always)]
    fn known(sk: Ptr, create: bool) -> Option<&'static mut Known> {
        let key = sk as u64;
        if create && CONNECTIONS.get_ptr_mut(&key).is_none() {
            let _ = CONNECTIONS.insert(&key, &Known::EMPTY, 0);
        }
        // SAFETY: as above.
        unsafe { CONNECTIONS.get_ptr_mut(&key)?.as_mut() }
    }

    #[inline(always)]
    fn listens(sk: Ptr, known: &Known) {
        let _ = LISTENERS.insert(&place(sk), known, 0);
    }

    #[inline(always)]
    fn inherit(sk: Ptr, known: &mut Known) {
        // SAFETY: the value is plain numbers.
        if let Some(listener) = unsafe { LISTENERS.get(&place(sk)) } {
            known.owner_start = listener.owner_start;
            known.cgroup = listener.cgroup;
            known.tgid = listener.tgid;
            known.exec_id = listener.exec_id;
            known.uid = listener.uid;
            known.role = role::LISTENER;
        }
    }

    #[inline(always)]
    fn forget(sk: Ptr) {
        let _ = CONNECTIONS.remove(&(sk as u64));
    }

    #[inline(always)]
    fn number(sk: Ptr, known: &Known) -> u64 {
        number_of_address(sk, known.began)
    }
}

/// Namespace and port of a listener, or of a socket that it made.
#[inline(always)]
fn place(sk: Ptr) -> [u32; 2] {
    [net_ns::<Probe>(sk), field::<Probe, u16>(sk, fact::SK_NUM).into()]
}

/// Nanoseconds since boot.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// A process connects or listens: it is the owner.
#[inline(always)]
fn begin<S: Store>(sk: Ptr, role: u32, time: u64) {
    let Some(known) = S::known(sk, true) else { return };
    known.role = role;
    known.marks = 0;
    known.latency = 0;
    known.told = 0;
    known.began = time;
    with_current!(|task: M| {
        own::<M>(known, task, &Who::current::<M>(task));
        // Further paths of an MPTCP connection are opened by the kernel itself: whose it is, the connection says.
        if field::<M, u32>(task, fact::TASK_FLAGS) & PF_KTHREAD != 0 && group_of(sk) != 0 {
            known.tgid = 0;
            known.owner_start = 0;
        }
    });
    if role == role::LISTENER {
        S::listens(sk, known);
    }
}

#[inline(always)]
fn group_of(sk: Ptr) -> u64 {
    tcp_sock(sk).map_or(0, mptcp_group::<Btf>)
}

/// Sets which process owns a socket.
#[inline(always)]
pub fn own<M: Mem>(known: &mut Known, task: Ptr, who: &Who) {
    known.cgroup = who.cgroup;
    known.uid = who.uid;
    known.tgid = who.tgid;
    known.owner_start = field::<M, u64>(pointer::<M>(task, fact::TASK_LEADER), fact::TASK_START);
    known.exec_id = field::<M, u32>(task, fact::TASK_EXEC_ID);
}

/// A connection is established. Of an MPTCP connection that is told at once: the paths that the kernel opens later have
/// their owner from the first, and may end before it.
#[inline(always)]
fn established<S: Store>(tp: Ptr, old: u32, time: u64) -> Option<Tell> {
    let Some(known) = S::known(tp, true) else {
        // Who accepts it is told by its number all the same.
        S::number(tp, &Known::EMPTY);
        return None;
    };
    if known.role == role::OUTGOING {
        // In steps of 64 ns, up to 4.5 minutes; never 0, which is "not established".
        let waited = time.wrapping_sub(known.began) >> 6;
        known.latency = waited.clamp(1, u32::MAX.into()) as u32;
        if gate::wanted(net_tcp_connect::ID) {
            connected::<S>(tp, known, time);
        }
    } else {
        if known.role == role::NONE {
            S::inherit(tp, known);
        }
        let begun = known.role == role::LISTENER;
        known.marks = if begun { mark::INHERITED } else { mark::FORGOTTEN };
        known.role = if begun || old != tcp::SYN_SENT { role::INCOMING } else { role::OUTGOING };
        known.began = time;
        known.latency = 1;
        known.told = 0;
        S::number(tp, known);
    }
    let (role, step) = (known.role, Step::Tracepoint);
    (mptcp_group::<Btf>(tp) != 0).then(|| Tell {
        known: *known,
        role,
        phase: Phase::Progress,
        state: tcp::ESTABLISHED,
        step,
    })
}

#[inline(always)]
fn closed<S: Store>(tp: Ptr, old: u32) -> Option<Tell> {
    let never = old == tcp::SYN_SENT || old == tcp::SYN_RECV;
    let (phase, step) = (if never { Phase::Failed } else { Phase::End }, Step::Tracepoint);
    let Some(known) = S::known(tp, false) else {
        if old == tcp::LISTEN || old == tcp::CLOSE || old == tcp::SYN_RECV {
            return None;
        }
        let known = Known { marks: mark::FORGOTTEN, ..Known::EMPTY };
        return Some(Tell { known, role: role::NONE, phase, state: old, step });
    };
    let mut role = known.role;
    known.role = role::NONE;
    // The run that should have seen it established was skipped, or there was none (TCP Fast Open).
    if role == role::LISTENER && old != tcp::LISTEN && old != tcp::SYN_RECV && old != tcp::CLOSE {
        role = role::INCOMING;
        known.marks = mark::INHERITED;
    }
    (role == role::OUTGOING || role == role::INCOMING).then(|| Tell { known: *known, role, phase, state: old, step })
}

/// `ECONNREFUSED`, `ECONNRESET`, `EPIPE`, `ETIMEDOUT` of include/uapi/asm-generic/errno.h.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;
const EPIPE: u32 = 32;
const ETIMEDOUT: u32 = 110;

/// How it ended: the error that `tcp_reset()` and `tcp_write_err()` leave, else where it came from.
#[inline(always)]
fn reason(phase: Phase, old: u32, error: u32, activity: u64) -> Reason {
    match error {
        ECONNREFUSED | ECONNRESET | EPIPE => Reason::ResetByPeer,
        ETIMEDOUT => Reason::TimedOut,
        // Not one SYN left: no port was free, or the route was lost.
        0 if phase == Phase::Failed && activity == 0 => Reason::Error,
        0 if phase == Phase::Failed => Reason::Abandoned,
        0 if old == tcp::ESTABLISHED || old == tcp::CLOSE_WAIT => Reason::ResetLocally,
        0 => Reason::Fin,
        _ => Reason::Error,
    }
}

/// The header of a record about a socket: its owner, who need not be the current task.
#[inline(always)]
fn head<M: Mem>(record: &Slots, tp: Ptr, known: &Known, step: Step, time: u64) {
    record.header_u64(at::TIME, time);
    record.header_u32(at::TID, known.tgid);
    record.header_u32(at::TGID, known.tgid);
    record.header_u64(at::START, known.owner_start);
    record.header_u32(at::EXEC_ID, known.exec_id);
    record.header_u32(at::UID, known.uid);
    record.header_u64(at::CGROUP, known.cgroup);
    record.header_u32(at::MNT_NS, 0);
    record.header_u32(at::PID_NS, 0);
    record.header_u32(at::NET_NS, net_ns::<M>(tp));
    record.header_u32(at::PPID, 0);
    record.header_u32(at::NS_TID, 0);
    record.header_u32(at::NS_TGID, 0);
    record.header_u64(at::RET, 0);
    record.header_u64(at::COMM, 0);
    record.header_u64(at::COMM + 8, 0);
    record.header_u16(at::FLAGS, (step as u16) << flag::STEP_SHIFT);
}

/// Reports a flow. Returns whether it found room.
#[inline(always)]
fn report<S: Store, M: Mem>(tp: Ptr, tell: &Tell, time: u64) -> bool {
    use net_flow::field as f;

    let Some(mut record) = Flow::begin(&net_flow::DEF) else { return false };
    let Tell { known, role, phase, state, step } = tell;
    let progress = *phase == Phase::Progress;
    head::<M>(&record, tp, known, *step, time);
    record.put(f::cookie, S::number(tp, known));
    record.put(f::phase, (*phase as u32).into());
    let direction = match *role {
        role::OUTGOING => Direction::Outgoing,
        role::INCOMING => Direction::Incoming,
        _ => Direction::Unknown,
    };
    record.put(f::direction, (direction as u32).into());
    record.put(f::protocol, crate::sock::IPPROTO_TCP);
    put_ends::<M>(&mut record, tp, &ENDS);
    record.put(f::state, (*state).into());
    record.put(f::start_time, known.began);
    put_counters::<M>(&mut record, tp);
    if *role == role::OUTGOING && known.latency != 0 && known.marks & (mark::ADOPTED | mark::FORGOTTEN) == 0 {
        record.put(f::connect_latency, u64::from(known.latency) << 6);
    } else {
        record.absent(f::connect_latency);
    }
    let error = field::<M, u32>(tp, fact::SK_ERR);
    let ended = if progress { Reason::None } else { reason(*phase, *state, error, activity::<M>(tp)) };
    record.put(f::reason, (ended as u32).into());
    record.put(f::error, error.into());
    match mptcp_group::<M>(tp) {
        0 => {
            record.absent(f::group);
            record.put(f::marks, known.marks.into());
        }
        group => {
            record.put(f::group, group);
            record.put(f::marks, (known.marks | mark::MPTCP).into());
        }
    }
    record.send();
    true
}

/// Reports a connection that this end established.
#[inline(always)]
fn connected<S: Store>(tp: Ptr, known: &Known, time: u64) {
    use net_tcp_connect::field as f;

    let Some(mut record) = Connect::begin(&net_tcp_connect::DEF) else { return };
    head::<Btf>(&record, tp, known, Step::Tracepoint, time);
    record.put(f::cookie, S::number(tp, known));
    if known.marks & mark::ADOPTED == 0 {
        record.put(f::connect_latency, u64::from(known.latency) << 6);
    } else {
        record.absent(f::connect_latency);
    }
    put_ends::<Btf>(&mut record, tp, &CONNECT_ENDS);
    record.send();
}

/// `struct bpf_iter__bpf_sk_storage_map { meta, map, sk, value }`, net/core/bpf_sk_storage.c: once for every socket that
/// something is known of, in one read. What it finds goes through the ring and not to the reader of the iterator, who
/// would get 32 KiB a read and walk from the start of a bucket each time.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
fn flow_poll(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), polled)
}

#[inline(always)]
fn polled(ctx: BtfTracePointContext) {
    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is four pointers.
    let (sk, value) = unsafe { (*words.add(2), *words.add(3)) };
    if !sk.is_null()
        && let Some(known) = live(value)
        && let Some(tp) = tcp_sock(sk)
    {
        look::<Beside>(words, tp, known);
    }
}

/// `struct bpf_iter__bpf_map_elem { meta, map, key, value }`, kernel/bpf/map_iter.c, over the hash by address. The
/// memory of a socket is not given back while this runs, and its entry goes before it is.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
fn flow_poll_old(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), polled_by_address)
}

#[inline(always)]
fn polled_by_address(ctx: BtfTracePointContext) {
    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is four pointers.
    let (key, value) = unsafe { (*words.add(2), *words.add(3)) };
    if !key.is_null()
        && let Some(known) = live(value)
    {
        // SAFETY: a key is an address.
        let sk = unsafe { *key.cast::<u64>() } as Ptr;
        look::<ByAddress>(words, sk, known);
    }
}

/// What is known of a socket that an iterator is at, if it is a connection that lives.
#[inline(always)]
fn live(value: Ptr) -> Option<&'static mut Known> {
    // SAFETY: the value is as large as the map says, and stays while the iterator is at it.
    let known = unsafe { value.cast_mut().cast::<Known>().as_mut() }?;
    (known.role == role::OUTGOING || known.role == role::INCOMING).then_some(known)
}

/// Which survey of all connections it is.
#[inline(always)]
fn survey() -> u64 {
    // SAFETY: the value is a plain number; the agent changes it between two looks.
    SURVEY.get_ptr(0).map_or(0, |survey| unsafe { core::ptr::read_volatile(survey) })
}

/// Tells of a connection where it changed since the last time, or everyone is asked.
#[inline(always)]
fn look<S: Store>(words: *const Ptr, tp: Ptr, known: &mut Known) {
    // Only ever compared with itself: another survey makes another number of the same segments.
    let told = activity::<S::Mem>(tp) ^ survey().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if told == known.told {
        return;
    }
    // Closes come first: what does not fit now is told the next time, or when it closes.
    // SAFETY: the map is a ring.
    let waiting = unsafe { bpf_ringbuf_query((&raw const FLOWS).cast_mut().cast(), AVAILABLE) };
    if waiting > flow_ring_bytes() / 2 {
        return more(words);
    }
    let state = field::<S::Mem, u8>(tp, fact::SK_STATE).into();
    let tell = Tell { known: *known, role: known.role, phase: Phase::Progress, state, step: Step::Iterator };
    if report::<S, S::Mem>(tp, &tell, now()) {
        known.told = told;
    } else {
        more(words);
    }
}

/// Says to the reader of the iterator, by a byte, that a socket has to wait.
#[inline(always)]
fn more(words: *const Ptr) {
    // SAFETY: the context leads to the seq_file; one byte is read.
    unsafe {
        let seq = *(*words).cast::<*mut c_void>();
        bpf_seq_write(seq.cast(), (&raw const MORE).cast_mut().cast(), 1);
    }
}

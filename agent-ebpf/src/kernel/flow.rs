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
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie,
    bpf_ktime_get_boot_ns, bpf_ringbuf_query, bpf_seq_write, bpf_sk_storage_get, bpf_sock_from_file,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use haechi_ebpf::event::{net_flow, net_tcp_connect};
use haechi_ebpf::fact;
use haechi_ebpf::flow::{Direction, Phase, Reason, mark, tcp};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{HEADER, at, flag};

use crate::apart::apart;
use crate::descriptor::socket;
use crate::gate;
use crate::maps::{CONNECTIONS, FLOWS, Known, LISTENERS, SOCKETS, flow_ring_bytes};
use crate::mem::{Btf, Mem, Probe, Ptr, field, pointer, with_current};
use crate::record::Record;
use crate::sock::{
    Ends, activity, below, connected_from_here, mptcp_group, net_ns, number_of_address, put_counters, put_ends,
    tcp_sock,
};
use crate::task::{PF_KTHREAD, cgroup};

/// `BPF_SK_STORAGE_GET_F_CREATE` of include/uapi/linux/bpf.h.
const CREATE: u64 = 1;
/// `BPF_RB_AVAIL_DATA`, the same file.
const AVAILABLE: u64 = 0;

/// What a socket is to us; kept in `Known`.
mod role {
    /// Nothing: closed, or not yet established.
    pub(super) const NONE: u32 = 0;
    /// It connected.
    pub(super) const OUTGOING: u32 = 1;
    /// It was accepted.
    pub(super) const INCOMING: u32 = 2;
    /// It listens; what is known of it is copied to the sockets it makes.
    pub(super) const LISTENER: u32 = 3;
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
    if !gate::wanted(net_flow::ID) {
        return;
    }
    let Some(tp) = tcp_sock(sk) else { return };
    match new {
        tcp::SYN_SENT => begin::<S>(tp, role::OUTGOING),
        tcp::LISTEN => begin::<S>(tp, role::LISTENER),
        tcp::ESTABLISHED => established::<S>(tp, old),
        _ => closed::<S>(tp, old),
    }
}

/// Where what is known of a socket is kept.
trait Store {
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
struct Beside;

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
        // SAFETY: the verifier knows the type of `sk`.
        unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) }
    }
}

/// In a hash by the socket's address. Listeners are found by namespace and port.
struct ByAddress;

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

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// A process connects or listens: it is the owner.
#[inline(always)]
fn begin<S: Store>(tp: Ptr, role: u32) {
    let Some(known) = S::known(tp, true) else { return };
    known.role = role;
    known.marks = 0;
    known.latency = 0;
    known.told = 0;
    known.began = now();
    // SAFETY: no preconditions.
    unsafe {
        known.cgroup = bpf_get_current_cgroup_id();
        known.uid = bpf_get_current_uid_gid() as u32;
        known.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    }
    with_current!(|task: M| {
        own::<M>(known, task);
        // Further paths of an MPTCP connection are opened by the kernel itself: whose it is, the connection says.
        if field::<M, u32>(task, fact::TASK_FLAGS) & PF_KTHREAD != 0 && mptcp_group::<Btf>(tp) != 0 {
            known.tgid = 0;
            known.owner_start = 0;
        }
    });
    S::number(tp, known);
    if role == role::LISTENER {
        S::listens(tp, known);
    }
}

#[inline(always)]
fn own<M: Mem>(known: &mut Known, task: Ptr) {
    known.owner_start = field::<M, u64>(pointer::<M>(task, fact::TASK_LEADER), fact::TASK_START);
    known.exec_id = field::<M, u32>(task, fact::TASK_EXEC_ID);
}

#[inline(always)]
fn established<S: Store>(tp: Ptr, old: u32) {
    let Some(known) = S::known(tp, true) else {
        // Who accepts it is told by its number all the same.
        S::number(tp, &Known::EMPTY);
        return;
    };
    let time = now();
    if known.role == role::OUTGOING {
        // In steps of 64 ns, up to 4.5 minutes; never 0, which is "not established".
        let waited = time.wrapping_sub(known.began) >> 6;
        known.latency = waited.clamp(1, u32::MAX.into()) as u32;
        if gate::wanted(net_tcp_connect::ID) {
            connected::<S>(tp, known);
        }
        return;
    }
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

#[inline(always)]
fn closed<S: Store>(tp: Ptr, old: u32) {
    match S::known(tp, false) {
        Some(known) => {
            let mut role = known.role;
            known.role = role::NONE;
            // The run that should have seen it established was skipped, or there was none (TCP Fast Open).
            if role == role::LISTENER && old != tcp::LISTEN && old != tcp::SYN_RECV && old != tcp::CLOSE {
                role = role::INCOMING;
                known.marks = mark::INHERITED;
            }
            if role == role::OUTGOING || role == role::INCOMING {
                let never = old == tcp::SYN_SENT || old == tcp::SYN_RECV;
                let phase = if never { Phase::Failed } else { Phase::End };
                let _ = report::<S, Btf>(tp, known, role, phase, old);
            }
            S::forget(tp);
        }
        None if old == tcp::LISTEN || old == tcp::CLOSE || old == tcp::SYN_RECV => (),
        None => {
            let nothing = Known { marks: mark::FORGOTTEN, ..Known::EMPTY };
            let phase = if old == tcp::SYN_SENT { Phase::Failed } else { Phase::End };
            let _ = report::<S, Btf>(tp, &nothing, role::NONE, phase, old);
        }
    }
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
fn head<M: Mem>(record: &Record, tp: Ptr, known: &Known, step: Step) {
    record.header_u64(at::TIME, now());
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
fn report<S: Store, M: Mem>(tp: Ptr, known: &Known, role: u32, phase: Phase, state: u32) -> bool {
    use net_flow::field as f;

    let Some(mut record) = Record::begin(&net_flow::DEF) else { return false };
    let progress = phase == Phase::Progress;
    head::<M>(&record, tp, known, if progress { Step::Iterator } else { Step::Tracepoint });
    record.put(f::cookie, S::number(tp, known));
    record.put(f::phase, (phase as u32).into());
    let direction = match role {
        role::OUTGOING => Direction::Outgoing,
        role::INCOMING => Direction::Incoming,
        _ => Direction::Unknown,
    };
    record.put(f::direction, (direction as u32).into());
    record.put(f::protocol, crate::sock::IPPROTO_TCP);
    put_ends::<M>(&mut record, tp, &ENDS);
    record.put(f::state, state.into());
    record.put(f::start_time, known.began);
    put_counters::<M>(&mut record, tp);
    if role == role::OUTGOING && known.latency != 0 && known.marks & (mark::ADOPTED | mark::FORGOTTEN) == 0 {
        record.put(f::connect_latency, u64::from(known.latency) << 6);
    }
    let error = field::<M, u32>(tp, fact::SK_ERR);
    let ended = if progress { Reason::None } else { reason(phase, state, error, activity::<M>(tp)) };
    record.put(f::reason, (ended as u32).into());
    record.put(f::error, error.into());
    let group = mptcp_group::<M>(tp);
    if group != 0 {
        record.put(f::group, group);
    }
    record.put(f::marks, (known.marks | if group == 0 { 0 } else { mark::MPTCP }).into());
    record.send()
}

/// Reports a connection that this end established.
#[inline(always)]
fn connected<S: Store>(tp: Ptr, known: &Known) {
    use net_tcp_connect::field as f;

    let Some(mut record) = Record::begin(&net_tcp_connect::DEF) else { return };
    head::<Btf>(&record, tp, known, Step::Tracepoint);
    record.put(f::cookie, S::number(tp, known));
    if known.marks & mark::ADOPTED == 0 {
        record.put(f::connect_latency, u64::from(known.latency) << 6);
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

/// Tells of a connection where it changed since the last time.
#[inline(always)]
fn look<S: Store>(words: *const Ptr, tp: Ptr, known: &mut Known) {
    let told = activity::<S::Mem>(tp);
    if told == known.told {
        return;
    }
    // Closes come first: what does not fit now is told the next time, or when it closes. A byte to the reader says so.
    // SAFETY: the map is a ring; the context leads to the seq_file; one byte is read.
    unsafe {
        if bpf_ringbuf_query((&raw const FLOWS).cast_mut().cast(), AVAILABLE) > flow_ring_bytes() / 2 {
            let seq = *(*words).cast::<*mut c_void>();
            bpf_seq_write(seq.cast(), (&raw const MORE).cast_mut().cast(), 1);
            return;
        }
    }
    let role = known.role;
    if report::<S, S::Mem>(tp, known, role, Phase::Progress, field::<S::Mem, u8>(tp, fact::SK_STATE).into()) {
        known.told = told;
    }
}

/// `struct bpf_iter__task_file { meta, task, fd, file }`, kernel/bpf/task_iter.c: sockets that were open before the agent.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn flow_adopt(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), |ctx| {
        if let Some((task, sk)) = opened(&ctx)
            && let Some(tp) = tcp_sock(sk)
        {
            adopt::<Beside>(tp, task);
        }
    })
}

/// The task and the open file that the iterator is at.
#[inline(always)]
fn at_file(ctx: &BtfTracePointContext) -> Option<(Ptr, Ptr)> {
    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is two pointers, a number and a pointer.
    let (task, file) = unsafe { (*words.add(1), *words.add(3)) };
    (!task.is_null() && !file.is_null()).then_some((task, file))
}

/// The task and the socket that the iterator is at.
#[inline(always)]
fn opened(ctx: &BtfTracePointContext) -> Option<(Ptr, Ptr)> {
    let (task, file) = at_file(ctx)?;
    // SAFETY: the verifier knows the type; the helper looks at what the file is.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) } as Ptr;
    if socket.is_null() {
        return None;
    }
    let sk = pointer::<Btf>(socket, fact::SOCKET_SK);
    (!sk.is_null()).then_some((task, sk))
}

/// The same for kernels without the helper (before 5.11): the file says what it is, and the socket must agree.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn flow_adopt_by_address(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), |ctx| {
        if let Some((task, file)) = at_file(&ctx)
            && let Some(sk) = below(pointer::<Probe>(socket(file), fact::SOCKET_SK))
        {
            adopt::<ByAddress>(sk, task);
        }
    })
}

#[inline(always)]
fn adopt<S: Store>(tp: Ptr, task: Ptr) {
    let state = u32::from(field::<S::Mem, u8>(tp, fact::SK_STATE));
    if state == tcp::CLOSE {
        return;
    }
    let Some(known) = S::known(tp, true) else { return };
    if known.tgid != 0 {
        return;
    }
    let mut role = known.role;
    if role == role::NONE {
        role = match state {
            tcp::LISTEN => role::LISTENER,
            _ if state == tcp::SYN_SENT || connected_from_here::<S::Mem>(tp, state) => role::OUTGOING,
            _ => role::INCOMING,
        };
        known.began = now();
        known.latency = u32::from(state != tcp::SYN_SENT);
        known.told = 0;
    }
    known.marks = known.marks & !mark::FORGOTTEN | mark::ADOPTED;
    known.tgid = field::<Btf, u32>(task, fact::TASK_TGID);
    known.uid = field::<Btf, u32>(pointer::<Btf>(task, fact::TASK_CRED), fact::CRED_UID);
    known.cgroup = cgroup::<Btf>(task);
    own::<Btf>(known, task);
    S::number(tp, known);
    // Last: whoever looks meanwhile shall not tell of it without its owner.
    known.role = role;
    if role == role::LISTENER {
        S::listens(tp, known);
    }
}

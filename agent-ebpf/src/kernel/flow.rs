//! Flows: every TCP connection of every network namespace, at no cost per packet.
//!
//! The kernel counts bytes, segments and round trips in each socket anyway. What it does not keep (who opened it, when)
//! is put beside the socket once, when its state changes; an iterator over what was put there shows all live sockets
//! with their counters, and the last change of state their final totals.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie,
    bpf_ktime_get_boot_ns, bpf_ringbuf_query, bpf_seq_write, bpf_sk_storage_get, bpf_skc_to_mptcp_sock,
    bpf_sock_from_file,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use haechi_ebpf::event::{net_flow, net_tcp_connect};
use haechi_ebpf::fact;
use haechi_ebpf::flow::{Direction, Phase, Reason, mark, tcp};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{HEADER, at, flag};

use crate::gate;
use crate::maps::{FLOWS, Known, SOCKETS, flow_ring_bytes};
use crate::mem::{Btf, Mem, Ptr, field, pointer, with_current};
use crate::record::Record;
use crate::sock::{Ends, activity, connected_from_here, mptcp_group, net_ns, put_counters, put_ends, tcp_sock};

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
    let (sk, old, new): (Ptr, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if matters(new) {
        changed(sk, old, new);
    }
    0
}

/// Changes that say something new; the others only lead from one of these to the next.
#[inline(always)]
fn matters(new: u32) -> bool {
    new == tcp::ESTABLISHED || new == tcp::SYN_SENT || new == tcp::CLOSE || new == tcp::LISTEN
}

/// A socket's state changed.
#[inline(always)]
fn changed(sk: Ptr, old: u32, new: u32) {
    if !gate::wanted(net_flow::ID) {
        return;
    }
    let Some(tp) = tcp_sock(sk) else { return };
    match new {
        tcp::SYN_SENT => begin(tp, role::OUTGOING),
        tcp::LISTEN => begin(tp, role::LISTENER),
        tcp::ESTABLISHED => established(tp, old),
        _ => closed(tp, old),
    }
}

/// What is known of a socket.
#[inline(always)]
fn known(sk: Ptr, flags: u64) -> Option<&'static mut Known> {
    // SAFETY: the verifier knows the type of `sk`. A new value is all zeroes.
    let known = unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk.cast_mut().cast(), core::ptr::null_mut(), flags)
    };
    // SAFETY: the value is ours; two programs that touch it at once touch different members.
    unsafe { known.cast::<Known>().as_mut() }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// A process connects or listens: it is the owner.
#[inline(always)]
fn begin(tp: Ptr, role: u32) {
    let Some(known) = known(tp, CREATE) else { return };
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
    with_current!(|task: M| own::<M>(known, task));
    number(tp);
}

/// Sees to it that the socket has a number.
#[inline(always)]
fn number(sk: Ptr) -> u64 {
    // SAFETY: the verifier knows the type of `sk`.
    unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) }
}

#[inline(always)]
fn own<M: Mem>(known: &mut Known, task: Ptr) {
    known.owner_start = field::<M, u64>(pointer::<M>(task, fact::TASK_LEADER), fact::TASK_START);
    known.exec_id = field::<M, u32>(task, fact::TASK_EXEC_ID);
}

#[inline(always)]
fn established(tp: Ptr, old: u32) {
    let Some(known) = known(tp, CREATE) else { return };
    let time = now();
    if known.role == role::OUTGOING {
        // In steps of 64 ns, up to 4.5 minutes; never 0, which is "not established".
        let waited = time.wrapping_sub(known.began) >> 6;
        known.latency = if waited == 0 {
            1
        } else if waited > 0xffff_ffff {
            u32::MAX
        } else {
            waited as u32
        };
        if gate::wanted(net_tcp_connect::ID) {
            connected(tp, known);
        }
        return;
    }
    let begun = known.role == role::LISTENER;
    known.marks = if begun { mark::INHERITED } else { mark::FORGOTTEN };
    known.role = if begun || old != tcp::SYN_SENT { role::INCOMING } else { role::OUTGOING };
    known.began = time;
    known.latency = 1;
    known.told = 0;
    number(tp);
}

#[inline(always)]
fn closed(tp: Ptr, old: u32) {
    match known(tp, 0) {
        Some(known) => {
            let role = known.role;
            known.role = role::NONE;
            if role == role::OUTGOING || role == role::INCOMING {
                let phase = if known.latency == 0 { Phase::Failed } else { Phase::End };
                report(tp, known, role, phase, old);
            }
        }
        None if old == tcp::LISTEN || old == tcp::CLOSE || old == tcp::SYN_RECV => (),
        None => {
            let nothing = Known { marks: mark::FORGOTTEN, ..Known::EMPTY };
            report(tp, &nothing, role::NONE, if old == tcp::SYN_SENT { Phase::Failed } else { Phase::End }, old);
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
fn reason(phase: Phase, old: u32, error: u32) -> Reason {
    match error {
        ECONNREFUSED | ECONNRESET | EPIPE => Reason::ResetByPeer,
        ETIMEDOUT => Reason::TimedOut,
        0 if phase as u32 == Phase::Failed as u32 => Reason::Abandoned,
        0 if old == tcp::ESTABLISHED || old == tcp::CLOSE_WAIT => Reason::ResetLocally,
        0 => Reason::Fin,
        _ => Reason::Error,
    }
}

/// The header of a record about a socket: its owner, who need not be the current task.
#[inline(always)]
fn head(record: &Record, tp: Ptr, known: &Known, step: Step) {
    record.header_u64(at::TIME, now());
    record.header_u32(at::TID, known.tgid);
    record.header_u32(at::TGID, known.tgid);
    record.header_u64(at::START, known.owner_start);
    record.header_u32(at::EXEC_ID, known.exec_id);
    record.header_u32(at::UID, known.uid);
    record.header_u64(at::CGROUP, known.cgroup);
    record.header_u32(at::MNT_NS, 0);
    record.header_u32(at::PID_NS, 0);
    record.header_u32(at::NET_NS, net_ns::<Btf>(tp));
    record.header_u32(at::PPID, 0);
    record.header_u32(at::NS_TID, 0);
    record.header_u32(at::NS_TGID, 0);
    record.header_u64(at::RET, 0);
    record.header_u64(at::COMM, 0);
    record.header_u64(at::COMM + 8, 0);
    record.header_u16(at::FLAGS, (step as u16) << flag::STEP_SHIFT);
}

/// Reports a flow.
#[inline(always)]
fn report(tp: Ptr, known: &Known, role: u32, phase: Phase, state: u32) {
    use net_flow::field as f;

    let Some(mut record) = Record::begin(&net_flow::DEF) else { return };
    head(&record, tp, known, if phase as u32 == Phase::Progress as u32 { Step::Iterator } else { Step::Tracepoint });
    record.put(f::cookie, number(tp));
    record.put(f::phase, (phase as u32).into());
    let direction = if role == role::INCOMING { Direction::Incoming } else { Direction::Outgoing };
    let direction = if role == role::NONE { Direction::Unknown } else { direction };
    record.put(f::direction, (direction as u32).into());
    record.put(f::protocol, crate::sock::IPPROTO_TCP);
    put_ends::<Btf>(&mut record, tp, &ENDS);
    record.put(f::state, state.into());
    record.put(f::start_time, known.began);
    put_counters(&mut record, tp);
    if role == role::OUTGOING && known.latency != 0 && known.marks & (mark::ADOPTED | mark::FORGOTTEN) == 0 {
        record.put(f::connect_latency, u64::from(known.latency) << 6);
    }
    let error = field::<Btf, u32>(tp, fact::SK_ERR);
    let ended = if phase as u32 == Phase::Progress as u32 { Reason::None } else { reason(phase, state, error) };
    record.put(f::reason, (ended as u32).into());
    record.put(f::error, error.into());
    let group = mptcp_group(tp);
    if group != 0 {
        record.put(f::group, group);
    }
    record.put(f::marks, (known.marks | if group == 0 { 0 } else { mark::MPTCP }).into());
    record.send();
}

/// Reports a connection that this end established.
#[inline(always)]
fn connected(tp: Ptr, known: &Known) {
    use net_tcp_connect::field as f;

    let Some(mut record) = Record::begin(&net_tcp_connect::DEF) else { return };
    head(&record, tp, known, Step::Tracepoint);
    record.put(f::cookie, number(tp));
    record.put(f::connect_latency, u64::from(known.latency) << 6);
    put_ends::<Btf>(&mut record, tp, &CONNECT_ENDS);
    record.send();
}

/// `struct bpf_iter__bpf_sk_storage_map { meta, map, sk, value }`, net/core/bpf_sk_storage.c: once for every socket that
/// something is known of, in one read. What it finds goes through the ring and not to the reader of the iterator, who
/// would get 32 KiB a read and walk from the start of a bucket each time.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
fn flow_poll(ctx: *mut c_void) -> i32 {
    let ctx = BtfTracePointContext::new(ctx);
    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is four pointers.
    let (sk, value) = unsafe { (*words.add(2), *words.add(3)) };
    // SAFETY: the value is as large as the map says, and stays while the socket does.
    let Some(known) = (unsafe { value.cast_mut().cast::<Known>().as_mut() }) else { return 0 };
    if sk.is_null() || known.role != role::OUTGOING && known.role != role::INCOMING {
        return 0;
    }
    let Some(tp) = tcp_sock(sk) else { return 0 };
    let told = activity(tp);
    if told == known.told {
        return 0;
    }
    // Closes come first: what does not fit now is told the next time, or when it closes. A byte to the reader says so.
    // SAFETY: the map is a ring; the context leads to the seq_file; one byte is read.
    unsafe {
        if bpf_ringbuf_query((&raw const FLOWS).cast_mut().cast(), AVAILABLE) > flow_ring_bytes() / 2 {
            let seq = *(*words).cast::<*mut c_void>();
            bpf_seq_write(seq.cast(), (&raw const MORE).cast_mut().cast(), 1);
            return 0;
        }
    }
    known.told = told;
    let role = known.role;
    report(tp, known, role, Phase::Progress, field::<Btf, u8>(tp, fact::SK_STATE).into());
    0
}

/// `struct bpf_iter__task_file { meta, task, fd, file }`, kernel/bpf/task_iter.c: sockets that were open before the agent.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn flow_adopt(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = opened(ctx) else { return 0 };
    if let Some(tp) = tcp_sock(sk) {
        adopt(tp, task);
        return 0;
    }
    // SAFETY: the verifier knows the type; the helper looks at what it is.
    let connection = unsafe { bpf_skc_to_mptcp_sock(sk.cast_mut().cast()) } as Ptr;
    if !connection.is_null() {
        let first = pointer::<Btf>(connection, fact::MPTCP_FIRST);
        if !first.is_null()
            && let Some(tp) = tcp_sock(first)
        {
            adopt(tp, task);
        }
    }
    0
}

/// The same for kernels that do not let an iterator look behind MPTCP ("R1 type=ptr_ expected=sock_common", 6.1).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn flow_adopt_old(ctx: *mut c_void) -> i32 {
    if let Some((task, sk)) = opened(ctx)
        && let Some(tp) = tcp_sock(sk)
    {
        adopt(tp, task);
    }
    0
}

/// The task and the socket that the iterator is at.
#[inline(always)]
fn opened(ctx: *mut c_void) -> Option<(Ptr, Ptr)> {
    let ctx = BtfTracePointContext::new(ctx);
    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is two pointers, a number and a pointer.
    let (task, file) = unsafe { (*words.add(1), *words.add(3)) };
    if task.is_null() || file.is_null() {
        return None;
    }
    // SAFETY: the verifier knows the type; the helper looks at what the file is.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) } as Ptr;
    if socket.is_null() {
        return None;
    }
    let sk = pointer::<Btf>(socket, fact::SOCKET_SK);
    (!sk.is_null()).then_some((task, sk))
}

#[inline(always)]
fn adopt(tp: Ptr, task: Ptr) {
    let state = u32::from(field::<Btf, u8>(tp, fact::SK_STATE));
    if state == tcp::CLOSE {
        return;
    }
    let Some(known) = known(tp, CREATE) else { return };
    if known.tgid != 0 {
        return;
    }
    if known.role == role::NONE {
        known.role = match state {
            tcp::LISTEN => role::LISTENER,
            _ if connected_from_here(tp, state) || state == tcp::SYN_SENT => role::OUTGOING,
            _ => role::INCOMING,
        };
        known.began = now();
        known.latency = u32::from(state != tcp::SYN_SENT);
        known.told = 0;
    }
    known.marks = known.marks & !mark::FORGOTTEN | mark::ADOPTED;
    known.tgid = field::<Btf, u32>(task, fact::TASK_TGID);
    known.uid = field::<Btf, u32>(pointer::<Btf>(task, fact::TASK_CRED), fact::CRED_UID);
    let cgroup = pointer::<Btf>(pointer::<Btf>(task, fact::TASK_CGROUPS), fact::CSS_SET_DFL_CGRP);
    known.cgroup = field::<Btf, u64>(pointer::<Btf>(cgroup, fact::CGROUP_KN), fact::KN_ID);
    own::<Btf>(known, task);
    number(tp);
}

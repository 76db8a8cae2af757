//! What a TCP socket says of itself: its ends, its counters, its number. Read through the typed pointer that
//! `bpf_skc_to_tcp_sock` gives: `struct tcp_sock` begins with `inet_connection_sock`, that with `inet_sock`, that with
//! `sock`, so members of all four are read at their own offsets.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use haechi_ebpf::event::{Field, net_flow};
use haechi_ebpf::fact;
use haechi_ebpf::flow::tcp;

use crate::maps::{CONNECTIONS, address_key};
use crate::mem::{Mem, Probe, Ptr, field, get, has, inside, pointer};
use crate::record::Slots;

/// `AF_INET` and `AF_INET6` of include/linux/socket.h.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `IPPROTO_TCP` and `IPPROTO_MPTCP` of include/uapi/linux/in.h.
pub const IPPROTO_TCP: u64 = 6;
const IPPROTO_MPTCP: u16 = 262;
/// `SOCK_DONE` of `enum sock_flags`, include/net/sock.h: set when the other end's FIN is taken in (`tcp_fin()`).
const SOCK_DONE: u64 = 1 << 1;

/// The socket as a `struct tcp_sock`; `None` for all that is no full TCP socket.
#[inline(always)]
pub fn tcp_sock(sk: Ptr) -> Option<Ptr> {
    // SAFETY: the verifier knows the type of `sk`; the helper looks at what it is.
    let tp = unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast::<c_void>()) } as Ptr;
    (!tp.is_null()).then_some(tp)
}

/// Whether a socket is TCP's own, not one of those that only keep its states.
#[inline(always)]
pub fn is_tcp<M: Mem>(sk: Ptr) -> bool {
    u64::from(field::<M, u16>(sk, fact::SK_PROTOCOL)) == IPPROTO_TCP
}

/// Fields of a record that name the two ends.
pub struct Ends {
    /// Address of this end.
    pub local: Field,
    /// Port of this end.
    pub local_port: Field,
    /// Address of the other end.
    pub remote: Field,
    /// Port of the other end.
    pub remote_port: Field,
    /// Where the variable area of the record starts.
    pub at: usize,
}

/// Bytes behind the slots of a record that the two ends take.
pub const ENDS_BYTES: usize = 32;

/// Writes the ends of a socket.
#[inline(always)]
pub fn put_ends<M: Mem>(record: &mut Slots, sk: Ptr, ends: &Ends) {
    // Not `skc_num`: it is 0 once the port was given back.
    record.put(ends.local_port, field::<M, u16>(sk, fact::INET_SPORT).swap_bytes().into());
    record.put(ends.remote_port, field::<M, u16>(sk, fact::SK_DPORT).swap_bytes().into());
    let len = if field::<M, u16>(sk, fact::SK_FAMILY) == AF_INET6 {
        // VERIFIER: "access beyond the end of member": a typed load may not span bytes of an array.
        // SAFETY: 16 bytes of the record's variable area each.
        unsafe {
            let to = record.memory().add(ends.at);
            bpf_probe_read_kernel(to.cast(), 16, inside(sk, fact::SK_V6_RCV_SADDR).cast());
            bpf_probe_read_kernel(to.add(16).cast(), 16, inside(sk, fact::SK_V6_DADDR).cast());
        }
        16
    } else {
        // SAFETY: as above.
        unsafe {
            let to = record.memory().add(ends.at);
            core::ptr::write_volatile(to.cast(), field::<M, u32>(sk, fact::SK_RCV_SADDR));
            core::ptr::write_volatile(to.add(16).cast(), field::<M, u32>(sk, fact::SK_DADDR));
        }
        4
    };
    record.place(ends.local, ends.at, len);
    record.place(ends.remote, ends.at + 16, len);
}

/// Inode number of the network namespace that a socket lives in.
#[inline(always)]
pub fn net_ns<M: Mem>(sk: Ptr) -> u32 {
    field::<M, u32>(pointer::<M>(sk, fact::SK_NET), fact::NET_INUM)
}

/// Changes with everything that a poll would tell.
#[inline(always)]
pub fn activity<M: Mem>(tp: Ptr) -> u64 {
    u64::from(field::<M, u32>(tp, fact::TCP_SEGS_IN)) << 32 | u64::from(field::<M, u32>(tp, fact::TCP_SEGS_OUT))
}

/// Writes the counters of a connection.
#[inline(always)]
pub fn put_counters<M: Mem>(record: &mut Slots, tp: Ptr) {
    use net_flow::field as f;

    let sent = field::<M, u64>(tp, fact::TCP_BYTES_SENT);
    record.put(f::tx_bytes, sent.wrapping_sub(field::<M, u64>(tp, fact::TCP_BYTES_RETRANS)));
    let received = field::<M, u64>(tp, fact::TCP_BYTES_RECEIVED);
    // The FIN counts as a byte there.
    record.put(f::rx_bytes, received.wrapping_sub(u64::from(fin_came::<M>(tp) && received != 0)));
    record.put(f::tx_segments, field::<M, u32>(tp, fact::TCP_SEGS_OUT).into());
    record.put(f::rx_segments, field::<M, u32>(tp, fact::TCP_SEGS_IN).into());
    record.put(f::retransmits, field::<M, u32>(tp, fact::TCP_TOTAL_RETRANS).into());
    record.put(f::lost, field::<M, u32>(tp, fact::TCP_LOST).into());
    // Kept times eight: `tcp_rtt_estimator()` in net/ipv4/tcp_input.c.
    record.put(f::srtt, (field::<M, u32>(tp, fact::TCP_SRTT) >> 3).into());
    // `struct minmax` of include/linux/win_minmax.h: three pairs of time and value, the best first. ~0 is none yet.
    // SAFETY: the value lies behind the first pair's time.
    let min: u32 = unsafe { M::load(tp.wrapping_add(get(fact::TCP_RTT_MIN) as usize + 4)) };
    record.put(f::min_rtt, if min == u32::MAX { 0 } else { min.into() });
}

#[inline(always)]
fn fin_came<M: Mem>(tp: Ptr) -> bool {
    field::<M, u64>(tp, fact::SK_FLAGS) & SOCK_DONE != 0
}

/// Whether this end sent the SYN, of a connection that is there already.
///
/// Sequence space that this end used (acknowledged and in flight) is what it sent, each byte once, and one more for a
/// SYN of its own: `bytes_acked` counts the SYN of who connects, and starts behind that of who accepts
/// (`tcp_rcv_synsent_state_process()` and `tcp_create_openreq_child()`). A FIN takes one more.
#[inline(always)]
pub fn connected_from_here<M: Mem>(tp: Ptr, state: u32) -> bool {
    let in_flight = field::<M, u32>(tp, fact::TCP_SND_NXT).wrapping_sub(field::<M, u32>(tp, fact::TCP_SND_UNA));
    let used = field::<M, u64>(tp, fact::TCP_BYTES_ACKED).wrapping_add(in_flight.into());
    let sent = field::<M, u64>(tp, fact::TCP_BYTES_SENT);
    let sent = sent.wrapping_sub(field::<M, u64>(tp, fact::TCP_BYTES_RETRANS));
    let fin = state != tcp::ESTABLISHED && state != tcp::CLOSE_WAIT && state != tcp::SYN_SENT;
    used.wrapping_sub(sent).wrapping_sub(fin.into()) == 1
}

/// The MPTCP connection that a socket is a path of, as a number that stands for it; 0 for none.
#[inline(always)]
pub fn mptcp_group<M: Mem>(tp: Ptr) -> u64 {
    if !has(fact::TCP_IS_MPTCP) || !has(fact::MPTCP_CONN) || field::<M, u8>(tp, fact::TCP_IS_MPTCP) & 1 == 0 {
        return 0;
    }
    // SAFETY: a probe read; the context belongs to MPTCP, whose type the socket does not tell.
    let context: Ptr = unsafe { Probe::load(inside(tp, fact::ICSK_ULP_DATA)) };
    let connection = pointer::<Probe>(context, fact::MPTCP_CONN);
    if connection.is_null() { 0 } else { number_of_address(connection, 0) }
}

/// A number for a connection on kernels that give a tracing program none: the address of its socket, made unreadable, and
/// when it began, for addresses are used again.
#[inline(always)]
pub fn number_of_address(sk: Ptr, began: u64) -> u64 {
    // VERIFIER: "math between ptr_ pointer and ..": a copy that went through a helper is only a number.
    // SAFETY: one word is read.
    let address: u64 = unsafe { Probe::load((&raw const sk).cast()) };
    (address ^ address_key() ^ began).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The number of a connection of which only its socket's address is known, as `flow` gives it; 0 where there is none.
#[inline(always)]
pub fn number_by_address(sk: Ptr) -> u64 {
    if has(fact::HELPER_SOCK_FROM_FILE) {
        return field::<Probe, u64>(sk, fact::SK_COOKIE);
    }
    // SAFETY: the value is plain numbers.
    unsafe { CONNECTIONS.get(&(sk as u64)) }.map_or(0, |known| number_of_address(sk, known.began))
}

/// The TCP socket below a socket that only its address is known of: itself, or the first path of MPTCP.
#[inline(always)]
pub fn below(sk: Ptr) -> Option<Ptr> {
    let family = field::<Probe, u16>(sk, fact::SK_FAMILY);
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    match field::<Probe, u16>(sk, fact::SK_PROTOCOL) {
        IPPROTO_MPTCP if has(fact::MPTCP_FIRST) => Some(pointer::<Probe>(sk, fact::MPTCP_FIRST)),
        protocol => (u64::from(protocol) == IPPROTO_TCP).then_some(sk),
    }
    .filter(|sk| !sk.is_null())
}

//! Who accepted a connection. When it is established nobody has: until then it belongs to whoever listens.

use aya_ebpf::macros::{fexit, kprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext};
use haechi_ebpf::event::net_tcp_accept::{self as event, field as f};
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{HEADER, at};

use crate::apart::apart;
use crate::descriptor::{self, by_descriptor};
use crate::gate;
use crate::mem::{Probe, Ptr, pointer};
use crate::record::InRing;
use crate::regs::Call;
use crate::sock::{ENDS_BYTES, Ends, below, net_ns, number_by_address, put_ends};
use crate::task::head;

/// The other end is the source: it connected.
const ENDS: Ends = Ends {
    local: f::dst,
    local_port: f::dst_port,
    remote: f::src,
    remote_port: f::src_port,
    at: HEADER + 8 * event::SLOTS,
};

/// A record, which has always the same length.
type Accept = InRing<{ (ENDS.at + ENDS_BYTES) as u64 }>;

/// `int inet_accept(struct socket *sock, struct socket *newsock, ..)`, net/ipv4/af_inet.c; of both IP versions.
#[fexit(function = "inet_accept")]
fn accept_fexit(ctx: FExitContext) -> i32 {
    apart(ctx, |ctx| grafted(ctx.arg(1)))
}

/// `int mptcp_stream_accept(struct socket *sock, struct socket *newsock, ..)`, net/mptcp/protocol.c.
#[fexit(function = "mptcp_stream_accept")]
fn accept_fexit_mptcp(ctx: FExitContext) -> i32 {
    apart(ctx, |ctx| grafted(ctx.arg(1)))
}

#[inline(always)]
fn grafted(socket: Ptr) {
    let sk = pointer::<Probe>(socket, fact::SOCKET_SK);
    if !sk.is_null() {
        accepted(sk, Step::Fexit, 0);
    }
}

/// `void security_sock_graft(struct sock *sk, struct socket *parent)`, security/security.c: the accepted socket gets a
/// descriptor's. (A return probe of the accept itself would be held by every thread that waits there.)
#[kprobe]
fn accept_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<Ptr>(0)
        && !sk.is_null()
    {
        accepted(sk, Step::Kprobe, 0);
    }
    0
}

/// The raw plan: accept(2) or accept4(2) returned.
#[inline(always)]
pub fn at_exit(call: Call, ret: i64) {
    if ret < 0 {
        return;
    }
    let socket = descriptor::socket(by_descriptor(ret as u64));
    if !socket.is_null() {
        accepted(pointer::<Probe>(socket, fact::SOCKET_SK), Step::RawSyscall, call.abi);
    }
}

#[inline(always)]
fn accepted(sk: Ptr, step: Step, marks: u16) {
    if gate::open(event::ID).is_none() {
        return;
    }
    let Some(sk) = below(sk) else { return };
    let Some(mut record) = Accept::begin(&event::DEF) else { return };
    head(&record, step, marks, None);
    // Of the connection, as in its other records: a proxy may accept where it does not live.
    record.header_u32(at::NET_NS, net_ns::<Probe>(sk));
    record.put(f::cookie, number_by_address(sk));
    put_ends::<Probe>(&mut record, sk, &ENDS);
    record.send();
}

//! Sockets being made, bound, listened on, asked for a connection, and put at another descriptor.

use aya_ebpf::macros::kretprobe;
use aya_ebpf::programs::RetProbeContext;
use haechi_ebpf::event::{
    Field, security_socket_accept as accept, security_socket_bind as bind, security_socket_create as create,
    security_socket_listen as listen, socket_dup as dup,
};
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;

use crate::descriptor::{self, by_descriptor};
use crate::file::marks_of_call;
use crate::gate;
use crate::hooks::hooks;
use crate::mem::{Btf, Mem, Probe, Ptr, field, inside, pointer};
use crate::record::Record;
use crate::regs::{Call, argument, call, with_current_regs};
use crate::socket::{Numbers, descriptor_of_call};
use crate::syscall::{Returned, at_exit, at_return};
use crate::task::{begun, head};

hooks! {
    /// `int security_socket_create(int family, int type, int protocol, int kern)`, security/security.c.
    (socket_create_fexit, socket_create_lsm, socket_create_kprobe) at ("security_socket_create", "socket_create")
        (family: i32, kind: i32, protocol: i32, kern: i32) => creating;
    /// `int security_socket_bind(struct socket *sock, struct sockaddr *address, int addrlen)`.
    (socket_bind_fexit, socket_bind_lsm, socket_bind_kprobe) at ("security_socket_bind", "socket_bind")
        (socket: Ptr, address: Ptr, len: i32) => binding;
    /// `int security_socket_listen(struct socket *sock, int backlog)`.
    (socket_listen_fexit, socket_listen_lsm, socket_listen_kprobe) at ("security_socket_listen", "socket_listen")
        (socket: Ptr, backlog: i32) => listening;
    /// `int security_socket_accept(struct socket *sock, struct socket *newsock)`.
    (socket_accept_fexit, socket_accept_lsm, socket_accept_kprobe) at ("security_socket_accept", "socket_accept")
        (socket: Ptr, _new: Ptr) => accepting;
}

at_exit! {
    socket_exit: created;
    bind_exit: bound;
    listen_exit: listened;
    accept_exit: accepted;
    dup_exit: doubled_at_exit;
}

/// `SOCK_TYPE_MASK` of include/linux/net.h: above it lie flags.
const TYPE: u64 = 0xf;

/// Numbers of the calls: arch/x86/entry/syscalls/syscall_64.tbl, syscall_32.tbl, include/uapi/asm-generic/unistd.h.
const BIND: Numbers = Numbers { x86_64: 49, i386: 361, arm64: 200 };
const LISTEN: Numbers = Numbers { x86_64: 50, i386: 363, arm64: 201 };
const ACCEPT: Numbers = Numbers { x86_64: 43, i386: u32::MAX, arm64: 202 };
const ACCEPT4: Numbers = Numbers { x86_64: 288, i386: 364, arm64: 242 };

#[inline(always)]
fn put_kind(record: &mut Record, [family, kind, protocol, kern]: [i64; 4]) {
    record.put_int(create::field::family, family);
    record.put_int(create::field::r#type, kind);
    record.put_int(create::field::protocol, protocol);
    record.put_int(create::field::kern, kern);
}

#[inline(always)]
fn creating<M: Mem>(family: i32, kind: i32, protocol: i32, kern: i32, step: Step, ret: Option<i64>) {
    let Some(mut record) = begun(&create::DEF, step, marks_of_call, ret) else { return };
    put_kind(&mut record, [family.into(), kind.into(), protocol.into(), kern.into()]);
    record.send();
}

#[inline(always)]
fn binding<M: Mem>(_socket: Ptr, address: Ptr, len: i32, step: Step, ret: Option<i64>) {
    let Some(mut record) = begun(&bind::DEF, step, marks_of_call, ret) else { return };
    put_descriptor(&mut record, bind::field::sockfd, [BIND]);
    record.put_address::<false>(bind::field::local_addr, address as u64, len as u32 as u64);
    record.send();
}

#[inline(always)]
fn listening<M: Mem>(socket: Ptr, backlog: i32, step: Step, ret: Option<i64>) {
    use listen::field as f;

    let Some(mut record) = begun(&listen::DEF, step, marks_of_call, ret) else { return };
    put_descriptor(&mut record, f::sockfd, [LISTEN]);
    put_end::<LOCAL>(&mut record, f::local_addr, socket);
    record.put_int(f::backlog, backlog.into());
    record.send();
}

#[inline(always)]
fn accepting<M: Mem>(socket: Ptr, _new: Ptr, step: Step, ret: Option<i64>) {
    let Some(mut record) = begun(&accept::DEF, step, marks_of_call, ret) else { return };
    put_descriptor(&mut record, accept::field::sockfd, [ACCEPT, ACCEPT4]);
    put_end::<LOCAL>(&mut record, accept::field::local_addr, socket);
    record.send();
}

#[inline(always)]
fn put_descriptor<const N: usize>(record: &mut Record, field: Field, calls: [Numbers; N]) {
    if let Some(descriptor) = descriptor_of_call(calls) {
        record.put_int(field, descriptor);
    }
}

/// Which end of a socket.
const LOCAL: bool = false;
const REMOTE: bool = true;

/// `AF_UNIX`, `AF_INET` and `AF_INET6` of include/linux/socket.h.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Writes an end of a socket as a `struct sockaddr`; nothing where it has none.
#[inline(always)]
fn put_end<const END: bool>(record: &mut Record, to: Field, socket: Ptr) {
    let sk = pointer::<Probe>(socket, fact::SOCKET_SK);
    let family = field::<Probe, u16>(sk, fact::SK_FAMILY);
    let port = match END {
        REMOTE => field::<Probe, u16>(sk, fact::SK_DPORT),
        LOCAL => field::<Probe, u16>(sk, fact::SK_NUM).swap_bytes(),
    };
    let first = u64::from(family) | u64::from(port) << 16;
    if family == AF_INET {
        let address = if END == REMOTE { fact::SK_DADDR } else { fact::SK_RCV_SADDR };
        record.put_words(to, [first | u64::from(field::<Probe, u32>(sk, address)) << 32, 0, 0, 0], 16);
    } else if family == AF_INET6 {
        let address = if END == REMOTE { fact::SK_V6_DADDR } else { fact::SK_V6_RCV_SADDR };
        // SAFETY: sixteen bytes are read into as many.
        let [high, low]: [u64; 2] = unsafe { Probe::load(inside(sk, address)) };
        record.put_words(to, [first, high, low, 0], 28);
    } else if family == AF_UNIX {
        let sk = if END == REMOTE { pointer::<Probe>(sk, fact::UNIX_PEER) } else { sk };
        let address = pointer::<Probe>(sk, fact::UNIX_ADDR);
        let len = field::<Probe, u32>(address, fact::UNIX_ADDRESS_LEN);
        if len == 0 {
            // No name was given to it.
            record.put_words(to, [first & 0xffff, 0, 0, 0], 2);
        } else {
            record.put_address::<false>(to, inside(address, fact::UNIX_ADDRESS_NAME) as u64, len.into());
        }
    }
}

/// The raw plan: socket(2) returned.
#[inline(always)]
fn created(of: Returned) {
    if of.ret < 0 {
        return;
    }
    let Some(mut record) = of.begin(&create::DEF) else { return };
    let (family, protocol) = (of.argument::<0>() as i32, of.argument::<2>() as i32);
    let kind = (of.argument::<1>() & TYPE) as i64;
    put_kind(&mut record, [family.into(), kind, protocol.into(), 0]);
    record.send();
}

/// The raw plan: bind(2) returned. Not the address that was asked for, but the one that it got.
#[inline(always)]
fn bound(of: Returned) {
    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&bind::DEF) else { return };
    put_socket(&mut record, of, bind::field::sockfd, bind::field::local_addr);
    record.send();
}

/// The raw plan: listen(2) returned.
#[inline(always)]
fn listened(of: Returned) {
    use listen::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&listen::DEF) else { return };
    put_socket(&mut record, of, f::sockfd, f::local_addr);
    record.put_int(f::backlog, of.argument::<1>() as i32 as i64);
    record.send();
}

/// The raw plan: accept(2) or accept4(2) returned.
#[inline(always)]
fn accepted(of: Returned) {
    if of.ret < 0 {
        return;
    }
    let Some(mut record) = of.begin(&accept::DEF) else { return };
    put_socket(&mut record, of, accept::field::sockfd, accept::field::local_addr);
    record.send();
}

/// Writes the descriptor that a call was given, and the near end of its socket.
#[inline(always)]
fn put_socket(record: &mut Record, of: Returned, sockfd: Field, local: Field) {
    let descriptor = of.argument::<0>();
    record.put_int(sockfd, descriptor as i32 as i64);
    let socket = descriptor::socket(by_descriptor(descriptor & 0xffff_ffff));
    if !socket.is_null() {
        put_end::<LOCAL>(record, local, socket);
    }
}

#[inline(always)]
fn doubled_at_exit(of: Returned) {
    doubled::<Btf>(of.regs, of.call, Step::RawSyscall, of.ret);
}

/// Reports dup(2), dup2(2) or dup3(2) of a socket that has two ends.
#[inline(always)]
fn doubled<M: Mem>(regs: Ptr, call: Call, step: Step, ret: i64) {
    use dup::field as f;

    if ret < 0 || gate::open(dup::ID).is_none() {
        return;
    }
    let socket = descriptor::socket(by_descriptor(ret as u64));
    let family = field::<Probe, u16>(pointer::<Probe>(socket, fact::SOCKET_SK), fact::SK_FAMILY);
    if socket.is_null() || !matches!(family, AF_UNIX | AF_INET | AF_INET6) {
        return;
    }
    let Some(mut record) = Record::begin(&dup::DEF) else { return };
    head(&record, step, call.abi, Some(ret));
    record.put_int(f::oldfd, argument::<M, 0>(regs, call.abi) as i32 as i64);
    record.put_int(f::newfd, ret);
    put_end::<REMOTE>(&mut record, f::remote_addr, socket);
    record.send();
}

at_return! {
    dup_fexit: doubled, "__x64_sys_dup";
    dup2_fexit: doubled, "__x64_sys_dup2";
    dup3_fexit: doubled, "__x64_sys_dup3";
    dup_fexit_compat: doubled, "__ia32_sys_dup";
    dup2_fexit_compat: doubled, "__ia32_sys_dup2";
    dup3_fexit_compat: doubled, "__ia32_sys_dup3";
}

/// Return of one of them, by breakpoint.
#[kretprobe]
fn dup_kretprobe(ctx: RetProbeContext) -> u32 {
    with_current_regs!(|regs: M| doubled::<M>(regs, call::<M>(regs), Step::Kprobe, ctx.ret()));
    0
}

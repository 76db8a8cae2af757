//! Sockets being connected: one event, four kinds of hook.

use aya_ebpf::macros::{fexit, kprobe, lsm};
use aya_ebpf::programs::{FExitContext, LsmContext, ProbeContext};
use haechi_ebpf::event::security_socket_connect::{self as event, field as f};
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::flag;

use crate::apart::apart;
use crate::descriptor::{self, by_descriptor};
use crate::file::marks_of_call;
use crate::mem::{Btf, Mem, Probe, Ptr, field, has, pointer};
use crate::record::Record;
use crate::regs::{Call, argument, current_call};
use crate::task::begun;

/// Number of a call in each ABI.
#[derive(Clone, Copy)]
pub struct Numbers {
    /// 64-bit x86.
    pub x86_64: u32,
    /// 32-bit x86.
    pub i386: u32,
    /// 64-bit ARM.
    pub arm64: u32,
}

impl Numbers {
    /// Whether this is the call.
    #[inline(always)]
    pub fn is(&self, call: Call) -> bool {
        let number = match call.abi {
            flag::COMPAT => self.i386,
            _ if has(fact::REGS_DI) => self.x86_64,
            _ => self.arm64,
        };
        call.nr == number
    }
}

/// connect(2): arch/x86/entry/syscalls/syscall_64.tbl, syscall_32.tbl, include/uapi/asm-generic/unistd.h.
const CONNECT: Numbers = Numbers { x86_64: 42, i386: 362, arm64: 203 };

/// `int security_socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`, security/security.c.
#[fexit(function = "security_socket_connect")]
fn socket_connect_fexit(ctx: FExitContext) -> i32 {
    apart(ctx, |ctx| {
        let (len, ret): (i32, i32) = (ctx.arg(2), ctx.arg(3));
        connecting::<Btf>(ctx.arg(0), ctx.arg(1), len, Step::Fexit, Some(ret.into()));
    })
}

/// `LSM_HOOK(int, 0, socket_connect, struct socket *sock, struct sockaddr *address, int addrlen)`.
#[lsm(hook = "socket_connect")]
fn socket_connect_lsm(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(3);
    apart(ctx, |ctx| connecting::<Btf>(ctx.arg(0), ctx.arg(1), ctx.arg(2), Step::Lsm, None));
    ret
}

/// As the fexit program, at the beginning of the function.
#[kprobe]
fn socket_connect_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(socket), Some(address), Some(len)) = (ctx.arg::<Ptr>(0), ctx.arg::<Ptr>(1), ctx.arg::<i32>(2)) {
        connecting::<Probe>(socket, address, len, Step::Kprobe, None);
    }
    0
}

#[inline(always)]
fn connecting<M: Mem>(socket: Ptr, address: Ptr, len: i32, step: Step, ret: Option<i64>) {
    let Some(mut record) = begun(&event::DEF, step, marks_of_call, ret) else { return };
    if let Some(descriptor) = descriptor_of_call([CONNECT]) {
        record.put_int(f::sockfd, descriptor);
    }
    kind::<M>(&mut record, socket);
    record.put_address::<false>(f::remote_addr, address as u64, len as u32 as u64);
    record.send();
}

/// The descriptor given to a call, if it is one of these that we are in.
#[inline(always)]
pub fn descriptor_of_call<const N: usize>(calls: [Numbers; N]) -> Option<i64> {
    let (call, first) = current_call();
    calls.into_iter().any(|c| c.is(call)).then_some(first as i32 as i64)
}

#[inline(always)]
fn kind<M: Mem>(record: &mut Record, socket: Ptr) {
    record.put(f::r#type, field::<M, u16>(socket, fact::SOCKET_TYPE).into());
    let sk = pointer::<M>(socket, fact::SOCKET_SK);
    record.put(f::family, field::<M, u16>(sk, fact::SK_FAMILY).into());
}

/// The raw plan: connect(2) returned.
#[inline(always)]
pub fn at_exit<M: Mem>(regs: Ptr, call: Call, ret: i64) {
    let Some(mut record) = begun(&event::DEF, Step::RawSyscall, || call.abi, Some(ret)) else { return };
    let number = argument::<M, 0>(regs, call.abi);
    record.put_int(f::sockfd, number as i32 as i64);
    let socket = descriptor::socket(by_descriptor(number & 0xffff_ffff));
    if !socket.is_null() {
        kind::<Probe>(&mut record, socket);
    }
    let len = argument::<M, 2>(regs, call.abi) & 0xffff_ffff;
    record.put_address::<true>(f::remote_addr, argument::<M, 1>(regs, call.abi), len);
    record.send();
}

/// The raw plan: a connect was put in a ring.
#[inline(always)]
pub fn through_uring(address: u64, len: u32) {
    let Some(mut record) = begun(&event::DEF, Step::RawSyscall, || flag::IO_URING, None) else { return };
    record.put_address::<true>(f::remote_addr, address, len.into());
    record.send();
}

//! System calls: the raw plan for everything, and the hooks on single calls.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, kretprobe, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RetProbeContext, TracePointContext};
use haechi_ebpf::event::{
    EventDef, memfd_create, net_tcp_accept, ptrace, security_file_open, security_socket_connect, syscall,
};
use haechi_ebpf::filter::{Action, SYSCALL_ENTRIES, SYSCALL_NUMBERS, live};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::flag;

use crate::file::AT_FDCWD;
use crate::maps::{AT_EXIT, live};
use crate::mem::{Btf, Mem, Ptr, mask};
use crate::record::Record;
use crate::regs::{Call, X32_BIT, argument, argument_at, call, number, with_current_regs};
use crate::task::begun;
use crate::{accept, file, gate, socket};

/// What is to be done about a call; nothing for nearly all of them.
#[inline(always)]
fn action(call: Call) -> Option<Action> {
    if call.nr >= SYSCALL_NUMBERS as u32 {
        return None;
    }
    let table = (gate::generation() * 2 + u64::from(call.abi == flag::COMPAT)) * SYSCALL_NUMBERS as u64;
    let word: u32 = live(live::SYSCALLS + 4 * mask::<0xfff>(table + u64::from(call.nr)));
    (word != 0).then(|| Action::decode(word))
}

const _: () = assert!(SYSCALL_ENTRIES == 0x1000);

/// Whether anything may have to be done for the call in these registers, in whichever ABI. This is all that runs for
/// nearly every call on the machine: a dozen instructions and no saved register.
#[inline(always)]
fn watched(regs: Ptr) -> bool {
    let nr = number::<Btf>(regs);
    // The x32 bit says nothing here; -1 is no call.
    if nr & !(X32_BIT | (SYSCALL_NUMBERS as u32 - 1)) != 0 {
        return false;
    }
    let table = gate::generation() * SYSCALL_NUMBERS as u64;
    live::<u8>(live::WATCHED + mask::<0x7ff>(table | u64::from(nr & (SYSCALL_NUMBERS as u32 - 1)))) != 0
}

const _: () = assert!(2 * SYSCALL_NUMBERS == 0x800);

/// `TP_PROTO(struct pt_regs *regs, long id)`, include/trace/events/syscalls.h. Only for calls that do not come back.
#[btf_tracepoint(function = "sys_enter")]
#[inline(always)]
fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    if watched(ctx.arg(0)) { entered(ctx.as_ptr()) } else { 0 }
}

#[inline(never)]
fn entered(ctx: *mut c_void) -> i32 {
    let regs: Ptr = BtfTracePointContext::new(ctx).arg(0);
    let call = call::<Btf>(regs);
    if let Some(action) = action(call)
        && action.at_enter
    {
        raw::<Btf>(regs, call, None);
    }
    0
}

/// `TP_PROTO(struct pt_regs *regs, long ret)`, the same file.
#[btf_tracepoint(function = "sys_exit")]
#[inline(always)]
fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    if watched(ctx.arg(0)) { returned(ctx.as_ptr()) } else { 0 }
}

#[inline(never)]
fn returned(ctx: *mut c_void) -> i32 {
    let ctx = BtfTracePointContext::new(ctx);
    let (regs, ret): (Ptr, i64) = (ctx.arg(0), ctx.arg(1));
    let call = call::<Btf>(regs);
    let Some(action) = action(call) else { return 0 };
    if action.named && !action.at_enter {
        raw::<Btf>(regs, call, Some(ret));
    }
    if !action.raw {
        return 0;
    }
    match action.event {
        security_file_open::ID => file::at_exit::<Btf>(regs, call, action, ret),
        security_socket_connect::ID => socket::at_exit::<Btf>(regs, call, ret),
        ptrace::ID => traced::<Btf>(regs, call, Step::RawSyscall, ret),
        memfd_create::ID => memfd::<Btf>(regs, call, Step::RawSyscall, ret),
        net_tcp_accept::ID => accept::at_exit(call, ret),
        // SAFETY: the context is the program's own. Where nothing is there, it goes on here.
        other => unsafe { AT_EXIT.tail_call(&ctx, other.into()) },
    }
    if action.also != 0 {
        // SAFETY: as above.
        unsafe { AT_EXIT.tail_call(&ctx, action.also.into()) };
    }
    0
}

/// A call that returned.
#[derive(Clone, Copy)]
pub struct Returned {
    /// The registers that it was made with, as a typed pointer.
    pub regs: Ptr,
    /// Which call.
    pub call: Call,
    /// What is to be done about it.
    pub action: Action,
    /// Its result.
    pub ret: i64,
}

impl Returned {
    /// Begins the record of an event that it stands for, if anybody wants that.
    #[inline(always)]
    pub fn begin(&self, def: &'static EventDef) -> Option<Record> {
        begun(def, Step::RawSyscall, || self.call.abi, Some(self.ret))
    }

    /// The argument at a position.
    #[inline(always)]
    pub fn argument<const INDEX: usize>(&self) -> u64 {
        argument::<Btf, INDEX>(self.regs, self.call.abi)
    }

    /// The argument at a position that the table of calls gives.
    #[inline(always)]
    pub fn argument_at(&self, index: u8) -> u64 {
        argument_at::<Btf>(self.regs, self.call.abi, index)
    }

    /// The path that it was given, and the directory that this starts from.
    #[inline(always)]
    pub fn path(&self) -> (u64, i32) {
        let dir = self.action.dir_arg;
        let dir = if dir == Action::NONE { AT_FDCWD } else { self.argument_at(dir) as i32 };
        (self.argument_at(self.action.path_arg), dir)
    }
}

/// What `sys_exit` hands over to another program, in that program.
#[inline(always)]
pub fn handed_over(ctx: &BtfTracePointContext) -> Option<Returned> {
    let (regs, ret): (Ptr, i64) = (ctx.arg(0), ctx.arg(1));
    let call = call::<Btf>(regs);
    Some(Returned { regs, call, action: action(call)?, ret })
}

/// Programs that `sys_exit` hands over to, each with the function that does its work.
macro_rules! at_exit {
    ($($name:ident: $report:path;)+) => { $(
        #[aya_ebpf::macros::btf_tracepoint(function = "sys_exit")]
        fn $name(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            $crate::apart::apart(ctx, |ctx| {
                if let Some(returned) = $crate::syscall::handed_over(&ctx) {
                    $report(returned);
                }
            })
        }
    )+ };
}
pub(crate) use at_exit;

/// Reports a call with its raw arguments.
#[inline(always)]
fn raw<M: Mem>(regs: Ptr, call: Call, ret: Option<i64>) {
    use syscall::field as f;

    let Some(mut record) = begun(&syscall::DEF, Step::RawSyscall, || call.abi, ret) else { return };
    record.put(f::nr, call.nr.into());
    record.put(f::arg0, argument::<M, 0>(regs, call.abi));
    record.put(f::arg1, argument::<M, 1>(regs, call.abi));
    record.put(f::arg2, argument::<M, 2>(regs, call.abi));
    record.put(f::arg3, argument::<M, 3>(regs, call.abi));
    record.put(f::arg4, argument::<M, 4>(regs, call.abi));
    record.put(f::arg5, argument::<M, 5>(regs, call.abi));
    record.send();
}

/// Reports ptrace(2).
#[inline(always)]
fn traced<M: Mem>(regs: Ptr, call: Call, step: Step, ret: i64) {
    use ptrace::field as f;

    let Some(mut record) = begun(&ptrace::DEF, step, || call.abi, Some(ret)) else { return };
    record.put(f::request, argument::<M, 0>(regs, call.abi));
    record.put_int(f::pid, argument::<M, 1>(regs, call.abi) as i32 as i64);
    record.put(f::addr, argument::<M, 2>(regs, call.abi));
    record.put(f::data, argument::<M, 3>(regs, call.abi));
    record.send();
}

/// Reports memfd_create(2).
#[inline(always)]
fn memfd<M: Mem>(regs: Ptr, call: Call, step: Step, ret: i64) {
    use memfd_create::field as f;

    let Some(mut record) = begun(&memfd_create::DEF, step, || call.abi, Some(ret)) else { return };
    // MFD_NAME_MAX_LEN is 249.
    record.put_given::<256, true>(f::uname, argument::<M, 0>(regs, call.abi));
    record.put(f::flags, argument::<M, 1>(regs, call.abi) & 0xffff_ffff);
    record.send();
}

/// `long __x64_sys_ptrace(const struct pt_regs *regs)`, arch/x86/include/asm/syscall_wrapper.h; and its twins.
/// The registers are not taken from the argument: where a call has a weak stand-in (memfd_create on 5.10), BTF shows the
/// stand-in's prototype and the verifier refuses the read ("invalid bpf_context access off=0").
macro_rules! at_return {
    ($($name:ident: $report:ident, $function:literal;)+) => { $(
        #[aya_ebpf::macros::fexit(function = $function)]
        fn $name(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            let ret: i64 = ctx.arg(1);
            with_current_regs!(|regs: M| $report::<M>(regs, call::<M>(regs), Step::FexitSyscall, ret));
            0
        }
    )+ };
}
pub(crate) use at_return;

at_return! {
    ptrace_fexit: traced, "__x64_sys_ptrace";
    ptrace_fexit_compat: traced, "__ia32_compat_sys_ptrace";
    memfd_create_fexit: memfd, "__x64_sys_memfd_create";
    memfd_create_fexit_compat: memfd, "__ia32_sys_memfd_create";
}

/// Reports whichever of the two calls the current task returns from.
#[inline(always)]
fn single(step: Step, ret: i64) {
    with_current_regs!(|regs: M| {
        let call = call::<M>(regs);
        match action(call).map_or(0, |a| a.event) {
            ptrace::ID => traced::<M>(regs, call, step, ret),
            memfd_create::ID => memfd::<M>(regs, call, step, ret),
            _ => (),
        }
    });
}

/// Return of a call's function, by breakpoint.
#[kretprobe]
fn syscall_kretprobe(ctx: RetProbeContext) -> u32 {
    single(Step::Kprobe, ctx.ret());
    0
}

/// `long ret` of a `syscalls:sys_exit_*` tracepoint: 16 bytes in, behind the common fields and the number.
#[inline(always)]
fn tracepoint_ret(ctx: &TracePointContext) -> i64 {
    // SAFETY: the record of such a tracepoint is 24 bytes long.
    unsafe { ctx.as_ptr().cast::<i64>().add(2).read_volatile() }
}

#[tracepoint]
fn tracepoint_ptrace(ctx: TracePointContext) -> u32 {
    single(Step::SyscallTracepoint, tracepoint_ret(&ctx));
    0
}

#[tracepoint]
fn tracepoint_memfd_create(ctx: TracePointContext) -> u32 {
    single(Step::SyscallTracepoint, tracepoint_ret(&ctx));
    0
}

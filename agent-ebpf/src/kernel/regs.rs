//! The registers of a task at a system call: its number, its arguments, by ABI.

use haechi_ebpf::fact::{self, Fact};
use haechi_ebpf::wire::flag;

use crate::mem::{Btf, Mem, Probe, Ptr, current_regs_address, current_regs_btf, field, get, has, with_current};
use crate::task::is_compat;

/// `__X32_SYSCALL_BIT` of arch/x86/include/uapi/asm/unistd.h.
pub const X32_BIT: u32 = 0x4000_0000;

/// Argument registers in order, native and 32-bit (arch/x86/entry/entry_64.S, entry_64_compat.S).
const X86: [Fact; 6] = [fact::REGS_DI, fact::REGS_SI, fact::REGS_DX, fact::REGS_R10, fact::REGS_R8, fact::REGS_R9];
const X86_COMPAT: [Fact; 6] =
    [fact::REGS_BX, fact::REGS_CX, fact::REGS_DX, fact::REGS_SI, fact::REGS_DI, fact::REGS_BP];

/// Which call, in which ABI.
#[derive(Clone, Copy)]
pub struct Call {
    /// Number in the table of the ABI.
    pub nr: u32,
    /// [`flag::COMPAT`], [`flag::X32`] or 0.
    pub abi: u16,
}

/// The number as it stands in the registers, before the ABI is known.
#[inline(always)]
pub fn number<M: Mem>(regs: Ptr) -> u32 {
    if has(fact::REGS_DI) {
        field::<M, u64>(regs, fact::REGS_ORIG_AX) as u32
    } else {
        field::<M, u32>(regs, fact::REGS_ARM_SYSCALLNO)
    }
}

/// Reads the call that the current task is in from its registers. The ABI is decided first: the same number means
/// different calls.
#[inline(always)]
pub fn call<M: Mem>(regs: Ptr) -> Call {
    let compat = with_current!(|task: T| is_compat::<T>(task));
    let nr = number::<M>(regs);
    if compat {
        Call { nr, abi: flag::COMPAT }
    } else if has(fact::REGS_DI) && nr & X32_BIT != 0 && nr != u32::MAX {
        Call { nr: nr & !X32_BIT, abi: flag::X32 }
    } else {
        Call { nr, abi: 0 }
    }
}

/// The argument at `INDEX`.
#[inline(always)]
pub fn argument<M: Mem, const INDEX: usize>(regs: Ptr, abi: u16) -> u64 {
    if !has(fact::REGS_DI) {
        // At the end of a call the first register holds the result; the kernel keeps the argument beside.
        if INDEX == 0 {
            return field::<M, u64>(regs, fact::REGS_ARM_ORIG_X0);
        }
        let offset = get(fact::REGS_ARM_REGS) as usize + 8 * INDEX;
        // SAFETY: see `Mem`.
        return unsafe { M::load(regs.wrapping_add(offset)) };
    }
    if abi == flag::COMPAT {
        field::<M, u64>(regs, X86_COMPAT[INDEX]) & 0xffff_ffff
    } else {
        field::<M, u64>(regs, X86[INDEX])
    }
}

/// The argument at a position that is known only at run time; 0 for one that does not exist.
#[inline(always)]
pub fn argument_at<M: Mem>(regs: Ptr, abi: u16, index: u8) -> u64 {
    match index {
        0 => argument::<M, 0>(regs, abi),
        1 => argument::<M, 1>(regs, abi),
        2 => argument::<M, 2>(regs, abi),
        3 => argument::<M, 3>(regs, abi),
        _ => 0,
    }
}

/// Runs `$body` with the registers that the current task entered the kernel with.
macro_rules! with_current_regs {
    (|$regs:ident: $mem:ident| $body:expr) => {
        if $crate::mem::has(haechi_ebpf::fact::HELPER_TASK_PT_REGS) {
            type $mem = $crate::mem::Btf;
            let $regs = $crate::mem::current_regs_btf();
            $body
        } else {
            type $mem = $crate::mem::Probe;
            let $regs = $crate::mem::current_regs_address();
            $body
        }
    };
}
pub(crate) use with_current_regs;

/// The call that the current task is in, from wherever it is asked, and its first argument.
#[inline(always)]
pub fn current_call() -> (Call, u64) {
    if has(fact::HELPER_TASK_PT_REGS) {
        let regs = current_regs_btf();
        let call = call::<Btf>(regs);
        (call, argument::<Btf, 0>(regs, call.abi))
    } else {
        let regs = current_regs_address();
        let call = call::<Probe>(regs);
        (call, argument::<Probe, 0>(regs, call.abi))
    }
}

//! Reading kernel memory: one interface, two back ends.
//!
//! [`Btf`] loads through a pointer whose type the verifier knows (arguments of tp_btf, fexit, LSM, iterators, and the
//! current task): about 1 ns, a fault reads as 0, if the program keeps to [`crate::apart`]. [`Probe`] copies from an address that is only a number: about 8 ns.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs,
};
use haechi_ebpf::fact::{self, ABSENT, Fact};

use crate::maps::raw_fact;

/// An address in the kernel.
pub type Ptr = *const u8;

/// The fact, folded to a constant by the verifier.
#[inline(always)]
pub fn get(fact: Fact) -> u32 {
    raw_fact(fact.0)
}

/// Whether the kernel has it.
#[inline(always)]
pub fn has(fact: Fact) -> bool {
    get(fact) != ABSENT
}

/// A way to read kernel memory.
pub trait Mem {
    /// Whether the verifier knows the types of what it reads.
    const TYPED: bool;
    /// Reads a `T`; zeroes where that fails.
    unsafe fn load<T: Copy>(address: Ptr) -> T;
}

/// Loads through a typed pointer.
pub struct Btf;

/// Copies from an address.
pub struct Probe;

impl Mem for Btf {
    const TYPED: bool = true;

    #[inline(always)]
    unsafe fn load<T: Copy>(address: Ptr) -> T {
        // SAFETY: the verifier checks the access and makes a fault read as 0. Volatile keeps the width.
        unsafe { core::ptr::read_volatile(address.cast()) }
    }
}

impl Mem for Probe {
    const TYPED: bool = false;

    #[inline(always)]
    unsafe fn load<T: Copy>(address: Ptr) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value`, with zeroes where the read fails.
        unsafe {
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address.cast::<c_void>());
            value.assume_init()
        }
    }
}

/// The member of a struct at `base`; 0 where the kernel has no such member.
#[inline(always)]
pub fn field<M: Mem, T: Copy + Default>(base: Ptr, member: Fact) -> T {
    let offset = get(member);
    if offset == ABSENT {
        return T::default();
    }
    // SAFETY: `base` points at the struct the member belongs to; see `Mem`.
    unsafe { M::load(base.wrapping_add(offset as usize)) }
}

/// A pointer member.
#[inline(always)]
pub fn pointer<M: Mem>(base: Ptr, member: Fact) -> Ptr {
    let offset = get(member);
    if offset == ABSENT {
        return core::ptr::null();
    }
    // SAFETY: as in `field`.
    unsafe { M::load(base.wrapping_add(offset as usize)) }
}

/// Pointer members, in one piece where reads are dear and the members lie side by side.
#[inline(always)]
pub fn pointers<M: Mem, const N: usize>(base: Ptr, members: [Fact; N]) -> [Ptr; N] {
    let first = get(members[0]);
    let mut together = !M::TYPED && first != ABSENT;
    for (i, member) in members.iter().enumerate() {
        together &= get(*member) == first.wrapping_add(8 * i as u32);
    }
    if together {
        // SAFETY: as in `field`.
        unsafe { M::load(base.wrapping_add(first as usize)) }
    } else {
        members.map(|member| pointer::<M>(base, member))
    }
}

/// A struct whose first `LEN` bytes were copied, where reads are dear: its members cost nothing more.
pub struct Piece<M, const LEN: usize> {
    base: Ptr,
    copy: Ptr,
    way: PhantomData<M>,
}

impl<M: Mem, const LEN: usize> Piece<M, LEN> {
    /// Copies the struct at `base` to `room`.
    ///
    /// # Safety
    /// `room` has `LEN` bytes and outlives the piece.
    #[inline(always)]
    pub unsafe fn take(base: Ptr, room: *mut u8) -> Self {
        if !M::TYPED {
            // SAFETY: the helper writes `LEN` bytes, with zeroes where the read fails.
            unsafe { bpf_probe_read_kernel(room.cast(), LEN as u32, base.cast::<c_void>()) };
        }
        Self { base, copy: room, way: PhantomData }
    }

    /// A member; 0 where the kernel has no such member.
    #[inline(always)]
    pub fn field<T: Copy + Default>(&self, member: Fact) -> T {
        let offset = get(member) as usize;
        if M::TYPED || offset > LEN - size_of::<T>() {
            return field::<M, T>(self.base, member);
        }
        // SAFETY: inside the copy.
        unsafe { core::ptr::read_volatile(self.copy.add(offset).cast()) }
    }

    /// A pointer member.
    #[inline(always)]
    pub fn pointer(&self, member: Fact) -> Ptr {
        let offset = get(member) as usize;
        if M::TYPED || offset > LEN - size_of::<Ptr>() {
            return pointer::<M>(self.base, member);
        }
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(self.copy.add(offset).cast()) }
    }
}

/// The address of an embedded member.
#[inline(always)]
pub fn inside(base: Ptr, member: Fact) -> Ptr {
    base.wrapping_add(get(member) as usize)
}

/// Runs `$body` with `$task` bound to the current task and `$mem` to the way it can be read: kernels before 5.11 have no
/// typed pointer to it.
macro_rules! with_current {
    (|$task:ident: $mem:ident| $body:expr) => {
        if $crate::mem::has(haechi_ebpf::fact::HELPER_TASK_BTF) {
            type $mem = $crate::mem::Btf;
            let $task = $crate::mem::current_btf();
            $body
        } else {
            type $mem = $crate::mem::Probe;
            let $task = $crate::mem::current_address();
            $body
        }
    };
}
pub(crate) use with_current;

/// The current task as a typed pointer.
#[inline(always)]
pub fn current_btf() -> Ptr {
    // SAFETY: only reached where the helper exists.
    unsafe { bpf_get_current_task_btf() as Ptr }
}

/// The current task as an address.
#[inline(always)]
pub fn current_address() -> Ptr {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_task() as Ptr }
}

/// The registers that the current task entered the kernel with, as a typed pointer.
#[inline(always)]
pub fn current_regs_btf() -> Ptr {
    // SAFETY: only reached where the helpers exist.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr }
}

/// The same where the helper is missing (before 5.15): they lie at the top of the kernel stack.
///
/// `task_pt_regs()` in arch/x86/include/asm/processor.h; THREAD_SIZE is 16 KiB on 64-bit kernels without KASAN.
#[inline(always)]
pub fn current_regs_address() -> Ptr {
    const THREAD_SIZE: usize = 16 << 10;
    let stack = with_current!(|task: M| pointer::<M>(task, fact::TASK_STACK));
    stack.wrapping_add(THREAD_SIZE).wrapping_sub(get(fact::REGS_SIZE) as usize)
}

/// Cuts a number to the bits of a constant in a way that the compiler cannot optimise out.
///
/// VERIFIER: "R2 unbounded memory access" (6.12), "value is outside of the allowed memory range": LLVM drops masks that
/// it can prove idle, and the verifier then knows no bound. (An empty block that only hides the value will not do: it
/// gives two line entries to one instruction, which the kernel refuses as "Invalid line_info".)
#[inline(always)]
pub fn mask<const BITS: i32>(value: u64) -> usize {
    let mut value = value;
    // SAFETY: arithmetic on one register.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) value, const BITS, options(pure, nomem, nostack));
    }
    value as usize
}

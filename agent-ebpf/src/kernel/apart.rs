//! A program's work is done in a function of its own, not in its main one.
//!
//! A typed load that faults reads as 0, by a table of fault addresses that belongs to each function. Before Linux 6.4
//! (and 6.1.36, 5.15.119) the main function of a program that has others is known to the kernel twice, once without its
//! table: a fault there is an oops. 5.12 and later at least look at the pointer first; 5.10 faults for every nothing
//! that it follows. `jit_subprogs()` in kernel/bpf/verifier.c, `search_bpf_extables()` in kernel/bpf/core.c.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, LsmContext};

/// A context that leads to typed arguments.
pub trait Typed: EbpfContext {
    /// Makes it of what the kernel gives.
    fn of(ctx: *mut c_void) -> Self;
}

impl Typed for BtfTracePointContext {
    #[inline(always)]
    fn of(ctx: *mut c_void) -> Self {
        Self::new(ctx)
    }
}

impl Typed for FExitContext {
    #[inline(always)]
    fn of(ctx: *mut c_void) -> Self {
        Self::new(ctx)
    }
}

impl Typed for LsmContext {
    #[inline(always)]
    fn of(ctx: *mut c_void) -> Self {
        Self::new(ctx)
    }
}

/// Does the work. Its typed loads may meet nothing, or what is not there any more.
#[inline(always)]
pub fn apart<C: Typed>(ctx: C, work: impl Fn(C)) -> i32 {
    function(ctx.as_ptr(), work);
    0
}

#[inline(never)]
fn function<C: Typed>(ctx: *mut c_void, work: impl Fn(C)) {
    work(C::of(ctx));
}

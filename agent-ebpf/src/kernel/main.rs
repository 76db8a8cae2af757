//! The kernel programs.
//!
//! One file per theme; each program only says where it hangs and hands over to a function that is shared by all hooks
//! of its event. What to attach, and whether, is decided in the agent from `haechi_ebpf::program`.
#![no_std]
#![no_main]
#![expect(unstable_features, reason = "opaque masks need inline assembly, which is unstable on bpf")]
#![feature(asm_experimental_arch)]
#![expect(unreachable_pub, reason = "a program has no users but the kernel")]

mod accept;
mod adopt;
mod apart;
mod cgroup;
mod change;
mod descriptor;
mod endpoint;
mod file;
mod flow;
mod gate;
mod hooks;
mod maps;
mod mem;
mod mount;
mod path;
mod process;
mod reach;
mod record;
mod regs;
mod sock;
mod socket;
mod syscall;
mod task;
mod uring;

/// Lets the programs call helpers that the kernel keeps for GPL-compatible ones (probe reads, BTF loads).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A reachable panic would be an endless loop, which the verifier refuses: none is reachable.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

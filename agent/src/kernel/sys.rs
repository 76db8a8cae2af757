//! The few bpf(2) calls that aya does not offer.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `BPF_OBJ_GET_INFO_BY_FD` of include/uapi/linux/bpf.h.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Offsets in `struct bpf_prog_info`, which only grows at its end: run_cnt, recursion_misses, verified_insns.
const RUNS: usize = 200;
const MISSES: usize = 208;
const VERIFIED: usize = 216;
const INFO: usize = 232;
/// Offset of jited_prog_len.
const JITED: usize = 16;

/// Hands freed memory back to the system: the allocator keeps what many small frees leave behind.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the kernel tells of a loaded program.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramFacts {
    /// Runs, while run statistics are on.
    pub runs: u64,
    /// Runs that the kernel skipped because the program was already running on the CPU.
    pub misses: u64,
    /// Instructions that the verifier went through.
    pub verified: u32,
    /// Bytes of machine code.
    pub jited: u32,
}

/// Asks the kernel about a program. Fields that an older kernel lacks are 0.
pub(super) fn program_facts(program: impl AsFd) -> io::Result<ProgramFacts> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = [0_u8; INFO];
    let mut attr = Attr { fd: program.as_fd().as_raw_fd() as u32, len: INFO as u32, info: info.as_mut_ptr() as u64 };
    // SAFETY: `attr` and `info` live across the call and have the lengths given.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, (&raw mut attr).cast::<u8>(), size_of::<Attr>())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let word = |at: usize| info[at..].first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
    let long = |at: usize| info[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
    Ok(ProgramFacts { runs: long(RUNS), misses: long(MISSES), verified: word(VERIFIED), jited: word(JITED) })
}

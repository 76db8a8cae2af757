//! The few bpf(2) calls that aya does not offer.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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

/// `BPF_LINK_CREATE`, `BPF_ITER_CREATE` and `BPF_TRACE_ITER` of include/uapi/linux/bpf.h.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;

/// Binds an iterator program to a map: aya's own way passes none.
pub(super) fn iterator_over_map(program: impl AsFd, map: impl AsFd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        program: u32,
        target: u32,
        kind: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        padding: u32,
    }
    // `union bpf_iter_link_info`: the descriptor of a map.
    let info = [map.as_fd().as_raw_fd() as u32, 0, 0, 0];
    let mut attr = Attr {
        program: program.as_fd().as_raw_fd() as u32,
        target: 0,
        kind: BPF_TRACE_ITER,
        flags: 0,
        info: info.as_ptr() as u64,
        info_len: size_of_val(&info) as u32,
        padding: 0,
    };
    // SAFETY: `attr` and `info` live across the call and have the lengths given.
    unsafe { descriptor(BPF_LINK_CREATE, (&raw mut attr).cast(), size_of::<Attr>()) }
}

/// A file that runs an iterator once when it is read.
pub(super) fn iterator_file(link: impl AsFd) -> io::Result<File> {
    let mut attr = [link.as_fd().as_raw_fd() as u32, 0];
    // SAFETY: `attr` lives across the call and has the length given.
    unsafe { descriptor(BPF_ITER_CREATE, attr.as_mut_ptr().cast(), size_of_val(&attr)) }.map(File::from)
}

/// Reads an iterator to its end, `room` bytes at a time.
pub(super) fn read_iterator(mut iterator: impl Read, room: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; room];
    loop {
        match iterator.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&chunk[..n]),
            // The iterator asks for more time than one read may take.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => (),
            Err(e) => return Err(e),
        }
    }
}

/// A bpf(2) call that gives a descriptor.
unsafe fn descriptor(command: libc::c_int, attr: *mut u8, len: usize) -> io::Result<OwnedFd> {
    // SAFETY: the caller's attributes are as long as it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

//! The system calls of the actors, and all the unsafe code of this package: thin wrappers that take borrowed memory
//! and give back `io::Result`. It must not know what an actor is for.

use std::ffi::CStr;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_char, c_long, c_void};

/// An argument of [`call`].
#[derive(Debug)]
pub enum Arg<'a> {
    /// A number.
    Num(i64),
    /// A string the kernel reads.
    Str(&'a CStr),
    /// Bytes the kernel reads.
    In(&'a [u8]),
    /// Bytes the kernel writes.
    Out(&'a mut [u8]),
}

impl Arg<'_> {
    fn word(&mut self) -> c_long {
        match self {
            Self::Num(n) => *n,
            Self::Str(s) => s.as_ptr() as c_long,
            Self::In(b) => b.as_ptr() as c_long,
            Self::Out(b) => b.as_mut_ptr() as c_long,
        }
    }
}

impl From<i32> for Arg<'_> {
    fn from(n: i32) -> Self {
        Self::Num(i64::from(n))
    }
}

impl From<i64> for Arg<'_> {
    fn from(n: i64) -> Self {
        Self::Num(n)
    }
}

impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(s: &'a CStr) -> Self {
        Self::Str(s)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Arg<'a> {
    fn from(b: &'a [u8; N]) -> Self {
        Self::In(b)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(b: &'a [u8]) -> Self {
        Self::In(b)
    }
}

impl<'a> From<&'a mut [u8]> for Arg<'a> {
    fn from(b: &'a mut [u8]) -> Self {
        Self::Out(b)
    }
}

/// Makes a system call in the machine's own ABI.
///
/// # Errors
/// The error the kernel returns.
pub fn call<const N: usize>(nr: c_long, args: [Arg<'_>; N]) -> io::Result<i64> {
    let mut words = [0; 6];
    for (word, mut arg) in words.iter_mut().zip(args) {
        *word = arg.word();
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: pointers come from borrows that outlive the call; actors ask only for calls that touch nothing but the
    // memory they are handed, and hand buffers as long as they say.
    let ret = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Closes what the caller left open. A table of descriptors is as large as the highest one inherited asks for, and what
/// the kernel programs do depends on that: children shall have the table that most processes have.
///
/// # Errors
/// Before Linux 5.9.
pub fn close_inherited() -> io::Result<()> {
    call(libc::SYS_close_range, [3.into(), (-1).into(), 0.into()]).map(drop)
}

/// When the machine was booted, in nanoseconds since the epoch.
///
/// # Errors
/// When a clock is missing.
pub fn booted() -> io::Result<i64> {
    Ok(clock(libc::CLOCK_REALTIME)? - since_boot()?)
}

/// Nanoseconds since the machine was booted.
///
/// # Errors
/// When the clock is missing.
pub fn since_boot() -> io::Result<i64> {
    clock(libc::CLOCK_BOOTTIME)
}

fn clock(clock: i32) -> io::Result<i64> {
    let mut time = [0; 16];
    let out: &mut [u8] = &mut time;
    call(libc::SYS_clock_gettime, [clock.into(), out.into()])?;
    let word = |at: usize| time[at..].first_chunk().map_or(0, |b| i64::from_ne_bytes(*b));
    Ok(word(0) * 1_000_000_000 + word(8))
}

/// Memory below 4 GiB, where 32-bit system calls can point.
#[derive(Debug)]
pub struct Low {
    base: *mut u8,
    used: usize,
}

const LOW_BYTES: usize = 1 << 16;

impl Low {
    /// Maps it.
    ///
    /// # Errors
    /// When there is no such memory, or no 32-bit ABI on this machine.
    pub fn new() -> io::Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_32BIT;
        // SAFETY: a new anonymous mapping touches no memory that is in use.
        let base = unsafe { libc::mmap(ptr::null_mut(), LOW_BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), used: 0 })
    }

    /// Copies `bytes` there; returns their address.
    ///
    /// # Panics
    /// When the memory is used up.
    pub fn put(&mut self, bytes: &[u8]) -> u32 {
        let at = self.used;
        self.used += bytes.len().next_multiple_of(8);
        assert!(self.used <= LOW_BYTES, "low memory is used up");
        // SAFETY: the range was checked against the mapping, which nothing else points into.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len());
            self.base.add(at) as usize as u32
        }
    }

    /// Forgets what was put.
    pub const fn clear(&mut self) {
        self.used = 0;
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.base.cast(), LOW_BYTES) };
    }
}

#[cfg(target_arch = "x86_64")]
const MAP_32BIT: i32 = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const MAP_32BIT: i32 = 0;

/// Makes a 32-bit system call from a 64-bit process, by `int 0x80`.
///
/// # Errors
/// The error the kernel returns; `Unsupported` on machines without that ABI.
#[cfg(target_arch = "x86_64")]
pub fn call32(nr: u32, args: [u32; 5]) -> io::Result<u32> {
    let [b, c, d, si, di] = args;
    let ret: i32;
    // SAFETY: rbx is put back; the kernel keeps the other registers but for those named as clobbered; pointers among the
    // arguments come from `Low`.
    unsafe {
        std::arch::asm!(
            "xchg {b:r}, rbx", "int 0x80", "xchg {b:r}, rbx",
            b = inout(reg) u64::from(b) => _, inlateout("eax") nr as i32 => ret,
            in("ecx") c, in("edx") d, in("esi") si, in("edi") di,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if (-4095..0).contains(&ret) { Err(io::Error::from_raw_os_error(-ret)) } else { Ok(ret as u32) }
}

/// There is no 32-bit ABI here.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "x86_64"))]
pub fn call32(_nr: u32, _args: [u32; 5]) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes a process by clone(2) with `flags` besides SIGCHLD; `child` runs in it and gives its exit code.
/// The caller has one thread, and passes no flag that shares memory.
///
/// # Errors
/// When there can be no more processes.
///
/// # Panics
/// When memory would be shared.
pub fn fork(flags: i32, child: impl FnOnce() -> i32) -> io::Result<i32> {
    assert_eq!(flags & libc::CLONE_VM, 0, "a child that shares memory would run on the parent's stack");
    match call(libc::SYS_clone, [(flags | libc::SIGCHLD).into(), 0.into(), 0.into(), 0.into(), 0.into()])? {
        0 => {
            let code = child();
            // SAFETY: ends the process at once, as a child that shares buffers with its parent must.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid as i32),
    }
}

/// Ends the process, all threads, at once.
pub fn exit_group(code: i32) -> ! {
    // SAFETY: takes no memory.
    unsafe { libc::_exit(code) }
}

/// execveat(2). Comes back only when it failed.
#[must_use]
pub fn execveat(dir: i32, path: &CStr, argv: &[&CStr], env: &[&CStr], flags: i32) -> io::Error {
    let list =
        |strings: &[&CStr]| -> Vec<*const c_char> { strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect() };
    let (argv, env) = (list(argv), list(env));
    // SAFETY: both lists end with a null and point at strings that outlive the call.
    unsafe { libc::syscall(libc::SYS_execveat, dir, path.as_ptr(), argv.as_ptr(), env.as_ptr(), flags) };
    io::Error::last_os_error()
}

/// An address of one's own that holds a word, for a tracer to write to.
#[must_use]
pub fn address_of(word: &u64) -> u64 {
    ptr::from_ref(word) as u64
}

/// A minimal io_uring with one entry.
#[derive(Debug)]
pub struct Uring {
    fd: i32,
    ring: *mut u8,
    ring_len: usize,
    sqes: *mut u8,
    params: Params,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    thread_cpu: u32,
    thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq: [u32; 10],
    cq: [u32; 10],
}

const SQE: usize = 64;
const RING_AT: i64 = 0;
const SQES_AT: i64 = 0x1000_0000;

impl Uring {
    /// Makes one.
    ///
    /// # Errors
    /// When the kernel has none, or it is forbidden.
    pub fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the struct is as long as the kernel's `struct io_uring_params`.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = fd as i32;
        // Since 5.4 both rings lie in one mapping: completions (16 bytes each) and submission indices (4 bytes each).
        let ring_len = (params.cq[5] + 16 * params.cq_entries).max(params.sq[6] + 4 * params.sq_entries) as usize;
        let map = |len, at| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new shared mapping of a descriptor just made.
            let base = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, at) };
            if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast::<u8>()) }
        };
        let (ring, sqes) = (map(ring_len, RING_AT)?, map(SQE, SQES_AT)?);
        Ok(Self { fd, ring, ring_len, sqes, params })
    }

    /// Submits one entry, waits for it, and returns its result.
    ///
    /// # Errors
    /// When it cannot be submitted, or what it failed with.
    pub fn run(&mut self, sqe: &[u8; SQE]) -> io::Result<i32> {
        let tail = self.word(self.params.sq[1]);
        // SAFETY: the one entry and index 0 of the one-entry ring lie inside their mappings.
        unsafe {
            ptr::copy_nonoverlapping(sqe.as_ptr(), self.sqes, SQE);
            self.ring.add(self.params.sq[6] as usize).cast::<u32>().write(0);
        }
        tail.fetch_add(1, Ordering::Release);
        let getevents = 1;
        call(libc::SYS_io_uring_enter, [self.fd.into(), 1.into(), 1.into(), getevents.into(), 0.into(), 0.into()])?;
        let head = self.word(self.params.cq[0]);
        let index = head.load(Ordering::Relaxed) & (self.params.cq_entries - 1);
        // SAFETY: the kernel placed the completions at this offset, and the index is masked to their number.
        let result = unsafe { self.ring.add((self.params.cq[5] + 16 * index + 8) as usize).cast::<i32>().read() };
        head.fetch_add(1, Ordering::Release);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset, aligned and inside the mapping, which lives as long as `self`.
        unsafe { &*self.ring.add(offset as usize).cast::<AtomicU32>() }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // SAFETY: the mappings and the descriptor are this value's own.
        unsafe {
            libc::munmap(self.ring.cast::<c_void>(), self.ring_len);
            libc::munmap(self.sqes.cast::<c_void>(), SQE);
            libc::close(self.fd);
        }
    }
}

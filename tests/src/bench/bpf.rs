//! The few bpf(2) calls of the benchmark: empty programs, and which links there are. Attributes are bytes with the
//! offsets of `union bpf_attr` in include/uapi/linux/bpf.h. It must not know what the programs are for.

use std::io;

use crate::sys::{Arg, call};

const PROG_LOAD: i64 = 5;
const PROG_GET_FD_BY_ID: i64 = 13;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const RAW_TRACEPOINT_OPEN: i64 = 17;
const LINK_GET_FD_BY_ID: i64 = 30;
const LINK_GET_NEXT_ID: i64 = 31;
const ENABLE_STATS: i64 = 32;

/// Kinds of link that make the kernel itself slower wherever they hang.
const RAW_TRACEPOINT_LINK: u32 = 1;
const TRACING_LINK: u32 = 2;

/// A descriptor of ours.
pub(super) struct Fd(i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // There is nothing to do about a descriptor that cannot be closed.
        let _ = call(libc::SYS_close, [self.0.into()]);
    }
}

struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn bytes(self, at: usize, of: &[u8]) -> Self {
        let address = of.as_ptr() as u64;
        self.long(at, address)
    }

    fn long(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn at(&self, at: usize) -> u32 {
        self.0[at..].first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
    }

    fn call(&mut self, command: i64) -> io::Result<i64> {
        let len = self.0.len() as i64;
        call(libc::SYS_bpf, [command.into(), Arg::Out(&mut self.0), len.into()])
    }
}

/// Where an empty program hangs, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Attach {
    /// A tracepoint, by BTF.
    RawTp = 23,
    /// The return of a function.
    Fexit = 25,
}

/// Loads a program that only returns 0 and attaches it to the function or tracepoint with BTF id `target`. It hangs
/// there as long as both descriptors are open.
pub(super) fn attach_empty(attach: Attach, target: u32) -> io::Result<[Fd; 2]> {
    const TRACING: u32 = 26;
    // mov64 r0, 0; exit.
    let program = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut load = Attr::new().word(0, TRACING).word(4, 2).bytes(8, &program).bytes(16, b"GPL\0");
    load.0[48..60].copy_from_slice(b"haechi_empty");
    let mut load = load.word(68, attach as u32).word(108, target);
    let program = Fd(load.call(PROG_LOAD)? as i32);
    let mut open = Attr::new().word(8, program.0 as u32);
    let link = Fd(open.call(RAW_TRACEPOINT_OPEN)? as i32);
    Ok([program, link])
}

/// How many tracing programs hang anywhere in the kernel.
pub(super) fn tracing_links() -> io::Result<usize> {
    let (mut id, mut count) = (0, 0);
    loop {
        let mut next = Attr::new().word(0, id);
        match next.call(LINK_GET_NEXT_ID) {
            Ok(_) => id = next.at(4),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => return Err(error),
        }
        // A link that went away in between does not count.
        let Ok(fd) = Attr::new().word(0, id).call(LINK_GET_FD_BY_ID) else { continue };
        let link = Fd(fd as i32);
        let mut info = [0_u8; 64];
        let mut ask = Attr::new().word(0, link.0 as u32).word(4, info.len() as u32).long(8, info.as_mut_ptr() as u64);
        ask.call(OBJ_GET_INFO_BY_FD)?;
        let kind = info.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
        count += usize::from([RAW_TRACEPOINT_LINK, TRACING_LINK].contains(&kind));
    }
}

/// Has the kernel count and time the runs of all programs as long as it is held.
pub(super) fn count_runs() -> io::Result<Fd> {
    const RUN_TIME: u32 = 0;
    Ok(Fd(Attr::new().word(0, RUN_TIME).call(ENABLE_STATS)? as i32))
}

/// What the kernel knows of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// Its name, cut to 15 bytes.
    pub(super) name: String,
    /// How often it ran while that was counted.
    pub(super) count: u64,
    /// How long that took, nanoseconds.
    pub(super) ns: u64,
}

/// The program with this number.
pub(super) fn runs(id: u32) -> io::Result<Runs> {
    let program = Fd(Attr::new().word(0, id).call(PROG_GET_FD_BY_ID)? as i32);
    // `struct bpf_prog_info`: name, run_time_ns, run_cnt.
    let mut info = [0_u8; 232];
    let mut ask = Attr::new().word(0, program.0 as u32).word(4, info.len() as u32).long(8, info.as_mut_ptr() as u64);
    ask.call(OBJ_GET_INFO_BY_FD)?;
    let long = |at: usize| info[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
    let name: Vec<u8> = info[64..80].iter().copied().take_while(|b| *b != 0).collect();
    Ok(Runs { name: String::from_utf8_lossy(&name).into_owned(), count: long(200), ns: long(192) })
}

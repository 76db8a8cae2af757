//! Files being opened: one event, four kinds of hook.

use aya_ebpf::macros::{fexit, kprobe, lsm};
use aya_ebpf::programs::{FExitContext, LsmContext, ProbeContext};
use haechi_ebpf::event::security_file_open::{self as event, field as f};
use haechi_ebpf::fact;
use haechi_ebpf::filter::{Action, has};
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{flag, var};

use crate::gate::{self, Gate};
use crate::mem::{Btf, Mem, Probe, Ptr, field, inside, pointer, with_current};
use crate::path::{self, Walked};
use crate::process::ctime;
use crate::record::{Record, Scratch};
use crate::regs::{Call, argument_at, current_call};
use crate::task::head;

/// Number of io_uring_enter(2) in every ABI.
const IO_URING_ENTER: u32 = 426;

/// `FMODE_NOACCOUNT` of include/linux/fs.h: opened by a file system for itself (overlay's backing files).
const FMODE_NOACCOUNT: u32 = 0x2000_0000;

/// `int security_file_open(struct file *file)`, security/security.c.
#[fexit(function = "security_file_open")]
fn file_open_fexit(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    opened::<Btf>(ctx.arg(0), Step::Fexit, Some(ret.into()));
    0
}

/// `LSM_HOOK(int, 0, file_open, struct file *file)`, include/linux/lsm_hook_defs.h.
#[lsm(hook = "file_open")]
fn file_open_lsm(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    opened::<Btf>(ctx.arg(0), Step::Lsm, None);
    ret
}

/// As the fexit program, at the beginning of the function.
#[kprobe]
fn file_open_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(file) = ctx.arg::<Ptr>(0) {
        opened::<Probe>(file, Step::Kprobe, None);
    }
    0
}

/// Whether the current call is io_uring's: what is done inside it came through a ring.
#[inline(always)]
pub fn through_ring() -> u16 {
    if current_call().0.nr == IO_URING_ENTER { flag::IO_URING } else { 0 }
}

/// Reports a file that a hook sees.
#[inline(always)]
fn opened<M: Mem>(file: Ptr, step: Step, ret: Option<i64>) {
    let Some(gate) = gate::open(event::ID) else { return };
    // The file below an open overlay file: the same open, seen once already.
    if field::<M, u32>(file, fact::FILE_MODE) & FMODE_NOACCOUNT == 0 {
        report::<M>(gate, file, step, None, ret);
    }
}

/// Reports `file` if its path is wanted. The cheap test comes first: the name, then the whole path.
#[inline(always)]
fn report<M: Mem>(gate: Gate, file: Ptr, step: Step, abi: Option<u16>, ret: Option<i64>) {
    let dentry = pointer::<M>(file, fact::FILE_DENTRY);
    let mut sets = gate.any_path();
    if sets == 0 && gate.has(has::LEAF) {
        let link = path::link::<M>(dentry);
        sets = gate.sets & gate::leaf(&gate, link.name, link.len);
    }
    if sets == 0 && !gate.has(has::PREFIX | has::SUFFIX) {
        return;
    }
    let Some(scratch) = take() else { return };
    let walked = path::walk::<M>(scratch.memory, dentry, pointer::<M>(file, fact::FILE_MNT));
    if sets == 0 && gate.sets & gate::ends(&gate, scratch.memory, walked) == 0 {
        scratch.give();
        return;
    }
    send::<M>(scratch, walked, file, step, abi, ret);
}

#[inline(always)]
fn take() -> Option<Scratch> {
    let scratch = Scratch::take();
    if scratch.is_none() {
        // Counted as tried and lost: the path was not looked at, so it may have been one that is wanted.
        crate::record::lost_for_scratch(&event::DEF);
    }
    scratch
}

#[inline(always)]
fn send<M: Mem>(scratch: Scratch, walked: Walked, file: Ptr, step: Step, abi: Option<u16>, ret: Option<i64>) {
    let mut record = Record::begin_in(scratch, &event::DEF);
    // A hook that is no system call asks which call it is in; the raw plan knows.
    let flags = match abi {
        Some(abi) => abi,
        None => through_ring(),
    };
    head(&record, step, flags, ret);
    record.put_walked(f::pathname, walked, 0);
    record.put(f::flags, field::<M, u32>(file, fact::FILE_FLAGS).into());
    let inode = pointer::<M>(file, fact::FILE_INODE);
    record.put(f::dev, field::<M, u32>(pointer::<M>(inode, fact::INODE_SB), fact::SB_DEV).into());
    record.put(f::inode, field::<M, u64>(inode, fact::INODE_INO));
    record.put(f::ctime, ctime::<M>(inode));
    record.put(f::inode_mode, field::<M, u16>(inode, fact::INODE_MODE).into());
    record.send();
}

/// The open file behind a descriptor of the current task; null when there is none (any more).
#[inline(always)]
pub fn by_descriptor(descriptor: u64) -> Ptr {
    with_current!(|task: M| {
        let fdt = pointer::<M>(pointer::<M>(task, fact::TASK_FILES), fact::FILES_FDT);
        if descriptor >= u64::from(field::<M, u32>(fdt, fact::FDT_MAX)) {
            return core::ptr::null();
        }
        let table = pointer::<M>(fdt, fact::FDT_FD);
        // SAFETY: a probe read of one entry of the table.
        unsafe { Probe::load(table.wrapping_add(8 * descriptor as usize)) }
    })
}

/// The raw plan: a call that opens files returned.
#[inline(always)]
pub fn at_exit<M: Mem>(regs: Ptr, call: Call, action: Action, ret: i64) {
    if ret < 0 {
        return;
    }
    let Some(gate) = gate::open(event::ID) else { return };
    let file = by_descriptor(ret as u64);
    if file.is_null() {
        // Closed already by another thread: what the program asked for is all there is.
        if action.path_arg != Action::NONE {
            let path = argument_at::<M>(regs, call.abi, action.path_arg);
            let dir = argument_at::<M>(regs, call.abi, action.dir_arg) as i32;
            let dir = if action.dir_arg == Action::NONE { AT_FDCWD } else { dir };
            asked::<true>(path, dir, call.abi, None, Some(ret));
        }
        return;
    }
    report::<Probe>(gate, file, Step::RawSyscall, Some(call.abi), Some(ret));
}

/// `AT_FDCWD` of include/uapi/linux/fcntl.h.
pub const AT_FDCWD: i32 = -100;

/// Reports the path that a program gave, joined to the directory it starts from: where nothing better is to be had.
/// `USER`: the text lies in the program's memory, else the kernel has its copy.
#[inline(always)]
pub fn asked<const USER: bool>(path: u64, dir: i32, abi: u16, open_flags: Option<u64>, ret: Option<i64>) {
    let Some(mut record) = Record::begin(&event::DEF) else { return };
    head(&record, Step::RawSyscall, abi, ret);
    if let Some(flags) = open_flags {
        record.put(f::flags, flags & 0xffff_ffff);
    }
    let given = record.position();
    record.put_given::<4096, USER>(f::syscall_pathname, path);
    if record.byte(given) == b'/' {
        record.put_given::<4096, USER>(f::pathname, path);
    } else {
        let (dentry, mnt) = directory(dir);
        let walked = path::walk::<Probe>(record.memory(), dentry, mnt);
        let start = record.put_walked(f::pathname, walked, var::USER);
        record.slash();
        record.append_given::<4096, USER>(f::pathname, start, path);
    }
    record.send();
}

/// Dentry and mount of a directory descriptor, or of the working directory.
#[inline(always)]
pub fn directory(descriptor: i32) -> (Ptr, Ptr) {
    if descriptor == AT_FDCWD {
        let fs = with_current!(|task: M| pointer::<M>(task, fact::TASK_FS));
        let pwd = inside(fs, fact::FS_PWD);
        (pointer::<Probe>(pwd, fact::PATH_DENTRY), pointer::<Probe>(pwd, fact::PATH_MNT))
    } else {
        let file = by_descriptor(descriptor as u32 as u64);
        (pointer::<Probe>(file, fact::FILE_DENTRY), pointer::<Probe>(file, fact::FILE_MNT))
    }
}

//! Files being opened: one event, four kinds of hook.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::{fexit, kprobe, lsm};
use aya_ebpf::programs::{FExitContext, LsmContext, ProbeContext};
use haechi_ebpf::event::Field;
use haechi_ebpf::event::security_file_open::{self as event, field as f};
use haechi_ebpf::fact;
use haechi_ebpf::filter::Action;
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::flag;

use crate::apart::apart;
use crate::descriptor::{self, by_descriptor};
use crate::gate::{self, Gate};
use crate::mem::{Btf, Mem, Piece, Probe, Ptr, field, inside, pointer, pointers, with_current};
use crate::path::{self, Walked};
use crate::process::moment;
use crate::record::{Given, KEYS, Record, Scratch};
use crate::regs::{Call, argument_at, current_call};
use crate::task::head;

/// Number of io_uring_enter(2) in every ABI.
const IO_URING_ENTER: u32 = 426;

/// `FMODE_NOACCOUNT` of include/linux/fs.h: opened by a file system for itself (overlay's backing files).
const FMODE_NOACCOUNT: u32 = 0x2000_0000;

/// `O_PATH` of include/uapi/asm-generic/fcntl.h.
const O_PATH: u32 = 0o10_000_000;
/// `FMODE_PATH`, the same file: opened with O_PATH.
const FMODE_PATH: u32 = 0x4000;
/// O_CREAT, O_EXCL, O_NOCTTY and O_TRUNC: the file forgets them once it is open (`do_dentry_open()` in fs/open.c).
const CREATION: u32 = 0o1700;
/// What creat(2) adds of those.
const CREATION_OF_CREAT: u32 = 0o1100;

/// `int security_file_open(struct file *file)`, security/security.c.
#[fexit(function = "security_file_open")]
fn file_open_fexit(ctx: FExitContext) -> i32 {
    apart(ctx, |ctx| {
        let ret: i32 = ctx.arg(1);
        opened::<Btf>(ctx.arg(0), Step::Fexit, Some(ret.into()));
    })
}

/// `LSM_HOOK(int, 0, file_open, struct file *file)`, include/linux/lsm_hook_defs.h.
#[lsm(hook = "file_open")]
fn file_open_lsm(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    apart(ctx, |ctx| opened::<Btf>(ctx.arg(0), Step::Lsm, None));
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

/// Marks that follow from the call that a hook finds itself in: its ABI, and whether it is io_uring's, so that what is
/// done inside it came through a ring.
#[inline(always)]
pub fn marks_of_call() -> u16 {
    let (call, _) = current_call();
    call.abi | if call.nr == IO_URING_ENTER { flag::IO_URING } else { 0 }
}

/// Reports a file that a hook sees.
#[inline(always)]
fn opened<M: Mem>(file: Ptr, step: Step, ret: Option<i64>) {
    let Some(gate) = gate::open(event::ID) else { return };
    // The file below an open overlay file: the same open, seen once already.
    if field::<M, u32>(file, fact::FILE_MODE) & FMODE_NOACCOUNT == 0 {
        report::<M>(gate, file, Seen { step, abi: None, ret, flags: 0 });
    }
}

/// Bytes of `struct file` and `struct inode` that hold all members of interest on every kernel so far.
const FILE: usize = 96;
const INODE: usize = 144;

type File<M> = Piece<M, FILE>;

/// How an open was seen.
#[derive(Clone, Copy)]
struct Seen {
    step: Step,
    /// The ABI of the call, where it is known.
    abi: Option<u16>,
    ret: Option<i64>,
    /// Flags that the file itself does not show any more.
    flags: u32,
}

/// Reports `file` if its path is wanted. The cheap tests come first: the flags, the name, then the whole path.
#[inline(always)]
fn report<M: Mem>(gate: Gate, file: Ptr, seen: Seen) {
    let mut room = MaybeUninit::<[u64; FILE / 8]>::uninit();
    // SAFETY: there is room for it.
    let file: File<M> = unsafe { Piece::take(file, room.as_mut_ptr().cast()) };
    let gate = gate.with_flags(file.field::<u32>(fact::FILE_FLAGS) | seen.flags);
    if gate.sets == 0 {
        return;
    }
    let (dentry, mnt) = (file.pointer(fact::FILE_DENTRY), file.pointer(fact::FILE_MNT));
    if let Some((scratch, walked)) = gate::path::<M>(gate, &event::DEF, dentry, mnt) {
        send::<M>(scratch, walked, &file, seen);
    }
}

#[inline(always)]
fn send<M: Mem>(scratch: Scratch, walked: Walked, file: &File<M>, seen: Seen) {
    let mut record = Record::begin_in(scratch, &event::DEF);
    // A hook that is no system call asks which call it is in; the raw plan knows.
    let marks = match seen.abi {
        Some(abi) => abi,
        None => marks_of_call(),
    };
    head(&record, seen.step, marks, seen.ret);
    record.put_walked(f::pathname, walked);
    record.put(f::flags, (file.field::<u32>(fact::FILE_FLAGS) | seen.flags).into());
    put_identity::<M>(&mut record, file.pointer(fact::FILE_INODE), &IDENTITY);
    record.send();
}

/// Fields of a record that say which file it is about.
pub struct Identity {
    /// Its device.
    pub dev: Field,
    /// Its inode.
    pub inode: Field,
    /// When that last changed.
    pub ctime: Option<Field>,
    /// Type and permissions.
    pub mode: Option<Field>,
}

const IDENTITY: Identity = Identity { dev: f::dev, inode: f::inode, ctime: Some(f::ctime), mode: Some(f::inode_mode) };

/// Writes which file an inode is.
#[inline(always)]
pub fn put_identity<M: Mem>(record: &mut Record, inode: Ptr, fields: &Identity) {
    // SAFETY: the key area has the room, and the filters are done with it.
    let inode = unsafe { Piece::<M, INODE>::take(inode, record.memory().add(KEYS)) };
    record.put(fields.dev, field::<M, u32>(inode.pointer(fact::INODE_SB), fact::SB_DEV).into());
    record.put(fields.inode, inode.field::<u64>(fact::INODE_INO));
    if let Some(ctime) = fields.ctime {
        record.put(ctime, moment(inode.field(fact::INODE_CTIME_SEC), inode.field(fact::INODE_CTIME_NSEC)));
    }
    if let Some(mode) = fields.mode {
        record.put(mode, inode.field::<u16>(fact::INODE_MODE).into());
    }
}

/// The raw plan: a call that opens files returned.
#[inline(always)]
pub fn at_exit<M: Mem>(regs: Ptr, call: Call, action: Action, ret: i64) {
    if ret < 0 {
        return;
    }
    let Some(gate) = gate::open(event::ID) else { return };
    let file = descriptor::typed(ret as u64);
    if !file.is_null() {
        return found::<M, Btf>(gate, file, regs, call, action, ret);
    }
    let file = by_descriptor(ret as u64);
    if file.is_null() {
        // Closed already by another thread: what the program asked for is all there is.
        let path = argument_at::<M>(regs, call.abi, action.path_arg);
        let dir = argument_at::<M>(regs, call.abi, action.dir_arg) as i32;
        let dir = if action.dir_arg == Action::NONE { AT_FDCWD } else { dir };
        return asked::<true>(path, dir, call.abi, None, Some(ret));
    }
    found::<M, Probe>(gate, file, regs, call, action, ret);
}

/// The call opened `file`, which is read by `F`.
#[inline(always)]
fn found<M: Mem, F: Mem>(gate: Gate, file: Ptr, regs: Ptr, call: Call, action: Action, ret: i64) {
    // Opened as a place, not as a file: no hook sees that as an open either. Both must say so: another thread may have
    // replaced the file, or rewritten the flags in memory.
    let flags = open_flags::<M>(regs, call, action);
    if flags & O_PATH != 0 && field::<F, u32>(file, fact::FILE_MODE) & FMODE_PATH != 0 {
        return;
    }
    let flags = flags & CREATION;
    report::<F>(gate, file, Seen { step: Step::RawSyscall, abi: Some(call.abi), ret: Some(ret), flags });
}

/// Flags of the call.
#[inline(always)]
fn open_flags<M: Mem>(regs: Ptr, call: Call, action: Action) -> u32 {
    match action.flags_arg {
        Action::CREAT => CREATION_OF_CREAT,
        Action::OPEN_HOW => {
            let how = argument_at::<M>(regs, call.abi, 2);
            let mut flags = 0_u64;
            // SAFETY: one word is read into one word; it stays 0 where that fails.
            unsafe { bpf_probe_read_user((&raw mut flags).cast(), 8, how as *const c_void) };
            flags as u32
        }
        position => argument_at::<M>(regs, call.abi, position) as u32,
    }
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
    if path != 0 {
        let given = record.put_given::<GIVEN, USER>(f::syscall_pathname, path);
        put_joined(&mut record, f::pathname, given, dir);
    }
    record.send();
}

/// Sets a path field to what a program gave, from its memory, joined to the directory it starts from.
#[inline(always)]
pub fn put_asked(record: &mut Record, field: Field, path: u64, dir: i32) {
    let given = record.read_given::<GIVEN, true>(path);
    put_joined(record, field, given, dir);
}

#[inline(always)]
fn put_joined(record: &mut Record, field: Field, given: Given, dir: i32) {
    let (dentry, mnt) = directory(dir);
    if record.byte(given.start) == b'/' {
        record.put_same(field, given);
    } else if !dentry.is_null() {
        let walked = path::walk::<Probe>(record.scratch(), dentry, mnt);
        record.put_joined(field, walked, given);
    }
}

/// Room for a path that a program gives: PATH_MAX and some, so that a whole one never looks cut.
pub const GIVEN: u32 = 0x1100;

/// Dentry and mount of a directory descriptor, or of the working directory.
#[inline(always)]
pub fn directory(descriptor: i32) -> (Ptr, Ptr) {
    if descriptor == AT_FDCWD {
        let fs = with_current!(|task: M| pointer::<M>(task, fact::TASK_FS));
        let pwd = inside(fs, fact::FS_PWD);
        let [mnt, dentry] = pointers::<Probe, 2>(pwd, [fact::PATH_MNT, fact::PATH_DENTRY]);
        (dentry, mnt)
    } else {
        let file = by_descriptor(descriptor as u32 as u64);
        let [mnt, dentry] = pointers::<Probe, 2>(file, [fact::FILE_MNT, fact::FILE_DENTRY]);
        (dentry, mnt)
    }
}

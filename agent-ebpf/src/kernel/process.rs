//! The life of processes: fork, exec, exit, and those that were there before.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_seq_write};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;
use haechi_ebpf::event::{Field, existing_process, sched_process_exec, sched_process_exit, sched_process_fork};
use haechi_ebpf::fact;
use haechi_ebpf::filter::has as wants;
use haechi_ebpf::program::Step;

use crate::apart::apart;
use crate::gate;
use crate::maps::{ENDED, RENAMES, env_max};
use crate::mem::{Btf, Mem, Probe, Ptr, field, get, has, inside, mask, pointer, pointers};
use crate::record::{KEYS, Record};
use crate::task::{begun, head, head_of, innermost};

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, include/trace/events/sched.h.
#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    apart(ctx, forked)
}

#[inline(always)]
fn forked(ctx: BtfTracePointContext) {
    use sched_process_fork::field as f;

    let (parent, child): (Ptr, Ptr) = (ctx.arg(0), ctx.arg(1));
    let Some(gate) = gate::open(sched_process_fork::ID) else { return };
    let (tid, tgid) = numbers::<Btf>(child);
    if tid != tgid && !gate.has(wants::THREADS) {
        return;
    }
    let Some(mut record) = Record::begin(&sched_process_fork::DEF) else { return };
    head(&record, Step::Tracepoint, 0, None);
    let (parent_tid, parent_tgid) = numbers::<Btf>(parent);
    let parent_leader = pointer::<Btf>(parent, fact::TASK_LEADER);
    let leader = pointer::<Btf>(child, fact::TASK_LEADER);
    let inner = innermost::<Btf>(child, tid);
    record.put(f::parent_tid, parent_tid.into());
    record.put(f::parent_ns_tid, innermost::<Btf>(parent, parent_tid).nr.into());
    record.put(f::parent_pid, parent_tgid.into());
    record.put(f::parent_ns_pid, innermost::<Btf>(parent_leader, parent_tgid).nr.into());
    record.put(f::parent_start_time, field::<Btf, u64>(parent_leader, fact::TASK_START));
    record.put(f::child_tid, tid.into());
    record.put(f::child_ns_tid, inner.nr.into());
    record.put(f::child_pid, tgid.into());
    record.put(f::child_ns_pid, innermost::<Btf>(leader, tgid).nr.into());
    record.put(f::start_time, field::<Btf, u64>(child, fact::TASK_START));
    record.put(f::leader_start_time, field::<Btf, u64>(leader, fact::TASK_START));
    record.put(f::child_pid_ns, inner.ns.into());
    record.put(f::child_exec_id, field::<Btf, u32>(child, fact::TASK_EXEC_ID).into());
    record.send();
}

#[inline(always)]
fn numbers<M: Mem>(task: Ptr) -> (u32, u32) {
    (field::<M, u32>(task, fact::TASK_PID), field::<M, u32>(task, fact::TASK_TGID))
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, include/trace/events/sched.h.
#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    apart(ctx, |ctx| exec(&ctx, loader))
}

/// The same for kernels without `bpf_find_vma` (before 5.17).
#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec_old(ctx: BtfTracePointContext) -> i32 {
    apart(ctx, |ctx| exec(&ctx, |_, _, _| ()))
}

#[inline(always)]
fn exec(ctx: &BtfTracePointContext, loader: impl Fn(&mut Record, Ptr, Ptr)) {
    use sched_process_exec::field as f;

    let (task, bprm): (Ptr, Ptr) = (ctx.arg(0), ctx.arg(2));
    let Some(mut record) = begun(&sched_process_exec::DEF, Step::Tracepoint, || 0, None) else { return };

    let mm = pointer::<Btf>(task, fact::TASK_MM);
    let exe = pointer::<Btf>(mm, fact::MM_EXE_FILE);
    record.put_path::<Probe>(f::pathname, pointer::<Btf>(exe, fact::FILE_DENTRY), pointer::<Btf>(exe, fact::FILE_MNT));
    let inode = pointer::<Btf>(exe, fact::FILE_INODE);
    record.put(f::dev, field::<Btf, u32>(pointer::<Btf>(inode, fact::INODE_SB), fact::SB_DEV).into());
    record.put(f::inode, field::<Btf, u64>(inode, fact::INODE_INO));
    record.put(f::ctime, ctime::<Btf>(inode));
    record.put(f::inode_mode, field::<Btf, u16>(inode, fact::INODE_MODE).into());
    record.put(f::nlink, field::<Btf, u32>(inode, fact::INODE_NLINK).into());
    loader(&mut record, task, mm);

    record.put_kernel_str::<0x1100>(f::cmdpath, pointer::<Btf>(bprm, fact::BPRM_FILENAME));
    record.put_kernel_str::<0x1100>(f::interp, pointer::<Btf>(bprm, fact::BPRM_INTERP));
    let range = |from, end| (field::<Btf, u64>(mm, from), field::<Btf, u64>(mm, end));
    let (from, end) = range(fact::MM_ARG_START, fact::MM_ARG_END);
    record.put_user_range(f::argv, from, end, 0x2000);
    let (from, end) = range(fact::MM_ENV_START, fact::MM_ENV_END);
    record.put_user_range(f::env, from, end, env_max());

    let pwd = inside(pointer::<Btf>(task, fact::TASK_FS), fact::FS_PWD);
    record.put_path::<Probe>(f::pwd, pointer::<Btf>(pwd, fact::PATH_DENTRY), pointer::<Btf>(pwd, fact::PATH_MNT));
    stdin(&mut record, task);
    previous_name(&mut record);
    credentials(&mut record, task);
    record.send();
}

/// Since 6.13 the top bit of the nanoseconds says that somebody has asked for them (include/linux/fs.h).
const I_CTIME_QUERIED: u32 = 1 << 31;

/// Change time of an inode, nanoseconds since the epoch.
#[inline(always)]
pub fn ctime<M: Mem>(inode: Ptr) -> u64 {
    moment(field::<M, u64>(inode, fact::INODE_CTIME_SEC), field::<M, u32>(inode, fact::INODE_CTIME_NSEC))
}

/// The same of its two parts.
#[inline(always)]
pub fn moment(seconds: u64, nanoseconds: u32) -> u64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add((nanoseconds & !I_CTIME_QUERIED).into())
}

/// What standard input is.
#[inline(always)]
fn stdin(record: &mut Record, task: Ptr) {
    let fdt = pointer::<Btf>(pointer::<Btf>(task, fact::TASK_FILES), fact::FILES_FDT);
    let table = pointer::<Btf>(fdt, fact::FDT_FD);
    // SAFETY: a probe read of the table's first entry.
    let file: Ptr = unsafe { Probe::load(table) };
    if !file.is_null() {
        let inode = pointer::<Probe>(file, fact::FILE_INODE);
        let mode = field::<Probe, u16>(inode, fact::INODE_MODE);
        record.put(sched_process_exec::field::stdin_type, (mode & 0o170_000).into());
    }
}

/// The name before the exec, which the rename in the middle of it left for us.
#[inline(always)]
fn previous_name(record: &mut Record) {
    // SAFETY: no preconditions.
    let tid = unsafe { bpf_get_current_pid_tgid() } as u32;
    if let Some(name) = RENAMES.get_ptr(&tid) {
        record.put_kernel_str::<32>(sched_process_exec::field::prev_comm, name.cast());
        let _ = RENAMES.remove(&tid);
    }
}

/// Who logged in, in which session, at which terminal.
#[inline(always)]
fn login(record: &mut Record, task: Ptr, uid: Field, session: Field, terminal: Field) {
    if has(fact::TASK_LOGINUID) {
        record.put(uid, field::<Btf, u32>(task, fact::TASK_LOGINUID).into());
        record.put(session, field::<Btf, u32>(task, fact::TASK_SESSIONID).into());
    }
    let tty = pointer::<Btf>(pointer::<Btf>(task, fact::TASK_SIGNAL), fact::SIGNAL_TTY);
    if !tty.is_null() {
        record.put_kernel_str::<64>(terminal, inside(tty, fact::TTY_NAME));
    }
}

#[inline(always)]
fn credentials(record: &mut Record, task: Ptr) {
    use sched_process_exec::field as f;

    login(record, task, f::login_uid, f::sessionid, f::tty);
    let cred = pointer::<Btf>(task, fact::TASK_CRED);
    record.put(f::euid, field::<Btf, u32>(cred, fact::CRED_EUID).into());
    record.put(f::gid, field::<Btf, u32>(cred, fact::CRED_GID).into());
    record.put(f::egid, field::<Btf, u32>(cred, fact::CRED_EGID).into());
    record.put(f::cap_effective, capabilities(cred, fact::CRED_CAP_EFFECTIVE));
    record.put(f::cap_permitted, capabilities(cred, fact::CRED_CAP_PERMITTED));
    record.put(f::cap_inheritable, capabilities(cred, fact::CRED_CAP_INHERITABLE));
}

/// `kernel_cap_t`: two 32-bit words until 6.2, one 64-bit word since; the same bytes.
///
/// VERIFIER: "access beyond the end of member cap": a typed load may not span two array elements.
#[inline(always)]
fn capabilities(cred: Ptr, member: fact::Fact) -> u64 {
    field::<Probe, u64>(cred, member)
}

/// `FMODE_BACKING` of include/linux/fs.h: bit 25 at first, bit 24 in 6.18 and late 6.12.
const FMODE_BACKING: u32 = 0x300_0000;
/// `AT_BASE` of include/uapi/linux/auxvec.h: where the ELF loader was mapped.
const AT_BASE: u64 = 7;
/// Entries of the auxiliary vector that are looked at; the kernel writes about 20.
const AUXV: usize = 28;

/// The ELF loader: the file behind the mapping that the auxiliary vector names.
#[inline(always)]
fn loader(record: &mut Record, task: Ptr, mm: Ptr) {
    use sched_process_exec::field as f;

    // SAFETY: the key area has room for the entries read.
    let base = unsafe {
        let auxv = record.memory().add(KEYS);
        if bpf_probe_read_kernel(auxv.cast(), (AUXV * 16) as u32, inside(mm, fact::MM_AUXV).cast()) != 0 {
            return;
        }
        // A 32-bit program has pairs of 32-bit words: what reads as one key is then a key and its value.
        if *auxv.cast::<u64>() >> 32 == 0 { find::<u64>(auxv.cast()) } else { find::<u32>(auxv.cast()) }
    };
    if base == 0 {
        return;
    }
    let mut file: u64 = 0;
    // SAFETY: the callback writes the one word that it is given.
    unsafe { bpf_find_vma(task.cast_mut().cast(), base, file_of_vma as *mut c_void, (&raw mut file).cast(), 0) };
    if file == 0 {
        return;
    }
    // The process cannot unmap its loader here: it has not run yet.
    let file = file as Ptr;
    let [mnt, dentry] = match path_beside(file) {
        Some(path) => path,
        None => pointers::<Probe, 2>(file, [fact::FILE_MNT, fact::FILE_DENTRY]),
    };
    record.put_path::<Probe>(f::interpreter_pathname, dentry, mnt);
    // The inode of that path, not the file's own.
    let inode = pointer::<Probe>(dentry, fact::DENTRY_INODE);
    record.put(f::interpreter_dev, field::<Probe, u32>(pointer::<Probe>(inode, fact::INODE_SB), fact::SB_DEV).into());
    record.put(f::interpreter_inode, field::<Probe, u64>(inode, fact::INODE_INO));
    record.put(f::interpreter_ctime, ctime::<Probe>(inode));
}

/// Mount and dentry of the overlay file that `file` is the file below of: a mapping holds the latter. Its path is the
/// overlay's, or since 6.5 lies beside it.
///
/// The mark has moved, also within a stable series, and both bits have meant other things: what they point to must be a
/// path, that is a dentry and a mount of the same file system.
#[inline(always)]
fn path_beside(file: Ptr) -> Option<[Ptr; 2]> {
    if !has(fact::BACKING_USER_PATH) || field::<Probe, u32>(file, fact::FILE_MODE) & FMODE_BACKING == 0 {
        return None;
    }
    let path = pointers::<Probe, 2>(inside(file, fact::BACKING_USER_PATH), [fact::PATH_MNT, fact::PATH_DENTRY]);
    let system = pointer::<Probe>(path[0], fact::VFSMOUNT_SB);
    let is_path = !system.is_null() && system == pointer::<Probe>(path[1], fact::DENTRY_SB);
    is_path.then_some(path)
}

/// The value of `AT_BASE` in an auxiliary vector of pairs of `W`; 0 where it has none.
#[inline(always)]
unsafe fn find<W: Copy + Into<u64>>(auxv: *const W) -> u64 {
    for i in 0..AUXV {
        // SAFETY: the caller has read this many entries; those of a smaller word take less room.
        let (key, value): (u64, u64) = unsafe {
            let entry = auxv.add(2 * mask::<0x1f>(i as u64));
            ((*entry).into(), (*entry.add(1)).into())
        };
        if key == AT_BASE {
            return value;
        }
        if key == 0 {
            break;
        }
    }
    0
}

/// `long (*callback)(struct task_struct *task, struct vm_area_struct *vma, void *ctx)`, include/uapi/linux/bpf.h.
#[inline(never)]
extern "C" fn file_of_vma(_task: Ptr, vma: Ptr, out: *mut u64) -> i64 {
    let file = pointer::<Btf>(vma, fact::VMA_FILE) as u64;
    // SAFETY: `out` is the word given to `bpf_find_vma`.
    unsafe { *out = file };
    0
}

/// `TP_PROTO(struct task_struct *task, const char *comm)`, include/trace/events/task.h: fires before the name changes.
#[btf_tracepoint(function = "task_rename")]
fn task_rename(ctx: BtfTracePointContext) -> i32 {
    apart(ctx, renamed)
}

#[inline(always)]
fn renamed(ctx: BtfTracePointContext) {
    let task: Ptr = ctx.arg(0);
    let tid = field::<Btf, u32>(task, fact::TASK_PID);
    let mut name = [0_u8; 16];
    // SAFETY: 16 bytes are read into 16 bytes.
    unsafe { bpf_probe_read_kernel(name.as_mut_ptr().cast(), 16, inside(task, fact::TASK_COMM).cast()) };
    let _ = RENAMES.insert(&tid, &name, 0);
}

/// `TP_PROTO(struct task_struct *p)`, since 6.17 `(struct task_struct *p, bool group_dead)`,
/// include/trace/events/sched.h.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    apart(ctx, exited)
}

#[inline(always)]
fn exited(ctx: BtfTracePointContext) {
    use sched_process_exit::field as f;

    let task: Ptr = ctx.arg(0);
    let Some(gate) = gate::open(sched_process_exit::ID) else { return };
    let last = if get(fact::EXIT_ARGUMENTS) == 2 { ctx.arg::<u64>(1) & 1 == 1 } else { ends_the_process(task) };
    if !last && !gate.has(wants::THREADS) {
        return;
    }
    let Some(mut record) = Record::begin(&sched_process_exit::DEF) else { return };
    head(&record, Step::Tracepoint, 0, None);
    let code = field::<Btf, i32>(task, fact::TASK_EXIT_CODE);
    record.put_int(f::exit_code, code.into());
    record.put_int(f::signal_code, (code & 0x7f).into());
    record.put(f::process_group_exit, last.into());
    record.send();
}

/// Whether a thread is the last of its process to end, where the kernel does not say it.
///
/// do_exit() has counted it out already, so that threads that end at once may all find nobody left: the first of them
/// that is seen here is the one.
#[inline(always)]
fn ends_the_process(task: Ptr) -> bool {
    /// `EEXIST` of include/uapi/asm-generic/errno-base.h.
    const EXISTS: i32 = -17;
    if field::<Btf, i32>(pointer::<Btf>(task, fact::TASK_SIGNAL), fact::SIGNAL_LIVE) != 0 {
        return false;
    }
    let start = field::<Btf, u64>(pointer::<Btf>(task, fact::TASK_LEADER), fact::TASK_START);
    let process = [start, field::<Btf, u32>(task, fact::TASK_TGID).into()];
    ENDED.insert(&process, &0, NO_REPLACE) != Err(EXISTS)
}

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NO_REPLACE: u64 = 1;

/// `struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; }`, kernel/bpf/task_iter.c: one
/// record for every process.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn tasks(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), existing)
}

#[inline(always)]
fn existing(ctx: BtfTracePointContext) {
    use existing_process::field as f;

    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is two pointers; the first leads to the seq_file pointer.
    let (meta, task) = unsafe { (*words, *words.add(1)) };
    if task.is_null() {
        return;
    }
    let (tid, tgid) = numbers::<Btf>(task);
    if tid != tgid {
        return;
    }
    let Some(mut record) = Record::begin(&existing_process::DEF) else { return };
    head_of::<Btf>(&record, task);
    let mm = pointer::<Btf>(task, fact::TASK_MM);
    // A kernel thread has no memory of its own, and so no program; a fault for each would be dear.
    let exe = if mm.is_null() { mm } else { pointer::<Btf>(mm, fact::MM_EXE_FILE) };
    if !exe.is_null() {
        let (dentry, mnt) = (pointer::<Btf>(exe, fact::FILE_DENTRY), pointer::<Btf>(exe, fact::FILE_MNT));
        record.put_path::<Probe>(f::pathname, dentry, mnt);
        let inode = pointer::<Btf>(exe, fact::FILE_INODE);
        record.put(f::dev, field::<Btf, u32>(pointer::<Btf>(inode, fact::INODE_SB), fact::SB_DEV).into());
        record.put(f::inode, field::<Btf, u64>(inode, fact::INODE_INO));
    }
    let fs = pointer::<Btf>(task, fact::TASK_FS);
    if !fs.is_null() {
        let pwd = inside(fs, fact::FS_PWD);
        record.put_path::<Probe>(f::pwd, pointer::<Btf>(pwd, fact::PATH_DENTRY), pointer::<Btf>(pwd, fact::PATH_MNT));
    }
    let parent = pointer::<Btf>(pointer::<Btf>(task, fact::TASK_PARENT), fact::TASK_LEADER);
    record.put(f::parent_start_time, field::<Btf, u64>(parent, fact::TASK_START));
    login(&mut record, task, f::login_uid, f::sessionid, f::tty);
    let cred = pointer::<Btf>(task, fact::TASK_CRED);
    record.put(f::euid, field::<Btf, u32>(cred, fact::CRED_EUID).into());
    record.put(f::cap_effective, capabilities(cred, fact::CRED_CAP_EFFECTIVE));
    let len = record.seal();
    // SAFETY: `meta` begins with the seq_file; `len` is masked to the record area.
    unsafe {
        let seq = *meta.cast::<*mut c_void>();
        bpf_seq_write(seq.cast(), record.memory().cast(), len as u32);
    }
    record.drop_silently();
}

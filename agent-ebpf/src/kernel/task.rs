//! The header of a record: who did it.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
};
use haechi_ebpf::event::EventDef;
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;
use haechi_ebpf::wire::{at, flag};

use crate::gate;
use crate::mem::{Mem, Probe, Ptr, field, get, has, inside, pointer, with_current};
use crate::record::{Record, Slots};

/// `PF_IO_WORKER` and `PF_KTHREAD` of include/linux/sched.h.
const PF_IO_WORKER: u32 = 0x10;
pub const PF_KTHREAD: u32 = 0x20_0000;
/// `TS_COMPAT` of arch/x86/include/asm/thread_info.h: set while the task is in a 32-bit system call.
const TS_COMPAT: u32 = 2;
/// `TIF_32BIT` of arch/arm64/include/asm/thread_info.h.
const TIF_32BIT: u64 = 1 << 22;
/// Inode number of the initial pid namespace, `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
pub const INIT_PID_NS: u32 = 0xefff_fffc;

/// A task's numbers in its innermost pid namespace.
pub struct Innermost {
    /// The number.
    pub nr: u32,
    /// Inode number of the namespace.
    pub ns: u32,
}

/// Reads a task's number in its innermost pid namespace; `host` is its number in the host's.
#[inline(always)]
pub fn innermost<M: Mem>(task: Ptr, host: u32) -> Innermost {
    let pid = pointer::<M>(task, fact::TASK_THREAD_PID);
    let level = if pid.is_null() { 0 } else { field::<M, u32>(pid, fact::PID_LEVEL) };
    if level == 0 || level > 32 {
        return Innermost { nr: host, ns: INIT_PID_NS };
    }
    // VERIFIER: "math between ptr_ pointer and register with unbounded min value": an index that is not constant cannot be
    // added to a typed pointer, so the pointer is read once more as a number.
    let upid = (pointer::<Probe>(task, fact::TASK_THREAD_PID) as u64)
        .wrapping_add(u64::from(get(fact::PID_NUMBERS)))
        .wrapping_add(u64::from(level) * u64::from(get(fact::UPID_SIZE)));
    let upid = upid as Ptr;
    let ns = pointer::<Probe>(upid, fact::UPID_NS);
    Innermost { nr: field::<Probe, u32>(upid, fact::UPID_NR), ns: field::<Probe, u32>(ns, fact::PID_NS_INUM) }
}

/// Whether a task is in a 32-bit system call.
#[inline(always)]
pub fn is_compat<M: Mem>(task: Ptr) -> bool {
    if has(fact::REGS_DI) {
        field::<M, u32>(task, fact::TASK_TI_STATUS) & TS_COMPAT != 0
    } else {
        field::<M, u64>(task, fact::TASK_TI_FLAGS) & TIF_32BIT != 0
    }
}

/// What the kernel goes by when it names a task.
pub struct Who {
    /// Thread.
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// Real user.
    pub uid: u32,
    /// Cgroup of the v2 hierarchy.
    pub cgroup: u64,
}

impl Who {
    /// Of any task.
    #[inline(always)]
    pub fn of<M: Mem>(task: Ptr) -> Self {
        Self {
            tid: field::<M, u32>(task, fact::TASK_PID),
            tgid: field::<M, u32>(task, fact::TASK_TGID),
            uid: field::<M, u32>(pointer::<M>(task, fact::TASK_CRED), fact::CRED_UID),
            cgroup: cgroup::<M>(task),
        }
    }

    /// Of the current task. Helpers, where each read of its members would be a call of a helper too.
    #[inline(always)]
    pub fn current<M: Mem>(task: Ptr) -> Self {
        if M::TYPED {
            return Self::of::<M>(task);
        }
        // SAFETY: no preconditions.
        let (ids, uid, cgroup) =
            unsafe { (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid(), bpf_get_current_cgroup_id()) };
        Self { tid: ids as u32, tgid: (ids >> 32) as u32, uid: uid as u32, cgroup }
    }
}

/// Bits for the header's flags that follow from a task.
#[inline(always)]
pub fn task_flags<M: Mem>(task: Ptr) -> u16 {
    let flags = field::<M, u32>(task, fact::TASK_FLAGS);
    let mut out = 0;
    if flags & PF_IO_WORKER != 0 {
        out |= flag::IO_URING;
    }
    if flags & PF_KTHREAD != 0 {
        out |= flag::KTHREAD;
    }
    if is_compat::<M>(task) {
        out |= flag::COMPAT;
    }
    out
}

/// What the header says of any task.
#[inline(always)]
fn describe<M: Mem>(record: &Slots, task: Ptr, who: &Who) {
    record.header_u64(at::CGROUP, who.cgroup);
    record.header_u32(at::UID, who.uid);
    record.header_u32(at::TID, who.tid);
    record.header_u32(at::TGID, who.tgid);
    let leader = pointer::<M>(task, fact::TASK_LEADER);
    record.header_u64(at::START, field::<M, u64>(leader, fact::TASK_START));
    record.header_u32(at::EXEC_ID, field::<M, u32>(task, fact::TASK_EXEC_ID));
    let nsproxy = pointer::<M>(task, fact::TASK_NSPROXY);
    // Gone once a task has ended: a load of nothing is a fault, which is dear, on kernels before 5.12.
    let (mut mnt, mut net) = (0, 0);
    if !nsproxy.is_null() {
        mnt = field::<M, u32>(pointer::<M>(nsproxy, fact::NSPROXY_MNT), fact::MNT_NS_INUM);
        net = field::<M, u32>(pointer::<M>(nsproxy, fact::NSPROXY_NET), fact::NET_INUM);
    }
    record.header_u32(at::MNT_NS, mnt);
    record.header_u32(at::NET_NS, net);
    let parent = pointer::<M>(task, fact::TASK_PARENT);
    record.header_u32(at::PPID, field::<M, u32>(parent, fact::TASK_TGID));
    let inner = innermost::<M>(task, who.tid);
    record.header_u32(at::NS_TID, inner.nr);
    record.header_u32(at::PID_NS, inner.ns);
    let process = if leader == task { inner.nr } else { innermost::<M>(leader, who.tgid).nr };
    record.header_u32(at::NS_TGID, process);
    // SAFETY: no preconditions.
    record.header_u64(at::TIME, unsafe { bpf_ktime_get_boot_ns() });
}

/// Fills the header for the current task. `flags` is added to what the task says of itself; `ret` is a result, where
/// the hook sees one.
#[inline(always)]
pub fn head(record: &Slots, step: Step, flags: u16, ret: Option<i64>) {
    // SAFETY: the comm field has the 16 bytes that are written.
    unsafe { bpf_get_current_comm(record.memory().add(at::COMM).cast(), 16) };
    let own = with_current!(|task: M| {
        describe::<M>(record, task, &Who::current::<M>(task));
        task_flags::<M>(task)
    });
    let result = if ret.is_some() { flag::HAS_RET } else { 0 };
    record.header_u64(at::RET, ret.unwrap_or(0) as u64);
    record.header_u16(at::FLAGS, own | flags | result | (step as u16) << flag::STEP_SHIFT);
}

/// Begins a record of what the current task does, if anybody wants it; `flags` is asked only then.
#[inline(always)]
pub fn begun(def: &'static EventDef, step: Step, flags: impl FnOnce() -> u16, ret: Option<i64>) -> Option<Record> {
    gate::open(def.id)?;
    let record = Record::begin(def)?;
    head(&record, step, flags(), ret);
    Some(record)
}

/// Id of a task's cgroup in the v2 hierarchy.
#[inline(always)]
fn cgroup<M: Mem>(task: Ptr) -> u64 {
    let cgroup = pointer::<M>(pointer::<M>(task, fact::TASK_CGROUPS), fact::CSS_SET_DFL_CGRP);
    field::<M, u64>(pointer::<M>(cgroup, fact::CGROUP_KN), fact::KN_ID)
}

/// Fills the header for a task that is not the current one.
#[inline(always)]
pub fn head_of<M: Mem>(record: &Slots, task: Ptr) {
    // SAFETY: the comm field has the 16 bytes that are written.
    unsafe {
        let comm = inside(task, fact::TASK_COMM);
        bpf_probe_read_kernel(record.memory().add(at::COMM).cast(), 16, comm.cast());
    }
    describe::<M>(record, task, &Who::of::<M>(task));
    record.header_u64(at::RET, 0);
    record.header_u16(at::FLAGS, task_flags::<M>(task) | (Step::Iterator as u16) << flag::STEP_SHIFT);
}

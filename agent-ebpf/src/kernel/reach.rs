//! Reaching out of one's own process: into the kernel, into the memory of others, into other namespaces, to end others.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::{kprobe, kretprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext, RetProbeContext};
use haechi_ebpf::event::{
    process_vm_readv as readv, process_vm_writev as writev, security_bpf as bpf,
    security_kernel_read_file as read_file, security_task_kill as kill, switch_task_ns as switch,
};
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;

use crate::apart::apart;
use crate::descriptor::by_descriptor;
use crate::file::{Identity, marks_of_call, put_identity};
use crate::gate;
use crate::hooks::hooks;
use crate::mem::{Mem, Probe, Ptr, field, inside, pointer, pointers, with_current};
use crate::record::Record;
use crate::regs::{Call, argument, call, with_current_regs};
use crate::socket::Numbers;
use crate::syscall::{Returned, at_exit, at_return};
use crate::task::{INIT_PID_NS, begun, head, innermost};

hooks! {
    /// `int security_bpf(int cmd, union bpf_attr *attr, unsigned int size)`, security/security.c; from 6.15 on there is more.
    (bpf_fexit, bpf_lsm, bpf_kprobe) at ("security_bpf", "bpf")
        (cmd: i32, attr: Ptr; ..) => calling_bpf;
    /// `int security_kernel_read_file(struct file *file, enum kernel_read_file_id id, bool contents)`.
    (kernel_read_file_fexit, kernel_read_file_lsm, kernel_read_file_kprobe)
        at ("security_kernel_read_file", "kernel_read_file")
        (file: Ptr, id: u32, _contents: u32) => reading;
    /// `int security_task_kill(struct task_struct *p, struct kernel_siginfo *info, int sig, const struct cred *cred)`.
    (task_kill_fexit, task_kill_lsm, task_kill_kprobe) at ("security_task_kill", "task_kill")
        (task: Ptr, _info: Ptr, signal: i32, _cred: Ptr) => signalling;
}

at_exit! {
    bpf_exit: called_bpf;
    read_file_exit: read;
    kill_exit: signalled;
    switch_ns_exit: switched_at_exit;
    readv_exit: was_read;
    writev_exit: was_written;
}

/// `BPF_MAP_CREATE` and `BPF_PROG_LOAD` of include/uapi/linux/bpf.h, and where `union bpf_attr` has their names.
const MAP_CREATE: u32 = 0;
const PROG_LOAD: u32 = 5;
const MAP_NAME: u64 = 28;
const PROG_NAME: u64 = 48;
/// Room for such a name, and for a task's: sixteen bytes with a NUL, and one more, so that a whole one never looks cut.
const NAME: u32 = 17;

/// Where the name lies of what a command makes; `None` for one that makes nothing with a name.
#[inline(always)]
fn name_at(cmd: u32) -> Option<u64> {
    match cmd {
        MAP_CREATE => Some(MAP_NAME),
        PROG_LOAD => Some(PROG_NAME),
        _ => None,
    }
}

#[inline(always)]
fn calling_bpf<M: Mem>(cmd: i32, attr: Ptr, step: Step, ret: Option<i64>) {
    use bpf::field as f;

    let Some(mut record) = begun(&bpf::DEF, step, marks_of_call, ret) else { return };
    record.put_int(f::cmd, cmd.into());
    if let Some(at) = name_at(cmd as u32) {
        // SAFETY: the kernel's copy begins with the type.
        record.put(f::r#type, unsafe { Probe::load::<u32>(attr) }.into());
        record.put_kernel_str::<NAME>(f::name, attr.wrapping_add(at as usize));
    }
    record.send();
}

/// The raw plan: bpf(2) returned.
#[inline(always)]
fn called_bpf(of: Returned) {
    use bpf::field as f;

    let Some(mut record) = of.begin(&bpf::DEF) else { return };
    let (cmd, attr) = (of.argument::<0>() as u32, of.argument::<1>());
    record.put_int(f::cmd, cmd as i32 as i64);
    if let Some(at) = name_at(cmd) {
        let mut kind = 0_u32;
        // SAFETY: one word is read into one word; it stays 0 where that fails.
        unsafe { bpf_probe_read_user((&raw mut kind).cast(), 4, attr as *const c_void) };
        record.put(f::r#type, kind.into());
        record.put_given::<NAME, true>(f::name, attr.wrapping_add(at));
    }
    record.send();
}

const FILE: Identity = Identity {
    dev: read_file::field::dev,
    inode: read_file::field::inode,
    ctime: Some(read_file::field::ctime),
    mode: None,
};

#[inline(always)]
fn reading<M: Mem>(file: Ptr, id: u32, _contents: u32, step: Step, ret: Option<i64>) {
    report_read::<M>(file, id, step, marks_of_call(), ret);
}

#[inline(always)]
fn report_read<M: Mem>(file: Ptr, id: u32, step: Step, marks: u16, ret: Option<i64>) {
    use read_file::field as f;

    let Some(gate) = gate::open(read_file::ID) else { return };
    let [mnt, dentry] = pointers::<M, 2>(file, [fact::FILE_MNT, fact::FILE_DENTRY]);
    let Some((scratch, walked)) = gate::path::<M>(gate, &read_file::DEF, dentry, mnt) else { return };
    let mut record = Record::begin_in(scratch, &read_file::DEF);
    head(&record, step, marks, ret);
    record.put_walked(f::pathname, walked);
    put_identity::<M>(&mut record, pointer::<M>(file, fact::FILE_INODE), &FILE);
    record.put(f::r#type, id.into());
    record.send();
}

/// `READING_MODULE` of include/linux/kernel_read_file.h.
const MODULE: u32 = 2;

/// The raw plan: finit_module(2) returned, whatever came of it.
#[inline(always)]
fn read(of: Returned) {
    let file = by_descriptor(of.argument::<0>() & 0xffff_ffff);
    if !file.is_null() {
        report_read::<Probe>(file, MODULE, Step::RawSyscall, of.call.abi, Some(of.ret));
    }
}

#[inline(always)]
fn signalling<M: Mem>(task: Ptr, _info: Ptr, signal: i32, _cred: Ptr, step: Step, ret: Option<i64>) {
    use kill::field as f;

    let tgid = field::<M, u32>(task, fact::TASK_TGID);
    let own = with_current!(|current: C| field::<C, u32>(current, fact::TASK_TGID));
    // Nothing is sent, it is only asked for; or to oneself.
    if signal == 0 || tgid == own {
        return;
    }
    let Some(mut record) = begun(&kill::DEF, step, marks_of_call, ret) else { return };
    let leader = pointer::<M>(task, fact::TASK_LEADER);
    record.put(f::pid, tgid.into());
    record.put_int(f::sig, signal.into());
    record.put(f::ns_pid, innermost::<M>(leader, tgid).nr.into());
    record.put(f::start_time, field::<M, u64>(leader, fact::TASK_START));
    record.put_kernel_str::<NAME>(f::comm, inside(task, fact::TASK_COMM));
    record.send();
}

/// The raw plan: kill(2) or one of its brothers returned. The program names the target by its number in its own pid
/// namespace, which is the host's where it has none.
#[inline(always)]
fn signalled(of: Returned) {
    use kill::field as f;

    let (target, signal) = (of.argument::<0>() as i32, of.argument_at(of.action.flags_arg) as i32);
    let own = with_current!(|current: C| {
        let leader = pointer::<C>(current, fact::TASK_LEADER);
        innermost::<C>(leader, field::<C, u32>(current, fact::TASK_TGID))
    });
    if of.ret != 0 || signal == 0 || target as u32 == own.nr {
        return;
    }
    let Some(mut record) = of.begin(&kill::DEF) else { return };
    record.put_int(f::sig, signal.into());
    record.put_int(f::given, target.into());
    if target > 0 && own.ns == INIT_PID_NS {
        record.put_int(f::pid, target.into());
    }
    record.send();
}

/// `void switch_task_namespaces(struct task_struct *p, struct nsproxy *new)`, kernel/nsproxy.c.
#[aya_ebpf::macros::fexit(function = "switch_task_namespaces")]
fn switch_ns_fexit(ctx: FExitContext) -> i32 {
    apart(ctx, |ctx| switched(ctx.arg(0), ctx.arg(1), Step::Fexit, marks_of_call(), None))
}

/// The same, at its beginning.
#[kprobe]
fn switch_ns_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(task), Some(namespaces)) = (ctx.arg(0), ctx.arg(1)) {
        switched(task, namespaces, Step::Kprobe, marks_of_call(), None);
    }
    0
}

/// Namespaces of `nsproxy`: `CLONE_NEWTIME`, `NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWPID`, `NEWNET` of
/// include/uapi/linux/sched.h.
const NAMESPACES: u64 = 0x80 | 0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x2000_0000 | 0x4000_0000;

/// The raw plan: unshare(2) or setns(2) returned; what it left is there. (The first takes its flags first, the second
/// a descriptor, and always puts all namespaces in place.)
#[inline(always)]
fn switched_at_exit(of: Returned) {
    let unshare = of.action.flags_arg == 0;
    if of.ret != 0 || unshare && of.argument::<0>() & NAMESPACES == 0 {
        return;
    }
    let (task, namespaces) = with_current!(|task: C| (task, pointer::<C>(task, fact::TASK_NSPROXY)));
    switched(task, namespaces, Step::RawSyscall, of.call.abi, Some(of.ret));
}

#[inline(always)]
fn switched(task: Ptr, namespaces: Ptr, step: Step, marks: u16, ret: Option<i64>) {
    use switch::field as f;

    // A task that ends leaves all of them.
    if namespaces.is_null() {
        return;
    }
    let Some(mut record) = begun(&switch::DEF, step, || marks, ret) else { return };
    record.put(f::pid, field::<Probe, u32>(task, fact::TASK_PID).into());
    for (to, namespace, number) in [
        (f::new_mnt, fact::NSPROXY_MNT, fact::MNT_NS_INUM),
        (f::new_pid, fact::NSPROXY_PID, fact::PID_NS_INUM),
        (f::new_uts, fact::NSPROXY_UTS, fact::UTS_NS_INUM),
        (f::new_ipc, fact::NSPROXY_IPC, fact::IPC_NS_INUM),
        (f::new_net, fact::NSPROXY_NET, fact::NET_INUM),
        (f::new_cgroup, fact::NSPROXY_CGROUP, fact::CGROUP_NS_INUM),
    ] {
        record.put(to, field::<Probe, u32>(pointer::<Probe>(namespaces, namespace), number).into());
    }
    record.send();
}

/// process_vm_writev(2) in each ABI; its brother has the number before.
const WRITEV: Numbers = Numbers { x86_64: 311, i386: 348, arm64: 271 };

/// Reports process_vm_readv(2) or process_vm_writev(2), whose events have the same fields.
#[inline(always)]
fn reached<M: Mem, const WRITE: bool>(regs: Ptr, call: Call, step: Step, ret: i64) {
    use readv::field as f;

    let def = if WRITE { &writev::DEF } else { &readv::DEF };
    let Some(mut record) = begun(def, step, || call.abi, Some(ret)) else { return };
    record.put_int(f::pid, argument::<M, 0>(regs, call.abi) as i32 as i64);
    record.put(f::local_iov, argument::<M, 1>(regs, call.abi));
    record.put(f::liovcnt, argument::<M, 2>(regs, call.abi));
    record.put(f::remote_iov, argument::<M, 3>(regs, call.abi));
    record.put(f::riovcnt, argument::<M, 4>(regs, call.abi));
    record.put(f::flags, argument::<M, 5>(regs, call.abi));
    record.send();
}

#[inline(always)]
fn was_read(of: Returned) {
    reached::<crate::mem::Btf, false>(of.regs, of.call, Step::RawSyscall, of.ret);
}

#[inline(always)]
fn was_written(of: Returned) {
    reached::<crate::mem::Btf, true>(of.regs, of.call, Step::RawSyscall, of.ret);
}

#[inline(always)]
fn readv_returned<M: Mem>(regs: Ptr, call: Call, step: Step, ret: i64) {
    reached::<M, false>(regs, call, step, ret);
}

#[inline(always)]
fn writev_returned<M: Mem>(regs: Ptr, call: Call, step: Step, ret: i64) {
    reached::<M, true>(regs, call, step, ret);
}

at_return! {
    readv_fexit: readv_returned, "__x64_sys_process_vm_readv";
    readv_fexit_compat: readv_returned, "__ia32_sys_process_vm_readv";
    writev_fexit: writev_returned, "__x64_sys_process_vm_writev";
    writev_fexit_compat: writev_returned, "__ia32_sys_process_vm_writev";
}

/// Return of either, by breakpoint.
#[kretprobe]
fn process_vm_kretprobe(ctx: RetProbeContext) -> u32 {
    with_current_regs!(|regs: M| {
        let call = call::<M>(regs);
        if WRITEV.is(call) {
            reached::<M, true>(regs, call, Step::Kprobe, ctx.ret());
        } else {
            reached::<M, false>(regs, call, Step::Kprobe, ctx.ret());
        }
    });
    0
}

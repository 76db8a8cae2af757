//! The life of cgroups, from which containers are known before their first exec.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use haechi_ebpf::event::{EventDef, Field, cgroup_attach_task, cgroup_mkdir, cgroup_rmdir};
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;

use crate::apart::apart;
use crate::gate;
use crate::mem::{Btf, Ptr, field, inside, pointer};
use crate::record::Record;
use crate::task::{begun, head};

#[inline(always)]
fn id(cgroup: Ptr) -> u64 {
    field::<Btf, u64>(pointer::<Btf>(cgroup, fact::CGROUP_KN), fact::KN_ID)
}

#[inline(always)]
fn hierarchy(cgroup: Ptr) -> u64 {
    field::<Btf, u32>(pointer::<Btf>(cgroup, fact::CGROUP_ROOT), fact::CGROUP_ROOT_HIERARCHY).into()
}

/// `TP_PROTO(struct cgroup *cgrp, const char *path)`, include/trace/events/cgroup.h.
#[inline(always)]
fn life(ctx: &BtfTracePointContext, def: &'static EventDef, id_field: Field, path_field: Field, root_field: Field) {
    let (cgroup, path): (Ptr, Ptr) = (ctx.arg(0), ctx.arg(1));
    let Some(mut record) = begun(def, Step::Tracepoint, || 0, None) else { return };
    record.put(id_field, id(cgroup));
    record.put(root_field, hierarchy(cgroup));
    record.put_kernel_str::<0x1100>(path_field, path);
    record.send();
}

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    use cgroup_mkdir::field as f;
    apart(ctx, |ctx| life(&ctx, &cgroup_mkdir::DEF, f::cgroup_id, f::cgroup_path, f::hierarchy_id))
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    use cgroup_rmdir::field as f;
    apart(ctx, |ctx| life(&ctx, &cgroup_rmdir::DEF, f::cgroup_id, f::cgroup_path, f::hierarchy_id))
}

/// `TP_PROTO(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`, the same file.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    apart(ctx, attached)
}

#[inline(always)]
fn attached(ctx: BtfTracePointContext) {
    use cgroup_attach_task::field as f;

    let (cgroup, path, task): (Ptr, Ptr, Ptr) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if gate::open(cgroup_attach_task::ID).is_none() {
        return;
    }
    // A thread that is moved alone does not move its process.
    let leader = pointer::<Btf>(task, fact::TASK_LEADER);
    if ctx.arg::<u64>(3) & 1 == 0 && leader != task {
        return;
    }
    let Some(mut record) = Record::begin(&cgroup_attach_task::DEF) else { return };
    head(&record, Step::Tracepoint, 0, None);
    record.put(f::cgroup_id, id(cgroup));
    record.put(f::hierarchy_id, hierarchy(cgroup));
    record.put(f::pid, field::<Btf, u32>(task, fact::TASK_TGID).into());
    record.put(f::start_time, field::<Btf, u64>(leader, fact::TASK_START));
    record.put_kernel_str::<32>(f::comm, inside(task, fact::TASK_COMM));
    record.put_kernel_str::<0x1100>(f::cgroup_path, path);
    record.send();
}

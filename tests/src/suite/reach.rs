//! Reaching out of one's own process: into the kernel, into others, into other namespaces.

use anyhow::Result;
use haechi_ebpf::event::{
    process_vm_readv, process_vm_writev, security_bpf, security_kernel_read_file, security_task_kill, switch_task_ns,
};

use super::deed::{Deed, Wants, done};
use crate::facts::{File, Task};
use crate::harness::{Context, Did, Test, Want};

pub(super) const TESTS: &[Test] = &[
    ("reach::bpf", |c| done(c, &BPF)),
    ("reach::compat_bpf", |c| done(c, &Deed { act: |c| act(c, "bpf", true), compat: true, ..BPF })),
    ("reach::finit_module", |c| done(c, &READ)),
    ("reach::compat_finit_module", |c| done(c, &Deed { act: |c| module(c, true), compat: true, ..READ })),
    ("reach::kill", |c| done(c, &KILL)),
    ("reach::tgkill", |c| done(c, &Deed { act: |c| act(c, "tgkill", false), ..KILL })),
    ("reach::compat_kill", |c| done(c, &Deed { act: |c| act(c, "kill", true), compat: true, ..KILL })),
    ("reach::unshare", |c| done(c, &SWITCH)),
    ("reach::setns", |c| done(c, &Deed { act: |c| act(c, "setns", false), ..SWITCH })),
    ("reach::compat_unshare", |c| done(c, &Deed { act: |c| act(c, "unshare", true), compat: true, ..SWITCH })),
    ("reach::process_vm_readv", |c| done(c, &READV)),
    ("reach::process_vm_writev", |c| done(c, &WRITEV)),
];

pub(super) const DEEDS: &[Deed] = &[BPF, READ, KILL, SWITCH, READV, WRITEV];

const BPF: Deed = Deed {
    event: &security_bpf::DEF,
    act: |c| act(c, "bpf", false),
    want: |did| {
        let (cmd, kind) = (did.number("/cmd")?, did.number("/type")?);
        Ok(vec![("cmd", cmd.into()), ("type", kind.into()), ("name", did.part::<String>("/name")?.into())])
    },
    resolved: &[],
    given: &["name"],
    compat: false,
};

const READ: Deed = Deed {
    event: &security_kernel_read_file::DEF,
    act: |c| module(c, false),
    want: |did| {
        let file: File = did.part("/file")?;
        Ok(vec![
            ("pathname", did.part::<String>("/path")?.into()),
            ("dev", file.dev.into()),
            ("inode", file.inode.into()),
            // READING_MODULE of include/linux/kernel_read_file.h.
            ("type", 2.into()),
            ("ctime", file.ctime.into()),
        ])
    },
    resolved: &[],
    given: &[],
    compat: false,
};

const KILL: Deed = Deed {
    event: &security_task_kill::DEF,
    act: |c| act(c, "kill", false),
    want: |did| {
        let child: Task = did.part("/child")?;
        Ok(vec![
            ("pid", child.pid.into()),
            ("sig", did.number("/signal")?.into()),
            ("ns_pid", child.ns_pid.into()),
            ("start_time", Want::Ticks(child.start)),
            ("comm", child.comm.into()),
            ("given", Want::IsOrAbsent(child.pid.into())),
        ])
    },
    resolved: &["ns_pid", "start_time", "comm"],
    given: &[],
    compat: false,
};

const SWITCH: Deed = Deed {
    event: &switch_task_ns::DEF,
    act: |c| act(c, "unshare", false),
    want: |did| {
        let numbers: Vec<u64> = did.part("/namespaces")?;
        let names = ["new_mnt", "new_pid", "new_uts", "new_ipc", "new_net", "new_cgroup"];
        let mut want: Vec<_> = names.into_iter().zip(numbers.into_iter().map(Want::from)).collect();
        want.push(("pid", did.me.pid.into()));
        Ok(want)
    },
    resolved: &[],
    given: &[],
    compat: false,
};

const READV: Deed = Deed {
    event: &process_vm_readv::DEF,
    act: |c| act(c, "readv", false),
    want: pieces,
    resolved: &[],
    given: &[],
    compat: false,
};

const WRITEV: Deed = Deed { event: &process_vm_writev::DEF, act: |c| act(c, "writev", false), ..READV };

fn pieces(did: &Did) -> Wants {
    let iov: u64 = did.part("/iov")?;
    Ok(vec![
        ("pid", did.number("/pid")?.into()),
        ("local_iov", iov.into()),
        ("liovcnt", 1.into()),
        ("remote_iov", iov.into()),
        ("riovcnt", 1.into()),
        ("flags", 0.into()),
    ])
}

fn act(context: &Context, by: &str, compat: bool) -> Result<Did> {
    context.actor(&["reach", &format!("by={by}"), &format!("compat={}", u8::from(compat))])
}

fn module(context: &Context, compat: bool) -> Result<Did> {
    let path = format!("path={}", context.file("module.ko", "no module")?);
    context.actor(&["reach", "by=finit_module", &path, &format!("compat={}", u8::from(compat))])
}

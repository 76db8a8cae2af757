//! The kernel programs, and the ways each event can be produced.
//!
//! [`PROGRAMS`] says where a program attaches and what it needs of the kernel; [`PLANS`] lists for each event the ways
//! to have it, best first. The agent takes the first that the running kernel allows and says why the better ones were
//! not possible. To add a hook, add a program row and name it in a plan.

use crate::event::{self, EventId};
use crate::fact::{self, Fact};

/// Kinds of way, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// A typed tracepoint made for the event (BTF tracepoint).
    Tracepoint = 1,
    /// fexit on the function that does it: resolved objects and the result, no `bpf` in the LSM list needed.
    Fexit = 2,
    /// BPF LSM.
    Lsm = 3,
    /// fexit on the system call's own function.
    FexitSyscall = 4,
    /// kprobe or kretprobe.
    Kprobe = 5,
    /// The tracepoint of one system call.
    SyscallTracepoint = 6,
    /// Raw tracepoints of all system calls: work everywhere, cost every call.
    RawSyscall = 7,
    /// A BPF iterator.
    Iterator = 8,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Tracepoint,
        Self::Fexit,
        Self::Lsm,
        Self::FexitSyscall,
        Self::Kprobe,
        Self::SyscallTracepoint,
        Self::RawSyscall,
        Self::Iterator,
    ];

    /// Name in `haechi check`, docs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fexit => "fexit",
            Self::Lsm => "lsm",
            Self::FexitSyscall => "fexit-syscall",
            Self::Kprobe => "kprobe",
            Self::SyscallTracepoint => "syscall-tracepoint",
            Self::RawSyscall => "raw-syscall",
            Self::Iterator => "iterator",
        }
    }

    /// The step with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if number == 0 || number as usize > Self::ALL.len() { None } else { Some(Self::ALL[number as usize - 1]) }
    }
}

/// Where a program attaches. Of several names the first that the kernel has is taken: they differ by architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BTF tracepoint.
    TpBtf(&'static str),
    /// Return of a kernel function, by trampoline.
    Fexit(&'static [&'static str]),
    /// LSM hook.
    Lsm(&'static str),
    /// Entry of a kernel function, by breakpoint.
    Kprobe(&'static [&'static str]),
    /// Return of a kernel function, by breakpoint.
    Kretprobe(&'static [&'static str]),
    /// A tracepoint: category, name.
    Tracepoint(&'static str, &'static str),
    /// A BPF iterator.
    Iter(&'static str),
    /// Nowhere: `sys_exit` hands calls over to it that stand for its event. So each such program is verified for itself,
    /// and one that nobody asked for is not there.
    SysExit,
}

impl Hook {
    /// The kernel functions it may attach to.
    #[must_use]
    pub const fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Fexit(names) | Self::Kprobe(names) | Self::Kretprobe(names) => names,
            _ => &[],
        }
    }
}

/// One kernel program.
#[derive(Clone, Copy, Debug)]
pub struct ProgramDef {
    /// Name of its function in the object.
    pub name: &'static str,
    /// Where it attaches.
    pub hook: Hook,
    /// Facts without which it would read nothing of use; it is not tried where one is absent.
    pub needs: &'static [Fact],
}

/// One way to produce an event.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What kind of way it is.
    pub step: Step,
    /// Programs that must all run.
    pub programs: &'static [&'static str],
    /// Programs that see more where the kernel allows them.
    pub optional: &'static [&'static str],
    /// What this way cannot see, for `haechi check`; empty: nothing known.
    pub blind: &'static str,
}

/// The ways to produce an event.
#[derive(Clone, Copy, Debug)]
pub struct EventPlans {
    /// The event.
    pub event: EventId,
    /// Ways, best first.
    pub plans: &'static [Plan],
}

const fn program(name: &'static str, hook: Hook, needs: &'static [Fact]) -> ProgramDef {
    ProgramDef { name, hook, needs }
}

/// Rows of programs; behind them, for each LSM hook, those on `security_HOOK` at its return, on the hook itself, and on
/// the function at its beginning; and behind those the ones that `sys_exit` hands over to.
macro_rules! programs {
    ($($row:expr,)+ @security $($hook:ident),+ ; @sys_exit $($exit:ident),+ ;) => {
        /// All programs.
        pub const PROGRAMS: &[ProgramDef] = &[
            $($row,)+
            $(
                program(
                    concat!(stringify!($hook), "_fexit"),
                    Hook::Fexit(&[concat!("security_", stringify!($hook))]),
                    &[],
                ),
                program(concat!(stringify!($hook), "_lsm"), Hook::Lsm(stringify!($hook)), &[]),
                program(
                    concat!(stringify!($hook), "_kprobe"),
                    Hook::Kprobe(&[concat!("security_", stringify!($hook))]),
                    &[],
                ),
            )+
            $( program(stringify!($exit), Hook::SysExit, &[]), )+
        ];
    };
}

programs! {
    program("sched_process_fork", Hook::TpBtf("sched_process_fork"), &[]),
    program("sched_process_exec", Hook::TpBtf("sched_process_exec"), &[fact::HELPER_FIND_VMA]),
    program("sched_process_exec_old", Hook::TpBtf("sched_process_exec"), &[]),
    program("task_rename", Hook::TpBtf("task_rename"), &[]),
    program("sched_process_exit", Hook::TpBtf("sched_process_exit"), &[]),
    program("cgroup_mkdir", Hook::TpBtf("cgroup_mkdir"), &[fact::CGROUP_KN, fact::KN_ID]),
    program("cgroup_rmdir", Hook::TpBtf("cgroup_rmdir"), &[fact::CGROUP_KN, fact::KN_ID]),
    program("cgroup_attach_task", Hook::TpBtf("cgroup_attach_task"), &[fact::CGROUP_KN, fact::KN_ID]),
    program("ptrace_fexit", Hook::Fexit(&["__x64_sys_ptrace", "__arm64_sys_ptrace"]), &[]),
    program("ptrace_fexit_compat", Hook::Fexit(&["__ia32_compat_sys_ptrace", "__arm64_compat_sys_ptrace"]), &[]),
    program("memfd_create_fexit", Hook::Fexit(&["__x64_sys_memfd_create", "__arm64_sys_memfd_create"]), &[]),
    program("memfd_create_fexit_compat", Hook::Fexit(&["__ia32_sys_memfd_create"]), &[]),
    program(
        "syscall_kretprobe",
        Hook::Kretprobe(&[
            "__x64_sys_ptrace",
            "__ia32_compat_sys_ptrace",
            "__x64_sys_memfd_create",
            "__ia32_sys_memfd_create",
            "__arm64_sys_ptrace",
            "__arm64_compat_sys_ptrace",
            "__arm64_sys_memfd_create",
        ]),
        &[fact::HELPER_TASK_PT_REGS],
    ),
    program("tracepoint_ptrace", Hook::Tracepoint("syscalls", "sys_exit_ptrace"), &[fact::HELPER_TASK_PT_REGS]),
    program(
        "tracepoint_memfd_create",
        Hook::Tracepoint("syscalls", "sys_exit_memfd_create"),
        &[fact::HELPER_TASK_PT_REGS],
    ),
    program("sys_enter", Hook::TpBtf("sys_enter"), &[]),
    program("sys_exit", Hook::TpBtf("sys_exit"), &[]),
    program(
        "io_uring_submit",
        Hook::TpBtf("io_uring_submit_req"),
        &[fact::IO_SUBMIT_REQ_ARG, fact::IO_OPCODE, fact::IO_CMD, fact::FILENAME_NAME],
    ),
    program("tasks", Hook::Iter("task"), &[]),
    program("flow_state", Hook::TpBtf("inet_sock_set_state"), &[fact::HELPER_SOCK_FROM_FILE]),
    program("flow_state_old", Hook::TpBtf("inet_sock_set_state"), &[]),
    program("flow_poll", Hook::Iter("bpf_sk_storage_map"), &[]),
    program("flow_poll_old", Hook::Iter("bpf_map_elem"), &[]),
    program("flow_adopt", Hook::Iter("task_file"), &[fact::HELPER_SOCK_FROM_FILE]),
    program("flow_adopt_by_address", Hook::Iter("task_file"), &[]),
    program("accept_fexit", Hook::Fexit(&["inet_accept"]), &[]),
    program("accept_fexit_mptcp", Hook::Fexit(&["mptcp_stream_accept"]), &[]),
    program("accept_kprobe", Hook::Kprobe(&["security_sock_graft"]), &[]),
    program("dup_fexit", Hook::Fexit(&["__x64_sys_dup", "__arm64_sys_dup"]), &[]),
    program("dup2_fexit", Hook::Fexit(&["__x64_sys_dup2"]), &[]),
    program("dup3_fexit", Hook::Fexit(&["__x64_sys_dup3", "__arm64_sys_dup3"]), &[]),
    program("dup_fexit_compat", Hook::Fexit(&["__ia32_sys_dup"]), &[]),
    program("dup2_fexit_compat", Hook::Fexit(&["__ia32_sys_dup2"]), &[]),
    program("dup3_fexit_compat", Hook::Fexit(&["__ia32_sys_dup3"]), &[]),
    program(
        "dup_kretprobe",
        Hook::Kretprobe(&[
            "__x64_sys_dup",
            "__x64_sys_dup2",
            "__x64_sys_dup3",
            "__ia32_sys_dup",
            "__ia32_sys_dup2",
            "__ia32_sys_dup3",
            "__arm64_sys_dup",
            "__arm64_sys_dup3",
        ]),
        &[],
    ),
    program("switch_ns_fexit", Hook::Fexit(&["switch_task_namespaces"]), &[]),
    program("switch_ns_kprobe", Hook::Kprobe(&["switch_task_namespaces"]), &[]),
    program("readv_fexit", Hook::Fexit(&["__x64_sys_process_vm_readv", "__arm64_sys_process_vm_readv"]), &[]),
    program(
        "readv_fexit_compat",
        Hook::Fexit(&["__ia32_compat_sys_process_vm_readv", "__ia32_sys_process_vm_readv"]),
        &[],
    ),
    program("writev_fexit", Hook::Fexit(&["__x64_sys_process_vm_writev", "__arm64_sys_process_vm_writev"]), &[]),
    program(
        "writev_fexit_compat",
        Hook::Fexit(&["__ia32_compat_sys_process_vm_writev", "__ia32_sys_process_vm_writev"]),
        &[],
    ),
    program(
        "process_vm_kretprobe",
        Hook::Kretprobe(&[
            "__x64_sys_process_vm_readv",
            "__x64_sys_process_vm_writev",
            "__ia32_compat_sys_process_vm_readv",
            "__ia32_compat_sys_process_vm_writev",
            "__ia32_sys_process_vm_readv",
            "__ia32_sys_process_vm_writev",
            "__arm64_sys_process_vm_readv",
            "__arm64_sys_process_vm_writev",
        ]),
        &[],
    ),
    @security file_open, socket_connect, path_unlink, path_rename, path_symlink, path_mknod, path_chmod, sb_mount, sb_umount,
        move_mount, socket_create, socket_bind, socket_listen, socket_accept, bpf, kernel_read_file, task_kill;
    @sys_exit unlink_exit, rename_exit, symlink_exit, mknod_exit, chmod_exit, mount_exit, umount_exit, move_mount_exit, socket_exit,
        bind_exit, listen_exit, accept_exit, dup_exit, bpf_exit, read_file_exit, kill_exit, switch_ns_exit, readv_exit, writev_exit;
}

const fn typed(programs: &'static [&'static str]) -> Plan {
    Plan { step: Step::Tracepoint, programs, optional: &[], blind: "" }
}

const FLOWS: &[Plan] = &[
    Plan {
        step: Step::Tracepoint,
        programs: &["flow_state", "flow_poll"],
        optional: &["flow_adopt"],
        blind: FLOW_BLIND,
    },
    Plan {
        step: Step::Tracepoint,
        programs: &["flow_state_old", "flow_poll_old"],
        optional: &["flow_adopt_by_address"],
        blind: FLOW_BLIND,
    },
];
const ACCEPT_BLIND: &str =
    "who accepts a connection that was waiting before the agent came, if it takes longer than seconds";
const FLOW_BLIND: &str = "connects that find no route, which never begin; MPTCP connections and listeners older than the agent, until \
                          they end";

const LSM_BLIND: &str = "what another security module refuses before, and the verdict of those asked after";
const CONNECT_BLIND: &str = "TCP Fast Open by sendto(2), which connects without asking";
const COMPAT_BLIND: &str = "calls of 32-bit programs: the kernel fires no such tracepoint for them";

const KPROBE_BLIND: &str = "the verdict of security modules";
const SOCKET_BLIND: &str = "calls that fail, io_uring, and the 32-bit socketcall";
const READ_BLIND: &str = "all but modules that finit_module(2) is given";
const KILL_BLIND: &str =
    "calls that fail, pidfd_send_signal(2), and who it is: the number that the program gave is what there is";
const DUP_BLIND: &str = "descriptors doubled by fcntl(2)";
const MOUNT_BLIND: &str = "calls that fail; paths are those the program gave, marked";
const MKNOD_BLIND: &str = "calls that fail, and the files that bind(2) makes; paths are those the program gave, marked; the \
                           mode is what it gave, before the umask";
const GIVEN_BLIND: &str = "calls that fail, and io_uring; paths are those the program gave, marked";

/// The ways of an event that an LSM hook shows: the programs of that hook, and one that `sys_exit` hands over to.
macro_rules! security {
    ($event:ident: $hook:ident, $exit:ident, $seen:expr, $given:expr) => {
        EventPlans {
            event: event::$event::ID,
            plans: &[
                Plan {
                    step: Step::Fexit,
                    programs: &[concat!(stringify!($hook), "_fexit")],
                    optional: &[],
                    blind: $seen,
                },
                Plan {
                    step: Step::Lsm,
                    programs: &[concat!(stringify!($hook), "_lsm")],
                    optional: &[],
                    blind: LSM_BLIND,
                },
                Plan {
                    step: Step::Kprobe,
                    programs: &[concat!(stringify!($hook), "_kprobe")],
                    optional: &[],
                    blind: KPROBE_BLIND,
                },
                Plan {
                    step: Step::RawSyscall,
                    programs: &["sys_exit", stringify!($exit)],
                    optional: &[],
                    blind: $given,
                },
            ],
        }
    };
}

/// The ways of an event that is a system call's return, all of them seen by programs of its own.
macro_rules! returning {
    ($event:ident: $fexit:ident, $compat:ident, $kretprobe:ident, $exit:ident) => {
        EventPlans {
            event: event::$event::ID,
            plans: &[
                Plan {
                    step: Step::FexitSyscall,
                    programs: &[stringify!($fexit)],
                    optional: &[stringify!($compat)],
                    blind: "",
                },
                Plan { step: Step::Kprobe, programs: &[stringify!($kretprobe)], optional: &[], blind: "" },
                Plan { step: Step::RawSyscall, programs: &["sys_exit", stringify!($exit)], optional: &[], blind: "" },
            ],
        }
    };
}

/// The ways to produce each event, in the order of the table.
pub const PLANS: &[EventPlans] = &[
    EventPlans { event: event::sched_process_fork::ID, plans: &[typed(&["sched_process_fork"])] },
    EventPlans {
        event: event::sched_process_exec::ID,
        plans: &[
            Plan { optional: &["task_rename"], ..typed(&["sched_process_exec"]) },
            Plan {
                optional: &["task_rename"],
                blind: "the ELF loader: before Linux 5.17 a program cannot look up the mapping of an address",
                ..typed(&["sched_process_exec_old"])
            },
        ],
    },
    EventPlans { event: event::sched_process_exit::ID, plans: &[typed(&["sched_process_exit"])] },
    EventPlans { event: event::cgroup_mkdir::ID, plans: &[typed(&["cgroup_mkdir"])] },
    EventPlans { event: event::cgroup_rmdir::ID, plans: &[typed(&["cgroup_rmdir"])] },
    EventPlans { event: event::cgroup_attach_task::ID, plans: &[typed(&["cgroup_attach_task"])] },
    EventPlans {
        event: event::security_file_open::ID,
        plans: &[
            Plan { step: Step::Fexit, programs: &["file_open_fexit"], optional: &[], blind: "" },
            Plan { step: Step::Lsm, programs: &["file_open_lsm"], optional: &[], blind: LSM_BLIND },
            Plan {
                step: Step::Kprobe,
                programs: &["file_open_kprobe"],
                optional: &[],
                blind: "the verdict of security modules; opens while the kernel handles another probe of this kind",
            },
            Plan {
                step: Step::RawSyscall,
                programs: &["sys_exit"],
                optional: &["io_uring_submit"],
                blind: "opens that fail, opens the kernel makes itself (program files and loaders at exec); io_uring \
                        opens and descriptors closed at once by another thread show the path the program gave, \
                        marked; a descriptor replaced at once by another thread shows the file that replaced it",
            },
        ],
    },
    EventPlans {
        event: event::security_socket_connect::ID,
        plans: &[
            Plan { step: Step::Fexit, programs: &["socket_connect_fexit"], optional: &[], blind: CONNECT_BLIND },
            Plan { step: Step::Lsm, programs: &["socket_connect_lsm"], optional: &[], blind: LSM_BLIND },
            Plan { step: Step::Kprobe, programs: &["socket_connect_kprobe"], optional: &[], blind: KPROBE_BLIND },
            Plan {
                step: Step::RawSyscall,
                programs: &["sys_exit"],
                optional: &["io_uring_submit"],
                blind: "the address is read from the program's memory when the call ends, marked; connects through \
                        the 32-bit socketcall are shown as that call only",
            },
        ],
    },
    EventPlans {
        event: event::ptrace::ID,
        plans: &[
            Plan {
                step: Step::FexitSyscall,
                programs: &["ptrace_fexit"],
                optional: &["ptrace_fexit_compat"],
                blind: "",
            },
            Plan { step: Step::Kprobe, programs: &["syscall_kretprobe"], optional: &[], blind: "" },
            Plan { step: Step::RawSyscall, programs: &["sys_exit"], optional: &[], blind: "" },
            Plan {
                step: Step::SyscallTracepoint,
                programs: &["tracepoint_ptrace"],
                optional: &[],
                blind: COMPAT_BLIND,
            },
        ],
    },
    EventPlans {
        event: event::memfd_create::ID,
        plans: &[
            Plan {
                step: Step::FexitSyscall,
                programs: &["memfd_create_fexit"],
                optional: &["memfd_create_fexit_compat"],
                blind: "",
            },
            Plan { step: Step::Kprobe, programs: &["syscall_kretprobe"], optional: &[], blind: "" },
            Plan { step: Step::RawSyscall, programs: &["sys_exit"], optional: &[], blind: "" },
            Plan {
                step: Step::SyscallTracepoint,
                programs: &["tracepoint_memfd_create"],
                optional: &[],
                blind: COMPAT_BLIND,
            },
        ],
    },
    EventPlans {
        event: event::syscall::ID,
        plans: &[Plan {
            step: Step::RawSyscall,
            programs: &["sys_exit"],
            optional: &["sys_enter"],
            blind: "calls that never return, where sys_enter is not allowed",
        }],
    },
    security!(security_inode_unlink: path_unlink, unlink_exit, "", GIVEN_BLIND),
    security!(security_inode_rename: path_rename, rename_exit, "", GIVEN_BLIND),
    security!(security_inode_symlink: path_symlink, symlink_exit, "", GIVEN_BLIND),
    security!(security_inode_mknod: path_mknod, mknod_exit, "", MKNOD_BLIND),
    security!(security_sb_mount: sb_mount, mount_exit, "", MOUNT_BLIND),
    security!(security_sb_umount: sb_umount, umount_exit, "", MOUNT_BLIND),
    security!(security_move_mount: move_mount, move_mount_exit, "", MOUNT_BLIND),
    security!(chmod_common: path_chmod, chmod_exit, "", MOUNT_BLIND),
    security!(security_socket_create: socket_create, socket_exit, "", "calls that fail, socketpair(2), and the kernel's own"),
    security!(security_socket_bind: socket_bind, bind_exit, "", SOCKET_BLIND),
    security!(security_socket_listen: socket_listen, listen_exit, "", SOCKET_BLIND),
    security!(security_socket_accept: socket_accept, accept_exit, "", SOCKET_BLIND),
    security!(security_bpf: bpf, bpf_exit, KPROBE_BLIND, ""),
    security!(security_kernel_read_file: kernel_read_file, read_file_exit, "", READ_BLIND),
    security!(security_task_kill: task_kill, kill_exit, "", KILL_BLIND),
    EventPlans {
        event: event::switch_task_ns::ID,
        plans: &[
            Plan { step: Step::Fexit, programs: &["switch_ns_fexit"], optional: &[], blind: "" },
            Plan { step: Step::Kprobe, programs: &["switch_ns_kprobe"], optional: &[], blind: "" },
            Plan { step: Step::RawSyscall, programs: &["sys_exit", "switch_ns_exit"], optional: &[], blind: "" },
        ],
    },
    returning!(process_vm_readv: readv_fexit, readv_fexit_compat, process_vm_kretprobe, readv_exit),
    returning!(process_vm_writev: writev_fexit, writev_fexit_compat, process_vm_kretprobe, writev_exit),
    EventPlans {
        event: event::socket_dup::ID,
        plans: &[
            Plan {
                step: Step::FexitSyscall,
                programs: &["dup_fexit", "dup3_fexit"],
                optional: &["dup2_fexit", "dup_fexit_compat", "dup2_fexit_compat", "dup3_fexit_compat"],
                blind: DUP_BLIND,
            },
            Plan { step: Step::Kprobe, programs: &["dup_kretprobe"], optional: &[], blind: DUP_BLIND },
            Plan { step: Step::RawSyscall, programs: &["sys_exit", "dup_exit"], optional: &[], blind: DUP_BLIND },
        ],
    },
    EventPlans { event: event::net_flow::ID, plans: FLOWS },
    EventPlans { event: event::net_tcp_connect::ID, plans: FLOWS },
    EventPlans {
        event: event::net_tcp_accept::ID,
        plans: &[
            Plan {
                step: Step::Fexit,
                programs: &["accept_fexit"],
                optional: &["accept_fexit_mptcp"],
                blind: ACCEPT_BLIND,
            },
            Plan { step: Step::Kprobe, programs: &["accept_kprobe"], optional: &[], blind: ACCEPT_BLIND },
            Plan {
                step: Step::RawSyscall,
                programs: &["sys_exit"],
                optional: &[],
                blind: "accepts through io_uring and the 32-bit socketcall",
            },
        ],
    },
    EventPlans {
        event: event::existing_process::ID,
        plans: &[Plan { step: Step::Iterator, programs: &["tasks"], optional: &[], blind: "" }],
    },
];

/// The row of the program called `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static ProgramDef> {
    PROGRAMS.iter().find(|p| p.name == name)
}

/// The event whose losses a program's missed runs are: the first that cannot do without it. `None` for one that only
/// helps.
#[must_use]
pub fn owner(program: &str) -> Option<EventId> {
    PLANS.iter().find(|e| e.plans.iter().any(|p| p.programs.contains(&program))).map(|e| e.event)
}

/// The ways to produce `event`, best first.
#[must_use]
pub fn plans(event: EventId) -> &'static [Plan] {
    PLANS.iter().find(|p| p.event == event).map_or(&[], |p| p.plans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_name_programs_that_exist_and_every_program_is_used() {
        for plan in PLANS.iter().flat_map(|p| p.plans) {
            for name in plan.programs.iter().chain(plan.optional) {
                assert!(by_name(name).is_some(), "{name}");
            }
        }
        for program in PROGRAMS {
            let used = PLANS
                .iter()
                .flat_map(|p| p.plans)
                .any(|p| p.programs.contains(&program.name) || p.optional.contains(&program.name));
            assert!(used, "{}", program.name);
        }
    }

    #[test]
    fn every_kernel_event_has_a_plan() {
        for e in event::EVENTS.iter().filter(|e| e.ring != event::Ring::None) {
            assert!(!plans(e.id).is_empty(), "{}", e.name);
        }
    }

    #[test]
    fn steps_keep_their_numbers() {
        for step in Step::ALL {
            assert_eq!(Step::from_number(step as u8), Some(step));
        }
        assert_eq!(Step::from_number(0), None);
        assert_eq!(Step::from_number(9), None);
    }
}

//! Which events must fire on which machine, and by which step of their plan. A run compares: an event that is produced
//! in a worse way than here, or not at all, is a failure, and so is a better way that this table does not know of.

use anyhow::{Context, Result};

/// A machine that the tests know.
#[derive(Debug)]
pub struct Machine {
    /// Name on the command line.
    pub name: &'static str,
    /// How `uname -r` begins there.
    pub release: &'static str,
    /// How many times slower than a real machine; deadlines stretch by it.
    pub slow: u32,
    /// Whether exec records have no ELF loader: before 5.17 a program cannot look up a mapping.
    pub blind_to_loader: bool,
    /// Whether a socket's number is not SO_COOKIE: before 5.12 a tracing program is not told that.
    pub own_numbers: bool,
    /// Event, and the step that produces it.
    pub steps: &'static [(&'static str, &'static str)],
}

impl Machine {
    /// The step by which `event` must be produced here.
    #[must_use]
    pub fn step(&self, event: &str) -> Option<&'static str> {
        self.steps.iter().find(|s| s.0 == event).map(|s| s.1)
    }
}

const EMULATED: u32 = 10;

/// Trampolines are there: Debian's kernels.
const WITH_FEXIT: &[(&str, &str)] = &[
    ("sched_process_fork", "tracepoint"),
    ("sched_process_exec", "tracepoint"),
    ("sched_process_exit", "tracepoint"),
    ("cgroup_mkdir", "tracepoint"),
    ("cgroup_rmdir", "tracepoint"),
    ("cgroup_attach_task", "tracepoint"),
    ("security_file_open", "fexit"),
    ("security_socket_connect", "fexit"),
    ("ptrace", "fexit-syscall"),
    ("memfd_create", "fexit-syscall"),
    ("syscall", "raw-syscall"),
    ("security_inode_unlink", "fexit"),
    ("security_inode_rename", "fexit"),
    ("security_inode_symlink", "fexit"),
    ("security_inode_mknod", "fexit"),
    ("security_sb_mount", "fexit"),
    ("security_sb_umount", "fexit"),
    ("security_move_mount", "fexit"),
    ("chmod_common", "fexit"),
    ("security_socket_create", "fexit"),
    ("security_socket_bind", "fexit"),
    ("security_socket_listen", "fexit"),
    ("security_socket_accept", "fexit"),
    ("socket_dup", "fexit-syscall"),
    ("security_bpf", "fexit"),
    ("security_kernel_read_file", "fexit"),
    ("security_task_kill", "fexit"),
    ("switch_task_ns", "fexit"),
    ("process_vm_readv", "fexit-syscall"),
    ("process_vm_writev", "fexit-syscall"),
    ("existing_process", "iterator"),
    ("net_flow", "tracepoint"),
    ("net_tcp_connect", "tracepoint"),
    ("net_tcp_accept", "fexit"),
];

/// Lockdown refuses trampolines, and kprobes are not built in.
const LOCKED_DOWN: &[(&str, &str)] = &[
    ("sched_process_fork", "tracepoint"),
    ("sched_process_exec", "tracepoint"),
    ("sched_process_exit", "tracepoint"),
    ("cgroup_mkdir", "tracepoint"),
    ("cgroup_rmdir", "tracepoint"),
    ("cgroup_attach_task", "tracepoint"),
    ("security_file_open", "raw-syscall"),
    ("security_socket_connect", "raw-syscall"),
    ("ptrace", "raw-syscall"),
    ("memfd_create", "raw-syscall"),
    ("syscall", "raw-syscall"),
    ("security_inode_unlink", "raw-syscall"),
    ("security_inode_rename", "raw-syscall"),
    ("security_inode_symlink", "raw-syscall"),
    ("security_inode_mknod", "raw-syscall"),
    ("security_sb_mount", "raw-syscall"),
    ("security_sb_umount", "raw-syscall"),
    ("security_move_mount", "raw-syscall"),
    ("chmod_common", "raw-syscall"),
    ("security_socket_create", "raw-syscall"),
    ("security_socket_bind", "raw-syscall"),
    ("security_socket_listen", "raw-syscall"),
    ("security_socket_accept", "raw-syscall"),
    ("socket_dup", "raw-syscall"),
    ("security_bpf", "raw-syscall"),
    ("security_kernel_read_file", "raw-syscall"),
    ("security_task_kill", "raw-syscall"),
    ("switch_task_ns", "raw-syscall"),
    ("process_vm_readv", "raw-syscall"),
    ("process_vm_writev", "raw-syscall"),
    ("existing_process", "iterator"),
    ("net_flow", "tracepoint"),
    ("net_tcp_connect", "tracepoint"),
    ("net_tcp_accept", "raw-syscall"),
];

/// All machines.
pub const MACHINES: &[Machine] = &[
    Machine { name: "host", release: "6.18.", slow: 1, blind_to_loader: false, own_numbers: false, steps: LOCKED_DOWN },
    Machine {
        name: "5.10",
        release: "5.10.",
        slow: EMULATED,
        blind_to_loader: true,
        own_numbers: true,
        steps: WITH_FEXIT,
    },
    Machine {
        name: "6.1",
        release: "6.1.",
        slow: EMULATED,
        blind_to_loader: false,
        own_numbers: false,
        steps: WITH_FEXIT,
    },
    Machine {
        name: "6.12",
        release: "6.12.",
        slow: EMULATED,
        blind_to_loader: false,
        own_numbers: false,
        steps: WITH_FEXIT,
    },
    Machine {
        name: "7.2",
        release: "7.2.",
        slow: EMULATED,
        blind_to_loader: false,
        own_numbers: false,
        steps: WITH_FEXIT,
    },
];

/// The machine this runs on, by the release of its kernel.
///
/// # Errors
/// When the table does not know it.
pub fn detect() -> Result<&'static Machine> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    MACHINES
        .iter()
        .find(|m| release.starts_with(m.release))
        .with_context(|| format!("no machine in tests/src/machines.rs has kernel {}", release.trim()))
}

/// The machine called `name`.
///
/// # Errors
/// When there is none.
pub fn by_name(name: &str) -> Result<&'static Machine> {
    let names = || MACHINES.iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    MACHINES.iter().find(|m| m.name == name).with_context(|| format!("no machine {name:?}; there are {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::{event, program::Step};

    #[test]
    fn every_event_has_a_known_step_on_every_machine() {
        for machine in MACHINES {
            for e in event::EVENTS.iter().filter(|e| e.name != "lost_events") {
                let step = machine.step(e.name);
                assert!(Step::ALL.iter().any(|s| Some(s.name()) == step), "{} on {}: {step:?}", e.name, machine.name);
            }
        }
    }
}

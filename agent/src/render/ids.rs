//! Event numbers of Tracee's API, which are not ours: clients compare them.

use haechi_ebpf::event::{self, EventId};
use haechi_ebpf::syscall::{Abi, by_name};
use haechi_signatures::model::About;

/// Numbers of events that are no system calls.
const IDS: &[(EventId, u32)] = &[
    (event::sched_process_fork::ID, 1014),
    (event::sched_process_exec::ID, 1015),
    (event::sched_process_exit::ID, 1016),
    (event::switch_task_ns::ID, 1026),
    (event::cgroup_attach_task::ID, 1028),
    (event::cgroup_mkdir::ID, 1029),
    (event::cgroup_rmdir::ID, 1030),
    (event::security_file_open::ID, 1032),
    (event::security_inode_unlink::ID, 1033),
    (event::security_socket_create::ID, 1034),
    (event::security_socket_listen::ID, 1035),
    (event::security_socket_connect::ID, 1036),
    (event::security_socket_accept::ID, 1037),
    (event::security_socket_bind::ID, 1038),
    (event::security_sb_mount::ID, 1040),
    (event::security_bpf::ID, 1041),
    (event::security_kernel_read_file::ID, 1043),
    (event::security_inode_mknod::ID, 1044),
    (event::security_inode_symlink::ID, 1046),
    (event::socket_dup::ID, 1049),
    (event::security_inode_rename::ID, 1068),
    (event::chmod_common::ID, 1091),
    (event::security_sb_umount::ID, 1092),
];

/// Where numbers of events that Tracee does not have begin.
const OWN: u32 = 9000;
/// Where numbers of rules begin.
const RULES: u32 = 6000;

/// The number of the event `id` that goes by `name`.
#[must_use]
pub fn event_id(id: EventId, name: &str) -> u32 {
    if let Some((_, number)) = IDS.iter().find(|i| i.0 == id) {
        return *number;
    }
    let native = by_name(name).and_then(|call| call.number(Abi::X86_64));
    native.and_then(|n| of_syscall(n.into())).unwrap_or(OWN + u32::from(id))
}

/// System calls are counted from 1, without the hole that x86-64 has in its table.
const fn of_syscall(number: u32) -> Option<u32> {
    match number {
        0..=334 => Some(number + 1),
        424..=448 => Some(number - 424 + 336),
        _ => None,
    }
}

/// The number of a rule: that in its id, as 105 in `TRC-105`, else one made from its name.
#[must_use]
pub fn finding_id(about: &About) -> u32 {
    let digits: String = about.id.chars().filter(char::is_ascii_digit).take(4).collect();
    match digits.parse::<u32>() {
        Ok(number) => RULES + number,
        Err(_) => RULES + about.name.bytes().fold(0, |hash: u32, b| (hash * 31 + u32::from(b)) % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_clients_know() {
        for (id, name, want) in [
            (event::sched_process_exec::ID, "sched_process_exec", 1015),
            (event::ptrace::ID, "ptrace", 102),
            (event::memfd_create::ID, "memfd_create", 320),
            (event::syscall::ID, "execve", 60),
            (event::syscall::ID, "openat2", 349),
            (event::syscall::ID, "process_mrelease", 360),
            (event::lost_events::ID, "lost_events", 9048),
        ] {
            assert_eq!(event_id(id, name), want, "{name}");
        }
    }
}

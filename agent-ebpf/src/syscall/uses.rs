//! Which events system calls stand for, where only the calls are seen.

use crate::event::{self, EventId};
use crate::filter::Action;

/// How the raw plan turns system calls into an event: positions of path, directory and flags.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The call.
    pub call: &'static str,
    /// The event it stands for.
    pub event: EventId,
    /// Position of the path argument.
    pub path: u8,
    /// Position of the directory descriptor.
    pub dir: u8,
    /// Where the open flags are.
    pub flags: u8,
}

const fn opens(call: &'static str, path: u8, dir: u8, flags: u8) -> Use {
    Use { call, event: event::security_file_open::ID, path, dir, flags }
}

const fn changes(call: &'static str, event: EventId, path: u8, dir: u8) -> Use {
    Use { call, event, path, dir, flags: Action::NONE }
}

const fn stands_for(call: &'static str, event: EventId) -> Use {
    changes(call, event, Action::NONE, Action::NONE)
}

/// All such calls.
pub const USES: &[Use] = &[
    opens("open", 0, Action::NONE, 1),
    opens("creat", 0, Action::NONE, Action::CREAT),
    opens("openat", 1, 0, 2),
    opens("openat2", 1, 0, Action::OPEN_HOW),
    opens("open_by_handle_at", Action::NONE, 0, 2),
    changes("unlink", event::security_inode_unlink::ID, 0, Action::NONE),
    Use { flags: 2, ..changes("unlinkat", event::security_inode_unlink::ID, 1, 0) },
    changes("rename", event::security_inode_rename::ID, 0, Action::NONE),
    changes("renameat", event::security_inode_rename::ID, 1, 0),
    changes("renameat2", event::security_inode_rename::ID, 1, 0),
    changes("symlink", event::security_inode_symlink::ID, 1, Action::NONE),
    changes("symlinkat", event::security_inode_symlink::ID, 2, 1),
    changes("mknod", event::security_inode_mknod::ID, 0, Action::NONE),
    changes("mknodat", event::security_inode_mknod::ID, 1, 0),
    changes("mount", event::security_sb_mount::ID, 1, Action::NONE),
    changes("umount", event::security_sb_umount::ID, 0, Action::NONE),
    Use { flags: 1, ..changes("umount2", event::security_sb_umount::ID, 0, Action::NONE) },
    stands_for("move_mount", event::security_move_mount::ID),
    changes("chmod", event::chmod_common::ID, 0, Action::NONE),
    changes("fchmod", event::chmod_common::ID, Action::NONE, 0),
    changes("fchmodat", event::chmod_common::ID, 1, 0),
    changes("fchmodat2", event::chmod_common::ID, 1, 0),
    stands_for("connect", event::security_socket_connect::ID),
    stands_for("ptrace", event::ptrace::ID),
    stands_for("memfd_create", event::memfd_create::ID),
    stands_for("accept", event::net_tcp_accept::ID),
    stands_for("accept4", event::net_tcp_accept::ID),
    // Behind the flow's: of two events of one call, the second is handed over.
    stands_for("accept", event::security_socket_accept::ID),
    stands_for("accept4", event::security_socket_accept::ID),
    stands_for("socket", event::security_socket_create::ID),
    stands_for("bpf", event::security_bpf::ID),
    stands_for("finit_module", event::security_kernel_read_file::ID),
    // Where the signal is.
    Use { flags: 1, ..stands_for("kill", event::security_task_kill::ID) },
    Use { flags: 1, ..stands_for("tkill", event::security_task_kill::ID) },
    Use { flags: 2, ..stands_for("tgkill", event::security_task_kill::ID) },
    Use { flags: 1, ..stands_for("rt_sigqueueinfo", event::security_task_kill::ID) },
    Use { flags: 2, ..stands_for("rt_tgsigqueueinfo", event::security_task_kill::ID) },
    Use { flags: 0, ..stands_for("unshare", event::switch_task_ns::ID) },
    stands_for("setns", event::switch_task_ns::ID),
    stands_for("process_vm_readv", event::process_vm_readv::ID),
    stands_for("process_vm_writev", event::process_vm_writev::ID),
    stands_for("bind", event::security_socket_bind::ID),
    stands_for("listen", event::security_socket_listen::ID),
    stands_for("dup", event::socket_dup::ID),
    stands_for("dup2", event::socket_dup::ID),
    stands_for("dup3", event::socket_dup::ID),
];

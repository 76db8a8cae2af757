//! Facts about the running kernel that the programs read: member offsets, sizes, enum values, argument positions.
//!
//! The agent resolves each from the kernel's BTF before loading and hands them over as read-only globals, which the
//! verifier folds to constants. What a kernel lacks is [`ABSENT`]; a program asks before it reads.

/// A fact: its position in [`FACTS`] and in the global array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact(pub u16);

/// The kernel has no such thing.
pub const ABSENT: u32 = u32::MAX;

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Byte offset of a member, `struct.member.member`. Spellings of different kernels are separated by `|`.
    Offset(&'static str),
    /// Bytes of a struct.
    Size(&'static str),
    /// The value of an enum's constant; `BPF_FUNC_*` and `IORING_OP_*` only, whose names are unique.
    EnumValue(&'static str),
    /// Position of the first argument of a tracepoint that points to a struct: `tracepoint.struct`.
    Argument(&'static str),
    /// How many arguments a tracepoint has.
    Arguments(&'static str),
}

impl Source {
    /// The structs it looks into.
    #[must_use]
    pub fn structs(self) -> Option<impl Iterator<Item = &'static str>> {
        match self {
            Self::Offset(paths) | Self::Size(paths) => Some(paths.split('|').filter_map(|p| p.split('.').next())),
            _ => None,
        }
    }
}

/// An entry of [`FACTS`].
#[derive(Clone, Copy, Debug)]
pub struct FactDef {
    /// Name in messages.
    pub name: &'static str,
    /// Where it comes from.
    pub source: Source,
}

macro_rules! facts {
    ($( $name:ident = $kind:ident $path:literal; )+) => {
        #[expect(non_camel_case_types, reason = "positions of the constants below")]
        enum Position { $($name),+ }
        $( #[doc = concat!(stringify!($kind), " `", $path, "`.")]
           pub const $name: Fact = Fact(Position::$name as u16); )+
        /// All facts, in the order of the global array.
        pub const FACTS: &[FactDef] = &[$( FactDef { name: stringify!($name), source: Source::$kind($path) } ),+];
    };
}

facts! {
    TASK_PID = Offset "task_struct.pid";
    TASK_TGID = Offset "task_struct.tgid";
    TASK_LEADER = Offset "task_struct.group_leader";
    TASK_PARENT = Offset "task_struct.real_parent";
    TASK_START = Offset "task_struct.start_boottime|task_struct.real_start_time";
    TASK_EXEC_ID = Offset "task_struct.self_exec_id";
    TASK_NSPROXY = Offset "task_struct.nsproxy";
    TASK_THREAD_PID = Offset "task_struct.thread_pid";
    TASK_FILES = Offset "task_struct.files";
    TASK_FS = Offset "task_struct.fs";
    TASK_MM = Offset "task_struct.mm";
    TASK_SIGNAL = Offset "task_struct.signal";
    TASK_CRED = Offset "task_struct.cred";
    TASK_COMM = Offset "task_struct.comm";
    TASK_FLAGS = Offset "task_struct.flags";
    TASK_EXIT_CODE = Offset "task_struct.exit_code";
    TASK_LOGINUID = Offset "task_struct.loginuid.val";
    TASK_SESSIONID = Offset "task_struct.sessionid";
    TASK_STACK = Offset "task_struct.stack";
    TASK_CGROUPS = Offset "task_struct.cgroups";
    TASK_TI_STATUS = Offset "task_struct.thread_info.status";
    TASK_TI_FLAGS = Offset "task_struct.thread_info.flags";
    CSS_SET_DFL_CGRP = Offset "css_set.dfl_cgrp";
    NSPROXY_MNT = Offset "nsproxy.mnt_ns";
    NSPROXY_NET = Offset "nsproxy.net_ns";
    NSPROXY_UTS = Offset "nsproxy.uts_ns";
    NSPROXY_IPC = Offset "nsproxy.ipc_ns";
    NSPROXY_PID = Offset "nsproxy.pid_ns_for_children";
    NSPROXY_CGROUP = Offset "nsproxy.cgroup_ns";
    UTS_NS_INUM = Offset "uts_namespace.ns.inum";
    IPC_NS_INUM = Offset "ipc_namespace.ns.inum";
    CGROUP_NS_INUM = Offset "cgroup_namespace.ns.inum";
    MNT_NS_INUM = Offset "mnt_namespace.ns.inum";
    NET_INUM = Offset "net.ns.inum";
    PID_NS_INUM = Offset "pid_namespace.ns.inum";
    PID_LEVEL = Offset "pid.level";
    PID_NUMBERS = Offset "pid.numbers";
    UPID_NR = Offset "upid.nr";
    UPID_NS = Offset "upid.ns";
    UPID_SIZE = Size "upid";
    FILES_FDT = Offset "files_struct.fdt";
    FILES_FIRST = Offset "files_struct.fd_array";
    FDT_FD = Offset "fdtable.fd";
    FDT_MAX = Offset "fdtable.max_fds";
    FILE_DENTRY = Offset "file.f_path.dentry|file.__f_path.dentry";
    FILE_MNT = Offset "file.f_path.mnt|file.__f_path.mnt";
    FILE_INODE = Offset "file.f_inode";
    BACKING_USER_PATH = Offset "backing_file.user_path";
    FILE_FLAGS = Offset "file.f_flags";
    FILE_MODE = Offset "file.f_mode";
    FILE_PRIVATE = Offset "file.private_data";
    PATH_DENTRY = Offset "path.dentry";
    PATH_MNT = Offset "path.mnt";
    DENTRY_PARENT = Offset "dentry.d_parent";
    DENTRY_SB = Offset "dentry.d_sb";
    DENTRY_INODE = Offset "dentry.d_inode";
    DENTRY_NAME = Offset "dentry.d_name.name|dentry.__d_name.name";
    DENTRY_NAME_LEN = Offset "dentry.d_name.len|dentry.__d_name.len";
    DENTRY_INLINE_NAME = Offset "dentry.d_iname|dentry.d_shortname";
    VFSMOUNT_SB = Offset "vfsmount.mnt_sb";
    VFSMOUNT_ROOT = Offset "vfsmount.mnt_root";
    MOUNT_MNT = Offset "mount.mnt";
    MOUNT_PARENT = Offset "mount.mnt_parent";
    MOUNT_POINT = Offset "mount.mnt_mountpoint";
    MOUNT_ROOT = Offset "mount.mnt.mnt_root";
    INODE_MODE = Offset "inode.i_mode";
    INODE_INO = Offset "inode.i_ino";
    INODE_SB = Offset "inode.i_sb";
    INODE_NLINK = Offset "inode.i_nlink";
    INODE_CTIME_SEC = Offset "inode.i_ctime_sec|inode.__i_ctime.tv_sec|inode.i_ctime.tv_sec";
    INODE_CTIME_NSEC = Offset "inode.i_ctime_nsec|inode.__i_ctime.tv_nsec|inode.i_ctime.tv_nsec";
    SB_DEV = Offset "super_block.s_dev";
    SB_TYPE = Offset "super_block.s_type";
    FS_TYPE_NAME = Offset "file_system_type.name";
    MOUNT_DEVNAME = Offset "mount.mnt_devname";
    MM_ARG_START = Offset "mm_struct.arg_start";
    MM_ARG_END = Offset "mm_struct.arg_end";
    MM_ENV_START = Offset "mm_struct.env_start";
    MM_ENV_END = Offset "mm_struct.env_end";
    MM_EXE_FILE = Offset "mm_struct.exe_file";
    MM_AUXV = Offset "mm_struct.saved_auxv";
    VMA_FILE = Offset "vm_area_struct.vm_file";
    BPRM_FILENAME = Offset "linux_binprm.filename";
    BPRM_INTERP = Offset "linux_binprm.interp";
    FS_PWD = Offset "fs_struct.pwd";
    SIGNAL_TTY = Offset "signal_struct.tty";
    SIGNAL_LIVE = Offset "signal_struct.live.counter";
    TTY_NAME = Offset "tty_struct.name";
    CRED_UID = Offset "cred.uid.val";
    CRED_GID = Offset "cred.gid.val";
    CRED_EUID = Offset "cred.euid.val";
    CRED_EGID = Offset "cred.egid.val";
    CRED_CAP_INHERITABLE = Offset "cred.cap_inheritable";
    CRED_CAP_PERMITTED = Offset "cred.cap_permitted";
    CRED_CAP_EFFECTIVE = Offset "cred.cap_effective";
    SOCKET_SK = Offset "socket.sk";
    SOCKET_TYPE = Offset "socket.type";
    SOCKET_FILE = Offset "socket.file";
    SK_FAMILY = Offset "sock.__sk_common.skc_family";
    SK_STATE = Offset "sock.__sk_common.skc_state";
    SK_NUM = Offset "sock.__sk_common.skc_num";
    SK_DPORT = Offset "sock.__sk_common.skc_dport";
    SK_DADDR = Offset "sock.__sk_common.skc_daddr";
    SK_RCV_SADDR = Offset "sock.__sk_common.skc_rcv_saddr";
    SK_V6_DADDR = Offset "sock.__sk_common.skc_v6_daddr";
    SK_V6_RCV_SADDR = Offset "sock.__sk_common.skc_v6_rcv_saddr";
    SK_NET = Offset "sock.__sk_common.skc_net.net";
    SK_FLAGS = Offset "sock.__sk_common.skc_flags";
    SK_COOKIE = Offset "sock.__sk_common.skc_cookie";
    SK_ERR = Offset "sock.sk_err";
    SK_PROTOCOL = Offset "sock.sk_protocol";
    INET_SPORT = Offset "inet_sock.inet_sport";
    UNIX_ADDR = Offset "unix_sock.addr";
    UNIX_PEER = Offset "unix_sock.peer";
    UNIX_ADDRESS_LEN = Offset "unix_address.len";
    UNIX_ADDRESS_NAME = Offset "unix_address.name";
    ICSK_ULP_DATA = Offset "inet_connection_sock.icsk_ulp_data";
    MPTCP_FIRST = Offset "mptcp_sock.first";
    MPTCP_CONN = Offset "mptcp_subflow_context.conn";
    TCP_IS_MPTCP = Offset "tcp_sock.is_mptcp";
    TCP_BYTES_SENT = Offset "tcp_sock.bytes_sent";
    TCP_BYTES_RETRANS = Offset "tcp_sock.bytes_retrans";
    TCP_BYTES_RECEIVED = Offset "tcp_sock.bytes_received";
    TCP_BYTES_ACKED = Offset "tcp_sock.bytes_acked";
    TCP_SEGS_OUT = Offset "tcp_sock.segs_out";
    TCP_SEGS_IN = Offset "tcp_sock.segs_in";
    TCP_TOTAL_RETRANS = Offset "tcp_sock.total_retrans";
    TCP_LOST = Offset "tcp_sock.lost";
    TCP_SRTT = Offset "tcp_sock.srtt_us";
    TCP_RTT_MIN = Offset "tcp_sock.rtt_min";
    TCP_SND_NXT = Offset "tcp_sock.snd_nxt";
    TCP_SND_UNA = Offset "tcp_sock.snd_una";
    REGS_ORIG_AX = Offset "pt_regs.orig_ax";
    REGS_DI = Offset "pt_regs.di";
    REGS_SI = Offset "pt_regs.si";
    REGS_DX = Offset "pt_regs.dx";
    REGS_R10 = Offset "pt_regs.r10";
    REGS_R8 = Offset "pt_regs.r8";
    REGS_R9 = Offset "pt_regs.r9";
    REGS_BX = Offset "pt_regs.bx";
    REGS_CX = Offset "pt_regs.cx";
    REGS_BP = Offset "pt_regs.bp";
    REGS_ARM_REGS = Offset "user_pt_regs.regs";
    REGS_ARM_ORIG_X0 = Offset "pt_regs.orig_x0";
    REGS_ARM_SYSCALLNO = Offset "pt_regs.syscallno";
    REGS_SIZE = Size "pt_regs";
    CGROUP_KN = Offset "cgroup.kn";
    CGROUP_ROOT = Offset "cgroup.root";
    CGROUP_ROOT_HIERARCHY = Offset "cgroup_root.hierarchy_id";
    KN_ID = Offset "kernfs_node.id";
    IO_OPCODE = Offset "io_kiocb.opcode";
    IO_CMD = Offset "io_kiocb.cmd";
    IO_OPEN_DFD = Offset "io_open.dfd";
    IO_OPEN_FILENAME = Offset "io_open.filename";
    IO_OPEN_HOW = Offset "io_open.how.flags";
    IO_CONNECT_ADDR = Offset "io_connect.addr";
    IO_CONNECT_LEN = Offset "io_connect.addr_len";
    FILENAME_NAME = Offset "filename.name";
    IO_OP_OPENAT = EnumValue "IORING_OP_OPENAT";
    IO_OP_OPENAT2 = EnumValue "IORING_OP_OPENAT2";
    IO_OP_CONNECT = EnumValue "IORING_OP_CONNECT";
    IO_SUBMIT_REQ_ARG = Argument "io_uring_submit_req.io_kiocb";
    EXIT_ARGUMENTS = Arguments "sched_process_exit";
    HELPER_TASK_BTF = EnumValue "BPF_FUNC_get_current_task_btf";
    HELPER_TASK_PT_REGS = EnumValue "BPF_FUNC_task_pt_regs";
    HELPER_FIND_VMA = EnumValue "BPF_FUNC_find_vma";
    HELPER_SOCK_FROM_FILE = EnumValue "BPF_FUNC_sock_from_file";
}

/// Room in the global array.
pub const MAX_FACTS: usize = 192;
const _: () = assert!(FACTS.len() <= MAX_FACTS);

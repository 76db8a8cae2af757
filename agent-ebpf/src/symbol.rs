//! How numbers are spelled: flags, requests, types. One table each, read by JSON, Rego input, pretty output and docs.

use core::fmt::{self, Write};

use crate::flow;

/// The spelling of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// As a number.
    None,
    /// `open(2)` flags: access mode, then `|` and the set bits.
    OpenFlags,
    /// `ptrace(2)` request.
    PtraceRequest,
    /// File type of `st_mode`, as `S_IFREG`.
    InodeMode,
    /// `memfd_create(2)` flags.
    MemfdFlags,
    /// Address family.
    SocketFamily,
    /// Socket type.
    SocketType,
    /// Signal name.
    Signal,
    /// Capability set.
    Capabilities,
    /// Why there is a record of a flow; see [`crate::flow::Phase`].
    FlowPhase,
    /// Which end of a flow connected; see [`crate::flow::Direction`].
    FlowDirection,
    /// How a flow ended; see [`crate::flow::Reason`].
    FlowReason,
    /// What is special about a flow; see [`crate::flow::mark`].
    FlowMarks,
    /// State of a TCP socket.
    TcpState,
    /// Protocol above IP.
    IpProtocol,
    /// Error number, as `ECONNREFUSED`.
    Errno,
    /// Command of bpf(2).
    BpfCommand,
    /// What the kernel reads a file for.
    KernelReadFile,
}

/// A number that is shown by its spelling.
#[derive(Clone, Copy, Debug)]
pub struct Spelled {
    symbol: Symbol,
    value: u64,
}

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.symbol.write(self.value, f)
    }
}

impl Symbol {
    /// `value`, to be shown by its spelling.
    #[must_use]
    pub const fn of(self, value: u64) -> Spelled {
        Spelled { symbol: self, value }
    }

    /// Writes the spelling of `value`. Bits and values without a name are written as numbers.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, value: u64, out: &mut dyn Write) -> fmt::Result {
        match self {
            Self::None => write!(out, "{value}"),
            Self::OpenFlags => {
                let mode = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][(value & 3) as usize];
                out.write_str(mode)?;
                bits(value & !3, OPEN_BITS, false, out)
            }
            Self::MemfdFlags if value == 0 => out.write_str("0"),
            Self::MemfdFlags => bits(value, MEMFD_BITS, true, out),
            Self::Capabilities => capabilities(value, out),
            Self::PtraceRequest => named(value, PTRACE, out),
            Self::InodeMode => named(value & 0o170_000, FILE_TYPES, out),
            Self::SocketFamily => named(value, FAMILIES, out),
            Self::SocketType => named(value & 0xf, SOCKET_TYPES, out),
            Self::Signal => named(value, SIGNALS, out),
            Self::FlowPhase => named(value, flow::PHASES, out),
            Self::FlowDirection => named(value, flow::DIRECTIONS, out),
            Self::FlowReason => named(value, flow::REASONS, out),
            Self::FlowMarks if value == 0 => out.write_str("none"),
            Self::FlowMarks => bits(value, flow::MARKS, true, out),
            Self::TcpState => named(value, flow::STATES, out),
            Self::IpProtocol => named(value, PROTOCOLS, out),
            Self::Errno => named(value, ERRORS, out),
            Self::BpfCommand => named(value, BPF_COMMANDS, out),
            Self::KernelReadFile => named(value, READ_FOR, out),
        }
    }
}

fn named(value: u64, names: &[(u64, &str)], out: &mut dyn Write) -> fmt::Result {
    match names.iter().find(|n| n.0 == value) {
        Some((_, name)) => out.write_str(name),
        None => write!(out, "{value}"),
    }
}

fn bits(mut value: u64, names: &[(u64, &str)], mut first: bool, out: &mut dyn Write) -> fmt::Result {
    for (bit, name) in names {
        if value & bit == *bit {
            value &= !bit;
            if !core::mem::take(&mut first) {
                out.write_char('|')?;
            }
            out.write_str(name)?;
        }
    }
    if value != 0 {
        if !first {
            out.write_char('|')?;
        }
        write!(out, "0x{value:x}")?;
    }
    Ok(())
}

fn capabilities(value: u64, out: &mut dyn Write) -> fmt::Result {
    let all = (1 << CAPABILITIES.len()) - 1;
    if value & all == all {
        return out.write_str("all");
    }
    let mut first = true;
    for (_, name) in CAPABILITIES.iter().enumerate().filter(|(i, _)| value >> i & 1 == 1) {
        if !core::mem::take(&mut first) {
            out.write_char('|')?;
        }
        out.write_str(name)?;
    }
    if first { out.write_str("none") } else { Ok(()) }
}

/// `include/uapi/asm-generic/fcntl.h`; longest combination first.
const OPEN_BITS: &[(u64, &str)] = &[
    (0o20_200_000, "O_TMPFILE"),
    (0o4_010_000, "O_SYNC"),
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "FASYNC"),
    (0o40_000, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];

/// `include/uapi/linux/memfd.h`.
const MEMFD_BITS: &[(u64, &str)] =
    &[(1, "MFD_CLOEXEC"), (2, "MFD_ALLOW_SEALING"), (4, "MFD_HUGETLB"), (8, "MFD_NOEXEC_SEAL"), (16, "MFD_EXEC")];

/// `include/uapi/linux/ptrace.h`.
const PTRACE: &[(u64, &str)] = &[
    (0, "PTRACE_TRACEME"),
    (1, "PTRACE_PEEKTEXT"),
    (2, "PTRACE_PEEKDATA"),
    (3, "PTRACE_PEEKUSR"),
    (4, "PTRACE_POKETEXT"),
    (5, "PTRACE_POKEDATA"),
    (6, "PTRACE_POKEUSR"),
    (7, "PTRACE_CONT"),
    (8, "PTRACE_KILL"),
    (9, "PTRACE_SINGLESTEP"),
    (12, "PTRACE_GETREGS"),
    (13, "PTRACE_SETREGS"),
    (14, "PTRACE_GETFPREGS"),
    (15, "PTRACE_SETFPREGS"),
    (16, "PTRACE_ATTACH"),
    (17, "PTRACE_DETACH"),
    (24, "PTRACE_SYSCALL"),
    (30, "PTRACE_ARCH_PRCTL"),
    (0x4200, "PTRACE_SETOPTIONS"),
    (0x4201, "PTRACE_GETEVENTMSG"),
    (0x4202, "PTRACE_GETSIGINFO"),
    (0x4203, "PTRACE_SETSIGINFO"),
    (0x4204, "PTRACE_GETREGSET"),
    (0x4205, "PTRACE_SETREGSET"),
    (0x4206, "PTRACE_SEIZE"),
    (0x4207, "PTRACE_INTERRUPT"),
    (0x4208, "PTRACE_LISTEN"),
    (0x4209, "PTRACE_PEEKSIGINFO"),
    (0x420a, "PTRACE_GETSIGMASK"),
    (0x420b, "PTRACE_SETSIGMASK"),
    (0x420c, "PTRACE_SECCOMP_GET_FILTER"),
    (0x420d, "PTRACE_SECCOMP_GET_METADATA"),
    (0x420e, "PTRACE_GET_SYSCALL_INFO"),
    (0x420f, "PTRACE_GET_RSEQ_CONFIGURATION"),
    (0x4210, "PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG"),
    (0x4211, "PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG"),
    (0x4212, "PTRACE_SET_SYSCALL_INFO"),
];

/// `include/uapi/linux/stat.h`.
const FILE_TYPES: &[(u64, &str)] = &[
    (0o140_000, "S_IFSOCK"),
    (0o120_000, "S_IFLNK"),
    (0o100_000, "S_IFREG"),
    (0o060_000, "S_IFBLK"),
    (0o040_000, "S_IFDIR"),
    (0o020_000, "S_IFCHR"),
    (0o010_000, "S_IFIFO"),
];

/// `include/linux/socket.h`.
const FAMILIES: &[(u64, &str)] = &[
    (0, "AF_UNSPEC"),
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (10, "AF_INET6"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
    (31, "AF_BLUETOOTH"),
    (38, "AF_ALG"),
    (40, "AF_VSOCK"),
    (44, "AF_XDP"),
];

/// `include/linux/net.h`.
const SOCKET_TYPES: &[(u64, &str)] = &[
    (1, "SOCK_STREAM"),
    (2, "SOCK_DGRAM"),
    (3, "SOCK_RAW"),
    (4, "SOCK_RDM"),
    (5, "SOCK_SEQPACKET"),
    (6, "SOCK_DCCP"),
    (10, "SOCK_PACKET"),
];

/// `include/uapi/asm-generic/signal.h`.
const SIGNALS: &[(u64, &str)] = &[
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (16, "SIGSTKFLT"),
    (17, "SIGCHLD"),
    (18, "SIGCONT"),
    (19, "SIGSTOP"),
    (20, "SIGTSTP"),
    (21, "SIGTTIN"),
    (22, "SIGTTOU"),
    (23, "SIGURG"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (28, "SIGWINCH"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (31, "SIGSYS"),
];

/// `include/uapi/linux/in.h`.
const PROTOCOLS: &[(u64, &str)] =
    &[(1, "ICMP"), (6, "TCP"), (17, "UDP"), (58, "ICMPV6"), (132, "SCTP"), (262, "MPTCP")];

/// Those of `include/uapi/asm-generic/errno-base.h` and `errno.h` that a socket can end with.
const ERRORS: &[(u64, &str)] = &[
    (0, "0"),
    (4, "EINTR"),
    (5, "EIO"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (32, "EPIPE"),
    (71, "EPROTO"),
    (90, "EMSGSIZE"),
    (92, "ENOPROTOOPT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
];

/// `include/uapi/linux/bpf.h`.
const BPF_COMMANDS: &[(u64, &str)] = &[
    (0, "BPF_MAP_CREATE"),
    (1, "BPF_MAP_LOOKUP_ELEM"),
    (2, "BPF_MAP_UPDATE_ELEM"),
    (3, "BPF_MAP_DELETE_ELEM"),
    (4, "BPF_MAP_GET_NEXT_KEY"),
    (5, "BPF_PROG_LOAD"),
    (6, "BPF_OBJ_PIN"),
    (7, "BPF_OBJ_GET"),
    (8, "BPF_PROG_ATTACH"),
    (9, "BPF_PROG_DETACH"),
    (10, "BPF_PROG_TEST_RUN"),
    (11, "BPF_PROG_GET_NEXT_ID"),
    (12, "BPF_MAP_GET_NEXT_ID"),
    (13, "BPF_PROG_GET_FD_BY_ID"),
    (14, "BPF_MAP_GET_FD_BY_ID"),
    (15, "BPF_OBJ_GET_INFO_BY_FD"),
    (16, "BPF_PROG_QUERY"),
    (17, "BPF_RAW_TRACEPOINT_OPEN"),
    (18, "BPF_BTF_LOAD"),
    (19, "BPF_BTF_GET_FD_BY_ID"),
    (20, "BPF_TASK_FD_QUERY"),
    (21, "BPF_MAP_LOOKUP_AND_DELETE_ELEM"),
    (22, "BPF_MAP_FREEZE"),
    (23, "BPF_BTF_GET_NEXT_ID"),
    (24, "BPF_MAP_LOOKUP_BATCH"),
    (25, "BPF_MAP_LOOKUP_AND_DELETE_BATCH"),
    (26, "BPF_MAP_UPDATE_BATCH"),
    (27, "BPF_MAP_DELETE_BATCH"),
    (28, "BPF_LINK_CREATE"),
    (29, "BPF_LINK_UPDATE"),
    (30, "BPF_LINK_GET_FD_BY_ID"),
    (31, "BPF_LINK_GET_NEXT_ID"),
    (32, "BPF_ENABLE_STATS"),
    (33, "BPF_ITER_CREATE"),
    (34, "BPF_LINK_DETACH"),
    (35, "BPF_PROG_BIND_MAP"),
    (36, "BPF_TOKEN_CREATE"),
];

/// `include/linux/kernel_read_file.h`.
const READ_FOR: &[(u64, &str)] = &[
    (0, "unknown"),
    (1, "firmware"),
    (2, "kernel-module"),
    (3, "kexec-image"),
    (4, "kexec-initramfs"),
    (5, "security-policy"),
    (6, "x509-certificate"),
];

/// `include/uapi/linux/capability.h`, by bit.
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn values_are_spelled_as_users_know_them() {
        for (symbol, value, want) in [
            (Symbol::OpenFlags, 0o101, "O_WRONLY|O_CREAT"),
            (Symbol::OpenFlags, 0, "O_RDONLY"),
            (Symbol::OpenFlags, 0o20_200_002, "O_RDWR|O_TMPFILE"),
            (Symbol::OpenFlags, 1 << 40, "O_RDONLY|0x10000000000"),
            (Symbol::PtraceRequest, 4, "PTRACE_POKETEXT"),
            (Symbol::PtraceRequest, 99_999, "99999"),
            (Symbol::InodeMode, 0o100_755, "S_IFREG"),
            (Symbol::MemfdFlags, 0, "0"),
            (Symbol::MemfdFlags, 3, "MFD_CLOEXEC|MFD_ALLOW_SEALING"),
            (Symbol::Capabilities, 1 << 21, "CAP_SYS_ADMIN"),
            (Symbol::Capabilities, u64::MAX, "all"),
            (Symbol::Capabilities, 0, "none"),
            (Symbol::None, 7, "7"),
        ] {
            assert_eq!(symbol.of(value).to_string(), want);
        }
    }
}

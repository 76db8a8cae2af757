//! The event table: every kind of record there is, with its fields in wire order.
//!
//! Decoder, JSON, Rego input, docs, filter field names and metric labels all interpret [`EVENTS`]. To add an event,
//! add one entry here, one row in [`crate::program`], one probe function and one test. Names and field names follow
//! Tracee's, so that rules written for it keep working.

use crate::symbol::Symbol;

/// Number of an event on the wire. Dense and small: kernel maps are indexed by it.
pub type EventId = u16;

/// One more than the largest [`EventId`] the kernel maps have room for.
pub const MAX_EVENTS: usize = 64;

/// Which ring buffer carries an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Records that change what the agent knows (processes, cgroups): lost last.
    Critical = 0,
    /// Everything else.
    Bulk = 1,
    /// Connections: a poll of all of them must not crowd out anything else.
    Flow = 2,
    /// Made in the agent; never crosses the kernel boundary.
    None = 3,
}

/// How the eight bytes of a slot, or the variable bytes they point at, are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Signed 32-bit number, sign-extended into the slot.
    I32,
    /// Unsigned 32-bit number.
    U32,
    /// Signed 64-bit number.
    I64,
    /// Unsigned 64-bit number.
    U64,
    /// 0 or 1.
    Bool,
    /// Nanoseconds since boot (CLOCK_BOOTTIME).
    BootTime,
    /// Nanoseconds since the epoch, as file systems store it.
    FileTime,
    /// An address in the memory of the process.
    Pointer,
    /// Text without a NUL.
    Str,
    /// A path resolved by the kernel, or read from user memory and marked so.
    Path,
    /// Strings, each ended by a NUL.
    StrArray,
    /// Raw bytes.
    Bytes,
    /// A `struct sockaddr` as the kernel or the process holds it.
    SockAddr,
    /// An IP address: 4 or 16 bytes in network order.
    Ip,
}

impl FieldType {
    /// Whether the slot holds an offset and a length into the variable area instead of a number.
    #[must_use]
    pub const fn is_variable(self) -> bool {
        matches!(self, Self::Str | Self::Path | Self::StrArray | Self::Bytes | Self::SockAddr | Self::Ip)
    }

    /// The C type name that Tracee's JSON gives for such a field.
    #[must_use]
    pub const fn c_name(self) -> &'static str {
        match self {
            Self::I32 => "int",
            Self::U32 => "unsigned int",
            Self::I64 => "long",
            Self::U64 | Self::BootTime | Self::FileTime => "unsigned long",
            Self::Bool => "bool",
            Self::Pointer => "void*",
            Self::Str | Self::Path | Self::Ip => "const char*",
            Self::StrArray => "const char**",
            Self::Bytes => "bytes",
            Self::SockAddr => "struct sockaddr*",
        }
    }
}

/// One field of an event.
#[derive(Clone, Copy, Debug)]
pub struct FieldDef {
    /// Name, as users write it in rules and filters.
    pub name: &'static str,
    /// How its slot is read.
    pub ty: FieldType,
    /// How its number is spelled for people and for Rego.
    pub symbol: Symbol,
    /// One line for the docs.
    pub doc: &'static str,
}

/// One kind of event.
#[derive(Clone, Copy, Debug)]
pub struct EventDef {
    /// Number on the wire.
    pub id: EventId,
    /// Name, as users write it.
    pub name: &'static str,
    /// Which ring carries it.
    pub ring: Ring,
    /// Tags that select it in groups.
    pub tags: &'static [&'static str],
    /// Fields in wire order; at most 64.
    pub fields: &'static [FieldDef],
    /// One line for the docs.
    pub doc: &'static str,
}

impl EventDef {
    /// The position of the field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }
}

/// A typed handle of one field: its position in its event's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub u8);

macro_rules! events {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $id:literal, $ring:ident, [$($tag:literal),*] {
            $( $field:ident: $ty:ident $(as $symbol:ident)?, $fdoc:literal; )*
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            pub mod $name {
                use super::{EventDef, EventId, FieldDef, FieldType, Ring, Symbol, plain};

                #[expect(non_camel_case_types, reason = "positions are named as users name the fields")]
                enum Slot { $( $field, )* Count }

                /// The number of this event.
                pub const ID: EventId = $id;
                /// How many fields it has.
                pub const SLOTS: usize = Slot::Count as usize;

                /// Handles of the fields.
                #[expect(non_upper_case_globals, reason = "handles are named as users name the fields")]
                pub mod field {
                    use super::{Slot, super::Field};
                    $( #[doc = $fdoc] pub const $field: Field = Field(Slot::$field as u8); )*
                }

                /// The definition.
                pub const DEF: EventDef = EventDef {
                    id: ID,
                    name: stringify!($name),
                    ring: Ring::$ring,
                    tags: &[$($tag),*],
                    fields: &[$(FieldDef {
                        name: plain(stringify!($field)),
                        ty: FieldType::$ty,
                        symbol: events!(@symbol $($symbol)?),
                        doc: $fdoc,
                    }),*],
                    doc: concat!($($doc),+),
                };
            }
        )+

        /// All events.
        pub const EVENTS: &[EventDef] = &[$($name::DEF),+];
    };
    (@symbol) => { Symbol::None };
    (@symbol $symbol:ident) => { Symbol::$symbol };
}

events! {
    /// A task was made by fork, vfork or clone. Threads are reported only when the event itself is asked for.
    sched_process_fork = 1, Critical, ["proc", "proc_life"] {
        parent_tid: I32, "Thread that called fork.";
        parent_ns_tid: I32, "The same in its own pid namespace.";
        parent_pid: I32, "Process of that thread.";
        parent_ns_pid: I32, "The same in its own pid namespace.";
        parent_start_time: BootTime, "When that process started.";
        child_tid: I32, "The new task.";
        child_ns_tid: I32, "The same in its innermost pid namespace.";
        child_pid: I32, "Process of the new task; equals child_tid unless it is a thread.";
        child_ns_pid: I32, "The same in its innermost pid namespace.";
        start_time: BootTime, "When the new task started.";
        leader_start_time: BootTime, "When the process of the new task started.";
        child_pid_ns: U32, "Pid namespace of the new task.";
        child_exec_id: U32, "Exec generation that the child inherits.";
    }
    /// A new program was loaded by execve or execveat.
    sched_process_exec = 2, Critical, ["proc", "proc_life", "default"] {
        cmdpath: Str, "Path given to execve, as the kernel copied it.";
        pathname: Path, "Resolved path of the executable.";
        dev: U32, "Device of the executable, as the kernel numbers it (major << 20 | minor).";
        inode: U64, "Inode of the executable.";
        ctime: FileTime, "When the inode of the executable last changed.";
        inode_mode: U32 as InodeMode, "Type and permissions of the executable.";
        interpreter_pathname: Path, "Resolved path of the ELF loader that was mapped.";
        interpreter_dev: U32, "Device of the ELF loader.";
        interpreter_inode: U64, "Inode of the ELF loader.";
        interpreter_ctime: FileTime, "When the inode of the ELF loader last changed.";
        argv: StrArray, "Arguments, up to 8 KiB.";
        interp: Str, "Interpreter named by a #! line; equals cmdpath where there is none.";
        stdin_type: U32 as InodeMode, "What standard input is.";
        prev_comm: Str, "Name of the task before.";
        env: StrArray, "Environment, up to 8 KiB; the agent keeps the variables chosen in its configuration.";
        pwd: Path, "Resolved working directory.";
        login_uid: U32, "User who logged in (audit); 4294967295 is nobody.";
        sessionid: U32, "Audit session; 4294967295 is none.";
        tty: Str, "Controlling terminal.";
        euid: U32, "Effective user after the exec.";
        gid: U32, "Real group.";
        egid: U32, "Effective group after the exec.";
        cap_effective: U64 as Capabilities, "Effective capabilities after the exec.";
        cap_permitted: U64 as Capabilities, "Permitted capabilities after the exec.";
        cap_inheritable: U64 as Capabilities, "Inheritable capabilities after the exec.";
        nlink: U32, "Links to the executable's inode; 0 for a deleted file or a memfd.";
    }
    /// A task ended. Threads are reported only when the event itself is asked for.
    sched_process_exit = 3, Critical, ["proc", "proc_life"] {
        exit_code: I64, "Status in the form wait(2) returns: code << 8, or the signal.";
        signal_code: I32 as Signal, "Signal that ended it, 0 for none.";
        process_group_exit: Bool, "Whether this was the last thread of its process.";
    }
    /// A cgroup was made.
    cgroup_mkdir = 4, Critical, ["containers"] {
        cgroup_id: U64, "Id of the cgroup.";
        cgroup_path: Path, "Path in its hierarchy.";
        hierarchy_id: U32, "0 is cgroup v2.";
    }
    /// A cgroup was removed.
    cgroup_rmdir = 5, Critical, ["containers"] {
        cgroup_id: U64, "Id of the cgroup.";
        cgroup_path: Path, "Path in its hierarchy.";
        hierarchy_id: U32, "0 is cgroup v2.";
    }
    /// A task was moved into a cgroup.
    cgroup_attach_task = 6, Critical, ["containers"] {
        cgroup_path: Path, "Path of the cgroup in its hierarchy.";
        comm: Str, "Name of the task that was moved.";
        pid: I32, "The task that was moved.";
        cgroup_id: U64, "Id of the cgroup.";
        hierarchy_id: U32, "0 is cgroup v2.";
        start_time: BootTime, "When the process that was moved started.";
    }
    /// bpf(2) is being called. What the agent itself does is not told.
    security_bpf = 8, Critical, ["lsm_hooks"] {
        cmd: I32 as BpfCommand, "What is asked for.";
        r#type: U32, "Kind of program or map; only where one is made.";
        name: Str, "Its name; only where one is made.";
    }
    /// The namespaces of a task were changed by unshare(2) or setns(2).
    switch_task_ns = 9, Critical, ["proc"] {
        pid: I32, "The task.";
        new_mnt: U32, "Its mount namespace.";
        new_pid: U32, "The pid namespace of its children.";
        new_uts: U32, "Its namespace of host names.";
        new_ipc: U32, "Its namespace of System V IPC.";
        new_net: U32, "Its network namespace.";
        new_cgroup: U32, "Its cgroup namespace.";
    }
    /// The kernel is reading a file for itself: a module, firmware, another kernel.
    security_kernel_read_file = 10, Critical, ["lsm_hooks"] {
        pathname: Path, "Resolved path.";
        dev: U32, "Device of the file.";
        inode: U64, "Inode of the file.";
        r#type: I32 as KernelReadFile, "What it is read for.";
        ctime: FileTime, "When the inode last changed.";
    }
    /// A file was opened, after the kernel resolved its path.
    security_file_open = 16, Bulk, ["fs", "lsm_hooks"] {
        pathname: Path, "Resolved path.";
        flags: U32 as OpenFlags, "Flags of open(2).";
        dev: U32, "Device of the file.";
        inode: U64, "Inode of the file.";
        ctime: FileTime, "When the inode last changed.";
        syscall_pathname: Path, "Path given to the system call; present where the resolved one could not be had.";
        inode_mode: U32 as InodeMode, "Type and permissions of the file.";
    }
    /// A socket is being connected.
    security_socket_connect = 17, Bulk, ["net", "lsm_hooks", "default"] {
        sockfd: I32, "Descriptor of the socket; absent when the connect did not come from connect(2).";
        r#type: U32 as SocketType, "Type of the socket.";
        remote_addr: SockAddr, "Address to connect to.";
        family: U32 as SocketFamily, "Address family of the socket.";
    }
    /// ptrace(2) returned.
    ptrace = 18, Bulk, ["proc", "syscalls", "default"] {
        request: I64 as PtraceRequest, "What was asked for.";
        pid: I32, "Target, in the caller's pid namespace.";
        addr: Pointer, "Address in the target.";
        data: Pointer, "Data or its address.";
    }
    /// memfd_create(2) returned.
    memfd_create = 19, Bulk, ["fs", "syscalls", "default"] {
        uname: Str, "Name given to the file.";
        flags: U32 as MemfdFlags, "Flags.";
    }
    /// A system call that was asked for by its name; shown under that name.
    syscall = 20, Bulk, ["syscalls"] {
        nr: U32, "Number of the call in the table of its ABI.";
        arg0: U64, "First argument, raw.";
        arg1: U64, "Second argument, raw.";
        arg2: U64, "Third argument, raw.";
        arg3: U64, "Fourth argument, raw.";
        arg4: U64, "Fifth argument, raw.";
        arg5: U64, "Sixth argument, raw.";
    }
    /// A TCP connection: made, looked at, ended or failed. Totals since it began, as its applications wrote and read
    /// them; the process is the one that owns it.
    net_flow = 24, Flow, ["net", "flows"] {
        cookie: U64, "Number of the socket: SO_COOKIE, before Linux 5.11 one of our own; with start_time it names the flow.";
        phase: U32 as FlowPhase, "Why there is a record: progress, end or failure.";
        direction: U32 as FlowDirection, "Who connected: outgoing is this end, incoming the other.";
        protocol: U32 as IpProtocol, "Protocol above IP.";
        src: Ip, "Address of this end.";
        src_port: U32, "Port of this end.";
        dst: Ip, "Address of the other end.";
        dst_port: U32, "Port of the other end.";
        state: U32 as TcpState, "State of the connection; before it closed, in the last record.";
        start_time: BootTime, "When it began: at the call to connect, or when the handshake of an accepted one was done.";
        tx_bytes: U64, "Bytes that this end's application sent, each counted once.";
        rx_bytes: U64, "Bytes that came in order for this end's application.";
        tx_segments: U64, "Segments sent, with those sent again.";
        rx_segments: U64, "Segments received.";
        retransmits: U64, "Segments sent again.";
        lost: U64, "Segments that this end took for lost.";
        srtt: U64, "Smoothed round trip, microseconds.";
        min_rtt: U64, "Smallest round trip, microseconds.";
        connect_latency: U64, "From the first SYN to the established connection, nanoseconds; outgoing only.";
        reason: U32 as FlowReason, "How it ended.";
        error: U32 as Errno, "Error that the socket ended with; 0 for none.";
        marks: U32 as FlowMarks, "What is not as it is with others.";
        group: U64, "The MPTCP connection that this is a path of; absent for all others.";
    }
    /// A TCP connection was established by this end.
    net_tcp_connect = 25, Flow, ["net", "flows", "default"] {
        dst: Ip, "Address of the other end.";
        dst_port: U32, "Port of the other end.";
        src: Ip, "Address of this end.";
        src_port: U32, "Port of this end.";
        cookie: U64, "Number of the socket, as in net_flow.";
        connect_latency: U64, "From the first SYN to the established connection, nanoseconds.";
    }
    /// A process accepted a TCP connection.
    net_tcp_accept = 26, Flow, ["net", "flows"] {
        cookie: U64, "Number of the socket, as in net_flow.";
        src: Ip, "Address of the other end, which connected.";
        src_port: U32, "Port of the other end.";
        dst: Ip, "Address of this end.";
        dst_port: U32, "Port of this end.";
    }
    /// A file is being deleted; directories are not.
    security_inode_unlink = 33, Bulk, ["fs", "lsm_hooks", "default"] {
        pathname: Path, "Resolved path.";
        inode: U64, "Inode of the file.";
        dev: U32, "Device of the file, as the kernel numbers it (major << 20 | minor).";
        ctime: FileTime, "When the inode last changed.";
    }
    /// A file or directory is being renamed.
    security_inode_rename = 34, Bulk, ["fs", "lsm_hooks"] {
        old_path: Path, "Resolved path that it has.";
        new_path: Path, "Resolved path that it is to have.";
        inode: U64, "Inode of what is renamed.";
        dev: U32, "Device of it.";
    }
    /// A symbolic link is being made.
    security_inode_symlink = 35, Bulk, ["fs", "lsm_hooks"] {
        linkpath: Path, "Resolved path of the link.";
        target: Str, "What it is to point at.";
    }
    /// A device, pipe or socket file is being made.
    security_inode_mknod = 36, Bulk, ["fs", "lsm_hooks"] {
        file_name: Path, "Resolved path.";
        mode: U32 as InodeMode, "Type and permissions.";
        dev: U32, "The device that it stands for, as the kernel numbers it (major << 20 | minor).";
    }
    /// A file system is being mounted by mount(2), or a mount changed by it.
    security_sb_mount = 37, Bulk, ["fs", "lsm_hooks", "default"] {
        dev_name: Str, "What is mounted: a device, or whatever the file system takes.";
        path: Path, "Resolved path of the place.";
        r#type: Str, "Kind of file system.";
        flags: U64, "Flags of mount(2).";
    }
    /// A file system is being unmounted.
    security_sb_umount = 38, Bulk, ["fs", "lsm_hooks", "default"] {
        mountpoint: Path, "Resolved path of the place.";
        r#type: Str, "Kind of file system.";
        flags: U32, "Flags of umount2(2).";
        dev_name: Str, "What was mounted.";
    }
    /// A mount is being moved to a place by move_mount(2), which is how the newer calls mount.
    security_move_mount = 39, Bulk, ["fs", "lsm_hooks"] {
        from_path: Path, "Resolved path of where it is; that of a new one begins and ends at itself.";
        to_path: Path, "Resolved path of where it is to be.";
        r#type: Str, "Kind of file system.";
        dev_name: Str, "What is mounted.";
    }
    /// Permissions of a file are being changed.
    chmod_common = 40, Bulk, ["fs"] {
        pathname: Path, "Resolved path.";
        mode: U32, "The new permissions.";
        inode: U64, "Inode of the file.";
        dev: U32, "Device of the file.";
    }
    /// A socket is being made.
    security_socket_create = 41, Bulk, ["net", "lsm_hooks"] {
        family: I32 as SocketFamily, "Address family.";
        r#type: I32 as SocketType, "Type of the socket.";
        protocol: I32, "Protocol; 0 is the usual one.";
        kern: I32, "1 where the kernel makes it for itself.";
    }
    /// A socket is being given an address.
    security_socket_bind = 42, Bulk, ["net", "lsm_hooks", "default"] {
        sockfd: I32, "Descriptor of the socket; absent when it did not come from bind(2).";
        local_addr: SockAddr, "The address.";
    }
    /// A socket is to take connections.
    security_socket_listen = 43, Bulk, ["net", "lsm_hooks"] {
        sockfd: I32, "Descriptor of the socket; absent when it did not come from listen(2).";
        local_addr: SockAddr, "Its address.";
        backlog: I32, "How many connections may wait.";
    }
    /// A connection is being asked for, that may be there or may come.
    security_socket_accept = 44, Bulk, ["net", "lsm_hooks", "default"] {
        sockfd: I32, "Descriptor of the listener; absent when it did not come from accept(2).";
        local_addr: SockAddr, "Address of the listener.";
    }
    /// A socket was put at another descriptor by dup(2), dup2(2) or dup3(2).
    socket_dup = 45, Bulk, ["net"] {
        oldfd: I32, "Descriptor that it had.";
        newfd: I32, "Descriptor that it has as well.";
        remote_addr: SockAddr, "Address of the other end.";
    }
    /// A signal is being sent to another process.
    security_task_kill = 46, Bulk, ["proc", "signals", "lsm_hooks"] {
        pid: I32, "Process that it is sent to, in the host's numbering.";
        sig: I32 as Signal, "The signal.";
        ns_pid: I32, "The process in its own pid namespace.";
        start_time: BootTime, "When that process started.";
        comm: Str, "Name of the thread that it is sent to.";
        given: I32, "Whom the program named, as kill(2) takes it; present where only the system call is seen.";
    }
    /// process_vm_readv(2) returned: the memory of another process was read.
    process_vm_readv = 49, Bulk, ["proc", "syscalls"] {
        pid: I32, "Target, in the caller's pid namespace.";
        local_iov: Pointer, "Where the caller says which of its memory.";
        liovcnt: U64, "How many pieces that is.";
        remote_iov: Pointer, "Where the caller says which of the target's memory.";
        riovcnt: U64, "How many pieces that is.";
        flags: U64, "Flags.";
    }
    /// process_vm_writev(2) returned: the memory of another process was written.
    process_vm_writev = 50, Bulk, ["proc", "syscalls"] {
        pid: I32, "Target, in the caller's pid namespace.";
        local_iov: Pointer, "Where the caller says which of its memory.";
        liovcnt: U64, "How many pieces that is.";
        remote_iov: Pointer, "Where the caller says which of the target's memory.";
        riovcnt: U64, "How many pieces that is.";
        flags: U64, "Flags.";
    }
    /// A process that was there before the agent; one record each at start and after losses.
    existing_process = 32, None, ["proc"] {
        pathname: Path, "Resolved path of the executable.";
        argv: StrArray, "Arguments, up to 8 KiB.";
        pwd: Path, "Resolved working directory.";
        dev: U32, "Device of the executable.";
        inode: U64, "Inode of the executable.";
        parent_start_time: BootTime, "When the parent process started.";
        login_uid: U32, "User who logged in (audit); 4294967295 is nobody.";
        sessionid: U32, "Audit session; 4294967295 is none.";
        tty: Str, "Controlling terminal.";
        euid: U32, "Effective user.";
        cap_effective: U64 as Capabilities, "Effective capabilities.";
    }
    /// Records were lost here; how many, of what, and why.
    lost_events = 48, None, ["agent", "default"] {
        event: Str, "Name of the event whose records were lost.";
        reason: Str, "Why.";
        count: U64, "How many since the last such record.";
    }
}

/// A field may be called like a keyword of Rust; its name has no `r#`.
const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// The definition with number `id`.
#[must_use]
pub const fn by_id(id: EventId) -> Option<&'static EventDef> {
    if (id as usize) < MAX_EVENTS { BY_ID[id as usize] } else { None }
}

/// The definition called `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static EventDef> {
    EVENTS.iter().find(|e| e.name == name)
}

static BY_ID: [Option<&'static EventDef>; MAX_EVENTS] = {
    let mut table: [Option<&'static EventDef>; MAX_EVENTS] = [None; MAX_EVENTS];
    let mut i = 0;
    while i < EVENTS.len() {
        table[EVENTS[i].id as usize] = Some(&EVENTS[i]);
        i += 1;
    }
    table
};

/// A hash of the whole table: a recording made with another table is refused, not misread.
pub const TABLE_HASH: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < EVENTS.len() {
        hash = fnv(hash, EVENTS[i].name.as_bytes());
        hash = fnv(hash, &EVENTS[i].id.to_le_bytes());
        let mut j = 0;
        while j < EVENTS[i].fields.len() {
            hash = fnv(hash, EVENTS[i].fields[j].name.as_bytes());
            hash = fnv(hash, &[EVENTS[i].fields[j].ty as u8]);
            j += 1;
        }
        i += 1;
    }
    hash
};

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_fit() {
        for (i, e) in EVENTS.iter().enumerate() {
            assert!((e.id as usize) < MAX_EVENTS && e.fields.len() <= 64, "{}", e.name);
            assert!(EVENTS[..i].iter().all(|o| o.id != e.id && o.name != e.name), "{}", e.name);
            assert_eq!(by_id(e.id).map(|d| d.name), Some(e.name));
            assert_eq!(by_name(e.name).map(|d| d.id), Some(e.id));
        }
        assert!(by_id(63).is_none() && by_id(6400).is_none());
    }

    #[test]
    fn handles_point_at_their_fields() {
        assert_eq!(security_file_open::DEF.field("flags"), Some(security_file_open::field::flags.0 as usize));
        assert_eq!(sched_process_exec::DEF.field("nlink"), Some(sched_process_exec::SLOTS - 1));
    }
}

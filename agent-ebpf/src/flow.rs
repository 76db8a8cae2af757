//! What the numbers in a flow record mean: why there is one, who connected, how it ended, what is special about it.

/// Why there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// The connection lives and was looked at.
    Progress = 1,
    /// It has ended; the totals are final.
    End = 2,
    /// It was never established.
    Failed = 3,
}

/// Which end connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// Not known.
    Unknown = 0,
    /// This end.
    Outgoing = 1,
    /// The other end.
    Incoming = 2,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// It has not.
    None = 0,
    /// Both ends said that they were done.
    Fin = 1,
    /// The other end reset it, or refused it.
    ResetByPeer = 2,
    /// This end reset it: closed with data unread, or told to linger for no time.
    ResetLocally = 3,
    /// The other end did not answer.
    TimedOut = 4,
    /// This end closed it before it was established.
    Abandoned = 5,
    /// Any other error.
    Error = 6,
}

/// Bits of the marks.
pub mod mark {
    /// Nobody has accepted it yet: the process is the one that listens.
    pub const INHERITED: u32 = 1;
    /// It was there before the agent.
    pub const ADOPTED: u32 = 2;
    /// It is a path of an MPTCP connection.
    pub const MPTCP: u32 = 4;
    /// The kernel had no memory to remember its beginning: start, owner and latency are missing.
    pub const FORGOTTEN: u32 = 8;
}

/// `enum` of include/net/tcp_states.h.
pub mod tcp {
    /// Established.
    pub const ESTABLISHED: u32 = 1;
    /// A SYN was sent.
    pub const SYN_SENT: u32 = 2;
    /// A SYN came.
    pub const SYN_RECV: u32 = 3;
    /// This end is done, and the other does not know yet.
    pub const FIN_WAIT1: u32 = 4;
    /// This end is done.
    pub const FIN_WAIT2: u32 = 5;
    /// Closed.
    pub const CLOSE: u32 = 7;
    /// The other end is done.
    pub const CLOSE_WAIT: u32 = 8;
    /// Both are done, and the other does not know yet.
    pub const LAST_ACK: u32 = 9;
    /// Waits for connections.
    pub const LISTEN: u32 = 10;
    /// Both were done at once.
    pub const CLOSING: u32 = 11;
}

pub(crate) const PHASES: &[(u64, &str)] = &[(1, "progress"), (2, "end"), (3, "failed")];
pub(crate) const DIRECTIONS: &[(u64, &str)] = &[(0, "unknown"), (1, "outgoing"), (2, "incoming")];
pub(crate) const REASONS: &[(u64, &str)] = &[
    (0, "none"),
    (1, "fin"),
    (2, "reset-by-peer"),
    (3, "reset-locally"),
    (4, "timed-out"),
    (5, "abandoned"),
    (6, "error"),
];
pub(crate) const MARKS: &[(u64, &str)] = &[(1, "inherited"), (2, "adopted"), (4, "mptcp"), (8, "forgotten")];
pub(crate) const STATES: &[(u64, &str)] = &[
    (1, "TCP_ESTABLISHED"),
    (2, "TCP_SYN_SENT"),
    (3, "TCP_SYN_RECV"),
    (4, "TCP_FIN_WAIT1"),
    (5, "TCP_FIN_WAIT2"),
    (6, "TCP_TIME_WAIT"),
    (7, "TCP_CLOSE"),
    (8, "TCP_CLOSE_WAIT"),
    (9, "TCP_LAST_ACK"),
    (10, "TCP_LISTEN"),
    (11, "TCP_CLOSING"),
    (12, "TCP_NEW_SYN_RECV"),
];

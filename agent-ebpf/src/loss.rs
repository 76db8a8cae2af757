//! Why a record can fail to arrive. Each cause has a counter per event; their sum with what was delivered is what was
//! tried. The kernel keeps the first [`Loss::KERNEL`] of them in a per-CPU array, the agent the others.

/// A cause of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Loss {
    /// The ring had no room.
    RingFull = 0,
    /// The cgroup used up its share of a ring under pressure.
    RateLimit = 1,
    /// All scratch buffers of the CPU were in use.
    ScratchBusy = 2,
    /// A queue in the agent had no room.
    Queue = 3,
    /// The kernel skipped the program to keep it from running inside itself; counted by the kernel since 5.12, for
    /// trampolines and BTF tracepoints. For a program that sees more than one event asks for, an upper bound.
    Missed = 4,
    /// The bytes were not a record.
    Rejected = 5,
}

impl Loss {
    /// All causes.
    pub const ALL: [Self; 6] =
        [Self::RingFull, Self::RateLimit, Self::ScratchBusy, Self::Queue, Self::Missed, Self::Rejected];
    /// How many are counted in the kernel.
    pub const KERNEL: usize = 3;

    /// Name in metrics and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::RateLimit => "rate_limit",
            Self::ScratchBusy => "scratch_busy",
            Self::Queue => "queue",
            Self::Missed => "missed",
            Self::Rejected => "rejected",
        }
    }
}

/// Columns of the kernel's per-CPU counter array; row = event number.
pub mod column {
    /// Records tried: delivered plus lost in the kernel.
    pub const TRIED: usize = 0;
    /// First loss; the column of a cause is this plus its number.
    pub const LOSS: usize = 1;
    /// How many columns there are.
    pub const COUNT: usize = 4;
}

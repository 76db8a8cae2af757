//! How filters lie in kernel maps.
//!
//! A *set* is one consumer's demand of an event: up to 64 of them, a bit each. Every dimension (user, name, cgroup,
//! path) yields the sets that its value satisfies; a record leaves the kernel when one set is satisfied in all
//! dimensions. Keys carry a generation: a change fills the idle generation and flips one word, so it is atomic.
//! The kernel may let through more than was asked for (a long prefix is cut); the agent judges exactly.

/// Number of sets.
pub const SETS: usize = 64;

/// The `LIVE` block: what changes while the programs run, in one map value that they read without a look-up. Both
/// generations lie in it; a change writes the idle one, then the block once more with the other generation in force.
pub mod live {
    use super::{SYSCALL_ENTRIES, SYSCALL_NUMBERS, word};
    use crate::event::MAX_EVENTS;

    /// Offset of the generation in force, 0 or 1; eight bytes.
    pub const GENERATION: usize = 0;
    /// Offset of the events: entries of [`word::COUNT`] words, at `generation * MAX_EVENTS + event`.
    pub const EVENTS: usize = 8;
    /// Bytes of an entry of the events.
    pub const EVENT_BYTES: usize = 8 * word::COUNT;
    /// Offset of the system calls: four bytes each ([`super::Action`]), at
    /// `(generation * 2 + compat) * SYSCALL_NUMBERS + number`.
    pub const SYSCALLS: usize = EVENTS + 2 * MAX_EVENTS * EVENT_BYTES;
    /// Offset of one byte for each system call number, at `generation * SYSCALL_NUMBERS + number`: whether any ABI has
    /// something to do for it. Nearly every call ends here, before its ABI is asked for.
    pub const WATCHED: usize = SYSCALLS + 4 * SYSCALL_ENTRIES;
    /// Bytes of the block.
    pub const BYTES: usize = WATCHED + 2 * SYSCALL_NUMBERS;
}

/// Words of an event's entry in the `LIVE` block.
pub mod word {
    /// Sets that want the event at all; 0: it is not reported.
    pub const WANTED: usize = 0;
    /// Sets that take any path. The others need a leaf, prefix or suffix that matches.
    pub const PATH_ANY: usize = 1;
    /// Sets that take any user unless the user map says no.
    pub const UID_ANY: usize = 2;
    /// The same for the name of the thread.
    pub const COMM_ANY: usize = 3;
    /// The same for the cgroup.
    pub const CGROUP_ANY: usize = 4;
    /// Bits of [`super::has`]: which maps hold anything for this event, so that an idle one costs no look-up.
    pub const HAS: usize = 5;
    /// Lengths of the leaf names, a bit each: a name of another length needs no look-up.
    pub const LEAF_LENGTHS: usize = 6;
    /// First bytes of the leaf names, a bit each by their low six bits: the same for a name that begins otherwise.
    pub const LEAF_FIRSTS: usize = 7;
    /// Sets that take only opens that can change the file: the others are over before any path is looked at.
    pub const WRITES: usize = 8;
    /// Sets with prefixes or suffixes: where none is left, the path is not walked.
    pub const ENDS: usize = 9;
    /// Words in the entry.
    pub const COUNT: usize = 10;
}

/// Bits of [`word::HAS`].
pub mod has {
    /// Users are told apart.
    pub const UID: u64 = 1;
    /// Thread names are told apart.
    pub const COMM: u64 = 2;
    /// Cgroups are told apart.
    pub const CGROUP: u64 = 4;
    /// There are leaf names.
    pub const LEAF: u64 = 8;
    /// There are prefixes.
    pub const PREFIX: u64 = 16;
    /// There are suffixes.
    pub const SUFFIX: u64 = 32;
    /// Threads are wanted, not only processes (fork, exit).
    pub const THREADS: u64 = 64;
}

/// Bytes of a leaf key: generation (8 bytes), name, zeroed to the end.
pub const LEAF_KEY: usize = 8 + LEAF_NAME;
/// Bytes of a name in a leaf key. A longer name is cut to one less.
pub const LEAF_NAME: usize = 64;
/// Data bytes of a prefix key: generation, path.
pub const PREFIX_DATA: usize = 256;
/// Data bytes of a suffix key: generation, the path's last bytes in reverse.
pub const SUFFIX_DATA: usize = 33;
/// Bits of the flags of open(2) that let a file be changed: `O_ACCMODE` but for reading alone, and `O_TRUNC`.
pub const WRITE_FLAGS: u32 = 0o1003;
/// Entries of each path and scope map.
pub const ENTRIES: u32 = 8192;

/// System call entries: generation, ABI (native, compat), number.
pub const SYSCALL_ENTRIES: usize = 2 * 2 * SYSCALL_NUMBERS;
/// System call numbers that can be told apart in one ABI.
pub const SYSCALL_NUMBERS: usize = 1024;

/// What to do about a system call, as it is stored: event in bits 0..8 (0: none), position of the path argument
/// in 8..12, of the directory descriptor in 12..16, one bit each for the truths below, flags in 20..24, the second event
/// in 24..32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Event that the call stands for; 0 for none.
    pub event: u16,
    /// Position of the path argument, [`Action::NONE`] if there is none.
    pub path_arg: u8,
    /// Position of the directory descriptor, [`Action::NONE`] if there is none.
    pub dir_arg: u8,
    /// Where the open flags are: a position, or one of the values beside [`Action::NONE`].
    pub flags_arg: u8,
    /// That event is produced by the raw tracepoints, not by a hook on the call.
    pub raw: bool,
    /// The call was asked for by its own name.
    pub named: bool,
    /// Report it by name when it begins, because it does not come back.
    pub at_enter: bool,
    /// A second event that the call stands for, which is handed over; 0 for none.
    pub also: u16,
}

impl Action {
    /// No such argument.
    pub const NONE: u8 = 15;

    /// The flags are those of creat(2), which takes none.
    pub const CREAT: u8 = 14;
    /// The flags are the first word of the `struct open_how` that the third argument points to.
    pub const OPEN_HOW: u8 = 13;

    /// Nothing to do.
    pub const IDLE: Self = Self {
        event: 0,
        path_arg: Self::NONE,
        dir_arg: Self::NONE,
        flags_arg: Self::NONE,
        raw: false,
        named: false,
        at_enter: false,
        also: 0,
    };

    /// As stored; 0 is reserved for nothing to do.
    #[must_use]
    pub const fn encode(self) -> u32 {
        (self.event as u32 & 0xff)
            | (self.path_arg as u32 & 15) << 8
            | (self.dir_arg as u32 & 15) << 12
            | (self.raw as u32) << 16
            | (self.named as u32) << 17
            | (self.at_enter as u32) << 18
            | (self.flags_arg as u32 & 15) << 20
            | (self.also as u32 & 0xff) << 24
    }

    /// From what is stored.
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        Self {
            event: (word & 0xff) as u16,
            path_arg: (word >> 8 & 15) as u8,
            dir_arg: (word >> 12 & 15) as u8,
            raw: word >> 16 & 1 == 1,
            named: word >> 17 & 1 == 1,
            at_enter: word >> 18 & 1 == 1,
            flags_arg: (word >> 20 & 15) as u8,
            also: (word >> 24) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_survive_storage() {
        for action in [
            Action {
                event: 16,
                path_arg: 1,
                dir_arg: 0,
                flags_arg: 2,
                raw: true,
                named: true,
                at_enter: false,
                also: 44,
            },
            Action { at_enter: true, named: true, ..Action::IDLE },
        ] {
            assert_eq!(Action::decode(action.encode()), action);
        }
    }
}

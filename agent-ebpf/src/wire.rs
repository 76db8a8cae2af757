//! How a record looks in memory: one format for all events, one writer in the kernel, one decoder here.
//!
//! ```text
//! header (112 bytes) | one 8-byte slot per field, in table order | variable area
//! ```
//!
//! A slot of a fixed field holds its number. A slot of a variable field holds, from the low bits: offset from the
//! start of the record (16 bits), stored length (16 bits), true length (30 bits), "read from user memory" (1 bit),
//! "truncated" (1 bit). The header's `present` bitmap says which slots mean something. Little endian.

use crate::event::{self, EventDef, EventId, Field, FieldType};
use crate::program::Step;

/// Version of this layout.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER: usize = 112;
/// Largest record.
pub const RECORD_MAX: usize = 0x10000;

/// Scratch buffers of a CPU: as many programs can be in the middle of a record at once.
pub const SCRATCH_PER_CPU: u32 = 3;
/// Bytes of environment that an exec record can carry at most, and of arguments.
pub const ARGUMENTS_MAX: u32 = 0x2000;

/// Byte offsets in the header.
pub mod at {
    /// `u16`: [`crate::event::EventId`].
    pub const EVENT: usize = 0;
    /// `u16`: see [`super::flag`].
    pub const FLAGS: usize = 2;
    /// `u16`: CPU that wrote the record.
    pub const CPU: usize = 4;
    /// `u8`: number of slots.
    pub const SLOTS: usize = 6;
    /// `u8`: [`super::VERSION`].
    pub const VERSION: usize = 7;
    /// `u32`: bytes of the whole record.
    pub const LEN: usize = 8;
    /// `u32`: count of records tried on this CPU for this ring; a step of more than one is a loss.
    pub const SEQ: usize = 12;
    /// `u64`: nanoseconds since boot.
    pub const TIME: usize = 16;
    /// `u32`: thread, in the host's numbering.
    pub const TID: usize = 24;
    /// `u32`: process, in the host's numbering.
    pub const TGID: usize = 28;
    /// `u64`: when the process started, nanoseconds since boot. With [`TGID`] it names a process for ever.
    pub const START: usize = 32;
    /// `u32`: `task_struct.self_exec_id`: which program of the process.
    pub const EXEC_ID: usize = 40;
    /// `u32`: real user.
    pub const UID: usize = 44;
    /// `u64`: cgroup v2 id.
    pub const CGROUP: usize = 48;
    /// `u32`: inode number of the mount namespace.
    pub const MNT_NS: usize = 56;
    /// `u32`: of the pid namespace.
    pub const PID_NS: usize = 60;
    /// `u32`: of the network namespace.
    pub const NET_NS: usize = 64;
    /// `u32`: parent process, in the host's numbering.
    pub const PPID: usize = 68;
    /// `u32`: thread, in its own pid namespace.
    pub const NS_TID: usize = 72;
    /// `u32`: process, in its own pid namespace.
    pub const NS_TGID: usize = 76;
    /// `i64`: what the call or hook returned.
    pub const RET: usize = 80;
    /// `[u8; 16]`: name of the thread.
    pub const COMM: usize = 88;
    /// `u64`: bit per field.
    pub const PRESENT: usize = 104;
}

/// Bits of the header's flags.
pub mod flag {
    /// The task was in a 32-bit system call (int 0x80, sysenter, or a 32-bit ARM one).
    pub const COMPAT: u16 = 1;
    /// The task was in an x32 system call.
    pub const X32: u16 = 2;
    /// Done through io_uring.
    pub const IO_URING: u16 = 4;
    /// The task is a kernel thread.
    pub const KTHREAD: u16 = 8;
    /// [`super::at::RET`] holds a result.
    pub const HAS_RET: u16 = 16;
    /// Where the number of the [`crate::program::Step`] that produced the record starts.
    pub const STEP_SHIFT: u16 = 12;
}

/// Bits of a variable slot's upper half.
pub mod var {
    /// The text is longer than what is stored.
    pub const TRUNCATED: u32 = 1 << 31;
    /// The text was read from the memory of the process, which may change it at will.
    pub const USER: u32 = 1 << 30;
    /// The true length.
    pub const LEN_MASK: u32 = USER - 1;
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header, or than its own length says.
    Short,
    /// A layout this decoder does not know.
    Version(u8),
    /// No such event.
    Event(EventId),
    /// The slots are not those of the event.
    Slots(u8),
    /// A variable field points outside the record.
    Bounds(u8),
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => f.write_str("record is cut short"),
            Self::Version(v) => write!(f, "unknown record version {v}"),
            Self::Event(e) => write!(f, "unknown event number {e}"),
            Self::Slots(n) => write!(f, "{n} slots do not fit the event"),
            Self::Bounds(i) => write!(f, "field {i} points outside the record"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Text or bytes of a variable field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// What is stored.
    pub bytes: &'a [u8],
    /// How long it was before it was cut; equals `bytes.len()` when nothing was.
    pub true_len: u32,
    /// Whether it was cut.
    pub truncated: bool,
    /// Whether it was read from the memory of the process.
    pub from_user: bool,
}

impl<'a> Text<'a> {
    /// The strings of a [`FieldType::StrArray`].
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes.strip_suffix(&[0]).unwrap_or(self.bytes);
        let empty = self.bytes.is_empty();
        bytes.split(|b| *b == 0).filter(move |_| !empty)
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Signed number.
    Int(i64),
    /// Unsigned number, time, address.
    Uint(u64),
    /// Truth.
    Bool(bool),
    /// Variable field.
    Text(Text<'a>),
}

/// A record whose shape has been checked once; reading a field cannot fail after that.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    bytes: &'a [u8],
    def: &'static EventDef,
}

impl<'a> View<'a> {
    /// Checks the shape of `bytes`. Bytes past the record's own length are left out.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER {
            return Err(Malformed::Short);
        }
        let len = u32_at(bytes, at::LEN) as usize;
        if bytes[at::VERSION] != VERSION {
            return Err(Malformed::Version(bytes[at::VERSION]));
        }
        let id = u16_at(bytes, at::EVENT);
        let Some(def) = event::by_id(id) else { return Err(Malformed::Event(id)) };
        let slots = bytes[at::SLOTS];
        if slots as usize != def.fields.len() {
            return Err(Malformed::Slots(slots));
        }
        let fixed = HEADER + 8 * slots as usize;
        if len < fixed || len > bytes.len() {
            return Err(Malformed::Short);
        }
        let view = Self { bytes: &bytes[..len], def };
        for (i, field) in def.fields.iter().enumerate() {
            if field.ty.is_variable() && view.has(Field(i as u8)) {
                let slot = view.slot(i);
                let (offset, stored) = ((slot & 0xffff) as usize, (slot >> 16 & 0xffff) as usize);
                if offset < fixed || offset + stored > len {
                    return Err(Malformed::Bounds(i as u8));
                }
            }
        }
        Ok(view)
    }

    /// The bytes of the record.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The definition of its event.
    #[must_use]
    pub const fn def(&self) -> &'static EventDef {
        self.def
    }

    /// Number of its event.
    #[must_use]
    pub const fn event(&self) -> EventId {
        self.def.id
    }

    /// Bits of [`flag`].
    #[must_use]
    pub fn flags(&self) -> u16 {
        u16_at(self.bytes, at::FLAGS)
    }

    /// The way that it was produced; `None` where the agent made it.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        Step::from_number((self.flags() >> flag::STEP_SHIFT) as u8)
    }

    /// CPU that wrote it.
    #[must_use]
    pub fn cpu(&self) -> u16 {
        u16_at(self.bytes, at::CPU)
    }

    /// A `u32` of the header, by its offset in [`at`].
    #[must_use]
    pub fn header_u32(&self, offset: usize) -> u32 {
        u32_at(self.bytes, offset)
    }

    /// A `u64` of the header, by its offset in [`at`].
    #[must_use]
    pub fn header_u64(&self, offset: usize) -> u64 {
        u64_at(self.bytes, offset)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.header_u64(at::TIME)
    }

    /// Process in the host's numbering, and when it started.
    #[must_use]
    pub fn process(&self) -> (u32, u64) {
        (self.header_u32(at::TGID), self.header_u64(at::START))
    }

    /// What the call or hook returned, where the hook sees it.
    #[must_use]
    pub fn ret(&self) -> Option<i64> {
        (self.flags() & flag::HAS_RET != 0).then(|| self.header_u64(at::RET) as i64)
    }

    /// Name of the thread, without padding.
    #[must_use]
    pub fn comm(&self) -> &'a [u8] {
        let comm = &self.bytes[at::COMM..at::COMM + 16];
        &comm[..comm.iter().position(|b| *b == 0).unwrap_or(16)]
    }

    /// Whether the field could be had.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.header_u64(at::PRESENT) >> field.0 & 1 == 1
    }

    /// The value at position `index` of the table; `None` when it could not be had.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<Value<'a>> {
        let field = Field(index as u8);
        let ty = self.def.fields.get(index)?.ty;
        Some(match ty {
            _ if ty.is_variable() => Value::Text(self.text(field)?),
            _ if !self.has(field) => return None,
            FieldType::I32 | FieldType::I64 => Value::Int(self.slot(index) as i64),
            FieldType::Bool => Value::Bool(self.slot(index) != 0),
            _ => Value::Uint(self.slot(index)),
        })
    }

    /// The number in a fixed field.
    #[must_use]
    pub fn number(&self, field: Field) -> Option<u64> {
        self.has(field).then(|| self.slot(field.0 as usize))
    }

    /// The text of a variable field.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<Text<'a>> {
        let index = field.0 as usize;
        if !self.has(field) || !self.def.fields.get(index)?.ty.is_variable() {
            return None;
        }
        let slot = self.slot(index);
        let (offset, stored, high) = ((slot & 0xffff) as usize, (slot >> 16 & 0xffff) as usize, (slot >> 32) as u32);
        Some(Text {
            bytes: self.bytes.get(offset..offset + stored)?,
            true_len: high & var::LEN_MASK,
            truncated: high & var::TRUNCATED != 0,
            from_user: high & var::USER != 0,
        })
    }

    fn slot(&self, index: usize) -> u64 {
        u64_at(self.bytes, HEADER + 8 * index)
    }
}

/// What a variable slot holds for `len` stored bytes at `offset`.
#[must_use]
pub const fn var_slot(offset: u64, len: u64, true_len: u64, marks: u32) -> u64 {
    (offset & 0xffff) | (len & 0xffff) << 16 | (true_len & var::LEN_MASK as u64) << 32 | (marks as u64) << 32
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes[offset..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes[offset..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

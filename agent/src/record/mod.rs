//! The file format of recordings: every input of the core, in order.
//!
//! ```text
//! file:   "HAECHI\x02\n"  u64 table hash  frame...
//! frame:  u8 kind  u32 length of payload  u32 CRC-32 of kind and payload  payload
//! ```
//!
//! Little endian. The first frame is [`Start`]; the payload of batches is `(u32 length, record)*`, that of a tick a `u64`,
//! every other one JSON. A recording ends with an `End` frame; without it the run was cut off. Whoever changes the event
//! table changes the table hash: a recording made with another table is refused, not misread.

mod crc;
mod reader;
mod writer;

pub use reader::{Frame, ReadError, Reader};
pub use writer::Recorder;

#[cfg(doc)]
use crate::core::Start;

const MAGIC: &[u8; 8] = b"HAECHI\x02\n";
/// No frame is longer: a longer one is a broken length.
const MAX_FRAME: u32 = 1 << 30;

/// Kinds of frame.
mod kind {
    pub(super) const START: u8 = 1;
    pub(super) const SEED: u8 = 2;
    pub(super) const CGROUPS: u8 = 3;
    pub(super) const BATCH: u8 = 4;
    pub(super) const LOST: u8 = 5;
    pub(super) const ANSWER: u8 = 6;
    pub(super) const RELOAD: u8 = 7;
    pub(super) const TICK: u8 = 8;
    pub(super) const END: u8 = 9;
    pub(super) const SURVEYED: u8 = 10;
}

#[cfg(test)]
mod tests;

//! Reads a recording. Whatever is wrong with a file is an error that names the place; nothing is assumed of its bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use haechi_ebpf::event::TABLE_HASH;
use serde::de::DeserializeOwned;

use super::crc::crc32;
use super::{MAGIC, MAX_FRAME, kind};
use crate::batch::Batch;
use crate::core::{Input, Start};

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be read.
    #[error("the recording cannot be read")]
    Io(#[from] io::Error),
    /// Not a recording, or one of another version of the format.
    #[error("this is no recording that this version of haechi can read")]
    Magic,
    /// Made with another event table.
    #[error("the recording was made by a haechi with other events (table {found:016x}, this one has {ours:016x})")]
    Table {
        /// The hash in the file.
        found: u64,
        /// Our hash.
        ours: u64,
    },
    /// The bytes are damaged.
    #[error("the recording is damaged at byte {offset}: {problem}")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The file ends in the middle, or without an end.
    #[error("the recording ends at byte {offset} without its end: the run that made it was cut off, or the file was")]
    CutShort {
        /// Where.
        offset: u64,
    },
}

/// One frame.
#[derive(Debug)]
pub enum Frame {
    /// The beginning of the run.
    Start(Box<Start>),
    /// An input.
    Input(Input),
}

/// A recording being read.
pub struct Reader<R> {
    input: R,
    offset: u64,
    ended: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a recording and checks that it is one of ours.
    ///
    /// # Errors
    /// When it cannot be read or was made by another version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::over(BufReader::with_capacity(256 << 10, File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    /// Reads a recording from `input`.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn over(input: R) -> Result<Self, ReadError> {
        let mut reader = Self { input, offset: 0, ended: false };
        let head: [u8; 16] = reader.array()?.ok_or(ReadError::Magic)?;
        let (magic, hash) = head.split_at(8);
        if magic != MAGIC {
            return Err(ReadError::Magic);
        }
        let found = hash.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        if found != TABLE_HASH {
            return Err(ReadError::Table { found, ours: TABLE_HASH });
        }
        Ok(reader)
    }

    /// The next frame; `None` after the end.
    ///
    /// # Errors
    /// When the file is damaged or cut short.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let damaged = |problem: String| ReadError::Damaged { offset, problem };
        let head: [u8; 9] = self.array()?.ok_or(ReadError::CutShort { offset })?;
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > MAX_FRAME {
            return Err(damaged(format!("a frame of {length} bytes")));
        }
        let mut payload = Vec::new();
        // `take` grows the buffer with what is there: a broken length allocates nothing.
        let read = self.input.by_ref().take(length.into()).read_to_end(&mut payload)?;
        self.offset += read as u64;
        if read < length as usize {
            return Err(ReadError::CutShort { offset });
        }
        if crc32(&[&[kind], &payload]) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("the checksum is wrong".into()));
        }
        decode(kind, &payload, &mut self.ended).map(Some).map_err(damaged)
    }

    /// Fills an array; `None` where the file ends before.
    fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, ReadError> {
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {
                self.offset += N as u64;
                Ok(Some(bytes))
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn decode(kind: u8, payload: &[u8], ended: &mut bool) -> Result<Frame, String> {
    Ok(Frame::Input(match kind {
        kind::START => return json(payload).map(Box::new).map(Frame::Start),
        kind::SEED => Input::Seed(records(payload)?),
        kind::BATCH => Input::Batch(records(payload)?),
        kind::CGROUPS => Input::Cgroups(json(payload)?),
        kind::LOST => Input::Lost(json(payload)?),
        kind::ANSWER => Input::Answer(json(payload)?),
        kind::RELOAD => Input::Reload(json(payload)?),
        kind::SURVEYED => {
            let (begun, ended) = json(payload)?;
            Input::Surveyed(begun, ended)
        }
        kind::TICK => {
            let now = payload.try_into().map_err(|_odd| "a tick of odd length")?;
            Input::Tick(u64::from_le_bytes(now))
        }
        kind::END => {
            *ended = true;
            Input::End
        }
        other => return Err(format!("a frame of unknown kind {other}")),
    }))
}

fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|e| e.to_string())
}

fn records(mut payload: &[u8]) -> Result<Batch, String> {
    let mut batch = Batch::default();
    // They were in order when they were written; their number keeps it.
    for number in 0.. {
        let Some((length, rest)) = payload.split_first_chunk() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let record = rest.get(..length).ok_or("a record goes beyond its batch")?;
        batch.push(number, record);
        payload = &rest[length..];
    }
    if payload.is_empty() { Ok(batch) } else { Err("bytes are left after the last record".into()) }
}

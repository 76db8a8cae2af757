//! Writes a recording. A full disk ends the recording with a clear word and a count, never the run.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use haechi_ebpf::event::TABLE_HASH;
use tracing::error;

use super::crc::crc32;
use super::{MAGIC, kind};
use crate::batch::Batch;
use crate::core::{Input, Start};

/// Bytes held back before they are written.
const BUFFER: usize = 256 << 10;

/// A recording in the making.
pub struct Recorder {
    path: PathBuf,
    out: Option<BufWriter<Box<dyn Write + Send>>>,
    payload: Vec<u8>,
    skipped: u64,
}

impl Recorder {
    /// Begins a recording in a new or emptied file that only its owner may read.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn create(path: &Path, start: &Start) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut recorder = Self::over(path, Box::new(file));
        recorder.begin(start)?;
        Ok(recorder)
    }

    pub(super) fn over(path: &Path, out: Box<dyn Write + Send>) -> Self {
        let out = Some(BufWriter::with_capacity(BUFFER, out));
        Self { path: path.to_owned(), out, payload: Vec::new(), skipped: 0 }
    }

    pub(super) fn begin(&mut self, start: &Start) -> io::Result<()> {
        let payload = serde_json::to_vec(start)?;
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(MAGIC)?;
        out.write_all(&TABLE_HASH.to_le_bytes())?;
        frame(out, kind::START, &payload)?;
        out.flush()
    }

    /// Appends an input. After the first failure nothing more is written, only counted.
    pub fn write(&mut self, input: &Input) {
        let Some(out) = &mut self.out else {
            self.skipped += 1;
            return;
        };
        self.payload.clear();
        let result = encode(input, &mut self.payload).and_then(|kind| {
            frame(out, kind, &self.payload)?;
            // What is on the disk then is what a replay of a killed run can show.
            if matches!(input, Input::Tick(_) | Input::End) { out.flush() } else { Ok(()) }
        });
        if let Err(error) = result {
            error!(path = %self.path.display(), %error, "recording stopped: the file cannot be written; the agent goes on");
            // Dropping the writer would try to write what is left once more.
            if let Some(out) = self.out.take() {
                drop(out.into_parts());
            }
            self.skipped += 1;
        }
    }

    /// Inputs that are not in the recording because it could not be written.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn frame(out: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&crc32(&[&[kind], payload]).to_le_bytes())?;
    out.write_all(payload)
}

fn encode(input: &Input, payload: &mut Vec<u8>) -> io::Result<u8> {
    Ok(match input {
        Input::Seed(batch) => {
            records(batch, payload);
            kind::SEED
        }
        Input::Batch(batch) => {
            records(batch, payload);
            kind::BATCH
        }
        Input::Cgroups(all) => {
            serde_json::to_writer(payload, all)?;
            kind::CGROUPS
        }
        Input::Lost(lost) => {
            serde_json::to_writer(payload, lost)?;
            kind::LOST
        }
        Input::Answer(answer) => {
            serde_json::to_writer(payload, answer)?;
            kind::ANSWER
        }
        Input::Reload(rules) => {
            serde_json::to_writer(payload, rules)?;
            kind::RELOAD
        }
        Input::Surveyed(begun, ended) => {
            serde_json::to_writer(payload, &(begun, ended))?;
            kind::SURVEYED
        }
        Input::Tick(now) => {
            payload.extend_from_slice(&now.to_le_bytes());
            kind::TICK
        }
        Input::End => kind::END,
    })
}

fn records(batch: &Batch, payload: &mut Vec<u8>) {
    payload.reserve(batch.size() + 4 * batch.len());
    for record in batch.records() {
        payload.extend_from_slice(&(record.len() as u32).to_le_bytes());
        payload.extend_from_slice(record);
    }
}

//! Plays a recording to the same core that made it, and writes what comes out. Needs no kernel, no rights and nothing of
//! this host: time, names, rules and look-ups are all in the recording.

use std::io::Write;
use std::path::Path;

use crate::core::{self, Core, Counts, Output};
use crate::record::{Frame, ReadError, Reader};
use crate::render::{Context, Item};

/// Writes an item as a line.
pub type Render = fn(&Item, &Context, &mut Vec<u8>);

/// Bytes gathered before they are written.
const CHUNK: usize = 64 << 10;

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recording cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The recording does not begin with a start.
    #[error("the recording does not begin with the start of a run")]
    NoStart,
    /// The recorded settings mean nothing to this version.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Write(#[source] std::io::Error),
}

/// Plays the recording at `path`. What came out before an error has been written.
///
/// # Errors
/// When the recording is damaged or the output cannot be written.
pub fn replay(path: &Path, render: Render, colour: bool, out: &mut impl Write) -> Result<Counts, Error> {
    play(&mut Reader::open(path)?, render, colour, out)
}

/// Plays a recording from an open reader.
///
/// # Errors
/// As [`replay`].
pub fn play<R: std::io::Read>(
    reader: &mut Reader<R>,
    render: Render,
    colour: bool,
    out: &mut impl Write,
) -> Result<Counts, Error> {
    let Some(Frame::Start(start)) = reader.next_frame()? else { return Err(Error::NoStart) };
    let context =
        Context { host: start.host.clone(), env: start.options.env.clone(), decoded: start.options.decoded, colour };
    let (mut core, _) = Core::build(&start)?;
    let (mut outputs, mut lines) = (Vec::new(), Vec::new());
    let ended = loop {
        match reader.next_frame() {
            Ok(Some(Frame::Input(input))) => core.step(&input, &mut outputs),
            Ok(Some(Frame::Start(_))) => break Err(Error::NoStart),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
        for output in outputs.drain(..) {
            match output {
                Output::Event(happening) => render(&Item::Event(happening), &context, &mut lines),
                Output::Finding(finding) => render(&Item::Finding(finding), &context, &mut lines),
                Output::Offered(_) | Output::Question(_) | Output::GapSeen | Output::Reloaded(_) => {}
            }
        }
        if lines.len() >= CHUNK {
            flush(&mut lines, out)?;
        }
    };
    flush(&mut lines, out)?;
    ended.map(|()| core.counts())
}

fn flush(lines: &mut Vec<u8>, out: &mut impl Write) -> Result<(), Error> {
    out.write_all(lines).and_then(|()| out.flush()).map_err(Error::Write)?;
    lines.clear();
    Ok(())
}

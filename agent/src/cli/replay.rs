//! `haechi replay`.

use std::io;
use std::path::PathBuf;

use super::{FAILED, Failure, OutputFormat, colour};
use crate::replay::{Error, replay};
use crate::sinks::Format;

/// What `replay` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recording.
    file: PathBuf,
    /// Form of the lines.
    #[arg(short, long, value_name = "FORMAT", default_value = "pretty")]
    output: OutputFormat,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let render = Format::from(args.output).render();
    match replay(&args.file, render, colour(), &mut io::stdout().lock()) {
        Ok(_) => Ok(()),
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(FAILED, &error).at(&args.file)),
    }
}

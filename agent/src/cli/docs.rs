//! `haechi docs`, for those who build Haechi.

use std::path::PathBuf;

use super::{FAILED, Failure, OrFail};
use crate::docs;

/// What `docs` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write the pages.
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    docs::write(&args.dir).or_fail(FAILED).map_err(|failure| failure.at(&args.dir))
}

//! `haechi config`.

use std::path::PathBuf;

use super::{Failure, OrFail, Settings, WRONG, print};
use crate::config::Config;
use crate::core::{Core, Start};
use haechi_signatures::flat::Host;
use haechi_signatures::sources::Sources;

/// What `config` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Only check this file.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Some(path) = &args.check else { return print(&args.settings.load()?.show()) };
    let config = Config::read(path).or_fail(WRONG)?;
    // Filters and exceptions are only understood further to the right.
    let start = Start { host: Host::default(), time: 0, options: config.options(), sources: Sources::default() };
    Core::build(&start).map_err(|error| Failure::new(WRONG, &error).at(path))?;
    print(&format!("{}: good\n", path.display()))
}

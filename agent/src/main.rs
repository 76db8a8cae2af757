//! The `haechi` command.

use std::process::ExitCode;

use clap::Parser;
use haechi_agent::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(Cli::parse())
}

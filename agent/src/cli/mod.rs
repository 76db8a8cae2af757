//! The command line. Each command is one file; this one says which there are and what they take.
//!
//! Exit codes: 0 all went well; 1 something failed; 2 the command line, the configuration or a filter is wrong; 3 the
//! kernel cannot be used here.

mod check;
mod config;
mod cost;
mod docs;
mod events;
mod flows;
mod replay;
mod run;
mod signatures;
mod vantage;
mod watch;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, DEFAULT_PATH};
use crate::sinks::{Format, Spec};

/// Something failed.
pub const FAILED: u8 = 1;
/// The command line, the configuration or a filter is wrong.
pub const WRONG: u8 = 2;
/// The kernel cannot be used here.
pub const KERNEL: u8 = 3;

/// Watches what processes do and tells what is dangerous.
#[derive(Debug, Parser)]
#[command(name = "haechi", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this host.
    Run(run::Args),
    /// Say how each event would be seen here, why not better, and what is missed.
    Check(check::Args),
    /// Show the connections of this node, live.
    Flows(flows::Args),
    /// Watch what an agent that runs here sees.
    Watch(watch::Args),
    /// List the events and their fields.
    Events(events::Args),
    /// List the rules, or explain one.
    Signatures(signatures::Args),
    /// Play a recording again.
    Replay(replay::Args),
    /// Show every setting with its meaning, or check a file.
    Config(config::Args),
    /// Say which version this is.
    Version,
    /// Write the pages that are made from tables.
    #[command(hide = true)]
    Docs(docs::Args),
}

/// Where settings come from.
#[derive(Clone, Debug, Default, Args)]
struct Settings {
    /// Configuration file [default: /etc/haechi/haechi.yaml, if it is there].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory with rules of your own; may be given again. Replaces those of the configuration.
    #[arg(long, value_name = "DIR")]
    rules: Vec<PathBuf>,
    /// Leave the built-in rules out.
    #[arg(long)]
    no_default_rules: bool,
    /// Events to show besides findings: names, tags, -name, or name.data.field=value; may be given again.
    #[arg(short, long, value_name = "EVENTS", allow_hyphen_values = true)]
    events: Vec<String>,
    /// What is watched at all: uid=0, comm=x, container, ...; may be given again.
    #[arg(short, long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Kind of hook that must not be used; may be given again.
    #[arg(long, value_name = "STEP", value_parser = step)]
    without: Vec<haechi_ebpf::program::Step>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputFormat {
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

impl From<OutputFormat> for Format {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Pretty => Self::Pretty,
            OutputFormat::Json => Self::Json,
        }
    }
}

fn step(name: &str) -> Result<haechi_ebpf::program::Step, String> {
    let all = haechi_ebpf::program::Step::ALL;
    let names = all.map(haechi_ebpf::program::Step::name);
    all.into_iter().find(|s| s.name() == name).ok_or_else(|| format!("not one of {}", names.join(", ")))
}

/// A failure in one line, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    words: String,
}

impl Failure {
    /// A failure for which `error` and its causes are the words.
    fn new(code: u8, error: &(dyn Error + 'static)) -> Self {
        let (mut words, mut next) = (Vec::new(), Some(error));
        while let Some(error) = next {
            words.push(error.to_string());
            next = error.source();
        }
        // An error that passes its cause on says the same twice.
        words.dedup();
        Self { code, words: words.join(": ") }
    }

    fn wrong(words: impl Into<String>) -> Self {
        Self { code: WRONG, words: words.into() }
    }

    /// The same, in the file or directory at `path`.
    fn at(self, path: &Path) -> Self {
        Self { words: format!("{}: {}", path.display(), self.words), ..self }
    }
}

/// Makes failures of errors.
trait OrFail<T> {
    fn or_fail(self, code: u8) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> OrFail<T> for Result<T, E> {
    fn or_fail(self, code: u8) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, &error))
    }
}

impl Settings {
    /// The configuration, with what the command line overrides.
    fn load(&self) -> Result<Config, Failure> {
        let usual = Path::new(DEFAULT_PATH);
        let mut config = match &self.config {
            Some(path) => Config::read(path).or_fail(WRONG)?,
            // One that cannot be reached is not one that is not there: reading it says why.
            None if usual.try_exists().unwrap_or(true) => Config::read(usual).or_fail(WRONG)?,
            None => Config::default(),
        };
        if !self.rules.is_empty() {
            if let Some(missing) = self.rules.iter().find(|d| !d.is_dir()) {
                return Err(Failure::wrong("no such directory").at(missing));
            }
            config.rules.dirs.clone_from(&self.rules);
        }
        config.rules.builtin &= !self.no_default_rules;
        if !self.events.is_empty() {
            config.events.clone_from(&self.events);
        }
        if !self.scope.is_empty() {
            config.scope.clone_from(&self.scope);
        }
        if !self.without.is_empty() {
            config.without.clone_from(&self.without);
        }
        Ok(config)
    }
}

fn stdout_only(format: OutputFormat) -> Vec<Spec> {
    vec![Spec { kind: "stdout".into(), format: format.into(), path: None }]
}

/// Writes to standard output; a reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.or_fail(FAILED),
    }
}

/// Whether to colour what goes to standard output.
fn colour() -> bool {
    use std::io::IsTerminal;
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Runs the command that was given.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Signatures(args) => signatures::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Version => print(&format!("haechi {}\n", env!("CARGO_PKG_VERSION"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, words }) => {
            // Standard error may be gone too; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "haechi: {words}");
            ExitCode::from(code)
        }
    }
}

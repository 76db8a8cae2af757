//! The command line of the benchmark.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "haechi-bench [GROUP|ROW..] [--only ROW[,ROW]] [--rounds N] [--quick] [--json] [--list] [--haechi FILE] [--xtask FILE]";

/// What is asked for.
pub(super) enum Mode {
    /// To be the load of another: its words.
    Load(Vec<String>),
    /// To measure in a virtual machine what the host asked for.
    Guest(Options),
    /// To name the rows.
    List,
    /// To measure rows.
    Rows(Options),
}

/// How to measure.
pub(super) struct Options {
    /// The agent.
    pub(super) haechi: PathBuf,
    /// Who can start virtual machines.
    pub(super) xtask: Option<PathBuf>,
    /// Rows and groups of rows; all when empty.
    pub(super) only: Vec<String>,
    /// Rounds of each comparison.
    pub(super) rounds: usize,
    /// Short samples: to see that it works, not to believe the numbers.
    pub(super) quick: bool,
    /// One JSON object a line instead of a table.
    pub(super) json: bool,
}

impl Options {
    /// Reads the command line.
    pub(super) fn parse(args: impl Iterator<Item = String>) -> Result<Mode> {
        let mut args = args.peekable();
        if args.next_if(|a| a == "--load").is_some() {
            return Ok(Mode::Load(args.collect()));
        }
        let guest = args.next_if(|a| a == "--guest").is_some();
        let mut options = Self {
            haechi: std::env::current_exe()?.with_file_name("haechi"),
            xtask: None,
            only: Vec::new(),
            rounds: 0,
            quick: false,
            json: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value; {USAGE}"));
            match arg.as_str() {
                "--haechi" => options.haechi = value()?.into(),
                "--xtask" => options.xtask = Some(value()?.into()),
                "--only" => options.only.extend(value()?.split(',').map(str::to_owned)),
                "--rounds" => options.rounds = value()?.parse().context("--rounds needs a number")?,
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--list" => return Ok(Mode::List),
                word if !word.starts_with('-') => options.only.push(arg),
                _ => bail!("{arg} is not known; {USAGE}"),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 3 } else { 7 };
        }
        Ok(if guest { Mode::Guest(options) } else { Mode::Rows(options) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Mode> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn words_are_understood_and_mistakes_answered() {
        let Ok(Mode::Rows(options)) = parse("--only web,start --json --only latency") else { panic!("is valid") };
        assert_eq!(options.only, ["web", "start", "latency"]);
        assert!(options.json && !options.quick && options.rounds == 7);
        assert!(matches!(parse("--load open --json"), Ok(Mode::Load(words)) if words == ["open", "--json"]));
        assert!(matches!(parse("--guest --quick"), Ok(Mode::Guest(options)) if options.rounds == 3));
        assert!(matches!(parse("flows start"), Ok(Mode::Rows(options)) if options.only == ["flows", "start"]));
        for wrong in ["--only", "--rounds many", "--web"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

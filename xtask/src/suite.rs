//! `cargo xtask test`: everything that a change must pass, stage by stage, with one closing line that sums it all up.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::Profile;
use crate::tally::Tally;
use crate::{build, docs, law, place, setup, sh, tests_package, vm};

/// What the stages share.
struct Ask {
    /// A part of the names of the tests that shall run; all when there is none.
    filter: Option<String>,
}

impl Ask {
    fn suite(&self) -> Vec<String> {
        let path = |name: &str| place::built("debug", name).to_string_lossy().into_owned();
        let mut words = vec![path("e2e"), "--haechi".to_owned(), path("haechi")];
        words.extend(self.filter.clone());
        words
    }
}

/// One stage: what the table shows, and what does it.
struct Stage {
    name: &'static str,
    run: fn(&Ask) -> Result<Outcome>,
    /// Whether the later stages are pointless when this one fails.
    foundation: bool,
    /// Whether it also runs when only some tests are asked for.
    selective: bool,
}

enum Outcome {
    Counted(Tally),
    /// It could not run here, and why.
    Skipped(String),
}

const fn stage(name: &'static str, run: fn(&Ask) -> Result<Outcome>) -> Stage {
    Stage { name, run, foundation: false, selective: false }
}

const fn foundation(name: &'static str, run: fn(&Ask) -> Result<Outcome>) -> Stage {
    Stage { name, run, foundation: true, selective: true }
}

const fn selective(name: &'static str, run: fn(&Ask) -> Result<Outcome>) -> Stage {
    Stage { name, run, foundation: false, selective: true }
}

// The quick ones first: what is wrong shows soonest.
const STAGES: &[Stage] = &[
    foundation("setup", |_| {
        setup::all()?;
        Ok(Outcome::Counted(Tally::default()))
    }),
    stage("laws", |_| law::check().map(Outcome::Counted)),
    stage("format", |_| tool("fmt", "rustfmt", &["fmt", "--all", "--check", "--", "-l"])),
    foundation("build", |_| {
        build::all(Profile::Dev)?;
        tests_package::programs(Profile::Dev)?;
        Ok(Outcome::Counted(Tally::default()))
    }),
    stage("docs", pages),
    selective("unit tests", unit),
    stage("clippy", |_| {
        tool("clippy", "clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    }),
    selective("end to end, host", host),
    selective("end to end, 6.1", |ask| guest(ask, "6.1")),
    selective("end to end, 5.10", |ask| guest(ask, "5.10")),
];

/// Longest time for the suite in one guest.
const GUEST_DEADLINE: Duration = Duration::from_secs(1500);

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    let ask = match args {
        [] => Ask { filter: None },
        [one] if !one.starts_with('-') => Ask { filter: Some(one.clone()) },
        _ => bail!("usage: cargo xtask test [part of a test's name]"),
    };
    let mut rows = Vec::new();
    let mut sum = Tally::default();
    let mut broken = false;
    for stage in STAGES.iter().filter(|s| ask.filter.is_none() || s.selective) {
        if broken {
            rows.push(format!("{:<18} {:>7}  not run: an earlier stage failed", stage.name, ""));
            continue;
        }
        println!("\n==== {}", stage.name);
        let began = Instant::now();
        let (tally, note) = match (stage.run)(&ask) {
            Ok(Outcome::Counted(tally)) => (tally, String::new()),
            Ok(Outcome::Skipped(why)) => (Tally::SKIPPED, format!("  skipped: {why}")),
            Err(error) => {
                println!("{}: {error:#}", stage.name);
                broken = stage.foundation;
                (Tally::one(false), "  FAILED".to_owned())
            }
        };
        rows.push(format!("{:<18} {:>6.1}s  {tally}{note}", stage.name, began.elapsed().as_secs_f64()));
        sum += tally;
    }
    if let (Some(filter), true) = (&ask.filter, sum == Tally::default() && !broken) {
        bail!("no test has `{filter}` in its name");
    }
    println!("\n==== stages");
    for row in rows {
        println!("{row}");
    }
    println!("\n{sum}");
    Ok(i32::from(sum.failed > 0 || broken))
}

/// Reads counts from a runner's lines as they pass.
#[derive(Default)]
struct Counts(Tally);

impl Counts {
    fn see(&mut self, line: &str) {
        if let Some(tally) = Tally::read(line) {
            self.0 += tally;
        }
    }

    /// A runner that failed without counting a failure, or counted nothing at all, has failed.
    fn outcome(mut self, code: Option<i32>) -> Outcome {
        let silent = self.0 == Tally::default();
        if (code != Some(0) || silent) && self.0.failed == 0 {
            println!("the runner ended with {code:?} after {}", self.0);
            self.0.failed += 1;
        }
        Outcome::Counted(self.0)
    }
}

fn pages(_: &Ask) -> Result<Outcome> {
    let haechi = place::built("debug", "haechi");
    if !docs::can_write(&haechi) {
        return Ok(Outcome::Skipped("`haechi docs` is not there".to_owned()));
    }
    docs::check(&haechi).map(Outcome::Counted)
}

fn unit(ask: &Ask) -> Result<Outcome> {
    let mut counts = Counts::default();
    let mut cargo = place::cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(&ask.filter);
    let status = sh::tee(&mut cargo, |line| counts.see(line))?;
    if ask.filter.is_some() && counts.0 == Tally::default() && status.success() {
        return Ok(Outcome::Counted(Tally::default()));
    }
    Ok(counts.outcome(status.code()))
}

/// Whether the suite has a test of that name: a filter may mean a unit test alone.
fn is_meant(ask: &Ask) -> Result<bool> {
    let Some(filter) = &ask.filter else { return Ok(true) };
    let listed = sh::output(Command::new(place::built("debug", "e2e")).args(["--list", filter]))?;
    Ok(!listed.trim().is_empty())
}

fn host(ask: &Ask) -> Result<Outcome> {
    if !is_meant(ask)? {
        return Ok(Outcome::Counted(Tally::default()));
    }
    if !place::is_root() {
        return Ok(Outcome::Skipped("loading programs into the kernel needs root".to_owned()));
    }
    let mut counts = Counts::default();
    let words = ask.suite();
    let (program, arguments) = words.split_first().context("the suite has a name")?;
    let status = sh::tee(Command::new(PathBuf::from(program)).args(arguments), |line| counts.see(line))?;
    Ok(counts.outcome(status.code()))
}

fn guest(ask: &Ask, kernel: &str) -> Result<Outcome> {
    if !is_meant(ask)? {
        return Ok(Outcome::Counted(Tally::default()));
    }
    let ready = setup::machines().and_then(|()| vm::prepare(kernel));
    if let Err(why) = ready {
        return Ok(Outcome::Skipped(format!("{why:#}")));
    }
    let mut counts = Counts::default();
    let mut words = ask.suite();
    if ask.filter.is_none() {
        // What is the same on every kernel has run on the host, ten times faster.
        words.push("--kernel".to_owned());
    }
    let code = vm::run_in(kernel, &words, GUEST_DEADLINE, |line| counts.see(line))?;
    Ok(counts.outcome(Some(code)))
}

/// A check by one of cargo's companions, which a distribution may not have installed with it.
fn tool(subcommand: &str, component: &str, arguments: &[&str]) -> Result<Outcome> {
    if sh::output(place::cargo().args([subcommand, "--version"])).is_err() {
        return Ok(Outcome::Skipped(format!("cargo {subcommand} is not here: rustup component add {component}")));
    }
    let status = sh::status(place::cargo().args(arguments))?;
    Ok(Outcome::Counted(Tally::one(status.success())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str], code: i32) -> Tally {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.see(line));
        match counts.outcome(Some(code)) {
            Outcome::Counted(tally) => tally,
            Outcome::Skipped(why) => panic!("skipped: {why}"),
        }
    }

    #[test]
    fn several_runners_add_up() {
        let ok = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(outcome(&[ok, "noise", ok], 0), Tally { passed: 6, failed: 0, skipped: 2 });
    }

    #[test]
    fn a_runner_that_dies_or_says_nothing_has_failed() {
        assert_eq!(outcome(&["e2e: 3 passed, 0 failed, 0 skipped"], 101).failed, 1);
        assert_eq!(outcome(&[], 0).failed, 1);
        assert_eq!(outcome(&["e2e: 3 passed, 2 failed, 0 skipped"], 1).failed, 2);
    }
}

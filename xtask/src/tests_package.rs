//! The chores that hand over to a program of the tests package or to its goldens: they build it, pass the arguments on
//! and give back its exit code.

use std::process::Command;

use anyhow::{Result, bail};

use crate::build::Profile;
use crate::{build, place, sh};

/// `cargo xtask e2e [filter]`: the end-to-end suite on this host alone.
pub(crate) fn e2e(args: &[String]) -> Result<i32> {
    let haechi = build::all(Profile::Dev)?;
    programs(Profile::Dev)?;
    let mut suite = Command::new(place::built("debug", "e2e"));
    code(suite.arg("--haechi").arg(haechi).args(args))
}

/// `cargo xtask bench [arguments]`: measures the released agent.
pub(crate) fn bench(args: &[String]) -> Result<i32> {
    let haechi = build::all(Profile::Release)?;
    programs(Profile::Release)?;
    let mut bench = Command::new(place::built("release", "haechi-bench"));
    // One row counts instructions in a virtual machine, which only this program can start.
    code(bench.arg("--haechi").arg(haechi).arg("--xtask").arg(std::env::current_exe()?).args(args))
}

/// `cargo xtask fuzz [seconds] [arguments]`: broken input for every reader.
pub(crate) fn fuzz(args: &[String]) -> Result<i32> {
    sh::run(place::cargo().args(["build", "--release", "-p", "haechi-tests", "--bin", "fuzz"]))?;
    let mut fuzz = Command::new(place::built("release", "fuzz"));
    match args.split_first() {
        Some((seconds, rest)) if seconds.parse::<u64>().is_ok() => fuzz.args(["--seconds", seconds]).args(rest),
        _ => fuzz.args(args),
    };
    code(&mut fuzz)
}

/// `cargo xtask golden [--bless]`: compares with the recorded answers, or records them anew.
pub(crate) fn golden(args: &[String]) -> Result<i32> {
    let bless = match args {
        [] => false,
        [one] if one == "--bless" => true,
        _ => bail!("usage: cargo xtask golden [--bless]"),
    };
    let mut cargo = place::cargo();
    cargo.args(["test", "--workspace", "golden"]);
    if bless {
        cargo.env("HAECHI_BLESS", "1");
    }
    code(&mut cargo)
}

/// `cargo xtask test` and `e2e` want the suite and the actors it starts.
pub(crate) fn programs(profile: Profile) -> Result<()> {
    sh::run(place::cargo().args(["build", "-p", "haechi-tests", "--bins"]).args(profile.arguments()))
}

fn code(command: &mut Command) -> Result<i32> {
    Ok(sh::status(command)?.code().unwrap_or(1))
}

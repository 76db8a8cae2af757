//! `cargo xtask vm <kernel> -- <command>`: a command under another kernel, as if it ran here.

mod boot;
mod fetch;
mod guest;
mod kernels;
mod mirror;
pub(crate) mod tools;
pub(crate) mod warden;

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::place;
use boot::Machine;
use guest::Errand;

/// What the command line asks for.
#[derive(Debug)]
struct Request {
    kernel: &'static kernels::Kernel,
    machine: Machine,
    results: Option<PathBuf>,
    deadline: Duration,
    command: Vec<String>,
}

const USAGE: &str =
    "[--append WORD]... [--icount] [--memory MIB] [--cpus N] [--results DIR] [--deadline SECONDS] -- COMMAND...";

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    let request = parse(args)?;
    run(&request, |_| ())
}

/// Boots `kernel` and runs `command` in it with a deadline; `each` sees every line of its output.
pub(crate) fn run_in(kernel: &str, command: &[String], deadline: Duration, each: impl FnMut(&str)) -> Result<i32> {
    let kernel = kernels::find(kernel).with_context(|| format!("no kernel {kernel}: {}", kernels::names()))?;
    let machine = Machine::default();
    run(&Request { kernel, machine, results: None, deadline, command: command.to_vec() }, each)
}

/// Fetches all that a guest of this kernel needs. An error is the reason why it cannot be had.
pub(crate) fn prepare(kernel: &str) -> Result<()> {
    let kernel = kernels::find(kernel).with_context(|| format!("no kernel {kernel}: {}", kernels::names()))?;
    tools::vng()?;
    fetch::fetch(kernel).map(drop)
}

fn run(request: &Request, each: impl FnMut(&str)) -> Result<i32> {
    if !cfg!(target_arch = "x86_64") {
        bail!("virtual machines are set up for x86-64 hosts only");
    }
    let vng = tools::vng()?;
    let kernel = fetch::fetch(request.kernel)?;
    let results = request.results.clone().unwrap_or_else(|| place::target().join("vm").join(request.kernel.name));
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let errand = Errand {
        kernel: request.kernel.name,
        command: &request.command,
        directory: &env::current_dir()?,
        results: &results.canonicalize()?,
        deadline: request.deadline,
        environment: &crossing(),
    };
    boot::boot(&vng, &kernel, &request.machine, &errand, each)
}

/// What a program in the guest may want of the host's environment.
fn crossing() -> Vec<(String, String)> {
    let wanted =
        |name: &str| name.starts_with("HAECHI_") || matches!(name, "RUST_LOG" | "RUST_BACKTRACE" | "PATH" | "HOME");
    env::vars().filter(|(name, _)| wanted(name)).collect()
}

fn parse(args: &[String]) -> Result<Request> {
    let usage = || format!("usage: cargo xtask vm {} {USAGE}", kernels::names());
    let (options, command) = match args.iter().position(|a| a == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => bail!("what shall run there?\n{}", usage()),
    };
    let mut options = options.iter();
    let name = options.next().with_context(usage)?;
    let kernel = kernels::find(name).with_context(|| format!("no kernel `{name}`\n{}", usage()))?;
    if command.is_empty() {
        bail!("what shall run there?\n{}", usage());
    }
    let mut request = Request {
        kernel,
        machine: Machine::default(),
        results: None,
        deadline: Duration::from_secs(600),
        command: command.to_vec(),
    };
    while let Some(option) = options.next() {
        let mut value = || options.next().with_context(|| format!("{option} wants a value\n{}", usage()));
        match option.as_str() {
            "--append" => request.machine.append.push(value()?.clone()),
            "--icount" => request.machine.icount = true,
            "--memory" => request.machine.memory = value()?.parse().context("--memory wants MiB")?,
            "--cpus" => request.machine.cpus = value()?.parse().context("--cpus wants a number")?,
            "--results" => request.results = Some(value()?.into()),
            "--deadline" => {
                request.deadline = Duration::from_secs(value()?.parse().context("--deadline wants seconds")?);
            }
            other => bail!("unknown option `{other}`\n{}", usage()),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_end_at_the_dashes() {
        let request =
            parse(&words("6.1 --append lsm=yama,bpf --icount --deadline 30 -- sh -c --icount")).expect("is valid");
        assert_eq!(request.kernel.name, "6.1");
        assert_eq!(request.machine.append, ["lsm=yama,bpf"]);
        assert!(request.machine.icount);
        assert_eq!(request.deadline, Duration::from_secs(30));
        assert_eq!(request.command, ["sh", "-c", "--icount"]);
    }

    #[test]
    fn mistakes_are_answered_with_the_usage() {
        for line in ["", "6.1", "6.1 --", "4.4 -- true", "6.1 --appendix x -- true", "6.1 --append -- true"] {
            let error = parse(&words(line)).expect_err("must be refused").to_string();
            assert!(error.contains("usage: cargo xtask vm 5.10|6.1|6.12|7.2"), "{line}: {error}");
        }
    }
}

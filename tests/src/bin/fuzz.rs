//! Feeds broken input to the readers for a while. `fuzz [TARGET ..] [--seed N] [--iterations N | --seconds N]`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use haechi_tests::fuzzing::{SEED, TARGETS, run};

/// Inputs between two looks at the clock.
const STEP: u64 = 500;

fn main() -> ExitCode {
    match fuzz() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz() -> Result<()> {
    let (mut seed, mut iterations, mut seconds, mut names) = (SEED, 100_000, None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64> {
            args.next().and_then(|n| n.parse().ok()).with_context(|| format!("{arg} needs a number"))
        };
        match arg.as_str() {
            "--seed" => seed = number()?,
            "--iterations" => iterations = number()?,
            "--seconds" => seconds = Some(number()?),
            flag if flag.starts_with('-') => bail!("{flag} is not known"),
            name => names.push(name.to_owned()),
        }
    }
    for name in &names {
        let known = || TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
        TARGETS
            .iter()
            .find(|t| t.name == *name)
            .with_context(|| format!("no reader {name:?}; there are {}", known()))?;
    }
    let chosen: Vec<_> = TARGETS.iter().filter(|t| names.is_empty() || names.iter().any(|n| n == t.name)).collect();
    println!("fuzz: seed {seed}");
    for target in &chosen {
        let share = seconds.map(|s| Duration::from_secs(s) / chosen.len() as u32);
        let (began, mut done) = (Instant::now(), 0);
        while share.map_or(done < iterations, |share| began.elapsed() < share) {
            run(target, seed, done..done + STEP)?;
            done += STEP;
        }
        println!("fuzz: {}: {done} inputs in {:.1} s", target.name, began.elapsed().as_secs_f64());
    }
    Ok(())
}

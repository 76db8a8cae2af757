//! Feeds broken input to everything that reads bytes from outside. Deterministic: a seed and a number name an input for
//! ever. It knows the readers; it must not know a running agent.

mod corpus;
mod mutate;
mod targets;

pub use mutate::Random;
pub use targets::{TARGETS, Target};

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, bail};

/// The seed of runs that nobody chose one for.
pub const SEED: u64 = 0x4861_6563_6869;

/// Runs each target `n` times.
///
/// # Errors
/// The first input that a reader does not survive.
pub fn all(n: u64, seed: u64) -> Result<()> {
    TARGETS.iter().try_for_each(|target| run(target, seed, 0..n))
}

/// Runs one target on the inputs with these numbers.
///
/// # Errors
/// The first input that the reader does not survive, in hex, with what names it.
pub fn run(target: &Target, seed: u64, numbers: std::ops::Range<u64>) -> Result<()> {
    let corpus = corpus::of(target);
    for number in numbers {
        let mut random = Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let input = mutate::mutate(&corpus, &mut random);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.read)(&input))) {
            let said =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            bail!(
                "{} does not survive input {number} of seed {seed}: {}\n{}",
                target.name,
                said.unwrap_or("a panic without words"),
                hex(&input)
            );
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads hex, white space left out; `None` when it is none.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
    digits.chunks(2).map(|p| if p.len() == 2 { pair(p) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_survive_broken_input() {
        all(2_000, SEED).expect("every reader survives");
    }

    #[test]
    fn a_reader_that_breaks_is_caught_and_named() {
        let target =
            Target { name: "broken", suffix: "hex", seeds: || vec![vec![0; 8]], read: |b| assert_eq!(b, [0; 8]) };
        let error = run(&target, SEED, 0..100).expect_err("some input differs").to_string();
        assert!(error.contains("broken does not survive input"), "{error}");
    }

    #[test]
    fn the_same_seed_makes_the_same_input() {
        let corpus = vec![b"one".to_vec(), b"another".to_vec()];
        let make = || mutate::mutate(&corpus, &mut Random::new(5));
        assert_eq!(make(), make());
    }
}

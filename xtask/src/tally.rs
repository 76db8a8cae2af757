//! Counts of tests, read from what their runners print. Knows the two forms of closing line that we use.

use std::fmt;
use std::ops::AddAssign;

/// How many passed, failed and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    /// One check by its outcome.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: u32::from(passed), failed: u32::from(!passed), skipped: 0 }
    }

    /// One check that could not be made.
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// Reads a closing line: cargo's `test result: ..` or the plain one, perhaps after a word and a colon.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("test result: ") {
            let (_, counts) = rest.split_once(". ")?;
            return Self::counts(counts, "; ", ["passed", "failed", "ignored"]);
        }
        let plain = match line.split_once(": ") {
            Some((word, rest)) if !word.contains(' ') => rest,
            _ => line,
        };
        Self::counts(plain, ", ", ["passed", "failed", "skipped"])
    }

    /// `N first, N second[, N third][, ..]`, in that order.
    fn counts(text: &str, between: &str, words: [&str; 3]) -> Option<Self> {
        let mut parts = text.split(between);
        let mut next = |word: &str| parts.next()?.strip_suffix(word)?.trim_end().parse::<u32>().ok();
        let (passed, failed) = (next(words[0])?, next(words[1])?);
        Some(Self { passed, failed, skipped: next(words[2]).unwrap_or(0) })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_and_nothing_else() {
        let of = |passed, failed, skipped| Some(Tally { passed, failed, skipped });
        let cases = [
            (
                "test result: ok. 9 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                of(9, 0, 2),
            ),
            (
                "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0s",
                of(1, 3, 0),
            ),
            ("7 passed, 1 failed", of(7, 1, 0)),
            ("e2e: 7 passed, 1 failed, 2 skipped", of(7, 1, 2)),
            ("all 7 passed, 1 failed", None),
            ("passed   open (0.1 s)", None),
            ("note that: 7 passed, 1 failed", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Tally::read(line), expected, "{line}");
        }
    }

    #[test]
    fn what_it_prints_it_reads() {
        let mut sum = Tally { passed: 1, failed: 2, skipped: 3 };
        sum += Tally::one(true);
        sum += Tally::SKIPPED;
        assert_eq!(sum.to_string(), "2 passed, 2 failed, 4 skipped");
        assert_eq!(Tally::read(&sum.to_string()), Some(sum));
    }
}

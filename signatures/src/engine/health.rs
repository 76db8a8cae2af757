//! When a rule is put aside: after too many failures in a while, for a while. Time is that of events.
//!
//! One failure is not enough: whoever could provoke one would have a way to blind the rule.

use std::sync::Arc;

use super::config::Limits;
use super::counters::{Notice, Notices};

const SECOND: u64 = 1_000_000_000;

/// How a rule fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("it panicked: {0}")]
    Panic(String),
    #[error("it took {ms} ms for one event, the limit is {limit} ms")]
    Slow { ms: u64, limit: u64 },
    #[error("{0}")]
    Rego(#[from] crate::rego::RunError),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    spell: u64,
    failures: u32,
    timed: bool,
    until: u64,
}

impl Health {
    pub(super) fn is_aside(&self, time: u64) -> bool {
        time < self.until
    }

    pub(super) fn put_aside(&mut self, until: u64) {
        self.until = until;
    }

    pub(super) fn failed(&mut self, rule: &Arc<str>, time: u64, why: &Failure, limits: &Limits, notices: &mut Notices) {
        let while_ = limits.aside_seconds.saturating_mul(SECOND);
        if self.failures == 0 || time.saturating_sub(self.spell) >= while_ {
            *self = Self { spell: time, ..Self::default() };
            notices.push(Notice::Failed { rule: rule.clone(), time, error: why.to_string() });
        }
        self.failures += 1;
        self.timed |= matches!(why, Failure::Slow { .. });
        if self.failures >= limits.failures {
            let (until, timed) = (time.saturating_add(while_), self.timed);
            *self = Self { until, ..Self::default() };
            notices.push(Notice::Aside { rule: rule.clone(), time, until, error: why.to_string(), timed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_close_together_put_a_rule_aside() {
        let limits = Limits { failures: 3, aside_seconds: 10, ..Limits::default() };
        let (mut health, mut notices) = (Health::default(), Notices::default());
        let rule: Arc<str> = "r".into();
        let fail = |health: &mut Health, notices: &mut Notices, second: u64| {
            health.failed(&rule, second * SECOND, &Failure::Panic("x".into()), &limits, notices);
        };
        for second in [1, 2, 12, 13] {
            fail(&mut health, &mut notices, second);
        }
        assert!(!health.is_aside(14 * SECOND), "the first two are too long ago");
        fail(&mut health, &mut notices, 14);
        assert!(health.is_aside(23 * SECOND) && !health.is_aside(24 * SECOND));
        let kinds: Vec<_> = notices.take().0.iter().map(|n| matches!(n, Notice::Aside { .. })).collect();
        assert_eq!(kinds, [false, false, true]);
    }
}

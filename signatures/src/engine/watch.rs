//! Lets another thread see which rule is running, so that a watchdog can name one that is stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A view of what the engine is doing, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Serial number of the call in the upper 48 bits, one more than the rule's position in the lower 16; 0 there
    /// means that no rule is running.
    now: AtomicU64,
    names: Mutex<Vec<Arc<str>>>,
}

/// A rule at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Serial number of the call: seen twice, it is the same call.
    pub call: u64,
    /// The rule.
    pub rule: Arc<str>,
}

impl Watch {
    /// The rule that is running now.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        let now = self.0.now.load(Ordering::Acquire);
        let index = (now & 0xffff).checked_sub(1)? as usize;
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Running { call: now >> 16, rule: names.get(index)?.clone() })
    }

    pub(super) fn enter(&self, index: usize) {
        let call = self.0.now.load(Ordering::Relaxed) >> 16;
        self.0.now.store((call + 1) << 16 | (index as u64 + 1), Ordering::Release);
    }

    pub(super) fn leave(&self) {
        let now = self.0.now.load(Ordering::Relaxed);
        self.0.now.store(now & !0xffff, Ordering::Release);
    }

    pub(super) fn rename(&self, names: Vec<Arc<str>>) {
        *self.0.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_rule_is_named_and_calls_are_told_apart() {
        let watch = Watch::default();
        watch.rename(vec!["a".into(), "b".into()]);
        assert_eq!(watch.running(), None);
        watch.enter(1);
        assert_eq!(watch.running(), Some(Running { call: 1, rule: "b".into() }));
        watch.leave();
        assert_eq!(watch.running(), None);
        watch.enter(0);
        assert_eq!(watch.running(), Some(Running { call: 2, rule: "a".into() }));
    }
}

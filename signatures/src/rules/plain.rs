//! A rule that remembers nothing: what it is, what it wants to see, how it looks at one event.

use std::sync::Arc;

use crate::demand::Demand;
use crate::model::{About, Event};
use crate::rule::{AboutDef, Emit, Signature};

/// Such a rule.
pub(super) struct Plain {
    about: Arc<About>,
    demands: fn() -> Vec<Demand>,
    look: fn(&Event<'_>, &mut Emit),
}

impl Plain {
    pub(super) fn new(about: &AboutDef, demands: fn() -> Vec<Demand>, look: fn(&Event<'_>, &mut Emit)) -> Self {
        Self { about: about.about(), demands, look }
    }
}

impl Signature for Plain {
    fn about(&self) -> &Arc<About> {
        &self.about
    }

    fn demands(&self) -> Vec<Demand> {
        (self.demands)()
    }

    fn on_event(&mut self, event: &Event<'_>, emit: &mut Emit) {
        (self.look)(event, emit);
    }
}

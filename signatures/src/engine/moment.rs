//! One event while the rules look at it. What is dear is made once, when the first rule needs it.

use std::cell::OnceCell;

use crate::demand::Demand;
use crate::flat::{self, Host, Need};
use crate::model::Event;
use crate::path::{self, Place};
use crate::rego;
use haechi_ebpf::wire::at;

pub(super) struct Moment<'e, 'a> {
    pub(super) event: &'e Event<'a>,
    host: &'e Host,
    place: OnceCell<Option<Place<'a>>>,
    need: Need,
    input: OnceCell<regorus::Value>,
    json: OnceCell<serde_json::Value>,
}

impl<'e, 'a> Moment<'e, 'a> {
    pub(super) fn new(event: &'e Event<'a>, host: &'e Host, need: Need) -> Self {
        Self { event, host, place: OnceCell::new(), need, input: OnceCell::new(), json: OnceCell::new() }
    }

    /// The path that the event is about.
    pub(super) fn place(&self) -> Option<&Place<'a>> {
        self.place.get_or_init(|| path::of(self.event)).as_ref()
    }

    /// What rules in Rego read of the flat form.
    pub(super) fn input(&self) -> &regorus::Value {
        self.input.get_or_init(|| rego::input(self.event, self.host, self.need))
    }

    /// The flat form, for a finding.
    pub(super) fn json(&self) -> &serde_json::Value {
        self.json.get_or_init(|| flat::event_json(self.event, self.host))
    }

    /// Whether the event, whose kind is the right one, is what `demand` asks for.
    pub(super) fn meets(&self, demand: &Demand) -> bool {
        let view = &self.event.view;
        let Demand { event: _, syscall, paths, uids, comms, cgroups, writes, if_cheap: _ } = demand;
        (uids.is_any() || uids.matches(&view.header_u32(at::UID)))
            && (!writes || self.event.can_write())
            && (cgroups.is_any() || cgroups.matches(&view.header_u64(at::CGROUP)))
            && (paths.is_any() || self.place().is_some_and(|p| p.truncated || paths.matches(&p.path)))
            && (comms.is_any() || comms.matches(String::from_utf8_lossy(view.comm()).as_ref()))
            && syscall.is_none_or(|name| self.event.name() == name)
    }
}

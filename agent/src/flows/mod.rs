//! What is known of connections: who owns each, what it moved so far. Made from the kernel's records alone, bounded;
//! knows no clock and no sink.
//!
//! The kernel tells totals, so a record that was lost is made good by the next one. A connection that somebody accepts
//! belongs to who listens until the record of the accept comes; records after that are amended. Further paths of an MPTCP
//! connection are opened and taken by the kernel itself: they belong to who owns the connection.

mod ends;
pub mod names;
mod networks;
mod places;
mod top;

use std::collections::{HashMap, VecDeque};

use haechi_ebpf::event::{net_flow, net_tcp_accept};
use haechi_ebpf::flow::{Phase, mark};
use haechi_ebpf::wire::{View, at};
use serde::Serialize;

pub use networks::Tenant;
pub use places::{Counts as PlaceCounts, Place, Places};
pub use top::{OTHER, Row, Top};

/// Connections known at a time, if nothing else is said.
pub const LIMIT: usize = 262_144;
/// MPTCP connections whose owner is known.
const GROUPS: usize = 16_384;
/// Connections that ended and whose accept may still come.
const ENDED: usize = 16_384;

/// Nanoseconds until a loss is known for certain: it is looked for every second, unless rules are being loaded.
const CERTAIN: u64 = 10_000_000_000;

/// Who owns a connection: the part of a record's header that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    start: u64,
    exec_id: u32,
    uid: u32,
    cgroup: u64,
}

impl Owner {
    fn of(view: &View<'_>) -> Self {
        let (pid, start) = view.process();
        Self {
            pid,
            start,
            exec_id: view.header_u32(at::EXEC_ID),
            uid: view.header_u32(at::UID),
            cgroup: view.header_u64(at::CGROUP),
        }
    }

    /// The record with this owner in place of the one that it names.
    fn put(&self, view: &View<'_>) -> Vec<u8> {
        let mut record = view.bytes().to_vec();
        for (place, value) in
            [(at::TID, self.pid), (at::TGID, self.pid), (at::EXEC_ID, self.exec_id), (at::UID, self.uid)]
        {
            record[place..place + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (place, value) in [(at::START, self.start), (at::CGROUP, self.cgroup)] {
            record[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
        let marks = view.number(net_flow::field::marks).unwrap_or_default() & !u64::from(mark::INHERITED);
        let slot = haechi_ebpf::wire::HEADER + 8 * net_flow::field::marks.0 as usize;
        record[slot..slot + 8].copy_from_slice(&marks.to_le_bytes());
        record
    }
}

/// Totals of a connection, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Bytes sent.
    pub tx: u64,
    /// Bytes received.
    pub rx: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

impl Totals {
    fn of(view: &View<'_>) -> Self {
        use net_flow::field as f;
        let number = |field| view.number(field).unwrap_or_default();
        Self { tx: number(f::tx_bytes), rx: number(f::rx_bytes), retransmits: number(f::retransmits) }
    }

    /// What came since `before`.
    fn since(self, before: Self) -> Self {
        Self {
            tx: self.tx.saturating_sub(before.tx),
            rx: self.rx.saturating_sub(before.rx),
            retransmits: self.retransmits.saturating_sub(before.retransmits),
        }
    }

    fn add(&mut self, more: Self) {
        self.tx += more.tx;
        self.rx += more.rx;
        self.retransmits += more.retransmits;
    }
}

/// What is known of one connection.
#[derive(Debug, Default)]
struct Flow {
    /// Who accepted it.
    accepted: Option<Owner>,
    /// When it began; 0 before its first record.
    start: u64,
    totals: Totals,
    /// The MPTCP connection that it is a path of.
    group: Option<u64>,
    /// When it was last told of.
    told: u64,
    /// Its place in the order of arrival.
    age: u64,
}

/// An MPTCP connection.
#[derive(Debug, Default)]
struct Group {
    owner: Option<Owner>,
    paths: u32,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Connections that live, as far as is known.
    pub live: usize,
    /// Connections seen for the first time, by direction (unknown, outgoing, incoming).
    pub seen: [u64; 3],
    /// Connections that ended, by [`haechi_ebpf::flow::Reason`].
    pub ended: [u64; 7],
    /// Connects that failed, by the same.
    pub failed: [u64; 7],
    /// Connections forgotten early for want of room.
    pub evicted: u64,
    /// Connections that ended and whose end was lost: their last totals are missing.
    pub unseen_ends: u64,
    /// Totals by program, the busiest by name.
    pub top: Vec<Row>,
}

/// All connections.
#[derive(Debug)]
pub struct Flows {
    live: HashMap<u64, Flow>,
    by_age: VecDeque<(u64, u64)>,
    ages: u64,
    ended: HashMap<u64, u64>,
    ended_order: VecDeque<u64>,
    groups: HashMap<u64, Group>,
    limit: usize,
    survey: Option<(u64, u64)>,
    counts: Counts,
    top: Top,
}

impl Flows {
    /// Knows at most `limit` connections, and the busiest `names` programs by name.
    #[must_use]
    pub fn new(limit: usize, names: usize) -> Self {
        Self {
            live: HashMap::new(),
            by_age: VecDeque::new(),
            ages: 0,
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            groups: HashMap::new(),
            limit: limit.max(1),
            survey: None,
            counts: Counts::default(),
            top: Top::new(names),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { live: self.live.len(), top: self.top.rows(), ..self.counts.clone() }
    }

    /// A process accepted a connection.
    pub fn accept(&mut self, view: &View<'_>) {
        let Some(cookie) = view.number(net_tcp_accept::field::cookie).filter(|c| *c != 0) else { return };
        if self.ended.contains_key(&cookie) {
            return;
        }
        let owner = Owner::of(view);
        let flow = self.flow(cookie);
        flow.accepted = Some(owner);
        flow.told = view.time();
        if let Some(group) = flow.group.and_then(|g| self.groups.get_mut(&g)) {
            group.owner = Some(owner);
        }
    }

    /// The record of a connection as it should read: with who accepted it as its owner, where that is known.
    #[must_use]
    pub fn amend(&self, view: &View<'_>) -> Option<Vec<u8>> {
        let cookie = view.number(net_flow::field::cookie)?;
        let accepted = self.live.get(&cookie).and_then(|flow| flow.accepted);
        let group = || self.groups.get(&view.number(net_flow::field::group)?)?.owner;
        let owner = match accepted {
            Some(owner) => owner,
            None if unowned(view) => group()?,
            None => return None,
        };
        (unowned(view) || Owner::of(view) != owner).then(|| owner.put(view))
    }

    /// Takes in the record of a connection whose program goes by `name`. Returns whether it says anything: a look at a
    /// connection that ended meanwhile comes too late.
    pub fn see(&mut self, view: &View<'_>, name: &str) -> bool {
        use net_flow::field as f;
        let number = |field| view.number(field).unwrap_or_default();
        let (cookie, start, phase) = (number(f::cookie), number(f::start_time), number(f::phase));
        if phase == u64::from(Phase::Progress as u32) && self.ended.get(&cookie) == Some(&start) {
            return false;
        }
        let totals = Totals::of(view);
        let flow = self.flow(cookie);
        // The kernel numbers sockets, and a socket can connect more than once.
        let fresh = flow.start != start || start == 0;
        // What it moved before the agent came is nobody's news.
        let adopted = number(f::marks) & u64::from(mark::ADOPTED) != 0;
        let before = match (fresh, adopted) {
            (true, true) => totals,
            (true, false) => Totals::default(),
            (false, _) => flow.totals,
        };
        (flow.start, flow.totals, flow.told) = (start, totals, view.time());
        // One that fell back to TCP is no path any more, and still one that ends.
        let group = view.number(f::group).or(flow.group);
        flow.group = group;
        self.top.add(name, totals.since(before));
        if fresh {
            count(&mut self.counts.seen, number(f::direction));
        }
        let ended = phase != u64::from(Phase::Progress as u32);
        if let Some(group) = group {
            self.path(group, view, fresh, ended);
        }
        if ended {
            let by =
                if phase == u64::from(Phase::End as u32) { &mut self.counts.ended } else { &mut self.counts.failed };
            count(by, number(f::reason));
            self.live.remove(&cookie);
            self.forget_later(cookie, start);
        }
        true
    }

    /// A path of an MPTCP connection: the connection's owner is who owns any of them.
    fn path(&mut self, group: u64, view: &View<'_>, fresh: bool, ended: bool) {
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&group) {
            // Of one whose paths have all ended a last one may still be told; not for ever.
            self.groups.retain(|_, g| g.paths > 0);
            if self.groups.len() >= GROUPS {
                return;
            }
        }
        let known = self.groups.entry(group).or_default();
        known.paths += u32::from(fresh);
        if !unowned(view) {
            known.owner = Some(Owner::of(view));
        }
        known.paths = known.paths.saturating_sub(u32::from(ended));
    }

    /// Forgets a connection that was not told to have ended.
    fn drop_live(&mut self, cookie: u64) {
        let group = self.live.remove(&cookie).and_then(|flow| flow.group);
        if let Some(group) = group.and_then(|g| self.groups.get_mut(&g)) {
            group.paths = group.paths.saturating_sub(1);
        }
    }

    fn forget_later(&mut self, cookie: u64, start: u64) {
        if self.ended.insert(cookie, start).is_none() {
            self.ended_order.push_back(cookie);
        }
        if self.ended_order.len() > ENDED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// All connections that live were told of between these times.
    pub fn survey(&mut self, begun: u64, ended: u64) {
        self.survey = Some((begun, ended));
    }

    /// Records were lost, those of a survey perhaps: there will be another.
    pub fn unsure(&mut self) {
        self.survey = None;
    }

    /// Time passes: whoever is busy is known by name, and what a survey did not find has ended, once it is sure that no
    /// record of the survey was lost.
    pub fn tick(&mut self, now: u64) {
        self.top.choose();
        if let Some((begun, _)) = self.survey.take_if(|(_, ended)| now > *ended + CERTAIN) {
            // Of what only its accept is known the kernel may have nothing to tell before its end.
            let gone: Vec<u64> =
                self.live.iter().filter(|(_, f)| f.told < begun && f.start != 0).map(|(cookie, _)| *cookie).collect();
            self.counts.unseen_ends += gone.len() as u64;
            gone.into_iter().for_each(|cookie| self.drop_live(cookie));
        }
    }

    fn flow(&mut self, cookie: u64) -> &mut Flow {
        if !self.live.contains_key(&cookie) {
            self.ages += 1;
            self.by_age.push_back((self.ages, cookie));
            self.live.insert(cookie, Flow { age: self.ages, ..Flow::default() });
            self.make_room();
        }
        self.live.entry(cookie).or_default()
    }

    /// Forgets the oldest; places in the order that belong to nobody any more are dropped on the way.
    fn make_room(&mut self) {
        while self.live.len() > self.limit || self.by_age.len() > 2 * self.live.len() + 1024 {
            let over = self.live.len() > self.limit;
            let Some((age, cookie)) = self.by_age.pop_front() else { return };
            if self.live.get(&cookie).is_some_and(|f| f.age == age) {
                if over {
                    self.drop_live(cookie);
                    self.counts.evicted += 1;
                } else {
                    self.by_age.push_back((age, cookie));
                }
            }
        }
    }
}

/// Whether a record names nobody, or only who listens.
fn unowned(view: &View<'_>) -> bool {
    view.process().0 == 0 || view.number(net_flow::field::marks).unwrap_or_default() & u64::from(mark::INHERITED) != 0
}

fn count<const N: usize>(by: &mut [u64; N], index: u64) {
    if let Some(cell) = by.get_mut(index as usize) {
        *cell += 1;
    }
}

#[cfg(test)]
mod tests;

//! Both ends of a connection, where both are on this node: each is found by the addresses of the other, turned round.
//! Made from the records of connections alone, bounded. Where addresses were translated on the way the ends do not fit,
//! and neither is named: nobody is guessed.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::names::{Kind, Leg, Name, Names, Peer};

/// Ends known at a time. When there are more, those that ended go first, then the oldest.
const MAX_ENDS: usize = 65_536;
/// Of those, ends of connections that are over.
const OVER: usize = 16_384;
/// Namespaces in which the same two addresses are known to talk to each other.
const ALIKE: usize = 16;
/// Nanoseconds by which two ends may disagree about when they were there.
const SLACK: u64 = 1_000_000_000;

/// The addresses of an end, this one first, and the namespace where addresses mean nothing outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    here: ([u8; 16], u16),
    there: ([u8; 16], u16),
    netns: u32,
}

impl Key {
    fn of(netns: u32, here: SocketAddr, there: SocketAddr) -> Self {
        let end = |at: SocketAddr| match at.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), at.port()),
            IpAddr::V6(ip) => (ip.octets(), at.port()),
        };
        let netns = if here.ip().is_loopback() || there.ip().is_loopback() { netns } else { 0 };
        Self { here: end(here), there: end(there), netns }
    }
}

#[derive(Debug)]
struct End {
    peer: Peer,
    /// When it ended.
    over: Option<u64>,
}

/// Ends of connections, by their addresses.
#[derive(Debug)]
pub(super) struct Ends {
    known: HashMap<Key, Vec<End>>,
    count: usize,
    by_age: VecDeque<(Key, u64)>,
    over: VecDeque<(Key, u64)>,
    limit: usize,
    evicted: u64,
}

impl Default for Ends {
    fn default() -> Self {
        Self::with_limit(MAX_ENDS)
    }
}

impl Ends {
    /// Knows at most `limit`.
    pub(super) fn with_limit(limit: usize) -> Self {
        Self {
            known: HashMap::new(),
            count: 0,
            by_age: VecDeque::new(),
            over: VecDeque::new(),
            limit: limit.max(1),
            evicted: 0,
        }
    }

    /// `peer` is one end of `leg`. `over` is when it ended.
    pub(super) fn learn(&mut self, leg: &Leg, mut peer: Peer, over: Option<u64>) {
        let cookie = peer.flow.0;
        let key = Key::of(leg.netns, leg.local, leg.remote);
        let ends = self.known.entry(key).or_default();
        // In one namespace there is one socket with these addresses: the newest.
        let same = ends.iter_mut().find(|e| e.peer.flow.0 == cookie || e.peer.netns == peer.netns);
        let (was, fresh) = match same {
            Some(end) => {
                let fresh = end.peer.flow.0 != cookie;
                let was = end.over.filter(|_| !fresh);
                if !fresh && peer.flow.1 == 0 {
                    peer.flow.1 = end.peer.flow.1;
                }
                *end = End { peer, over: over.or(was) };
                (was, fresh)
            }
            None => {
                if ends.len() >= ALIKE {
                    ends.remove(0);
                    self.count -= 1;
                    self.evicted += 1;
                }
                ends.push(End { peer, over });
                self.count += 1;
                (None, true)
            }
        };
        if fresh {
            self.by_age.push_back((key, cookie));
        }
        if over.is_some() && was.is_none() {
            self.over.push_back((key, cookie));
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.over.len() > OVER || self.count > self.limit && !self.over.is_empty() {
            if let Some((key, cookie)) = self.over.pop_front() {
                self.remove(&key, cookie, true);
            }
        }
        while self.count > self.limit {
            let Some((key, cookie)) = self.by_age.pop_front() else { return };
            self.evicted += u64::from(self.remove(&key, cookie, false));
        }
        if self.by_age.len() > 2 * self.count + 1024 {
            let known = &self.known;
            self.by_age
                .retain(|(key, cookie)| known.get(key).is_some_and(|e| e.iter().any(|e| e.peer.flow.0 == *cookie)));
        }
    }

    fn remove(&mut self, key: &Key, cookie: u64, only_over: bool) -> bool {
        let Some(ends) = self.known.get_mut(key) else { return false };
        let Some(at) = ends.iter().position(|e| e.peer.flow.0 == cookie && (e.over.is_some() || !only_over)) else {
            return false;
        };
        ends.remove(at);
        self.count -= 1;
        if ends.is_empty() {
            self.known.remove(key);
        }
        true
    }

    /// How many are known, and how many were forgotten early for want of room.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.count, self.evicted)
    }
}

impl Names for Ends {
    /// The end with the addresses of `leg` turned round: in the same namespace, else where it is in one other alone.
    fn name(&self, leg: &Leg) -> Option<Name> {
        let ends = self.known.get(&Key::of(leg.netns, leg.remote, leg.local))?;
        // Without a beginning any who ever had these addresses would fit: then only who still has them.
        let then = |over: u64| leg.since != 0 && over + SLACK >= leg.since;
        let mut there = ends.iter().filter(|e| e.over.is_none_or(then)).map(|e| &e.peer);
        let found = match there.clone().find(|peer| peer.netns == leg.netns) {
            Some(peer) => peer,
            None => there.next().filter(|_| there.next().is_none())?,
        };
        Some(Name { kind: Kind::Process, name: None, process: Some(found.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use haechi_signatures::model::ProcessKey;

    use super::*;

    fn leg(netns: u32, local: &str, remote: &str) -> Leg {
        let at = |text: &str| text.parse().expect(text);
        Leg { netns, local: at(local), remote: at(remote), since: 10 }
    }

    fn peer(cookie: u64, pid: u32, netns: u32) -> Peer {
        Peer {
            flow: (cookie, 0),
            process: ProcessKey { pid, start: 1 },
            ns_pid: 0,
            uid: 0,
            image: None,
            container: None,
            netns,
        }
    }

    /// The process at the other end of `leg`; 0 where there is none.
    fn other(ends: &Ends, leg: &Leg) -> u32 {
        ends.name(leg).and_then(|n| n.process).map_or(0, |p| p.process.pid)
    }

    const A: &str = "10.0.0.1:5000";
    const B: &str = "10.0.0.2:80";

    #[test]
    fn each_end_finds_the_other() {
        let mut ends = Ends::default();
        let (client, server) = (leg(1, A, B), leg(2, B, A));
        ends.learn(&client, peer(1, 11, 1), None);
        assert_eq!((other(&ends, &client), other(&ends, &server)), (0, 11));
        ends.learn(&server, peer(2, 22, 2), None);
        ends.learn(&server, peer(2, 23, 2), None);
        assert_eq!((other(&ends, &client), ends.counts()), (23, (2, 0)), "another accepted it");
        assert_eq!(other(&ends, &leg(1, A, "10.0.0.3:80")), 0);
    }

    #[test]
    fn the_same_addresses_elsewhere_are_no_answer() {
        let mut ends = Ends::default();
        ends.learn(&leg(2, B, A), peer(2, 22, 2), None);
        ends.learn(&leg(3, B, A), peer(3, 33, 3), None);
        assert_eq!(other(&ends, &leg(1, A, B)), 0, "either may be meant");
        assert_eq!(other(&ends, &leg(3, A, B)), 33, "its own namespace is");
        let (here, there) = ("127.0.0.1:5000", "127.0.0.1:80");
        ends.learn(&leg(2, there, here), peer(4, 44, 2), None);
        assert_eq!((other(&ends, &leg(1, here, there)), other(&ends, &leg(2, here, there))), (0, 44));
    }

    #[test]
    fn who_was_gone_before_is_no_answer_and_addresses_are_used_again() {
        let mut ends = Ends::default();
        ends.learn(&leg(2, B, A), peer(2, 22, 2), Some(20));
        let asks = |since| Leg { since, ..leg(1, A, B) };
        assert_eq!((other(&ends, &asks(15)), other(&ends, &asks(21 + SLACK))), (22, 0));
        assert_eq!(other(&ends, &asks(0)), 0, "it may have been any time");
        ends.learn(&leg(2, B, A), peer(2, 23, 2), None);
        assert_eq!(other(&ends, &asks(21 + SLACK)), 0, "what ended has ended, whoever is told to have accepted it");
        ends.learn(&leg(2, B, A), peer(3, 33, 2), None);
        assert_eq!((other(&ends, &asks(21 + SLACK)), ends.counts()), (33, (1, 0)));
    }

    #[test]
    fn what_is_over_goes_first_and_nothing_grows() {
        let mut ends = Ends::with_limit(3);
        let client = |port: u16| leg(1, &format!("10.0.0.1:{port}"), B);
        let server = |port: u16| leg(2, B, &format!("10.0.0.1:{port}"));
        for port in 1..=3 {
            ends.learn(&client(port), peer(port.into(), port.into(), 1), (port == 2).then_some(20));
        }
        ends.learn(&client(4), peer(4, 4, 1), None);
        assert_eq!([1, 2, 3, 4].map(|port| other(&ends, &server(port))), [1, 0, 3, 4]);
        ends.learn(&client(5), peer(5, 5, 1), None);
        assert_eq!(([1, 3].map(|port| other(&ends, &server(port))), ends.counts()), ([0, 3], (3, 1)));
        let mut ends = Ends::default();
        for port in 0..60_000 {
            ends.learn(&client(port), peer(u64::from(port) + 1, 1, 1), None);
            ends.learn(&client(port), peer(u64::from(port) + 1, 1, 1), Some(20));
        }
        assert_eq!((ends.counts(), ends.known.len()), ((OVER, 0), OVER));
        assert!(ends.by_age.len() < 4 * OVER, "{}", ends.by_age.len());
        for netns in 0..100 {
            ends.learn(&leg(netns, A, B), peer(netns.into(), 1, netns), None);
        }
        assert_eq!(ends.counts(), (OVER + ALIKE, 100 - ALIKE as u64));
    }
}

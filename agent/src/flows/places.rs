//! Where a connection is, and who is at its other end: what is joined to its record from what else is known.

use haechi_ebpf::event::{existing_process, net_flow, net_tcp_accept, net_tcp_connect, sched_process_exec as exec};
use haechi_ebpf::flow::{Phase, tcp};
use haechi_ebpf::wire::at;
use haechi_signatures::model::{Event, Processes};
use serde::Serialize;

use super::ends::Ends;
use super::names::{Leg, Name, Names as _, Peer};
use super::networks::{Networks, Tenant};

/// What is joined to the record of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Network namespace of the socket.
    pub netns: u32,
    /// Whose that is. The process need not be one of theirs.
    pub tenant: Option<Tenant>,
    /// Who is at the other end.
    pub peer: Option<Name>,
    /// Whose network namespace the other end is in, where it is on this node.
    pub peer_tenant: Option<Tenant>,
}

/// How much is known, and how much was forgotten early for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Network namespaces of containers.
    pub networks: (usize, u64),
    /// Ends of connections.
    pub ends: (usize, u64),
}

/// Network namespaces, and the ends of connections.
#[derive(Debug, Default)]
pub struct Places {
    networks: Networks,
    ends: Ends,
}

impl Places {
    /// Takes in what an event says.
    pub fn learn(&mut self, event: &Event<'_>) {
        let view = &event.view;
        let (cookie, over) = match view.event() {
            exec::ID | existing_process::ID => return self.networks.learn(event),
            net_flow::ID => {
                let phase = view.number(net_flow::field::phase);
                let asks = view.number(net_flow::field::state) == Some(tcp::SYN_SENT.into());
                if asks || phase == Some(Phase::Failed as u64) {
                    return;
                }
                (net_flow::field::cookie, (phase == Some(Phase::End as u64)).then(|| view.time()))
            }
            net_tcp_connect::ID => (net_tcp_connect::field::cookie, None),
            net_tcp_accept::ID => (net_tcp_accept::field::cookie, None),
            _ => return,
        };
        let (Some(cookie), Some(leg)) = (view.number(cookie).filter(|c| *c != 0), Leg::of(view)) else { return };
        let since = if view.event() == net_flow::ID { leg.since } else { 0 };
        let peer = Peer {
            flow: (cookie, since),
            process: event.key(),
            ns_pid: event.process.map_or(0, |p| p.ns_pid),
            uid: view.header_u32(at::UID),
            image: event.process.and_then(|p| p.image(view.header_u32(at::EXEC_ID))).cloned(),
            container: event.process.and_then(|p| p.container.clone()),
            netns: leg.netns,
        };
        self.ends.learn(&leg, peer, over);
    }

    /// What is joined to the record of a connection; `None` for all others.
    #[must_use]
    pub fn of(&self, event: &Event<'_>) -> Option<Place> {
        matches!(event.view.event(), net_flow::ID | net_tcp_connect::ID | net_tcp_accept::ID).then(|| {
            let netns = event.view.header_u32(at::NET_NS);
            let peer = Leg::of(&event.view).and_then(|leg| self.ends.name(&leg));
            let there = peer.as_ref().and_then(|name| name.process.as_ref()).map(|peer| peer.netns);
            let tenant = |netns| self.networks.tenant(netns).cloned();
            Place { netns, tenant: tenant(netns), peer_tenant: there.and_then(tenant), peer }
        })
    }

    /// Time passes: who is long gone is forgotten.
    pub fn advance(&mut self, now: u64, processes: &dyn Processes) {
        self.networks.advance(now, processes);
    }

    /// How much is known.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { networks: self.networks.counts(), ends: self.ends.counts() }
    }
}

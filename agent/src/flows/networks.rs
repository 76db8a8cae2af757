//! Which network namespace is whose. A connection may belong to nobody that is known, or to a process outside the container
//! whose network it uses (a proxy of the node, a service mesh); the namespace of its socket then still says where it is.
//!
//! A namespace belongs to the containers whose first process (number 1 in its own numbering) runs in it. Others come and
//! go in namespaces that are not theirs, and prove nothing. That of the host belongs to nobody, and until it is known nor
//! does any. Numbers of namespaces are used again: a container that is gone counts only until the next one comes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use haechi_ebpf::wire::{at, flag};
use haechi_signatures::model::{Container, Event, ProcessKey, Processes};

/// Namespaces known at a time.
const MAX_NETWORKS: usize = 4096;
/// Containers of one namespace; where there are more, it belongs to nobody.
const TENANTS: usize = 64;
/// Nanoseconds for which a container that is gone stays known: its last connections end after it.
const GRACE: u64 = 60_000_000_000;

/// Whose a network namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenant {
    /// One container's.
    Container(Arc<Container>),
    /// That of several containers of one pod, by its uid.
    Pod(Arc<str>),
}

impl Tenant {
    /// The container, where it is one's.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        if let Self::Container(container) = self { Some(container) } else { None }
    }

    /// Uid of the pod.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        match self {
            Self::Container(container) => container.pod_uid.as_deref(),
            Self::Pod(uid) => Some(uid),
        }
    }

    /// Whose it is when `container` has it too.
    fn with(&self, container: &Arc<Container>) -> Option<Self> {
        match (self, self.pod_uid(), container.pod_uid.as_deref()) {
            (Self::Container(one), ..) if one.id == container.id => Some(self.clone()),
            (_, Some(one), Some(other)) if one == other => Some(Self::Pod(one.into())),
            _ => None,
        }
    }
}

/// A container, by its first process.
#[derive(Debug)]
struct First {
    process: ProcessKey,
    container: Arc<Container>,
    /// When it was found to be gone.
    gone: Option<u64>,
}

#[derive(Debug, Default)]
struct Network {
    firsts: Vec<First>,
    crowded: bool,
    tenant: Option<Tenant>,
}

impl Network {
    /// Marks who is gone by `now`, and forgets whoever `stays` is not true of.
    fn look(&mut self, now: u64, processes: &dyn Processes, stays: impl Fn(&First, u64) -> bool) {
        for first in self.firsts.iter_mut().filter(|f| f.gone.is_none()) {
            let ended = processes.get(first.process).is_none_or(|p| p.ended.is_some());
            first.gone = ended.then_some(now);
        }
        self.firsts.retain(|first| first.gone.is_none_or(|gone| stays(first, gone)));
    }

    fn settle(&mut self) {
        let mut rest = self.firsts.iter().filter(|_| !self.crowded).map(|f| &f.container);
        let one = rest.next().cloned().map(Tenant::Container);
        self.tenant = one.and_then(|one| rest.try_fold(one, |tenant, container| tenant.with(container)));
    }
}

/// Network namespaces, by number.
#[derive(Debug)]
pub(super) struct Networks {
    host: Option<u32>,
    known: HashMap<u32, Network>,
    by_age: VecDeque<u32>,
    limit: usize,
    evicted: u64,
}

impl Default for Networks {
    fn default() -> Self {
        Self::with_limit(MAX_NETWORKS)
    }
}

impl Networks {
    /// Knows at most `limit`.
    pub(super) fn with_limit(limit: usize) -> Self {
        Self { host: None, known: HashMap::new(), by_age: VecDeque::new(), limit: limit.max(1), evicted: 0 }
    }

    /// A process is in its namespace for good: it runs a program there, or was there before the agent.
    pub(super) fn learn(&mut self, event: &Event<'_>) {
        let netns = event.view.header_u32(at::NET_NS);
        // Threads of the kernel never leave it.
        if event.view.flags() & flag::KTHREAD != 0 && netns != 0 {
            self.host = Some(netns);
        }
        let Some(process) = event.process else { return };
        let Some(container) = process.container.as_ref().filter(|_| process.ns_pid == 1 && netns != 0) else { return };
        let network = self.known.entry(netns).or_insert_with(|| {
            self.by_age.push_back(netns);
            Network::default()
        });
        if network.firsts.iter().any(|f| f.process == process.key && f.container == *container) {
            return;
        }
        let pod = container.pod_uid.as_deref();
        network.look(event.view.time(), event.processes, |f, _| pod.is_some() && f.container.pod_uid.as_deref() == pod);
        network.firsts.retain(|f| f.process != process.key);
        network.crowded |= network.firsts.len() >= TENANTS;
        if !network.crowded {
            network.firsts.push(First { process: process.key, container: container.clone(), gone: None });
        }
        network.settle();
        self.make_room();
    }

    /// Forgets the oldest where there is no room.
    fn make_room(&mut self) {
        while self.known.len() > self.limit {
            let Some(oldest) = self.by_age.pop_front() else { return };
            self.evicted += u64::from(self.known.remove(&oldest).is_some());
        }
    }

    /// It is `now`: forgets containers that went long enough ago.
    pub(super) fn advance(&mut self, now: u64, processes: &dyn Processes) {
        for network in self.known.values_mut() {
            let before = network.firsts.len();
            network.look(now, processes, |_, gone| now.saturating_sub(gone) < GRACE);
            if network.firsts.len() != before {
                network.settle();
            }
        }
        self.known.retain(|_, network| !network.firsts.is_empty());
        if self.by_age.len() > self.known.len() {
            self.by_age.retain(|netns| self.known.contains_key(netns));
        }
    }

    /// Whose the namespace `netns` is.
    pub(super) fn tenant(&self, netns: u32) -> Option<&Tenant> {
        self.host.filter(|host| *host != netns)?;
        self.known.get(&netns)?.tenant.as_ref()
    }

    /// How many are known, and how many were forgotten early for want of room.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.known.len(), self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use haechi_ebpf::event::{existing_process as existing, sched_process_exec as exec};
    use haechi_ebpf::wire::View;
    use haechi_signatures::model::Process;
    use haechi_signatures::record::Builder;

    use super::*;

    #[derive(Default)]
    struct Known(HashMap<ProcessKey, Process>);

    impl Processes for Known {
        fn get(&self, key: ProcessKey) -> Option<&Process> {
            self.0.get(&key)
        }
    }

    const HOST: u32 = 1;

    impl Known {
        /// A thread of the kernel.
        fn kernel(&self, networks: &mut Networks) {
            let record = Builder::new(&existing::DEF).process(2, 5, 0).flags(flag::KTHREAD);
            let record = record.header_u32(at::NET_NS, HOST).finish();
            networks.learn(&Event::join(View::parse(&record).expect("a record"), self));
        }

        /// A program in `netns`, run by the process `pid`, which is `ns_pid` in its own numbering.
        fn run(&mut self, networks: &mut Networks, netns: u32, pid: u32, ns_pid: u32, at_home: Option<(&str, &str)>) {
            let key = ProcessKey { pid, start: 5 };
            let container = at_home.map(|(id, pod)| {
                let pod_uid = Some(pod.to_owned()).filter(|p| !p.is_empty());
                Arc::new(Container { id: id.into(), runtime: "docker", pod_uid })
            });
            self.0.insert(key, Process { key, ns_pid, container, ..Process::default() });
            let record = Builder::new(&exec::DEF).process(pid, 5, 1).header_u32(at::NET_NS, netns).finish();
            networks.learn(&Event::join(View::parse(&record).expect("a record"), self));
        }

        fn end(&mut self, pid: u32) {
            self.0.get_mut(&ProcessKey { pid, start: 5 }).expect("known").ended = Some(1);
        }
    }

    fn with_host() -> (Known, Networks) {
        let (known, mut networks) = (Known::default(), Networks::with_limit(3));
        known.kernel(&mut networks);
        (known, networks)
    }

    fn said(networks: &Networks, netns: u32) -> String {
        match networks.tenant(netns) {
            None => String::new(),
            Some(Tenant::Container(c)) => c.id.clone(),
            Some(Tenant::Pod(uid)) => format!("pod {uid}"),
        }
    }

    #[test]
    fn a_namespace_belongs_to_the_containers_that_begin_in_it() {
        let (mut known, mut networks) = with_host();
        known.run(&mut networks, 7, 10, 1, Some(("a", "")));
        assert_eq!(said(&networks, 7), "a");
        // Whoever only visits it is no owner of it: a plug-in of the node's network, say.
        known.run(&mut networks, 7, 11, 44, Some(("b", "")));
        known.run(&mut networks, 7, 12, 12, None);
        known.run(&mut networks, 7, 10, 1, Some(("a", "")));
        assert_eq!(said(&networks, 7), "a");
        known.run(&mut networks, 7, 13, 1, Some(("c", "")));
        assert_eq!(said(&networks, 7), "", "two have it");
    }

    #[test]
    fn several_containers_of_a_pod_are_the_pod() {
        let (mut known, mut networks) = with_host();
        known.run(&mut networks, 7, 10, 1, Some(("pause", "p")));
        assert_eq!(said(&networks, 7), "pause");
        known.run(&mut networks, 7, 11, 1, Some(("app", "p")));
        assert_eq!(said(&networks, 7), "pod p");
        known.run(&mut networks, 7, 12, 1, Some(("other", "q")));
        assert_eq!(said(&networks, 7), "");
    }

    #[test]
    fn that_of_the_host_is_nobodys_and_until_it_is_known_none_is() {
        let (mut known, mut networks) = (Known::default(), Networks::with_limit(3));
        known.run(&mut networks, HOST, 9, 1, Some(("host-network", "")));
        known.run(&mut networks, 7, 10, 1, Some(("a", "")));
        assert_eq!((said(&networks, HOST), said(&networks, 7)), (String::new(), String::new()));
        known.kernel(&mut networks);
        assert_eq!((said(&networks, HOST), said(&networks, 7)), (String::new(), "a".into()));
    }

    #[test]
    fn who_is_gone_makes_room_for_the_next_at_once_and_else_after_a_while() {
        let (mut known, mut networks) = with_host();
        known.run(&mut networks, 7, 10, 1, Some(("a", "")));
        known.end(10);
        networks.advance(100, &known);
        assert_eq!(said(&networks, 7), "a", "its last connections end after it");
        known.run(&mut networks, 7, 11, 1, Some(("b", "")));
        assert_eq!(said(&networks, 7), "b", "the number was used again");
        known.end(11);
        networks.advance(200, &known);
        networks.advance(200 + GRACE, &known);
        assert_eq!((said(&networks, 7), networks.counts(), networks.by_age.len()), (String::new(), (0, 0), 0));
    }

    #[test]
    fn a_container_that_starts_again_in_its_pod_is_the_pods() {
        let (mut known, mut networks) = with_host();
        known.run(&mut networks, 7, 10, 1, Some(("a", "p")));
        known.end(10);
        known.run(&mut networks, 7, 11, 1, Some(("b", "p")));
        assert_eq!(said(&networks, 7), "pod p", "either may own what ends now");
        networks.advance(100 + GRACE, &known);
        assert_eq!(said(&networks, 7), "b");
    }

    #[test]
    fn the_oldest_is_forgotten_and_a_crowd_owns_nothing() {
        let (mut known, mut networks) = with_host();
        for netns in 10..14 {
            known.run(&mut networks, netns, netns, 1, Some(("a", "")));
        }
        assert_eq!((said(&networks, 10), networks.counts()), (String::new(), (3, 1)));
        for pid in 100..100 + TENANTS as u32 + 1 {
            known.run(&mut networks, 13, pid, 1, Some(("a", "")));
        }
        assert_eq!((said(&networks, 13), networks.known[&13].firsts.len()), (String::new(), TENANTS));
    }
}

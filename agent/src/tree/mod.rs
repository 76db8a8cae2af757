//! The process tree: who is who, and whose child. Made from the kernel's records alone, bounded, repaired after losses.
//! Knows no clock (time comes with the records), no rule and no sink.
//!
//! A process is its number and start. One that ended stays until the watermark of the stream has passed its end by a
//! grace, and longer while children of it are there, whose ancestry it is. Where there is no room, the one that ended
//! first goes first, then the oldest.

mod image;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use haechi_ebpf::event::{
    cgroup_attach_task, existing_process, lost_events, net_flow, net_tcp_connect, sched_process_exec,
    sched_process_exit, sched_process_fork,
};
use haechi_ebpf::wire::{View, at};
use haechi_signatures::model::{Image, Process, ProcessKey, Processes};

use crate::cgroups::Cgroups;

/// Programs of a process that are kept.
const IMAGES: usize = 3;

/// Bounds of the tree.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Processes known at a time.
    pub limit: usize,
    /// Nanoseconds that a process stays after its end.
    pub grace: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { limit: 65_536, grace: 5_000_000_000 }
    }
}

/// The process tree.
#[derive(Debug)]
pub struct Tree {
    config: Config,
    nodes: HashMap<ProcessKey, Node>,
    newest: HashMap<u32, u64>,
    by_age: BTreeSet<(u64, u32)>,
    ended: VecDeque<(u64, ProcessKey)>,
    parked: BTreeSet<(u64, ProcessKey)>,
    evicted: u64,
}

#[derive(Debug)]
struct Node {
    process: Process,
    /// The cgroup that `process.container` was looked up by; 0 until it is known.
    cgroup: u64,
    children: u32,
    /// Whether the parent counts this one among its children.
    counted: bool,
}

impl Processes for Tree {
    fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.nodes.get(&key).map(|n| &n.process)
    }
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = Config { limit: config.limit.max(1), ..config };
        Self {
            config,
            nodes: HashMap::new(),
            newest: HashMap::new(),
            by_age: BTreeSet::new(),
            ended: VecDeque::new(),
            parked: BTreeSet::new(),
            evicted: 0,
        }
    }

    /// How many processes are known, and how many were forgotten early for want of room.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.nodes.len(), self.evicted)
    }

    /// The newest process with this number.
    #[must_use]
    pub fn newest(&self, pid: u32) -> Option<ProcessKey> {
        self.newest.get(&pid).map(|start| ProcessKey { pid, start: *start })
    }

    /// Takes in what a record says of processes. To be called before the record is judged.
    pub fn apply(&mut self, view: &View<'_>, cgroups: &Cgroups) {
        match view.event() {
            existing_process::ID => self.seed(view, cgroups),
            sched_process_exec::ID => self.exec(view, cgroups),
            sched_process_fork::ID => {
                self.see(view, cgroups);
                self.fork(view);
            }
            sched_process_exit::ID => {
                self.see(view, cgroups);
                self.exit(view);
            }
            cgroup_attach_task::ID => {
                self.see(view, cgroups);
                self.attach(view, cgroups);
            }
            // Told of a process, not by it: the header is not its own.
            lost_events::ID | net_flow::ID | net_tcp_connect::ID => {}
            _ => self.see(view, cgroups),
        }
    }

    /// The stream has passed `time`: forgets who ended long enough before.
    pub fn advance(&mut self, time: u64) {
        let cutoff = time.saturating_sub(self.config.grace);
        while let Some(&(ended, key)) = self.ended.front()
            && ended < cutoff
        {
            self.ended.pop_front();
            match self.nodes.get(&key) {
                Some(node) if node.children > 0 => {
                    self.parked.insert((ended, key));
                }
                Some(_) => self.remove(key),
                None => {}
            }
        }
    }

    /// Everybody alive was named by `alive` at `time`: whoever is older and not among them has ended unseen.
    pub fn reconcile(&mut self, alive: &[ProcessKey], time: u64) {
        let alive: std::collections::HashSet<&ProcessKey> = alive.iter().collect();
        let mut gone: Vec<ProcessKey> = self
            .nodes
            .iter()
            .filter(|(key, node)| node.process.ended.is_none() && key.start < time && !alive.contains(key))
            .map(|(key, _)| *key)
            .collect();
        gone.sort_unstable();
        for key in gone {
            self.end(key, time);
        }
    }

    /// Brings user and container of the record's own process up to date; makes it where it is unknown.
    fn see(&mut self, view: &View<'_>, cgroups: &Cgroups) {
        let key = own_key(view);
        if key.start == 0 {
            return;
        }
        if !self.nodes.contains_key(&key) {
            let process = self.stranger(view, key);
            self.insert(process);
        }
        if let Some(node) = self.nodes.get_mut(&key) {
            node.process.uid = view.header_u32(at::UID);
            node.enter(view.header_u64(at::CGROUP), cgroups);
            let newest = node.process.images.last().map_or(0, |i| i.exec_id);
            if view.header_u32(at::EXEC_ID) > newest {
                // Its exec was lost, or is this very record: from here on it is not the program before.
                node.add(Image { since: view.time(), ..image::from_header(view) }, false);
            }
        }
    }

    /// A process of which only the header of a record is known.
    fn stranger(&self, view: &View<'_>, key: ProcessKey) -> Process {
        let parent = self.newest(view.header_u32(at::PPID)).filter(|p| p.start <= key.start).unwrap_or_default();
        Process {
            key,
            parent,
            ns_pid: view.header_u32(at::NS_TGID),
            uid: view.header_u32(at::UID),
            images: vec![Arc::new(image::from_header(view))],
            ..Process::default()
        }
    }

    fn seed(&mut self, view: &View<'_>, cgroups: &Cgroups) {
        use existing_process::field;
        let parent = ProcessKey {
            pid: view.header_u32(at::PPID),
            start: view.number(field::parent_start_time).unwrap_or_default(),
        };
        self.see(view, cgroups);
        if let Some(node) = self.nodes.get_mut(&own_key(view)) {
            node.add(image::from_existing(view), false);
            if node.process.parent.pid == 0 && parent.start != 0 {
                node.process.parent = parent;
            }
        }
        self.count_with_parent(own_key(view));
    }

    fn exec(&mut self, view: &View<'_>, cgroups: &Cgroups) {
        self.see(view, cgroups);
        if let Some(node) = self.nodes.get_mut(&own_key(view)) {
            node.add(image::from_exec(view), true);
        }
    }

    fn fork(&mut self, view: &View<'_>) {
        use sched_process_fork::field;
        let number = |f| view.number(f).unwrap_or_default();
        let (child_tid, child_pid) = (number(field::child_tid) as u32, number(field::child_pid) as u32);
        let key = ProcessKey { pid: child_pid, start: number(field::leader_start_time) };
        if child_tid != child_pid || key.start == 0 || self.nodes.contains_key(&key) {
            return;
        }
        let parent = ProcessKey { pid: number(field::parent_pid) as u32, start: number(field::parent_start_time) };
        let exec_id = number(field::child_exec_id) as u32;
        let above = self.nodes.get(&parent);
        let image = above
            .and_then(|n| n.process.image(exec_id))
            .map_or_else(|| Arc::new(Image { exec_id, ..image::from_header(view) }), Arc::clone);
        let process = Process {
            key,
            parent,
            ns_pid: number(field::child_ns_pid) as u32,
            uid: view.header_u32(at::UID),
            container: above.and_then(|n| n.process.container.clone()),
            images: vec![image],
            ended: None,
        };
        self.insert(process);
    }

    fn exit(&mut self, view: &View<'_>) {
        if view.number(sched_process_exit::field::process_group_exit) == Some(1) {
            self.end(own_key(view), view.time());
        }
    }

    fn attach(&mut self, view: &View<'_>, cgroups: &Cgroups) {
        use cgroup_attach_task::field;
        let number = |f| view.number(f).unwrap_or_default();
        let key = ProcessKey { pid: number(field::pid) as u32, start: number(field::start_time) };
        if number(field::hierarchy_id) == 0
            && let Some(node) = self.nodes.get_mut(&key)
        {
            node.enter(number(field::cgroup_id), cgroups);
        }
    }

    fn end(&mut self, key: ProcessKey, time: u64) {
        if let Some(node) = self.nodes.get_mut(&key)
            && node.process.ended.is_none()
        {
            node.process.ended = Some(time);
            self.ended.push_back((time, key));
        }
    }

    fn insert(&mut self, process: Process) {
        let key = process.key;
        let newest = self.newest.entry(key.pid).or_default();
        *newest = (*newest).max(key.start);
        self.by_age.insert((key.start, key.pid));
        self.nodes.insert(key, Node { process, cgroup: 0, children: 0, counted: false });
        self.count_with_parent(key);
        while self.nodes.len() > self.config.limit {
            self.evict();
        }
    }

    fn count_with_parent(&mut self, key: ProcessKey) {
        let Some(parent) = self.nodes.get(&key).filter(|n| !n.counted).map(|n| n.process.parent) else { return };
        let Some(above) = self.nodes.get_mut(&parent) else { return };
        above.children += 1;
        if let Some(node) = self.nodes.get_mut(&key) {
            node.counted = true;
        }
    }

    fn evict(&mut self) {
        let first = self.parked.first().map(|p| p.1).or_else(|| {
            std::iter::from_fn(|| self.ended.pop_front()).map(|e| e.1).find(|key| self.nodes.contains_key(key))
        });
        let oldest = || self.by_age.first().map(|&(start, pid)| ProcessKey { pid, start });
        if let Some(key) = first.or_else(oldest) {
            self.remove(key);
            self.evicted += 1;
        }
    }

    /// Takes `key` out, and with it each parent that waited only for its last child.
    fn remove(&mut self, key: ProcessKey) {
        let mut next = Some(key);
        while let Some(key) = next.take() {
            let Some(node) = self.nodes.remove(&key) else { return };
            self.by_age.remove(&(key.start, key.pid));
            if self.newest.get(&key.pid) == Some(&key.start) {
                self.newest.remove(&key.pid);
            }
            if let Some(ended) = node.process.ended {
                self.parked.remove(&(ended, key));
            }
            let parent = node.process.parent;
            if node.counted
                && let Some(above) = self.nodes.get_mut(&parent)
            {
                above.children = above.children.saturating_sub(1);
                let waited = above.process.ended.is_some_and(|ended| self.parked.contains(&(ended, parent)));
                next = (above.children == 0 && waited).then_some(parent);
            }
        }
    }
}

impl Node {
    /// Looks the container up again where the cgroup is another one, or was not known when it was entered.
    fn enter(&mut self, cgroup: u64, cgroups: &Cgroups) {
        if self.cgroup != cgroup
            && let Some(found) = cgroups.get(cgroup)
        {
            self.cgroup = cgroup;
            self.process.container.clone_from(&found.container);
        }
    }

    /// Adds a program in its place. One with the same id is replaced where the new one knows more.
    fn add(&mut self, image: Image, knows_more: bool) {
        let images = &mut self.process.images;
        if let Some(same) = images.iter_mut().find(|i| i.exec_id == image.exec_id) {
            if knows_more || same.exe.is_empty() {
                *same = Arc::new(image);
            }
            return;
        }
        let place = images.partition_point(|i| i.exec_id < image.exec_id);
        images.insert(place, Arc::new(image));
        if images.len() > IMAGES {
            images.remove(0);
        }
    }
}

fn own_key(view: &View<'_>) -> ProcessKey {
    let (pid, start) = view.process();
    ProcessKey { pid, start }
}

#[cfg(test)]
mod tests;

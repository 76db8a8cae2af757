//! The tree, fed with records as the kernel writes them.

use haechi_ebpf::event::{
    existing_process as existing, sched_process_exec as exec, sched_process_exit as exit, sched_process_fork as fork,
};
use haechi_signatures::record::Builder;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn apply(tree: &mut Tree, record: &[u8]) {
    tree.apply(&View::parse(record).expect("a record"), &Cgroups::default());
}

fn fork_record(time: u64, parent: (u32, u64), child: (u32, u64), exec_id: u32) -> Vec<u8> {
    Builder::new(&fork::DEF)
        .time(time)
        .process(parent.0, parent.1, exec_id)
        .comm("sh")
        .number(fork::field::parent_pid, parent.0.into())
        .number(fork::field::parent_start_time, parent.1)
        .number(fork::field::child_tid, child.0.into())
        .number(fork::field::child_pid, child.0.into())
        .number(fork::field::child_ns_pid, 7)
        .number(fork::field::start_time, child.1)
        .number(fork::field::leader_start_time, child.1)
        .number(fork::field::child_exec_id, exec_id.into())
        .finish()
}

fn exec_record(time: u64, key: (u32, u64), ppid: u32, exec_id: u32, exe: &str) -> Vec<u8> {
    Builder::new(&exec::DEF)
        .time(time)
        .process(key.0, key.1, exec_id)
        .header_u32(at::PPID, ppid)
        .comm("prog")
        .text(exec::field::pathname, exe)
        .strings(exec::field::argv, [exe, "-x"])
        .finish()
}

fn exit_record(time: u64, key: (u32, u64)) -> Vec<u8> {
    Builder::new(&exit::DEF).time(time).process(key.0, key.1, 1).number(exit::field::process_group_exit, 1).finish()
}

fn seed_record(key: (u32, u64), parent: (u32, u64), exe: &str) -> Vec<u8> {
    Builder::new(&existing::DEF)
        .time(50)
        .process(key.0, key.1, 3)
        .header_u32(at::PPID, parent.0)
        .comm("old")
        .text(existing::field::pathname, exe)
        .number(existing::field::parent_start_time, parent.1)
        .finish()
}

fn exe(tree: &Tree, key: (u32, u64), exec_id: u32) -> Option<String> {
    let process = tree.get(ProcessKey { pid: key.0, start: key.1 })?;
    Some(process.image(exec_id)?.exe.to_string())
}

fn known(tree: &Tree, key: (u32, u64)) -> bool {
    tree.get(ProcessKey { pid: key.0, start: key.1 }).is_some()
}

#[test]
fn a_child_runs_its_parents_program_until_it_execs_and_old_programs_stay_apart() {
    let mut tree = Tree::new(Config::default());
    apply(&mut tree, &seed_record((1, 1), (0, 0), "/sbin/init"));
    apply(&mut tree, &fork_record(100, (1, 1), (20, 90), 3));
    assert_eq!(exe(&tree, (20, 90), 3).as_deref(), Some("/sbin/init"));
    for (i, path) in ["/bin/a", "/bin/b", "/bin/c"].into_iter().enumerate() {
        apply(&mut tree, &exec_record(200, (20, 90), 1, 4 + i as u32, path));
    }
    assert_eq!(exe(&tree, (20, 90), 4).as_deref(), Some("/bin/a"));
    assert_eq!(exe(&tree, (20, 90), 6).as_deref(), Some("/bin/c"));
    // The first of four is gone: what asks for it gets none, not another.
    assert_eq!(exe(&tree, (20, 90), 3), None);
    let child = tree.get(ProcessKey { pid: 20, start: 90 }).expect("known");
    assert_eq!((child.ns_pid, child.parent), (7, ProcessKey { pid: 1, start: 1 }));
}

#[test]
fn threads_are_no_processes() {
    let mut tree = Tree::new(Config::default());
    let thread = Builder::new(&fork::DEF)
        .process(5, 5, 1)
        .number(fork::field::child_tid, 6)
        .number(fork::field::child_pid, 5)
        .number(fork::field::leader_start_time, 5)
        .number(fork::field::start_time, 9)
        .finish();
    apply(&mut tree, &thread);
    assert_eq!(tree.counts(), (1, 0));
    let exit = Builder::new(&exit::DEF).process(5, 5, 1).number(exit::field::process_group_exit, 0).finish();
    apply(&mut tree, &exit);
    assert_eq!(tree.get(ProcessKey { pid: 5, start: 5 }).and_then(|p| p.ended), None);
}

#[test]
fn the_ended_stay_for_the_grace_and_for_their_children() {
    let mut tree = Tree::new(Config::default());
    apply(&mut tree, &fork_record(1, (1, 1), (2, 2), 1));
    apply(&mut tree, &fork_record(3, (2, 2), (3, 3), 1));
    apply(&mut tree, &exit_record(SECOND, (2, 2)));
    tree.advance(6 * SECOND);
    assert!(known(&tree, (2, 2)), "the grace is not over");
    tree.advance(7 * SECOND);
    assert!(known(&tree, (2, 2)), "it has a child");
    apply(&mut tree, &exit_record(8 * SECOND, (3, 3)));
    tree.advance(14 * SECOND);
    assert!(!known(&tree, (3, 3)) && !known(&tree, (2, 2)) && known(&tree, (1, 1)));
    assert_eq!(tree.newest(2), None);
    assert!(tree.by_age.len() == 1 && tree.parked.is_empty() && tree.ended.is_empty());
}

#[test]
fn where_there_is_no_room_the_ended_go_first() {
    let mut tree = Tree::new(Config { limit: 3, ..Config::default() });
    for pid in 1..=3 {
        apply(&mut tree, &exec_record(1, (pid, pid.into()), 0, 1, "/bin/x"));
    }
    apply(&mut tree, &exit_record(5, (2, 2)));
    apply(&mut tree, &exec_record(6, (4, 4), 0, 1, "/bin/x"));
    assert!(!known(&tree, (2, 2)) && known(&tree, (1, 1)));
    apply(&mut tree, &exec_record(7, (5, 5), 0, 1, "/bin/x"));
    assert!(!known(&tree, (1, 1)) && known(&tree, (5, 5)));
    assert_eq!(tree.counts(), (3, 2));
}

#[test]
fn a_lost_fork_or_exec_is_repaired() {
    let mut tree = Tree::new(Config::default());
    apply(&mut tree, &seed_record((10, 10), (1, 1), "/bin/sh"));
    // The fork of 11 was lost: its exec alone makes it, below the newest 10.
    apply(&mut tree, &exec_record(100, (11, 90), 10, 4, "/bin/cat"));
    let process = tree.get(ProcessKey { pid: 11, start: 90 }).expect("made");
    assert_eq!(process.parent, ProcessKey { pid: 10, start: 10 });
    // A parent younger than its child is another process with its number.
    apply(&mut tree, &exec_record(100, (12, 5), 10, 4, "/bin/cat"));
    assert_eq!(tree.get(ProcessKey { pid: 12, start: 5 }).map(|p| p.parent.pid), Some(0));
}

#[test]
fn a_program_whose_exec_was_lost_is_nobody_until_it_is_known() {
    let mut tree = Tree::new(Config::default());
    let sudo = (10, 10);
    apply(&mut tree, &exec_record(100, sudo, 1, 4, "/usr/bin/sudo"));
    // Its next exec was lost: a child of the unknown program is not one of sudo's.
    apply(&mut tree, &fork_record(200, sudo, (11, 150), 5));
    assert_eq!(exe(&tree, sudo, 4).as_deref(), Some("/usr/bin/sudo"));
    assert_eq!(exe(&tree, sudo, 5).as_deref(), Some(""));
    assert_eq!(exe(&tree, (11, 150), 5).as_deref(), Some(""));
    // Who lists the processes again knows better.
    let seeded = Builder::new(&existing::DEF).process(10, 10, 5).text(existing::field::pathname, "/tmp/odd").finish();
    apply(&mut tree, &seeded);
    assert_eq!(exe(&tree, sudo, 5).as_deref(), Some("/tmp/odd"));
    assert_eq!(tree.get(ProcessKey { pid: 10, start: 10 }).map(|p| p.images.len()), Some(2));
}

#[test]
fn seeding_again_changes_nothing_and_ends_who_is_gone() {
    let mut tree = Tree::new(Config::default());
    let (a, b) = (seed_record((10, 10), (1, 1), "/bin/sh"), seed_record((11, 11), (10, 10), "/bin/cat"));
    for _ in 0..2 {
        apply(&mut tree, &a);
        apply(&mut tree, &b);
    }
    assert_eq!(tree.counts(), (2, 0));
    let sh = ProcessKey { pid: 10, start: 10 };
    assert_eq!(tree.nodes[&sh].children, 1);
    assert_eq!(tree.get(sh).map(|p| p.images.len()), Some(1));
    tree.reconcile(&[sh], 60);
    assert_eq!(tree.get(ProcessKey { pid: 11, start: 11 }).and_then(|p| p.ended), Some(60));
    assert_eq!(tree.get(sh).and_then(|p| p.ended), None);
}

#[test]
fn the_container_follows_the_cgroup_once_it_is_known() {
    let mut tree = Tree::new(Config::default());
    let mut cgroups = Cgroups::default();
    let record = Builder::new(&exec::DEF).process(5, 5, 1).header_u64(at::CGROUP, 77).finish();
    let view = View::parse(&record).expect("a record");
    let container =
        |tree: &Tree| tree.get(ProcessKey { pid: 5, start: 5 }).and_then(|p| p.container.clone()).map(|c| c.id.clone());
    tree.apply(&view, &cgroups);
    assert_eq!(container(&tree), None);
    cgroups.learn(77, "/default/web");
    tree.apply(&view, &cgroups);
    assert_eq!(container(&tree).as_deref(), Some("web"));
    let moved = Builder::new(&cgroup_attach_task::DEF)
        .process(1, 1, 1)
        .number(cgroup_attach_task::field::pid, 5)
        .number(cgroup_attach_task::field::start_time, 5)
        .number(cgroup_attach_task::field::cgroup_id, 78)
        .number(cgroup_attach_task::field::hierarchy_id, 0)
        .finish();
    cgroups.learn(78, "/default/other");
    tree.apply(&View::parse(&moved).expect("a record"), &cgroups);
    assert_eq!(container(&tree).as_deref(), Some("other"));
}

//! Connections: owners, totals, bounds, names.

use super::*;
use haechi_ebpf::flow::{Direction, Reason};
use haechi_signatures::record::Builder;

fn flow(cookie: u64, phase: Phase, tx: u64, marks: u32) -> Vec<u8> {
    use net_flow::field as f;
    Builder::new(&net_flow::DEF)
        .process(7, 70, 1)
        .number(f::cookie, cookie)
        .number(f::start_time, 5)
        .number(f::phase, (phase as u32).into())
        .number(f::direction, (Direction::Incoming as u32).into())
        .number(f::reason, if phase == Phase::Progress { 0 } else { (Reason::Fin as u32).into() })
        .number(f::tx_bytes, tx)
        .number(f::marks, marks.into())
        .finish()
}

fn view(record: &[u8]) -> View<'_> {
    View::parse(record).expect("a record")
}

fn accept(cookie: u64, pid: u32) -> Vec<u8> {
    Builder::new(&net_tcp_accept::DEF).process(pid, 90, 2).number(net_tcp_accept::field::cookie, cookie).finish()
}

#[test]
fn who_accepts_owns_the_connection_from_then_on() {
    let mut flows = Flows::new(8, 4);
    let record = flow(1, Phase::Progress, 10, mark::INHERITED | mark::ADOPTED);
    assert_eq!(flows.amend(&view(&record)), None, "nobody accepted it yet");
    flows.see(&view(&record), "nginx");
    flows.accept(&view(&accept(1, 9)));
    let amended = flows.amend(&view(&record)).expect("amended");
    assert_eq!(view(&amended).process(), (9, 90));
    assert_eq!(view(&amended).number(net_flow::field::marks), Some(u64::from(mark::ADOPTED)));
    assert_eq!(view(&amended).number(net_flow::field::tx_bytes), Some(10));
}

/// A look at a path of MPTCP connection 99.
fn path(pid: u32, cookie: u64, marks: u32) -> Vec<u8> {
    use net_flow::field as f;
    Builder::new(&net_flow::DEF)
        .process(pid, 70, 1)
        .number(f::cookie, cookie)
        .number(f::start_time, 5)
        .number(f::phase, (Phase::Progress as u32).into())
        .number(f::group, 99)
        .number(f::marks, marks.into())
        .finish()
}

#[test]
fn a_further_path_belongs_to_who_accepted_the_connection() {
    let mut flows = Flows::new(8, 4);
    flows.see(&view(&path(7, 1, mark::INHERITED)), "x");
    flows.accept(&view(&accept(1, 9)));
    let amended = flows.amend(&view(&path(7, 2, mark::INHERITED))).expect("amended");
    assert_eq!(view(&amended).process(), (9, 90));
}

#[test]
fn a_path_that_fell_back_to_tcp_ends_as_one() {
    let mut flows = Flows::new(8, 4);
    flows.see(&view(&path(7, 1, 0)), "x");
    assert_eq!(flows.groups[&99].paths, 1);
    flows.see(&view(&flow(1, Phase::End, 5, 0)), "x");
    assert_eq!(flows.groups[&99].paths, 0);
}

#[test]
fn a_further_path_belongs_to_who_owns_the_connection() {
    let mut flows = Flows::new(8, 4);
    let (first, opened, taken) = (path(7, 1, mark::MPTCP), path(0, 2, mark::MPTCP), path(3, 3, mark::INHERITED));
    assert_eq!(flows.amend(&view(&opened)), None, "nobody is known yet");
    flows.see(&view(&first), "x");
    for further in [opened, taken] {
        let amended = flows.amend(&view(&further)).expect("amended");
        assert_eq!(view(&amended).process(), (7, 70));
    }
    assert_eq!(flows.amend(&view(&first)), None);
}

#[test]
fn totals_are_added_once_whatever_was_told_before() {
    let mut flows = Flows::new(8, 4);
    for (phase, tx) in [(Phase::Progress, 10), (Phase::Progress, 10), (Phase::Progress, 25), (Phase::End, 40)] {
        flows.see(&view(&flow(1, phase, tx, 0)), "nginx");
    }
    flows.see(&view(&flow(2, Phase::End, 5, 0)), "nginx");
    let counts = flows.counts();
    assert_eq!(counts.top, [Row { name: "nginx".into(), totals: Totals { tx: 45, ..Totals::default() } }]);
    assert_eq!((counts.live, counts.seen, counts.ended[Reason::Fin as usize]), (0, [0, 0, 2], 2));
}

#[test]
fn what_was_moved_before_the_agent_is_no_news_and_a_late_look_says_nothing() {
    let mut flows = Flows::new(8, 4);
    assert!(flows.see(&view(&flow(1, Phase::Progress, 1000, mark::ADOPTED)), "x"));
    assert!(flows.see(&view(&flow(1, Phase::End, 1010, mark::ADOPTED)), "x"));
    assert!(!flows.see(&view(&flow(1, Phase::Progress, 1005, mark::ADOPTED)), "x"));
    let counts = flows.counts();
    assert_eq!(counts.top, [Row { name: "x".into(), totals: Totals { tx: 10, ..Totals::default() } }]);
    assert_eq!((counts.live, counts.seen), (0, [0, 0, 1]));
}

#[test]
fn an_accept_that_comes_after_the_end_is_not_kept() {
    let mut flows = Flows::new(8, 4);
    flows.see(&view(&flow(1, Phase::End, 5, 0)), "x");
    flows.accept(&view(&accept(1, 9)));
    assert_eq!(flows.counts().live, 0);
}

/// A connection that was looked at then.
fn at(cookie: u64, time: u64) -> Vec<u8> {
    use net_flow::field as f;
    Builder::new(&net_flow::DEF)
        .time(time)
        .number(f::cookie, cookie)
        .number(f::start_time, 5)
        .number(f::phase, (Phase::Progress as u32).into())
        .finish()
}

#[test]
fn what_a_survey_does_not_find_has_ended() {
    let mut flows = Flows::new(8, 4);
    for (cookie, time) in [(1, 10), (2, 10), (2, 25)] {
        flows.see(&view(&at(cookie, time)), "x");
    }
    flows.survey(20, 30);
    flows.tick(30 + CERTAIN);
    assert_eq!(flows.counts().live, 2, "a loss may not have been told yet");
    flows.unsure();
    flows.tick(31 + CERTAIN);
    assert_eq!((flows.counts().live, flows.counts().unseen_ends), (2, 0));
    flows.survey(20, 30);
    flows.tick(31 + CERTAIN);
    assert_eq!((flows.counts().live, flows.counts().unseen_ends), (1, 1));
    assert!(flows.live.contains_key(&2));
}

#[test]
fn the_oldest_is_forgotten_and_counted() {
    let mut flows = Flows::new(2, 4);
    for cookie in 1..=3 {
        flows.see(&view(&flow(cookie, Phase::Progress, 1, 0)), "x");
    }
    assert_eq!((flows.counts().live, flows.counts().evicted), (2, 1));
    for cookie in 10..9000 {
        flows.see(&view(&flow(cookie, Phase::End, 1, 0)), "x");
    }
    assert!(flows.by_age.len() < 3000, "{}", flows.by_age.len());
}

#[test]
fn the_busiest_have_names_and_no_series_goes_down() {
    let mut top = Top::new(1);
    let bytes = |tx| Totals { tx, ..Totals::default() };
    top.add("idle", bytes(1));
    top.add("busy", bytes(100));
    let row = |name: &str, tx| Row { name: name.into(), totals: bytes(tx) };
    assert_eq!(top.rows(), [row("idle", 1), row(OTHER, 100)]);
    let minute = |top: &mut Top| (0..120).for_each(|_| top.choose());
    minute(&mut top);
    assert_eq!(top.rows(), [row("busy", 0), row(OTHER, 100)]);
    top.add("busy", bytes(7));
    top.add("idle", bytes(1));
    minute(&mut top);
    assert_eq!(top.rows(), [row("busy", 7), row(OTHER, 101)]);
}

//! What the engine does around a rule: turning away, exceptions, repeats, order, and saying the same every time.

use haechi_ebpf::event::{security_file_open as open, security_socket_connect as connect};
use haechi_ebpf::wire::at;
use haechi_signatures::engine::{Config, ConfigError, Engine, RuleConfig};
use haechi_signatures::exceptions::Exception;
use haechi_signatures::flat::Host;
use haechi_signatures::sources::Sources;
use serde_json::json;

use crate::common::{SECOND, World, engine, judge, key, record, told};

const RULE: &str = "sensitive_credential_read";

fn read(path: &str, pid: u32, second: u64) -> Vec<u8> {
    record("security_file_open", pid).time(second * SECOND).text(open::field::pathname, path).finish()
}

fn with(name: &str, rule: RuleConfig) -> Config {
    Config { rules: [(name.to_owned(), rule)].into(), ..Config::default() }
}

fn counters(engine: &Engine, rule: &str) -> haechi_signatures::engine::Counters {
    *engine.counters().find(|(n, _)| *n == rule).expect("the rule").1
}

#[test]
fn what_no_rule_could_want_is_turned_away_unasked() {
    let (mut engine, _) = engine(&Config::default(), &[]);
    judge(&mut engine, &World::default(), &read("/etc/hostname", 1, 1));
    judge(&mut engine, &World::default(), &read("/etc/shadow", 1, 1));
    let c = counters(&engine, RULE);
    assert_eq!((c.seen, c.prefiltered, c.evaluated, c.fired), (2, 1, 1, 1));
    assert_eq!(counters(&engine, "fileless_execution").seen, 0);
}

#[test]
fn a_finding_says_who_and_under_whom() {
    let (mut engine, _) = engine(&Config::default(), &[]);
    let world = World::default()
        .process(3, 2, &["/usr/bin/cat"], Some("c0ffee"))
        .process(2, 1, &["/usr/bin/bash"], Some("c0ffee"))
        .process(1, 0, &["/usr/sbin/init"], None);
    let found = judge(&mut engine, &world, &read("/etc/shadow", 3, 9));
    let [finding] = found.as_slice() else { panic!("one finding, not {found:?}") };
    let exes: Vec<_> = finding.ancestors.iter().map(|p| p.exe.as_str()).collect();
    assert_eq!((finding.process.exe.as_str(), exes), ("/usr/bin/cat", vec!["/usr/bin/bash", "/usr/sbin/init"]));
    assert_eq!(finding.container.as_ref().map(|c| c.id.as_str()), Some("c0ffee"));
    assert_eq!((finding.time, finding.process.start, finding.count), (9 * SECOND, key(3).start, 1));
    assert_eq!(finding.event["hostName"], json!("node"));
}

#[test]
fn allowed_programs_and_exceptions_are_counted_not_told() {
    let exception = Exception { parent: Some("/opt/backup*".into()), uid: Some(0), ..Exception::default() };
    let rule = RuleConfig { allow: vec!["/usr/bin/restic".into()], exceptions: vec![exception] };
    let (mut engine, _) = engine(&with(RULE, rule), &[]);
    let world = World::default()
        .process(3, 2, &["/usr/bin/restic"], None)
        .process(4, 2, &["/usr/bin/tar"], None)
        .process(5, 1, &["/usr/bin/tar"], None)
        .process(2, 1, &["/opt/backup/run"], None);
    for (pid, tells) in [(3, false), (4, false), (5, true)] {
        assert_eq!(!judge(&mut engine, &world, &read("/etc/shadow", pid, 1)).is_empty(), tells, "{pid}");
    }
    let by_user = record("security_file_open", 4).header_u32(at::UID, 1).text(open::field::pathname, "/etc/shadow");
    assert_eq!(judge(&mut engine, &world, &by_user.finish()).len(), 1, "another user is no exception");
    assert_eq!((counters(&engine, RULE).excepted, counters(&engine, RULE).fired), (2, 2));
}

#[test]
fn an_exception_that_says_nothing_is_refused() {
    let rule = RuleConfig { exceptions: vec![Exception::default()], ..RuleConfig::default() };
    let refused = with(RULE, rule).build(Host::default(), &Sources::default()).map(drop);
    assert_eq!(refused.err(), Some(ConfigError::EmptyException(RULE.into())));
}

#[test]
fn a_repeat_is_told_once_with_its_count() {
    let (mut engine, _) = engine(&Config::default(), &[]);
    let world = World::default();
    let mut all = Vec::new();
    for (path, pid, second) in [
        ("/etc/shadow", 1, 1),
        ("/etc/shadow", 1, 2),
        ("/etc/shadow", 2, 3),
        ("/etc/gshadow", 1, 4),
        ("/etc/shadow", 1, 5),
    ] {
        all.extend(told(&judge(&mut engine, &world, &read(path, pid, second))));
    }
    let once = |path: &str| (RULE.to_owned(), path.to_owned(), 1);
    assert_eq!(all, [once("/etc/shadow"), once("/etc/shadow"), once("/etc/gshadow")]);
    let mut late = Vec::new();
    engine.tick(60 * SECOND, &mut late);
    assert!(late.is_empty());
    engine.tick(61 * SECOND, &mut late);
    assert_eq!(told(&late), [(RULE.into(), "/etc/shadow".into(), 3)]);
    assert_eq!((late[0].time, late[0].process.pid), (5 * SECOND, 1));
    assert_eq!(counters(&engine, RULE).suppressed, 2);
}

#[test]
fn a_full_table_of_repeats_gives_way_and_counts() {
    let (mut engine, _) = engine(&Config { window_entries: 4, ..Config::default() }, &[]);
    for i in 0..10 {
        let found = judge(&mut engine, &World::default(), &read("/etc/shadow", i, 1));
        assert_eq!(found.len(), 1);
    }
    assert_eq!(engine.evicted(), 6);
}

#[test]
fn a_slow_rule_is_told_where_there_is_a_clock() {
    let (mut engine, _) = engine(&Config::default(), &[]);
    let mut now = 0;
    engine.set_clock(Box::new(move || {
        now += 70_000_000;
        now
    }));
    judge(&mut engine, &World::default(), &read("/etc/shadow", 1, 1));
    let c = counters(&engine, RULE);
    assert_eq!((c.ns, c.errors, c.fired), (70_000_000, 1, 1), "what it found is told all the same");
    let (notices, _) = engine.take_notices();
    let json = serde_json::to_value(&notices).expect("JSON");
    assert_eq!(json[0]["error"], json!("it took 70 ms for one event, the limit is 50 ms"));
}

#[test]
fn what_was_put_aside_live_can_be_put_aside_again() {
    let (mut engine, _) = engine(&Config::default(), &[]);
    engine.put_aside(RULE, 5 * SECOND);
    assert!(judge(&mut engine, &World::default(), &read("/etc/shadow", 1, 4)).is_empty());
    assert_eq!(judge(&mut engine, &World::default(), &read("/etc/shadow", 1, 5)).len(), 1);
    assert_eq!(counters(&engine, RULE).aside, 1);
}

#[test]
fn disabled_rules_demand_nothing_and_unknown_names_are_told() {
    let config = Config { disabled: vec![RULE.into(), "no_such_rule".into()], ..Config::default() };
    let (engine, report) = engine(&config, &[]);
    let leaves = engine.demands().iter().flat_map(|d| d.paths.leaves.clone()).collect::<Vec<_>>();
    assert!(!leaves.contains(&"shadow".to_owned()), "{leaves:?}");
    assert!(engine.demands().iter().any(|d| d.event == connect::ID));
    assert_eq!(report.warnings, ["the configuration names a rule `no_such_rule`, but there is none"]);
}

#[test]
fn the_same_events_give_the_same_bytes() {
    let run = || {
        let (mut engine, _) = engine(&Config { window_entries: 7, ..Config::default() }, &[]);
        let world = (0..9).fold(World::default(), |w, i| w.process(i, i / 2, &["/bin/x"], None));
        let mut all = Vec::new();
        for i in 0..500_u64 {
            let path = ["/etc/shadow", "/etc/gshadow", "/root/.ssh/id_rsa", "/x"][(i * 7 % 4) as usize];
            all.extend(judge(&mut engine, &world, &read(path, (i * i % 9) as u32, i)));
            engine.tick(i * SECOND, &mut all);
        }
        engine.finish(&mut all);
        serde_json::to_vec(&all).expect("JSON")
    };
    let first = run();
    assert!(first.len() > 10_000);
    assert_eq!(first, run());
}

#[test]
fn an_engine_may_live_in_any_thread() {
    fn send<T: Send>() {}
    send::<Engine>();
}

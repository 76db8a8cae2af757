//! Rules that change while the engine runs.

use haechi_ebpf::event::security_file_open as open;
use haechi_signatures::engine::{Config, Engine};

use crate::common::{SECOND, World, engine, judge, record, rego, sources, told};

fn open(engine: &mut Engine, path: &str) -> Vec<(String, String, u64)> {
    let record = record("security_file_open", 1).time(SECOND).text(open::field::pathname, path).finish();
    told(&judge(engine, &World::default(), &record))
}

fn rule(name: &str, leaf: &str) -> String {
    let body = format!("tracee_match {{ endswith(helpers.get_tracee_argument(\"pathname\"), \"/{leaf}\") }}");
    rego(name, "security_file_open", &body)
}

fn fired(engine: &Engine, rule: &str) -> u64 {
    engine.counters().find(|(n, _)| *n == rule).map_or(0, |(_, c)| c.fired)
}

/// Rules that come with Haechi.
fn built_in() -> usize {
    haechi_signatures::rules::RUST.len() + haechi_signatures::rules::REGO.len()
}

#[test]
fn changes_take_hold_and_the_rest_goes_on() {
    let (a, b) = (rule("a", "one"), rule("b", "two"));
    let (mut engine, report) = engine(&Config::default(), &[("a.rego", &a), ("b.rego", &b)]);
    assert_eq!(report.added.len(), built_in() + 2);
    assert_eq!(open(&mut engine, "/x/one").len(), 1);
    assert_eq!(open(&mut engine, "/x/two").len(), 1);

    let c = rule("c", "three");
    let report = engine.reload(&sources(&[("a.rego", &rule("a", "four")), ("c.rego", &c)]));
    assert_eq!((report.added, report.changed, report.removed), (vec!["c".into()], vec!["a".into()], vec!["b".into()]));
    assert_eq!(report.unchanged.len(), built_in());
    assert!(report.errors.is_empty());
    assert!(open(&mut engine, "/y/one").is_empty() && open(&mut engine, "/y/two").is_empty());
    assert_eq!(open(&mut engine, "/y/three"), [("c".into(), "/y/three".into(), 1)]);
    assert_eq!(open(&mut engine, "/y/four").len(), 1);
    assert_eq!(fired(&engine, "a"), 2, "counts go on");
}

#[test]
fn open_windows_stay_open() {
    let a = rule("a", "one");
    let (mut engine, _) = engine(&Config::default(), &[("a.rego", &a)]);
    assert_eq!(open(&mut engine, "/x/one").len(), 1);
    engine.reload(&sources(&[("a.rego", &a), ("b.rego", &rule("b", "two"))]));
    assert!(open(&mut engine, "/x/one").is_empty());
    let mut late = Vec::new();
    engine.finish(&mut late);
    assert_eq!(told(&late), [("a".into(), "/x/one".into(), 2)]);
}

#[test]
fn a_file_that_breaks_leaves_its_rule_as_it_was() {
    let (mut engine, _) = engine(&Config::default(), &[("a.rego", &rule("a", "one"))]);
    let report = engine.reload(&sources(&[("a.rego", "package x {{{")]));
    assert_eq!((report.errors.len(), report.removed.len()), (1, 0));
    assert_eq!(report.warnings, ["a.rego: rule `a` stays at work as it was before"]);
    assert_eq!(open(&mut engine, "/x/one").len(), 1);
    let report = engine.reload(&sources(&[]));
    assert_eq!(report.removed, ["a"]);
}

#[test]
fn a_helper_that_changes_changes_its_rules() {
    let helper = |leaf: &str| format!("package tracee.h\nwanted = \"/x/{leaf}\"");
    let body = "tracee_match { helpers.get_tracee_argument(\"pathname\") == data.tracee.h.wanted }";
    let a = rego("a", "security_file_open", body);
    let (mut engine, _) = engine(&Config::default(), &[("a.rego", &a), ("my_helpers.rego", &helper("one"))]);
    assert_eq!(open(&mut engine, "/x/one").len(), 1);
    let report = engine.reload(&sources(&[("a.rego", &a), ("my_helpers.rego", &helper("two"))]));
    assert_eq!(report.changed, ["a"]);
    assert!(open(&mut engine, "/x/one").is_empty());
    assert_eq!(open(&mut engine, "/x/two").len(), 1);
}

#[test]
fn a_built_in_rule_comes_back_when_its_namesake_goes() {
    let mine = rego("fileless_execution", "ptrace", "tracee_match { true }");
    let (mut engine, report) = engine(&Config::default(), &[("a.rego", &mine)]);
    assert_eq!(report.replaced, ["fileless_execution"]);
    let report = engine.reload(&sources(&[("a.rego", &mine)]));
    assert!(report.changed.is_empty() && report.unchanged.len() == built_in(), "{report:?}");
    let report = engine.reload(&sources(&[]));
    assert_eq!(report.changed, ["fileless_execution"]);
    let ids: Vec<_> = engine.catalogue().iter().map(|a| a.id.clone()).collect();
    assert!(ids.contains(&"TRC-105".to_owned()), "{ids:?}");
    let report = engine.reload(&sources(&[("a.rego", &mine)]));
    assert_eq!(report.changed, ["fileless_execution"], "a namesake is another rule");
}

#[test]
fn without_the_built_in_rules_a_namesake_of_one_is_at_work() {
    let mine = rego("fileless_execution", "security_file_open", "tracee_match { true }");
    let config = Config { builtin: false, ..Config::default() };
    let (mut engine, report) = engine(&config, &[("a.rego", &mine)]);
    assert_eq!((report.added, report.replaced.len()), (vec!["fileless_execution".into()], 0));
    assert_eq!(open(&mut engine, "/x").len(), 1);
}

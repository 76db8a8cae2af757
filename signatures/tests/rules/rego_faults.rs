//! Rego that is broken, forbidden or endless: it is told where and what to do, and nobody else suffers.

use haechi_signatures::engine::{Config, Limits, Notice};
use serde_json::json;

use crate::common::{SECOND, World, engine, judge, record, rego, told};

#[test]
fn a_broken_file_is_told_with_its_line_and_the_others_load() {
    let good = rego("good", "ptrace", "tracee_match { true }");
    let line = |n: usize| Some(n as u32);
    let with = |body: &str| rego("bad", "ptrace", body);
    for (text, at, says) in [
        (with("tracee_match { input.x = = 1 }"), line(5), "a.rego:5: "),
        ("no package".to_owned(), line(1), "rules are written in Rego v0"),
        (with("tracee_match if { false }"), line(5), "`if` is no keyword here"),
        ("package tracee.x\ntracee_match { true }".to_owned(), None, "a.rego: has no rule `__rego_metadoc__`; add one"),
        (with(""), None, "has no rule `tracee_match`"),
        (with("tracee_match { nobody_knows(input.x) }"), line(5), "nobody_knows"),
        (with("tracee_match { y == 1 }"), line(5), "y"),
        (with("tracee_match {\n regex.match(`[a-`, input.x) }"), line(6), "`[a-` is no regular expression"),
        (with("tracee_match { regex.match(\"(?<!a)\\\\d\", input.x) }"), line(5), "look-around"),
        (with("tracee_match { rand.intn(\"x\", 5) == 1 }"), line(5), "calls `rand.intn`; a rule has no clock"),
        (with("tracee_match { count(numbers.range(1, 1000000000)) == 1 }"), line(5), "calls `numbers.range`"),
        (with("tracee_match { true }").replace("\"Severity\": 2", "\"Severity\": 9"), line(3), "Severity is 9"),
        (with("tracee_match { true }").replace("\"ptrace\"", "7"), line(4), "name is 7, not a text"),
        (
            with("tracee_match { true }").replace("tracee_selected_events[s] {", "tracee_selected_events[s] { false;"),
            line(4),
            "it names no event",
        ),
        (
            with("tracee_match { true }").replace(":= {\"id\"", "= x { input.y; x := {\"id\"").replace("2}}", "2}}}"),
            line(3),
            "it is undefined",
        ),
    ] {
        let (engine, report) = engine(&Config::default(), &[("a.rego", &text), ("good.rego", &good)]);
        let [error] = report.errors.as_slice() else { panic!("one error for {text}, not {report:?}") };
        let said = error.to_string();
        assert_eq!((error.file.as_str(), error.line), ("a.rego", at), "{said}\n{text}");
        assert!(said.contains(says), "`{said}` does not say `{says}`");
        assert!(!said.contains('\n'), "{said}");
        assert!(engine.catalogue().iter().any(|a| a.name == "good"));
    }
}

#[test]
fn two_files_cannot_have_one_name_but_a_built_in_rule_gives_way() {
    let text = |v: &str| rego("anti_debugging", "ptrace", &format!("tracee_match = {{\"v\": \"{v}\"}} {{ true }}"));
    let (engine, report) = engine(&Config::default(), &[("1.rego", &text("one")), ("2.rego", &text("two"))]);
    assert_eq!(report.replaced, ["anti_debugging"]);
    assert_eq!(report.errors.len(), 1);
    let said = report.errors[0].to_string();
    assert_eq!(said, "2.rego: its name `anti_debugging` is taken by 1.rego; give it another eventName");
    assert_eq!(engine.catalogue().iter().filter(|a| a.name == "anti_debugging").count(), 1);
}

#[test]
fn an_event_that_is_not_known_is_a_warning() {
    let text = rego("TRC_4", "mem_prot_alert", "tracee_match { true }");
    let (engine, report) = engine(&Config::default(), &[("a.rego", &text)]);
    assert!(report.errors.is_empty() && engine.catalogue().iter().any(|a| a.name == "TRC_4"));
    assert_eq!(
        report.warnings,
        ["a.rego: this version knows no event or system call `mem_prot_alert`, so the rule can never fire"]
    );
}

/// Three nested loops over the arguments of a long exec.
const ENDLESS: &str = "tracee_match { a := input.args[_].value[_]; b := input.args[_].value[_]; c := input.args[_].value[_]; \
                       concat(\"\", [a, b, c]) == \"nothing\" }";

#[test]
fn a_rule_that_runs_on_is_put_aside_for_a_while_and_told() {
    let config = Config {
        limits: Limits { instructions: 5000, failures: 3, aside_seconds: 10, ..Limits::default() },
        ..Config::default()
    };
    let good = rego("good", "sched_process_exec", "tracee_match { true }");
    let (mut engine, _) =
        engine(&config, &[("a.rego", &rego("endless", "sched_process_exec", ENDLESS)), ("b.rego", &good)]);
    let argv: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    let exec = |second: u64, pid: u32| {
        let record = record("sched_process_exec", pid).time(second * SECOND).named("argv", &json!(argv));
        record.expect("arguments").finish()
    };
    for (i, second) in [1, 2, 3, 4, 12, 13].into_iter().enumerate() {
        let found = judge(&mut engine, &World::default(), &exec(second, i as u32 + 1));
        assert_eq!(told(&found).len(), 1, "the other rule goes on: {found:?}");
    }
    let counters = *engine.counters().find(|(n, _)| *n == "endless").expect("the rule").1;
    assert_eq!((counters.seen, counters.errors, counters.aside), (6, 4, 2));
    let why = "it took more than 5000 instructions for one event".to_owned();
    let rule: std::sync::Arc<str> = "endless".into();
    let failed = |second: u64| Notice::Failed { rule: rule.clone(), time: second * SECOND, error: why.clone() };
    let aside =
        Notice::Aside { rule: rule.clone(), time: 3 * SECOND, until: 13 * SECOND, error: why.clone(), timed: false };
    assert_eq!(engine.take_notices(), (vec![failed(1), aside, failed(13)], 0));
}

#[test]
fn bodies_that_disagree_are_an_error_and_not_a_silence() {
    let body = "tracee_match = x { x := {\"a\": input.processId} }\ntracee_match = x { x := {\"b\": input.processId} }";
    let (mut engine, _) = engine(&Config::default(), &[("a.rego", &rego("two", "ptrace", body))]);
    let record = record("ptrace", 7).time(SECOND).finish();
    assert!(judge(&mut engine, &World::default(), &record).iter().all(|f| f.about.name != "two"));
    let (notices, _) = engine.take_notices();
    assert_eq!(
        notices,
        [Notice::Failed {
            rule: "two".into(),
            time: SECOND,
            error: "two bodies of `tracee_match` gave different objects for one event".into(),
        }]
    );
}

#[test]
fn a_rule_cannot_take_all_memory() {
    let double = |call: &str| {
        let steps: Vec<String> =
            (0..40).map(|i| format!("x{} := {}", i + 1, call.replace('X', &format!("x{i}")))).collect();
        format!("tracee_match = {{\"x\": x40}} {{ x0 := input.processName\n{} }}", steps.join("\n"))
    };
    for body in [
        double("concat(\"\", [X, X])"),
        double("replace(\"aa\", \"a\", X)"),
        double("sprintf(\"%s%s\", [X, X])"),
        double("json.marshal([X, X])"),
        double("array.concat([X], [X])"),
        double("[X, X]"),
        "tracee_match { sprintf(\"%999999999d\", [1]) == \"\" }".to_owned(),
        "tracee_match { not contains(replace(concat(\"\", [x | x := input.args[_].value[_]]), \"a\", \
         concat(\"\", [x | x := input.args[_].value[_]])), \"b\") }"
            .to_owned(),
    ] {
        let (mut engine, report) =
            engine(&Config::default(), &[("a.rego", &rego("large", "sched_process_exec", &body))]);
        assert!(report.errors.is_empty(), "{report:?}");
        let record = record("sched_process_exec", 7).named("argv", &json!(["a".repeat(8000)])).expect("arguments");
        let found = judge(&mut engine, &World::default(), &record.finish());
        assert!(found.iter().all(|f| f.about.name != "large"), "{body}");
        let (notices, _) = engine.take_notices();
        let [Notice::Failed { error, .. }] = notices.as_slice() else { panic!("{body}: {notices:?}") };
        assert_eq!(error, "it makes a value of more than 1048576 bytes of one event", "{body}");
    }
}

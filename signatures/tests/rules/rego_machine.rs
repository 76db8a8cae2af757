//! The Rego machine against regorus' interpreter: the same signatures and events must give the same matches.

use haechi_ebpf::wire::View;
use haechi_signatures::engine::Config;
use haechi_signatures::flat::{Host, event_json};
use haechi_signatures::model::Event;
use serde_json::{Value, json};

use crate::common::{World, engine, judge, record, rego};

/// In the manner of the signatures that Tracee once shipped: sets, functions with many bodies, negation, regular
/// expressions, comprehensions, loops.
const SIGNATURES: &[(&str, &str)] = &[
    ("ptrace", r#"tracee_match { helpers.get_tracee_argument("request") == "PTRACE_TRACEME" }"#),
    (
        "security_file_open",
        r#"tracee_match = res {
            flags := helpers.get_tracee_argument("flags")
            helpers.is_file_write(flags)
            pathname := helpers.get_tracee_argument("pathname")
            regex.match(`^/proc/(?:\d+|self)/mem$`, pathname)
            res := {"file flags": flags, "file path": pathname}
        }"#,
    ),
    (
        "sched_process_exec",
        r#"shells := ["/ash", "/bash", "/sh"]
        servers := {"nginx", "httpd"}
        ends_with_shell(path) { endswith(path, shells[_]) }
        tracee_match {
            servers[input.processName]
            ends_with_shell(helpers.get_tracee_argument("pathname"))
        }"#,
    ),
    (
        "sched_process_exec",
        r#"runc { input.processName == "runc"; input.containerId == "" }
        tracee_match { startswith(helpers.get_tracee_argument("pathname"), "memfd:"); not runc }
        tracee_match { startswith(helpers.get_tracee_argument("pathname"), "/dev/shm/") }"#,
    ),
    (
        "sched_process_exec",
        r#"preload(e) { startswith(e, "LD_PRELOAD=") }
        preload(e) { startswith(e, "LD_LIBRARY_PATH=") }
        tracee_match = {"vars": found} {
            found := [e | e := helpers.get_tracee_argument("env")[_]; preload(e)]
            count(found) > 0
        }"#,
    ),
    (
        "*",
        r#"names[n] { n := input.args[_].name }
        kinds = {t | t := input.args[_].type}
        tracee_match = {"names": names, "kinds": kinds, "who": who} {
            who := sprintf("%s/%d", [lower(input.processName), input.userId])
            not names["request"]
            some i
            input.args[i].name == "pathname"
            substring(input.args[i].value, 0, 1) == "/"
        }"#,
    ),
    (
        "security_file_open",
        r#"tracee_match = {"path": path} if {
            some arg in input.args
            arg.name == "pathname"
            path := arg.value
            every part in split(trim_prefix(path, "/"), "/") { part != "" }
            path in {"/proc/12/mem", "/x"}
        }"#,
    ),
    (
        "*",
        r#"level = "low" { input.returnValue == 0 } else = "high" { input.returnValue < 0 }
        default touched = "nothing"
        touched = p { p := helpers.get_tracee_argument("pathname") }
        tracee_match = {"level": level, "touched": touched} { split(input.eventName, "_")[0] != "kill" }"#,
    ),
];

fn records() -> Vec<Vec<u8>> {
    let make = |name: &str, comm: &str, ret: i64, fields: &[(&str, Value)]| {
        let record = record(name, 7).comm(comm).ret(ret);
        fields.iter().fold(record, |r, (f, v)| r.named(f, v).expect("a field")).finish()
    };
    let exec = "sched_process_exec";
    let open = "security_file_open";
    vec![
        make("ptrace", "x", 0, &[("request", json!(0))]),
        make("ptrace", "x", -3, &[("request", json!(16)), ("pid", json!(4))]),
        make(open, "x", 0, &[("pathname", json!("/proc/self/mem")), ("flags", json!(2))]),
        make(open, "x", 0, &[("pathname", json!("/proc/12/mem")), ("flags", json!(0))]),
        make(open, "x", 0, &[("flags", json!(1))]),
        make(exec, "nginx", 0, &[("pathname", json!("/usr/bin/bash")), ("env", json!(["A=1", "LD_PRELOAD=/x.so"]))]),
        make(exec, "NGINX", 0, &[("pathname", json!("/usr/bin/ls")), ("env", json!([]))]),
        make(exec, "runc", 0, &[("pathname", json!("memfd:x"))]),
        make(exec, "evil", 0, &[("pathname", json!("memfd:x")), ("argv", json!(["a", "b"]))]),
        make(exec, "evil", -1, &[("pathname", json!("/dev/shm/x")), ("interp", json!("/dev/shm/x"))]),
        make("security_socket_connect", "x", 0, &[("remote_addr", json!("1.2.3.4:5")), ("sockfd", json!(1))]),
        make("memfd_create", "x", 5, &[("uname", json!("m")), ("flags", json!(1))]),
    ]
}

#[test]
fn machine_and_interpreter_agree() {
    let helpers = include_str!("../../src/rego/helpers.rego");
    let (mut matches, mut misses) = (0, 0);
    for (i, (watched, body)) in SIGNATURES.iter().enumerate() {
        let mut text = rego("R", watched, body);
        if body.contains(" if ") {
            text = text.replacen('\n', "\nimport future.keywords\n", 1);
        }
        let mut interpreter = regorus::Engine::new();
        interpreter.set_rego_v0(true);
        interpreter.add_policy("helpers.rego".into(), helpers.into()).expect("our helpers");
        interpreter.add_policy("r.rego".into(), text.clone()).expect("a signature");
        for record in records() {
            let view = View::parse(&record).expect("a record");
            let event = Event::join(view, &());
            if *watched != "*" && *watched != event.name() {
                continue;
            }
            let (mut engine, report) = engine(&Config::default(), &[("r.rego", &text)]);
            assert!(report.errors.is_empty(), "{report:?}");
            let found = judge(&mut engine, &World::default(), &record);
            let machine = found.iter().find(|f| f.about.name == "R").map(|f| f.evidence.clone());
            assert!(engine.take_notices().0.is_empty());

            let input = event_json(&event, &Host { name: "node".into(), boot: 0 });
            interpreter.set_input(regorus::Value::from(input.clone()));
            let value = interpreter.eval_rule("data.tracee.R.tracee_match".into()).expect("a value");
            let value = match value {
                regorus::Value::Undefined => Value::Null,
                value => serde_json::to_value(value).expect("JSON"),
            };
            let interpreted = match value {
                Value::Bool(true) => Some(Vec::new()),
                Value::Object(members) => Some(members.into_iter().collect()),
                _ => None,
            };
            assert_eq!(machine, interpreted, "signature {i} on {input}");
            if machine.is_some() { matches += 1 } else { misses += 1 }
        }
    }
    assert!(matches >= 10 && misses >= 10, "{matches} matches and {misses} misses show little");
}

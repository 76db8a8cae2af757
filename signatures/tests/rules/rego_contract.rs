//! The contract of Tracee's Rego signatures, seen from a signature: what it may say and what then happens.

use haechi_ebpf::wire::var;
use haechi_signatures::engine::Config;
use haechi_signatures::model::{Finding, Severity};
use haechi_signatures::record::Builder;
use serde_json::json;

use crate::common::{World, engine, judge, record, rego, told};

fn ptrace() -> Builder {
    let set = |b: Builder, name: &str, value: i64| b.named(name, &json!(value)).expect("a field of ptrace");
    set(set(record("ptrace", 7), "request", 4), "pid", 9).ret(0)
}

fn open(path: &str, flags: u32) -> Builder {
    let record = record("security_file_open", 7).named("pathname", &json!(path));
    record.and_then(|r| r.named("flags", &json!(flags))).expect("fields of security_file_open")
}

/// What a single signature finds in a record.
fn found(text: &str, record: Builder) -> Vec<Finding> {
    let config =
        Config { disabled: vec!["ptrace_code_injection".into(), "fileless_execution".into()], ..Config::default() };
    let (mut engine, report) = engine(&config, &[("/rules/mine.rego", text)]);
    assert!(report.errors.is_empty() && report.warnings.is_empty(), "{report:?}");
    let found = judge(&mut engine, &World::default(), &record.finish());
    let (notices, _) = engine.take_notices();
    assert!(notices.is_empty(), "{notices:?}");
    found
}

/// Whether a body of `tracee_match` holds for a record.
fn holds(event: &str, body: &str, record: Builder) -> bool {
    !found(&rego("TRC_1", event, &format!("tracee_match {{ {body} }}")), record).is_empty()
}

#[test]
fn what_a_signature_says_of_itself_becomes_the_finding() {
    let text = r#"package tracee.TRC_7
__rego_metadoc__ := {
    "ID": "TRC-7", "version": "0.1.0", "NAME": "LD_PRELOAD", "EventName": "ld_preload",
    "description": `raw "text" with a \ in it`, "tags": ["linux"],
    "properties": {"Severity": 2, "MITRE ATT&CK": "Persistence: Hijack Execution Flow"},
}
tracee_selected_events[selector] { selector := {"source": "tracee", "name": "ptrace"} }
tracee_match = out { out := {"request": input.args[0].value, "n": 7, "list": ["a"]} }"#;
    let found = found(text, ptrace());
    let [finding] = found.as_slice() else { panic!("one finding, not {found:?}") };
    let about = &finding.about;
    assert_eq!((about.id.as_str(), about.name.as_str(), about.title.as_str()), ("TRC-7", "ld_preload", "LD_PRELOAD"));
    assert_eq!((about.severity, about.description.as_str()), (Severity::Medium, r#"raw "text" with a \ in it"#));
    assert_eq!((about.mitre.tactic.as_str(), about.mitre.technique.as_str()), ("Persistence", "Hijack Execution Flow"));
    let evidence = json!({"list": ["a"], "n": 7, "request": "PTRACE_POKETEXT"});
    assert_eq!(serde_json::Value::Object(finding.evidence.iter().cloned().collect()), evidence);
    assert_eq!((finding.target.as_str(), &finding.event["eventName"]), ("pid 9", &json!("ptrace")));
}

#[test]
fn a_match_is_true_or_an_object_and_nothing_else() {
    for (body, fires) in [
        ("tracee_match { input.eventName == \"ptrace\" }", true),
        ("tracee_match = true { true }", true),
        ("tracee_match = {\"a\": 1} { true }", true),
        ("tracee_match = {} { true }", true),
        ("tracee_match = false { true }", false),
        ("default tracee_match = false\ntracee_match { input.eventName == \"ptrace\" }", true),
        ("default tracee_match = false\ntracee_match { input.eventName == \"kill\" }", false),
        ("tracee_match { input.nothing == 1 }", false),
        ("tracee_match = \"text\" { true }", false),
        ("tracee_match = 1 { true }", false),
        ("tracee_match = [1] { true }", false),
        ("tracee_match { false }\ntracee_match { input.returnValue == 0 }", true),
        ("tracee_match = {\"a\": 1} { false }\ntracee_match = {\"b\": 2} { true }", true),
        ("tracee_match = x { x := {\"a\": input.processId} }\ntracee_match = x { x := {\"a\": input.threadId} }", true),
        ("tracee_match = {\"a\": 1} { input.x } else = {\"b\": 2} { input.eventName }", true),
    ] {
        assert_eq!(!found(&rego("TRC_1", "ptrace", body), ptrace()).is_empty(), fires, "{body}");
    }
}

#[test]
fn the_helpers_are_there() {
    for (body, want) in [
        (r#"helpers.get_tracee_argument("request") == "PTRACE_POKETEXT""#, true),
        (r#"helpers.get_tracee_argument("pid") == 9"#, true),
        (r#"helpers.get_tracee_argument("nothing")"#, false),
        (r#"not helpers.get_tracee_argument("nothing")"#, true),
        (r#"helpers.is_file_write("O_RDWR|O_CREAT")"#, true),
        (r#"helpers.is_file_write("o_wronly")"#, true),
        (r#"helpers.is_file_write("O_RDONLY")"#, false),
        (r#"helpers.is_file_read("O_RDONLY|O_CLOEXEC")"#, true),
        (r#"helpers.is_file_read("O_RDWR")"#, true),
        (r#"helpers.is_file_read("O_WRONLY")"#, false),
        // 0x7f E L F, and 0x7f e l x.
        (r#"helpers.is_elf_file("f0VMRg==")"#, true),
        (r#"helpers.is_elf_file("f2VseA==")"#, false),
    ] {
        assert_eq!(holds("ptrace", body, ptrace()), want, "{body}");
    }
}

#[test]
fn arguments_are_spelled_out() {
    for (body, want) in [
        (r#"helpers.is_file_write(helpers.get_tracee_argument("flags"))"#, true),
        (r#"helpers.get_tracee_argument("flags") == "O_WRONLY|O_CREAT""#, true),
        ("endswith(helpers.get_tracee_argument(\"pathname\"), `/release_agent`)", true),
        ("regex.match(`^/sys/fs/cgroup/[a-z]+/release_agent$`, helpers.get_tracee_argument(\"pathname\"))", true),
        (r#"arg := input.args[_]; arg.name == "flags"; contains(arg.value, "O_CREAT")"#, true),
        (r#"arg := input.args[i]; arg.name == "pathname"; i == 0; arg.type == "const char*""#, true),
        (r#"input.args[_].fromUser"#, false),
        (r#"input.argsNum == 2; count(input.args) == 2"#, true),
    ] {
        assert_eq!(holds("security_file_open", body, open("/sys/fs/cgroup/x/release_agent", 0o101)), want, "{body}");
    }
    let field = haechi_ebpf::event::security_file_open::field::pathname;
    let marked = record("security_file_open", 7).marked(field, "/etc/x", 5000, var::USER);
    assert!(holds(
        "security_file_open",
        r#"a := input.args[_]; a.fromUser; a.truncated; a.trueLength == 5000"#,
        marked
    ));
}

#[test]
fn an_address_is_an_object_of_texts() {
    let connect = |a: &str| record("security_socket_connect", 7).named("remote_addr", &json!(a)).expect("an address");
    let body =
        r#"addr := helpers.get_tracee_argument("remote_addr"); addr.sa_family == "AF_INET"; addr.sin_port == "80""#;
    assert!(holds("security_socket_connect", body, connect("1.2.3.4:80")));
    assert!(!holds("security_socket_connect", body, connect("1.2.3.4:81")));
    let body = r#"helpers.get_tracee_argument("remote_addr").sun_path == "/run/docker.sock""#;
    assert!(holds("security_socket_connect", body, connect("/run/docker.sock")));
}

#[test]
fn origins_choose_between_host_and_containers() {
    let text = |origin: &str| {
        rego("TRC_1", "ptrace", "tracee_match { true }")
            .replace("\"ptrace\"", &format!("\"ptrace\", \"origin\": \"{origin}\""))
    };
    let config = Config { disabled: vec!["ptrace_code_injection".into()], ..Config::default() };
    for (origin, container, fires) in [
        ("container", Some("c1"), true),
        ("container", None, false),
        ("host", Some("c1"), false),
        ("host", None, true),
        ("*", None, true),
        ("*", Some("c1"), true),
        ("container-init", Some("c1"), false),
    ] {
        let (mut engine, _) = engine(&config, &[("a.rego", &text(origin))]);
        let world = World::default().process(7, 1, &["/bin/x"], container);
        let found = judge(&mut engine, &world, &ptrace().finish());
        assert_eq!(!found.is_empty(), fires, "{origin} {container:?}");
    }
    let world = World::default().process(7, 1, &["/bin/x"], Some("c1"));
    let body =
        r#"tracee_match { input.containerId == "c1"; input.container.id == "c1"; input.executable.path == "/bin/x" }"#;
    let (mut engine, _) = engine(&config, &[("a.rego", &rego("TRC_1", "ptrace", body))]);
    assert_eq!(told(&judge(&mut engine, &world, &ptrace().finish())).len(), 1);
    assert!(holds("ptrace", r#"input.containerId == """#, ptrace()), "on the host it is there, and empty");
}

#[test]
fn all_events_can_be_had_and_system_calls_by_their_names() {
    let all = rego("TRC_1", "*", "tracee_match { input.eventName != \"\" }");
    assert_eq!(found(&all, ptrace()).len(), 1);
    assert_eq!(found(&all, open("/x", 0)).len(), 1);
    let kill = rego("TRC_1", "kill", "tracee_match { input.eventName == \"kill\"; input.syscall == \"kill\" }");
    let number = |name| haechi_ebpf::syscall::by_name(name).and_then(|s| s.number(haechi_ebpf::syscall::Abi::X86_64));
    let call = |name| record("syscall", 7).named("nr", &json!(number(name))).expect("a number");
    assert_eq!(found(&kill, call("kill")).len(), 1);
    assert_eq!(found(&kill, call("tkill")).len(), 0);
}

#[test]
fn a_user_may_bring_helpers() {
    let helper = "package tracee.mine\nnamed(name) = v { a := input.args[_]; a.name == name; v := a.value }";
    let rule = rego("TRC_1", "ptrace", "import data.tracee.mine\ntracee_match { mine.named(\"pid\") == 9 }");
    let rule = rule.replace("import data.tracee.helpers", "import data.tracee.mine").replacen(
        "import data.tracee.mine\ntracee_match",
        "tracee_match",
        1,
    );
    let ours = "package tracee.helpers\nget_tracee_argument(x) = 1 { true }";
    let files = [
        ("/r/a.rego", rule.as_str()),
        ("/r/my_helpers.rego", helper),
        ("/r/helpers.rego", ours),
        ("/r/a_test.rego", "package tracee.TRC_1\ntest_x { true with input as {} }"),
    ];
    let config = Config { disabled: vec!["ptrace_code_injection".into()], ..Config::default() };
    let (mut engine, report) = engine(&config, &files);
    assert!(report.errors.is_empty(), "{report:?}");
    assert_eq!(report.warnings.len(), 1, "{report:?}");
    assert_eq!(told(&judge(&mut engine, &World::default(), &ptrace().finish())), [("TRC_1".into(), "pid 9".into(), 1)]);
}

#[test]
fn a_path_hint_keeps_other_paths_from_the_rule() {
    let body = "tracee_match { true }";
    let text = rego("TRC_1", "security_file_open", body).replace(
        "\"Severity\": 2",
        "\"Severity\": 2, \"haechi_paths\": {\"leaves\": [\"x\"], \"prefixes\": [\"/p/\"]}",
    );
    let (mut engine, _) = engine(&Config::default(), &[("a.rego", &text)]);
    for (path, fires) in [("/a/x", true), ("/p/y", true), ("/a/y", false)] {
        assert_eq!(judge(&mut engine, &World::default(), &open(path, 1).finish()).len(), usize::from(fires), "{path}");
    }
    let of = |name| engine.counters().find(|(n, _)| *n == name).map(|(_, c)| *c).expect("the rule");
    let counters = of("TRC_1");
    assert_eq!((counters.seen, counters.prefiltered, counters.evaluated, counters.fired), (3, 1, 2, 2));
    assert!(engine.demands().iter().any(|d| d.paths.leaves == ["x"] && d.paths.prefixes == ["/p/"]));
}

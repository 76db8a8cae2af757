//! What is taken from a text is what the machine would say: whatever matches, holds.

use haechi_ebpf::event::{ptrace, sched_process_exec as exec, security_file_open as open};
use haechi_ebpf::wire::View;

use super::*;
use crate::flat::{Host, Need};
use crate::record::Builder;
use crate::rego;
use crate::rule::Emit;
use crate::sources::Source;

fn rule(body: &str) -> rego::Rule {
    let text = format!(
        "package tracee.t\nimport data.tracee.helpers\n__rego_metadoc__ := {{\"eventName\": \"t\"}}\n\
         tracee_selected_events[s] {{ s := {{\"name\": \"*\"}} }}\n{body}\n"
    );
    rego::Rule::load(&Source { file: "t.rego".into(), text }, &[], 100_000).unwrap_or_else(|e| panic!("{body}: {e}"))
}

fn opened(path: &str, flags: u64) -> Vec<u8> {
    Builder::new(&open::DEF).comm("cat").text(open::field::pathname, path).number(open::field::flags, flags).finish()
}

fn events() -> Vec<Vec<u8>> {
    let requests =
        [0_u64, 4, 5].map(|r| Builder::new(&ptrace::DEF).comm("gdb").number(ptrace::field::request, r).finish());
    let mut all = requests.to_vec();
    for path in ["/etc/shadow", "/etc/cron.d/x", "/etc", "/tmp/x.so", "/x/.ssh/authorized_keys", ""] {
        all.extend([0, 1, 2, 0o101].map(|flags| opened(path, flags)));
        all.push(Builder::new(&exec::DEF).comm("nginx").text(exec::field::pathname, path).finish());
    }
    all.push(Builder::new(&open::DEF).finish());
    all
}

const BODIES: &[(&str, bool)] = &[
    ("tracee_match { startswith(helpers.get_tracee_argument(\"pathname\"), \"/etc/\") }", true),
    ("tracee_match { p := helpers.get_tracee_argument(\"pathname\"); endswith(p, \".so\") }", true),
    (
        "tracee_match { input.eventName == \"security_file_open\"; f = helpers.get_tracee_argument(\"flags\"); helpers.is_file_write(f) }",
        true,
    ),
    (
        "w := {\"PTRACE_POKETEXT\", \"PTRACE_POKEDATA\"}\ntracee_match = {\"r\": r} { r := helpers.get_tracee_argument(\"request\"); w[r] }",
        true,
    ),
    ("tracee_match { input.processName == \"nginx\" } { \"/etc\" == helpers.get_tracee_argument(\"pathname\") }", true),
    ("default tracee_match = false\ntracee_match { input[\"processName\"] == \"cat\" }", true),
    ("tracee_match { input.processName == \"cat\" } else = true { input.processName == \"gdb\" }", true),
    ("tracee_match { true }", false),
    ("tracee_match { input.processName == \"cat\" } { count(input.args) > 2 }", false),
    ("tracee_match { not input.processName == \"cat\" }", false),
    (
        "w := {\"a\"}\ntracee_match { w := {\"PTRACE_POKETEXT\"}; r := helpers.get_tracee_argument(\"request\"); w[r] }",
        false,
    ),
    ("startswith(a, b) { a != b }\ntracee_match { startswith(input.processName, \"x\") }", false),
    ("tracee_match { input.processName != \"cat\" }", false),
    ("w[x] { x := input.processName }\ntracee_match { r := input.processName; w[r] }", false),
    ("default tracee_match = true\ntracee_match { input.processName == \"cat\" }", false),
];

#[test]
fn whatever_matches_holds() {
    let (mut matched, mut turned_away) = (0, 0);
    for (body, known) in BODIES {
        let mut rule = rule(body);
        assert_eq!(rule.necessary != Necessary::default(), *known, "{body}: {:?}", rule.necessary);
        for bytes in events() {
            let event = Event::join(View::parse(&bytes).expect("a record"), &());
            let mut emit = Emit::default();
            rule.run(&rego::input(&event, &Host::default(), Need::ALL), String::new, &mut emit).expect("a verdict");
            let holds = rule.necessary.holds(&event);
            assert!(emit.hits.is_empty() || holds, "{body} is kept from {:?}", event.name());
            matched += emit.hits.len();
            turned_away += usize::from(!holds);
            let place = crate::path::of(&event);
            for demand in rule.demands().iter().filter(|d| d.event == event.view.event()) {
                let path = demand.paths.is_any() || place.as_ref().is_some_and(|p| demand.paths.matches(&p.path));
                let met = path && (!demand.writes || event.can_write());
                assert!(emit.hits.is_empty() || met, "{body} does not demand {place:?}");
            }
        }
    }
    assert!(matched > 50 && turned_away > 50, "{matched} matched, {turned_away} turned away");
}

#[test]
fn paths_and_writing_reach_the_kernel() {
    let of = |body: &str| {
        let rule = rule(body);
        let demand = rule.demands().iter().find(|d| d.event == open::ID).cloned().expect("a demand");
        (demand.paths, demand.writes)
    };
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let write = "helpers.is_file_write(helpers.get_tracee_argument(\"flags\"))";
    let at =
        |test: &str| format!("tracee_match {{ p := helpers.get_tracee_argument(\"pathname\"); {write}; {test} }}\n");
    let all = [at("startswith(p, \"/etc/cron\")"), at("endswith(p, \"/release_agent\")"), at("p == \"/etc/shadow\"")]
        .concat();
    let (paths, writes) = of(&all);
    assert_eq!(
        paths,
        Paths { prefixes: own(&["/etc/cron"]), leaves: own(&["release_agent", "shadow"]), suffixes: vec![] }
    );
    assert!(writes);
    let (paths, writes) = of(&[&*all, "tracee_match { input.processName == \"x\" }"].concat());
    assert!(paths.is_any() && !writes, "one body knows nothing of paths");
    let (paths, _) = of(&[&*all, "tracee_match { input.eventName == \"ptrace\" }"].concat());
    assert!(!paths.is_any(), "that one is about other events");
    let (paths, _) = of(&at("endswith(p, \"/../x\")"));
    assert!(paths.is_any(), "a detour has another normal form");
}

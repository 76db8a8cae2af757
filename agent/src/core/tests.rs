//! The core, told what the kernel would tell it.

use haechi_ebpf::event::{cgroup_mkdir, existing_process as existing};
use haechi_ebpf::wire::flag;
use haechi_signatures::sources::Sources;

use super::*;
use crate::config::Config;
use crate::render::{Context, Item, json, pretty};
use crate::testing::{Who, batch, executed, forked, of, opened, rule, start};

const SHELL: Who = Who(10, 100, 1);
const READER: Who = Who(11, 200, 2);

fn core(change: impl FnOnce(&mut Config)) -> Core {
    Core::build(&start(change)).expect("valid settings").0
}

fn step(core: &mut Core, input: &Input) -> Vec<Output> {
    let mut out = Vec::new();
    core.step(input, &mut out);
    out
}

/// A shell, its child, and the child's program.
fn life(program: &str) -> Vec<Vec<u8>> {
    vec![
        executed(1000, SHELL, 1, "/bin/sh"),
        forked(2000, SHELL, Who(READER.0, READER.1, SHELL.2)),
        executed(3000, READER, SHELL.0, program),
    ]
}

fn findings(out: &[Output]) -> Vec<&Finding> {
    out.iter().filter_map(|o| if let Output::Finding(f) = o { Some(&**f) } else { None }).collect()
}

fn events(out: &[Output]) -> Vec<&'static str> {
    out.iter().filter_map(|o| if let Output::Event(e) = o { Some(e.name) } else { None }).collect()
}

#[test]
fn a_finding_says_who_did_it_and_under_whom() {
    let mut core = core(|_| {});
    let mut records = life("/tmp/odd");
    records.push(opened(4000, READER, "/etc/shadow"));
    let out = step(&mut core, &Input::Batch(batch(records)));
    let [finding] = findings(&out)[..] else { panic!("{out:?}") };
    assert_eq!(finding.about.name, "sensitive_credential_read");
    assert_eq!((finding.process.exe.as_str(), finding.process.pid, finding.process.uid), ("/tmp/odd", 11, 1000));
    assert_eq!(finding.process.argv, ["/tmp/odd", "-x"]);
    assert_eq!(finding.ancestors.iter().map(|a| a.exe.as_str()).collect::<Vec<_>>(), ["/bin/sh"]);
    assert!(events(&out).is_empty(), "nobody asked for events");
    assert_eq!(core.counts().findings, 1);
}

#[test]
fn what_was_done_before_an_exec_is_not_blamed_on_the_new_program() {
    let mut core = core(|c| c.events = vec!["security_file_open".into()]);
    let mut records = life("/tmp/odd");
    // It carries the exec id of the shell's copy, although it comes after the exec.
    records.push(opened(2500, Who(READER.0, READER.1, SHELL.2), "/x"));
    records.push(opened(3500, READER, "/y"));
    let out = step(&mut core, &Input::Batch(batch(records)));
    let exes: Vec<_> = out
        .iter()
        .filter_map(|o| if let Output::Event(e) = o { Some(e.image.as_ref()?.exe.to_string()) } else { None })
        .collect();
    assert_eq!(exes, ["/bin/sh", "/tmp/odd"]);
}

#[test]
fn scope_decides_what_is_watched_at_all() {
    for (scope, count) in [("uid=1000", 1), ("uid=0", 0), ("exe=/tmp/*", 1), ("tree=10", 1), ("tree=99", 0)] {
        let mut core = core(|c| c.scope = vec![scope.into()]);
        let mut records = life("/tmp/odd");
        records.push(opened(4000, READER, "/etc/shadow"));
        let out = step(&mut core, &Input::Batch(batch(records)));
        assert_eq!(findings(&out).len(), count, "{scope}");
    }
}

#[test]
fn the_container_is_known_before_its_first_program() {
    use cgroup_mkdir::field;
    let mut core = core(|_| {});
    let mkdir = of(&cgroup_mkdir::DEF, 10, SHELL, "runc")
        .number(field::cgroup_id, 7)
        .text(field::cgroup_path, "/default/web")
        .number(field::hierarchy_id, 0)
        .finish();
    // The same number in another hierarchy is another cgroup.
    let other = of(&cgroup_mkdir::DEF, 11, SHELL, "runc")
        .number(field::cgroup_id, 7)
        .text(field::cgroup_path, "/default/wrong")
        .number(field::hierarchy_id, 4)
        .finish();
    let inside = of(&haechi_ebpf::event::security_file_open::DEF, 20, READER, "x")
        .header_u64(at::CGROUP, 7)
        .text(haechi_ebpf::event::security_file_open::field::pathname, "/etc/shadow")
        .number(haechi_ebpf::event::security_file_open::field::flags, 0)
        .finish();
    let out = step(&mut core, &Input::Batch(batch([mkdir, other, inside])));
    let container = findings(&out)[0].container.clone().expect("a container");
    assert_eq!((container.id.as_str(), container.runtime), ("web", "containerd"));
}

/// A look at the connection between two ends.
fn looked(cookie: u64, who: Who, netns: u32, ends: [(&[u8; 4], u64); 2]) -> Vec<u8> {
    use net_flow::field as f;
    of(&net_flow::DEF, 6000, who, "")
        .header_u32(at::NET_NS, netns)
        .number(f::cookie, cookie)
        .number(f::phase, 1)
        .number(f::start_time, 5000)
        .text(f::src, ends[0].0)
        .number(f::src_port, ends[0].1)
        .text(f::dst, ends[1].0)
        .number(f::dst_port, ends[1].1)
        .finish()
}

#[test]
fn a_connection_is_in_the_container_of_its_namespace_and_names_its_other_end() {
    let mut core = core(|c| c.events = vec!["net_flow".into()]);
    step(&mut core, &Input::Cgroups(vec![(7, "/default/web".into())]));
    let there = |pid, netns| of(&existing::DEF, 50, Who(pid, 5, 1), "x").header_u32(at::NET_NS, netns);
    let inside = there(20, 9).header_u32(at::NS_TGID, 1).header_u64(at::CGROUP, 7).finish();
    step(&mut core, &Input::Seed(batch([there(1, 4).flags(flag::KTHREAD).finish(), inside])));
    step(&mut core, &Input::Batch(batch(life("/usr/bin/proxy"))));
    let (a, b) = ((&[10, 0, 0, 1], 5000), (&[10, 0, 0, 2], 80));
    let out = step(&mut core, &Input::Batch(batch([looked(1, READER, 9, [a, b]), looked(2, Who(1, 5, 1), 4, [b, a])])));
    let lines: Vec<serde_json::Value> = out
        .iter()
        .filter_map(|o| {
            let Output::Event(event) = o else { return None };
            let mut line = Vec::new();
            json::write(&Item::Event(event.clone()), &Context::default(), &mut line);
            serde_json::from_slice(&line).ok()
        })
        .collect();
    let web = serde_json::json!({"id": "web", "started": true, "runtime": "containerd"});
    assert!(lines[0]["workload"]["container"].is_null(), "its process is not in it: {}", lines[0]);
    assert_eq!(lines[0]["network"], serde_json::json!({"namespace": 9, "container": web}));
    assert!(lines[0]["peer"].is_null(), "not known yet");
    assert_eq!(lines[1]["network"], serde_json::json!({"namespace": 4}), "the host's is nobody's");
    let peer = &lines[1]["peer"];
    assert_eq!((&peer["kind"], &peer["name"]), (&"process".into(), &"proxy".into()));
    assert_eq!(peer["process"]["host_pid"], READER.0);
    assert_eq!(peer["process"]["executable"]["path"], "/usr/bin/proxy");
    assert_eq!(peer["network"], lines[0]["network"]);
    let counts = core.counts().places;
    assert_eq!((counts.networks, counts.ends), ((1, 0), (2, 0)));
}

#[test]
fn bytes_that_are_no_record_are_counted_and_shown() {
    let mut core = core(|_| {});
    let mut torn = opened(1, READER, "/x");
    torn.truncate(150);
    let out = step(&mut core, &Input::Batch(batch([torn.clone(), torn, vec![0xff; 10], opened(2, READER, "/y")])));
    assert!(out.is_empty());
    let counts = core.counts();
    let open = haechi_ebpf::event::security_file_open::ID as usize;
    assert_eq!((counts.rejected[open], counts.rejected[0], counts.delivered[open]), (2, 1, 1));
    let out = step(&mut core, &Input::Tick(5));
    assert_eq!(events(&out), ["lost_events", "lost_events"]);
    assert!(step(&mut core, &Input::Tick(6)).is_empty(), "each is told once");
    step(&mut core, &Input::Batch(batch([vec![0xff; 10]])));
    assert_eq!(events(&step(&mut core, &Input::End)), ["lost_events"], "at the end too");
}

#[test]
fn a_gap_is_an_event_that_everybody_sees() {
    let mut core = core(|_| {});
    let lost = Lost { event: 16, cause: Loss::RingFull as u8, count: 12 };
    let out = step(&mut core, &Input::Lost(vec![lost]));
    let Some(Output::Event(gap)) = out.first() else { panic!("{out:?}") };
    let mut line = Vec::new();
    pretty::write(&Item::Event(gap.clone()), &Context::default(), &mut line);
    let line = String::from_utf8(line).expect("text");
    assert!(line.contains("12 records of security_file_open lost here: ring_full"), "{line}");
}

#[test]
fn processes_from_before_are_known_and_the_gone_are_noticed() {
    let old = of(&existing::DEF, 50, Who(5, 5, 1), "old").text(existing::field::pathname, "/bin/old").finish();
    let mut core = core(|_| {});
    step(&mut core, &Input::Seed(batch([old])));
    assert_eq!(
        core.tree.get(ProcessKey { pid: 5, start: 5 }).map(|p| p.images[0].exe.to_string()),
        Some("/bin/old".into())
    );
    let other = of(&existing::DEF, 90, Who(6, 6, 1), "new").finish();
    step(&mut core, &Input::Seed(batch([other])));
    assert_eq!(core.tree.get(ProcessKey { pid: 5, start: 5 }).and_then(|p| p.ended), Some(90));
}

#[test]
fn a_finding_waits_for_its_hash_but_not_beyond_a_tick() {
    let mut core = core(|c| (c.executable_hash, c.rules.window_seconds) = (true, 0));
    let mut records = life("/tmp/odd");
    records.push(opened(4000, READER, "/etc/shadow"));
    let out = step(&mut core, &Input::Batch(batch(records)));
    let [Output::Question(question)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(
        (question.exe, question.parent, &*question.path),
        (Exe { dev: 8, inode: 77, ctime: 99 }, 10, "/tmp/odd")
    );

    let again = |time| Input::Batch(batch([opened(time, READER, "/etc/shadow")]));
    assert!(step(&mut core, &again(4100)).is_empty(), "asked once only");
    let out = step(&mut core, &Input::Tick(5000));
    assert_eq!(findings(&out).iter().map(|f| f.process.sha256.clone()).collect::<Vec<_>>(), [None, None]);

    let answer = Answer { exe: question.exe, sha256: Some("abc".into()) };
    assert!(step(&mut core, &Input::Answer(answer)).is_empty());
    let out = step(&mut core, &again(6000));
    assert_eq!(findings(&out)[0].process.sha256.as_deref(), Some("abc"), "known from now on, and at once");
}

#[test]
fn an_answer_lets_its_findings_go_and_too_many_do_not_wait() {
    let mut core = core(|c| (c.executable_hash, c.rules.window_seconds) = (true, 0));
    let mut records = life("/tmp/odd");
    records.extend((0..MAX_HELD as u64 + 3).map(|i| opened(4000 + i, READER, "/etc/shadow")));
    let out = step(&mut core, &Input::Batch(batch(records)));
    assert_eq!(findings(&out).len(), 3, "the oldest make room");
    let exe = Exe { dev: 8, inode: 77, ctime: 99 };
    let out = step(&mut core, &Input::Answer(Answer { exe, sha256: None }));
    assert_eq!(findings(&out).len(), MAX_HELD);
}

#[test]
fn a_reload_changes_rules_and_demands_and_keeps_what_is_known() {
    let mut core = core(|_| {});
    let mut records = life("/bin/cat");
    step(&mut core, &Input::Batch(batch(records.drain(..))));
    let before = core.demands().len();
    let out = step(&mut core, &reload(Sources(vec![rule("late", "/late")]), |_| {}));
    let Some(Output::Reloaded(report)) = out.first() else { panic!("{out:?}") };
    assert_eq!((report.added.clone(), report.errors.len()), (vec!["late".to_owned()], 0));
    assert!(core.demands().len() > before);
    let out = step(&mut core, &Input::Batch(batch([opened(9000, READER, "/late")])));
    assert_eq!(findings(&out)[0].process.exe, "/bin/cat");
}

fn reload(sources: Sources, change: impl FnOnce(&mut Config)) -> Input {
    Input::Reload(Box::new(Rules { config: start(change).options.rules, sources }))
}

#[test]
fn a_reload_changes_settings_too() {
    let mut core = core(|c| c.rules.window_seconds = 0);
    let read = |time| Input::Batch(batch([opened(time, READER, "/etc/shadow")]));
    step(&mut core, &Input::Batch(batch(life("/tmp/odd"))));
    assert_eq!(findings(&step(&mut core, &read(4000))).len(), 1);
    let exception = |c: &mut Config| {
        c.rules.window_seconds = 0;
        c.rules.rules.entry("sensitive_credential_read".into()).or_default().allow = vec!["/tmp/odd".into()];
    };
    let out = step(&mut core, &reload(Sources::default(), exception));
    let Some(Output::Reloaded(report)) = out.first() else { panic!("{out:?}") };
    let built_in = haechi_signatures::rules::RUST.len() + haechi_signatures::rules::REGO.len();
    assert_eq!((report.unchanged.len(), report.warnings.len()), (built_in, 0), "{report:?}");
    assert!(findings(&step(&mut core, &read(5000))).is_empty(), "an exception now");
    step(&mut core, &reload(Sources::default(), |c| c.rules.disabled = vec!["sensitive_credential_read".into()]));
    assert!(core.demands().iter().all(|d| !d.paths.leaves.contains(&"shadow".to_owned())));
    step(&mut core, &reload(Sources::default(), |_| {}));
    assert_eq!(findings(&step(&mut core, &read(6000))).len(), 1, "as it was");
    assert!(findings(&step(&mut core, &read(6001))).is_empty(), "and repeats are held back again");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let run = || {
        let mut core = core(|c| c.events = vec!["security_file_open".into(), "sched_process_exec".into()]);
        let mut lines = Vec::new();
        let mut inputs = vec![
            Input::Cgroups(vec![(7, "/default/web".into())]),
            Input::Batch(batch(life("/tmp/odd"))),
            Input::Lost(vec![Lost { event: 16, cause: 0, count: 1 }]),
        ];
        inputs.extend((0..20).map(|i| Input::Batch(batch([opened(5000 + i, READER, "/etc/shadow")]))));
        inputs.push(Input::Tick(120_000_000_000));
        inputs.push(Input::End);
        for output in inputs.iter().flat_map(|input| step(&mut core, input)) {
            match output {
                Output::Event(e) => json::write(&Item::Event(e), &Context::default(), &mut lines),
                Output::Finding(f) => json::write(&Item::Finding(f), &Context::default(), &mut lines),
                _ => {}
            }
        }
        lines
    };
    let first = run();
    assert!(first.len() > 1000);
    assert_eq!(first, run());
    let text = String::from_utf8(first).expect("text");
    assert!(text.contains("\"count\":20"), "the window of repeats ended: {text}");
}

//! Lines compared with golden files; `HAECHI_BLESS=1` writes them anew.

use std::path::PathBuf;
use std::sync::Arc;

use haechi_ebpf::event::{
    EVENTS, FieldType, lost_events, memfd_create, sched_process_exec as exec, security_socket_connect as connect,
};
use haechi_ebpf::wire::{at, flag, var};
use haechi_signatures::model::{About, Mitre, ProcessInfo, Severity};
use haechi_signatures::record::Builder;
use serde_json::{Value, json};

use super::*;
use crate::escape::is_unsafe;
use crate::testing::{BOOT, Who, executed, of, opened};

fn context() -> Context {
    Context {
        host: Host { name: "node-1".into(), boot: BOOT },
        env: vec!["LD_PRELOAD".into()],
        decoded: true,
        colour: false,
    }
}

fn event(record: &[u8]) -> Happening {
    Happening::of(&Event::join(View::parse(record).expect("a record"), &()))
}

const WHO: Who = Who(11, 200, 2);

fn container() -> Container {
    Container { id: "5ee74e9a1f5fb2cb14f3".into(), runtime: "docker", pod_uid: Some("1b2c-3d".into()) }
}

/// An event with everything that an event can have.
fn full() -> Happening {
    let record = of(&exec::DEF, 4_123_456_789, WHO, "ls")
        .header_u32(at::TID, 12)
        .flags(flag::COMPAT)
        .text(exec::field::cmdpath, "./ls")
        .text(exec::field::pathname, "/usr/bin/ls")
        .number(exec::field::inode_mode, 0o100_755)
        .number(exec::field::ctime, u64::MAX)
        .strings(exec::field::argv, ["ls", "-l", "a\u{1b}[31mb"])
        .strings(exec::field::env, ["LD_PRELOAD=/x.so", "SECRET=1"])
        .marked(exec::field::pwd, "/a/very/long", 5000, 0)
        .number(exec::field::cap_effective, 1 << 21)
        .finish();
    let image = Program { exe: "/usr/bin/ls".into(), ..Program::default() };
    Happening { image: Some(image), container: Some(Arc::new(container())), ..event(&record) }
}

fn events() -> Vec<Item> {
    let address = |a: &str| Builder::new(&connect::DEF).time(5).named("remote_addr", &json!(a)).expect("fits").finish();
    let gap = Builder::new(&lost_events::DEF)
        .time(6)
        .text(lost_events::field::event, "ptrace")
        .text(lost_events::field::reason, "ring_full")
        .number(lost_events::field::count, 12)
        .finish();
    let memfd = of(&memfd_create::DEF, 7, WHO, "x")
        .marked(memfd_create::field::uname, "na\nme", 5, var::USER)
        .number(memfd_create::field::flags, 3)
        .ret(-22)
        .finish();
    let records = [
        opened(1, WHO, "/etc/passwd"),
        executed(2, WHO, 1, "/bin/sh"),
        address("10.0.0.1:443"),
        address("[::1]:80"),
        address("@abs"),
        memfd,
        gap,
    ];
    records.iter().map(|r| Item::Event(event(r))).chain([Item::Event(full())]).collect()
}

pub(crate) fn finding() -> Finding {
    let view = opened(60_000_000_000, WHO, "/etc/shadow");
    let view = View::parse(&view).expect("a record");
    let process = ProcessInfo {
        pid: 11,
        start: 200,
        ns_pid: 3,
        exe: "/tmp/\u{202e}odd".into(),
        comm: "odd".into(),
        argv: vec!["odd".into(), "/etc/shadow".into()],
        cwd: "/tmp".into(),
        uid: 1000,
        euid: 0,
        login_uid: Some(1000),
        session: Some(4),
        tty: Some("pts0".into()),
        sha256: Some("ab12".into()),
    };
    Finding {
        about: Arc::new(About {
            excuses: Vec::new(),
            id: "TRC-105".into(),
            name: "some_rule".into(),
            version: "1".into(),
            title: "Something odd was done".into(),
            description: "It means trouble.".into(),
            remedy: "Look.".into(),
            severity: Severity::High,
            mitre: Mitre { tactic: "Credential Access".into(), id: "T1003".into(), technique: "Dumping".into() },
            tags: Vec::new(),
        }),
        time: 60_000_000_000,
        target: "/etc/shadow".into(),
        evidence: vec![
            ("path".into(), json!("/etc/shadow")),
            ("mode".into(), json!("O_RDONLY")),
            ("n".into(), json!(7)),
            ("list".into(), json!(["a", "b"])),
        ],
        event: haechi_signatures::flat::event_json(&Event::join(view, &()), &context().host),
        ancestors: vec![ProcessInfo { pid: 10, exe: "/bin/sh".into(), comm: "sh".into(), ..ProcessInfo::default() }],
        process,
        container: Some(container()),
        count: 3,
    }
}

fn all() -> Vec<Item> {
    events().into_iter().chain([Item::Finding(Box::new(finding()))]).collect()
}

fn lines(write: fn(&Item, &Context, &mut Vec<u8>), context: &Context) -> String {
    let mut out = Vec::new();
    all().iter().for_each(|item| write(item, context, &mut out));
    String::from_utf8(out).expect("text")
}

fn golden(name: &str, got: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name);
    if std::env::var_os("HAECHI_BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("writable");
        std::fs::write(&path, got).expect("writable");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "{name}:{}; HAECHI_BLESS=1 accepts the change", number + 1);
    }
    assert_eq!(got.lines().count(), want.lines().count(), "{name}; HAECHI_BLESS=1 accepts the change");
}

#[test]
fn lines_are_the_golden_ones() {
    golden("lines.json", &lines(json::write, &context()));
    golden("lines.txt", &lines(pretty::write, &context()));
    golden("numbers.json", &lines(json::write, &Context { decoded: false, env: Vec::new(), ..context() }));
}

#[test]
fn nothing_reaches_a_terminal_that_it_would_act_on() {
    for write in [json::write, pretty::write] {
        let text = lines(write, &context());
        assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text}");
    }
    let coloured = lines(pretty::write, &Context { colour: true, ..context() });
    assert!(coloured.contains("\u{1b}[1;31mHIGH"), "{coloured}");
    assert!(!coloured.contains("\u{1b}[31mb"), "the colour of an argument");
}

#[test]
fn every_line_is_one_object_and_says_what_it_escaped() {
    for line in lines(json::write, &context()).lines() {
        serde_json::from_str::<Value>(line).expect("an object");
    }
    let mut out = Vec::new();
    json::write(&Item::Event(full()), &context(), &mut out);
    let value: Value = serde_json::from_slice(&out).expect("an object");
    let data = value["data"].as_array().expect("a list");
    let named = |name: &str| data.iter().find(|d| d["name"] == name).expect(name);
    assert_eq!(named("argv")["str_array"]["value"][2], "a\u{1b}[31mb");
    assert_eq!(named("env")["str_array"]["value"], json!(["LD_PRELOAD=/x.so"]), "only chosen variables");
    assert_eq!(named("ctime")["u_int64"], "18446744073709551615");
    assert_eq!((&named("pwd")["truncated"], &named("pwd")["true_length"]), (&json!(true), &json!(5000)));
}

#[test]
fn each_kind_of_field_has_a_place_in_data() {
    for def in EVENTS {
        let builder = def.fields.iter().fold(Builder::new(def), |builder, field| {
            let value = match field.ty {
                FieldType::StrArray => json!(["x"]),
                FieldType::SockAddr => json!("1.2.3.4:5"),
                FieldType::Ip => json!("10.0.0.1"),
                ty if ty.is_variable() => json!("x"),
                _ => json!(1),
            };
            builder.named(field.name, &value).expect(field.name)
        });
        let view = builder.finish();
        let context = Context { env: vec!["x".into()], ..context() };
        let mut out = Vec::new();
        json::write(&Item::Event(event(&view)), &context, &mut out);
        let value: Value = serde_json::from_slice(&out).expect("an object");
        let data = value["data"].as_array().expect("a list");
        assert_eq!(data.len(), def.fields.len(), "{}", def.name);
        for (entry, field) in data.iter().zip(def.fields) {
            assert_eq!((&entry["name"], entry.as_object().map(serde_json::Map::len)), (&json!(field.name), Some(2)));
        }
    }
}

//! The readers, each with whole inputs to start from and with what must hold of whatever it makes of a broken one.

use haechi_agent::batch::Batch;
use haechi_agent::config::{Config, KEYS};
use haechi_agent::core::{Input, Options, Start};
use haechi_agent::loss::Lost;
use haechi_agent::record::{Reader, Recorder};
use haechi_agent::{render, replay};
use haechi_ebpf::event::{EVENTS, EventDef, Field, FieldType};
use haechi_ebpf::wire::{Value, View, flag, var};
use haechi_signatures::flat::{Host, event_json, value_json};
use haechi_signatures::model::Event;
use haechi_signatures::record::Builder;
use haechi_signatures::sockaddr::SockAddr;

/// A reader.
#[derive(Debug)]
pub struct Target {
    /// Name on the command line, and of its directory of kept inputs.
    pub name: &'static str,
    /// Ending of kept inputs that are text.
    pub suffix: &'static str,
    /// Whole inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads; panics when something does not hold.
    pub read: fn(&[u8]),
}

/// All readers.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", suffix: "hex", seeds: records, read: wire },
    Target { name: "flat", suffix: "hex", seeds: records, read: flat },
    Target { name: "sockaddr", suffix: "hex", seeds: addresses, read: sockaddr },
    Target { name: "config", suffix: "yaml", seeds: configurations, read: config },
    Target { name: "recording", suffix: "haechi", seeds: recordings, read: recording },
];

const TEXT: &[u8] = b"/etc/shadow";

/// A whole record of each event, every field present, and those of a real kernel.
fn records() -> Vec<Vec<u8>> {
    EVENTS.iter().map(record).chain(crate::golden::records().into_iter().map(|r| r.1)).collect()
}

fn record(def: &'static EventDef) -> Vec<u8> {
    let mut builder = Builder::new(def).time(1_000).process(42, 7, 1).comm("fuzz").flags(flag::COMPAT).ret(-2);
    for (i, field) in def.fields.iter().enumerate() {
        let at = Field(i as u8);
        builder = match field.ty {
            FieldType::StrArray => builder.text(at, b"one\0two\0"),
            FieldType::Ip => builder.text(at, [10, 0, 0, 1]),
            FieldType::SockAddr => builder.text(at, &addresses()[i % 3]),
            ty if ty.is_variable() => builder.text(at, TEXT),
            _ => builder.number(at, 0x1234_5678),
        };
    }
    builder.finish()
}

fn addresses() -> Vec<Vec<u8>> {
    let mut v6 = vec![10, 0, 0x1f, 0x90];
    v6.extend([0; 19]);
    v6.extend([1, 0, 0, 0, 0]);
    vec![
        vec![2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        v6,
        b"\x01\0/run/socket\0".to_vec(),
        b"\x01\0\0abstract".to_vec(),
        vec![16, 0, 0, 0, 1, 2, 3, 4],
    ]
}

/// What parses is a record: reading any field of it gives something inside it, and parsing it again gives the same.
fn wire(bytes: &[u8]) {
    let view = match View::parse(bytes) {
        Ok(view) => view,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return;
        }
    };
    assert!(bytes.starts_with(view.bytes()));
    assert!(view.comm().len() <= 16);
    let (_, _, _) = (view.ret(), view.time(), view.process());
    for (i, field) in view.def().fields.iter().enumerate() {
        let at = Field(i as u8);
        let value = view.value(i);
        assert_eq!(value.is_some(), view.has(at), "{}", field.name);
        if let Some(Value::Text(text)) = value {
            assert!(field.ty.is_variable() && text.bytes.len() <= view.bytes().len(), "{}", field.name);
            assert!(text.true_len <= var::LEN_MASK);
            let total: usize = text.strings().map(<[u8]>::len).sum();
            assert!(total <= text.bytes.len());
        }
    }
    let outside = view.def().fields.len();
    assert!(view.value(outside).is_none() && view.value(255).is_none() && view.text(Field(63)).is_none());
    let again = View::parse(view.bytes()).expect("a record parses again");
    assert_eq!(again.bytes(), view.bytes());
}

/// What parses can be shown, and what is shown is JSON.
fn flat(bytes: &[u8]) {
    let Ok(view) = View::parse(bytes) else { return };
    let event = Event::join(view, &());
    let shown = event_json(&event, &Host { name: "node".into(), boot: u64::MAX / 2 });
    let text = shown.to_string();
    let back: serde_json::Value = serde_json::from_str(&text).expect("JSON reads back");
    assert_eq!(back, shown);
    for i in 0..view.def().fields.len() {
        let at = Field(i as u8);
        assert_eq!(value_json(&event, at).is_some(), view.has(at));
    }
    assert!(!event.name().is_empty());
}

fn sockaddr(bytes: &[u8]) {
    let Some(address) = SockAddr::parse(bytes) else {
        assert!(bytes.len() < 2);
        return;
    };
    let members = address.members();
    assert_eq!(members[0].0, "sa_family");
    // An unnamed Unix socket alone has nothing to show.
    assert!(!address.to_string().is_empty() || address == SockAddr::Unix(&[]));
    assert!(address.inet().is_none() || address.unix().is_none());
}

fn configurations() -> Vec<Vec<u8>> {
    let some = "events: [ptrace, security_file_open.data.pathname=/etc/*]\nscope: [\"uid!=0\"]\nsinks:\n  - type: file\n    \
                path: /var/log/haechi.json\nrules:\n  exceptions:\n    - rule: anti_debugging\n      exe: /usr/bin/gdb\n";
    let keys = KEYS.iter().map(|k| k.path.replace('.', ":\n  ") + ": 1\n");
    [Config::default().show(), some.to_owned()].into_iter().chain(keys).map(String::into_bytes).collect()
}

/// What is understood can be shown, and what is shown means the same.
fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Config::parse("fuzz.yaml", &text) {
        Ok(config) => {
            let shown = config.show();
            let again = Config::parse("shown.yaml", &shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
            assert_eq!(again, config, "{shown}");
        }
        Err(why) => assert!(why.to_string().contains("fuzz.yaml"), "which file? {why}"),
    }
}

/// A recording of a run in which everything was written once.
fn recordings() -> Vec<Vec<u8>> {
    let path =
        std::env::temp_dir().join(format!("haechi-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    let start = Start {
        host: Host { name: "node".into(), boot: 1 },
        time: 5,
        options: Options { events: vec!["ptrace".into()], processes: 64, ..Options::default() },
        sources: Default::default(),
    };
    let mut recorder = Recorder::create(&path, &start).expect("the directory for temporary files takes files");
    let batch = |time: u64| {
        let mut batch = Batch::default();
        records().iter().for_each(|r| batch.push(time, r));
        batch
    };
    for input in [
        Input::Seed(batch(1)),
        Input::Cgroups(vec![(1, "/".into())]),
        Input::Batch(batch(2)),
        Input::Lost(vec![Lost { event: 16, cause: 0, count: 3 }]),
        Input::Reload(Default::default()),
        Input::Tick(9),
        Input::End,
    ] {
        recorder.write(&input);
    }
    drop(recorder);
    let bytes = std::fs::read(&path).expect("it was just written");
    std::fs::remove_file(&path).expect("it was just written");
    vec![bytes]
}

const FRAME_HEAD: usize = 9;

/// Whatever the file holds, a replay ends, with a word why. Checksums are set right after the wound, or nothing behind
/// them would ever be read.
fn recording(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let mut at = 16;
    while at + FRAME_HEAD <= bytes.len() {
        let length = u32::from_le_bytes([bytes[at + 1], bytes[at + 2], bytes[at + 3], bytes[at + 4]]) as usize;
        let Some(end) = (at + FRAME_HEAD).checked_add(length).filter(|e| *e <= bytes.len()) else { break };
        let sum = crc32(bytes[at..=at].iter().chain(&bytes[at + FRAME_HEAD..end]));
        bytes[at + 5..at + 9].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
    let mut out = Vec::new();
    let played = Reader::over(bytes.as_slice())
        .map_err(replay::Error::from)
        .and_then(|mut r| replay::play(&mut r, render::json::write, false, &mut out));
    if let Err(why) = played {
        assert!(!why.to_string().is_empty());
    }
    let text = String::from_utf8(out).expect("lines are text");
    for line in text.lines() {
        let _is_json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

/// CRC-32 as in zip, bit by bit: another way than the product's.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

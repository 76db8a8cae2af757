//! The readers, each with whole inputs to start from and with what must hold of whatever it makes of a broken one.

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
];

const TEXT: &[u8] = b"/etc/shadow";

/// A whole record of each event, every field present.
fn records() -> Vec<Vec<u8>> {
    EVENTS.iter().map(record).collect()
}

fn record(def: &'static EventDef) -> Vec<u8> {
    let mut builder = Builder::new(def).time(1_000).process(42, 7, 1).comm("fuzz").flags(flag::COMPAT).ret(-2);
    for (i, field) in def.fields.iter().enumerate() {
        let at = Field(i as u8);
        builder = match field.ty {
            FieldType::StrArray => builder.text(at, b"one\0two\0"),
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

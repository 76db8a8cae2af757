//! The flat form as the input of Rego. Texts that come again with every event are kept ready-made.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use haechi_ebpf::event::{EVENTS, EventDef, MAX_EVENTS};
use regorus::Value;

use crate::flat::keys::{self, KEYS, Key};
use crate::flat::{Host, Marks, Need, Tree, walk};
use crate::model::Event;

/// The parts of `event`'s flat form that are needed.
pub(crate) fn input(event: &Event<'_>, host: &Host, need: Need) -> Value {
    walk(event, host, need, &mut Rego(&READY))
}

struct Ready {
    keys: Vec<Value>,
    events: Vec<(&'static str, Value)>,
    /// By event and position: the argument, lacking its value.
    args: Vec<Vec<Value>>,
}

static READY: LazyLock<Ready> = LazyLock::new(|| {
    let keys: Vec<Value> = KEYS.iter().map(|k| Value::from(*k)).collect();
    let mut args = vec![Vec::new(); MAX_EVENTS];
    for def in EVENTS {
        let blanks = def.fields.iter().map(|f| {
            let members = [(keys::NAME, f.name.into()), (keys::TYPE, f.ty.c_name().into()), (keys::VALUE, Value::Null)];
            object(&keys, members)
        });
        args[usize::from(def.id)] = blanks.collect();
    }
    let events = EVENTS.iter().map(|e| (e.name, e.name.into())).collect();
    Ready { keys, events, args }
});

fn object(keys: &[Value], members: impl IntoIterator<Item = (Key, Value)>) -> Value {
    Value::from(members.into_iter().map(|(k, v)| (keys[usize::from(k.0)].clone(), v)).collect::<BTreeMap<_, _>>())
}

struct Rego(&'static Ready);

impl Tree for Rego {
    type Value = Value;

    fn text(&mut self, text: &str) -> Value {
        text.into()
    }

    fn uint(&mut self, number: u64) -> Value {
        number.into()
    }

    fn int(&mut self, number: i64) -> Value {
        number.into()
    }

    fn truth(&mut self, truth: bool) -> Value {
        truth.into()
    }

    fn list(&mut self, items: Vec<Value>) -> Value {
        items.into()
    }

    fn object(&mut self, members: Vec<(Key, Value)>) -> Value {
        object(&self.0.keys, members)
    }

    fn known(&mut self, text: &'static str) -> Value {
        self.0.events.iter().find(|(name, _)| *name == text).map_or_else(|| text.into(), |(_, v)| v.clone())
    }

    fn arg(&mut self, def: &'static EventDef, index: usize, value: Value, marks: Option<Marks>) -> Value {
        let mut arg = self.0.args[usize::from(def.id)][index].clone();
        let mut members = vec![(keys::VALUE, value)];
        if let Some(marks) = marks {
            marks.members(self, &mut members);
        }
        if let Ok(object) = arg.as_object_mut() {
            object.extend(members.into_iter().map(|(k, v)| (self.0.keys[usize::from(k.0)].clone(), v)));
        }
        arg
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat::event_json;
    use crate::record::Builder;
    use haechi_ebpf::event::{FieldType, ptrace};
    use haechi_ebpf::wire::{View, flag, var};
    use serde_json::json;

    /// A record of `def` with all its fields set.
    fn full(def: &'static EventDef) -> Vec<u8> {
        let record = Builder::new(def).time(1 << 60).process(7, 8, 9).comm("x").ret(-2).flags(flag::COMPAT);
        let set = |b: Builder, i: usize| {
            let field = haechi_ebpf::event::Field(i as u8);
            match def.fields[i].ty {
                FieldType::StrArray => b.strings(field, ["a", "b"]),
                FieldType::SockAddr => b.named(def.fields[i].name, &json!("[::1]:80")).expect("an address"),
                FieldType::Ip => b.named(def.fields[i].name, &json!("10.0.0.1")).expect("an address"),
                ty if ty.is_variable() => b.marked(field, "text", 9, var::USER),
                _ => b.number(field, u64::MAX - i as u64),
            }
        };
        (0..def.fields.len()).fold(record, set).finish()
    }

    #[test]
    fn both_trees_hold_the_same() {
        let host = Host { name: "node".into(), boot: 5 };
        for def in EVENTS {
            let bytes = full(def);
            let event = Event::join(View::parse(&bytes).expect("a record"), &());
            let rego = serde_json::to_value(input(&event, &host, Need::ALL)).expect("JSON");
            let json = event_json(&event, &host);
            assert_eq!(rego, json);
            assert_eq!(json["args"].as_array().map(Vec::len), Some(def.fields.len()));
        }
    }

    #[test]
    fn only_what_is_needed_is_built() {
        let bytes = full(&ptrace::DEF);
        let event = Event::join(View::parse(&bytes).expect("a record"), &());
        let some = Need {
            top: keys::ARGS.bit() | keys::ARGS_NUM.bit() | keys::EVENT_NAME.bit(),
            args: 1 << ptrace::field::pid.0,
        };
        let rego = serde_json::to_value(input(&event, &Host::default(), some)).expect("JSON");
        let want = json!({"eventName": "ptrace", "argsNum": 4, "args": [{"name": "pid", "type": "int", "value": -2}]});
        assert_eq!(rego["args"].as_array().map(Vec::len), want["args"].as_array().map(Vec::len));
        assert_eq!((&rego["eventName"], &rego["argsNum"]), (&want["eventName"], &want["argsNum"]));
        assert_eq!(rego.as_object().map(serde_json::Map::len), Some(3));
        assert_eq!(serde_json::to_value(input(&event, &Host::default(), Need::default())).expect("JSON"), json!({}));
    }
}

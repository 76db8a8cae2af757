//! One entry of `data`: a name and a value under the key of its kind, as Tracee's `EventValue` is written in JSON.
//! Numbers of 64 bits are strings there. Ours besides: `truncated`, `true_length`, `from_user`.

use data_encoding::BASE64;
use haechi_ebpf::event::{Field, FieldDef, FieldType};
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::{Value, View};
use haechi_signatures::sockaddr::{SockAddr, ip_text};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value as Json;

/// One entry.
pub(super) struct Datum<'a> {
    name: &'a str,
    kind: &'static str,
    value: Json,
    true_len: Option<u32>,
    from_user: bool,
}

impl Serialize for Datum<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry(self.kind, &self.value)?;
        if let Some(len) = self.true_len {
            map.serialize_entry("truncated", &true)?;
            map.serialize_entry("true_length", &len)?;
        }
        if self.from_user {
            map.serialize_entry("from_user", &true)?;
        }
        map.end()
    }
}

impl<'a> Datum<'a> {
    fn new(name: &'a str, kind: &'static str, value: Json) -> Self {
        Self { name, kind, value, true_len: None, from_user: false }
    }

    /// The result of a call.
    pub(super) fn result(value: i64) -> Self {
        Self::new("returnValue", "int64", value.to_string().into())
    }

    /// A fact of a rule.
    pub(super) fn fact(name: &'a str, value: &Json) -> Self {
        let (kind, value) = match value {
            Json::Bool(_) => ("bool", value.clone()),
            Json::Number(n) if n.is_u64() => ("u_int64", n.to_string().into()),
            Json::Number(n) if n.is_i64() => ("int64", n.to_string().into()),
            Json::String(_) => ("str", value.clone()),
            Json::Array(items) if items.iter().all(Json::is_string) => ("str_array", array(items.clone())),
            other => ("str", other.to_string().into()),
        };
        Self::new(name, kind, value)
    }
}

fn array(items: Vec<Json>) -> Json {
    let mut map = serde_json::Map::new();
    map.insert("value".into(), items.into());
    map.into()
}

/// The key under which a value of this type stands.
const fn kind(ty: FieldType) -> &'static str {
    match ty {
        FieldType::I32 => "int32",
        FieldType::U32 => "u_int32",
        FieldType::I64 => "int64",
        FieldType::U64 | FieldType::BootTime | FieldType::FileTime => "u_int64",
        FieldType::Bool => "bool",
        FieldType::Pointer => "pointer",
        FieldType::Str | FieldType::Path | FieldType::Ip => "str",
        FieldType::StrArray => "str_array",
        FieldType::Bytes => "bytes",
        FieldType::SockAddr => "sockaddr",
    }
}

/// The entries of a record. `env` holds the variables that are shown.
pub(super) fn of_record<'a>(view: &View<'a>, decoded: bool, env: &[String]) -> Vec<Datum<'a>> {
    let fields = view.def().fields.iter().enumerate();
    let mut data: Vec<Datum<'a>> = fields
        .filter_map(|(i, field)| {
            let value = view.value(i)?;
            let mut datum = of_value(field, value, decoded, env)?;
            if let Some(text) = view.text(Field(i as u8)) {
                datum.true_len = text.truncated.then_some(text.true_len);
                datum.from_user = text.from_user;
            }
            Some(datum)
        })
        .collect();
    data.extend(view.ret().map(Datum::result));
    data
}

fn of_value<'a>(field: &'static FieldDef, value: Value<'_>, decoded: bool, env: &[String]) -> Option<Datum<'a>> {
    let spelled = decoded && field.symbol != Symbol::None;
    let wide = matches!(
        field.ty,
        FieldType::I64 | FieldType::U64 | FieldType::BootTime | FieldType::FileTime | FieldType::Pointer
    );
    let json = match value {
        Value::Int(n) if spelled => return Some(spell(field, n as u64)),
        Value::Uint(n) if spelled => return Some(spell(field, n)),
        Value::Int(n) if wide => n.to_string().into(),
        Value::Int(n) => n.into(),
        Value::Uint(n) if wide => n.to_string().into(),
        Value::Uint(n) => n.into(),
        Value::Bool(b) => b.into(),
        Value::Text(text) => match field.ty {
            FieldType::StrArray => {
                let strings = text.strings().map(String::from_utf8_lossy);
                if field.name != "env" {
                    array(strings.map(|s| s.into_owned().into()).collect())
                } else if env.is_empty() {
                    return None;
                } else {
                    array(strings.filter(|s| shown(env, s)).map(|s| s.into_owned().into()).collect())
                }
            }
            FieldType::Bytes => BASE64.encode(text.bytes).into(),
            FieldType::Ip => ip_text(text.bytes).into(),
            FieldType::SockAddr => address(&SockAddr::parse(text.bytes)?.members()),
            _ => String::from_utf8_lossy(text.bytes).into_owned().into(),
        },
    };
    Some(Datum::new(field.name, kind(field.ty), json))
}

/// Whether a variable of the environment is one of those that are shown.
pub(crate) fn shown(env: &[String], variable: &str) -> bool {
    variable.split_once('=').is_some_and(|(name, _)| env.iter().any(|e| e == name))
}

fn spell<'a>(field: &'static FieldDef, value: u64) -> Datum<'a> {
    Datum::new(field.name, "str", field.symbol.of(value).to_string().into())
}

/// Members of an address; ports and the like are numbers.
fn address<K: AsRef<str>, V: AsRef<str>>(members: &[(K, V)]) -> Json {
    let member = |(k, v): &(K, V)| {
        let (key, text) = (k.as_ref(), v.as_ref());
        let number = matches!(key, "sin_port" | "sin6_port" | "sin6_flowinfo" | "sin6_scopeid");
        let value = text.parse::<u64>().ok().filter(|_| number).map_or_else(|| Json::from(text), Json::from);
        (key.to_owned(), value)
    };
    Json::Object(members.iter().map(member).collect())
}

/// The entries of an event in the flat form, which findings carry.
pub(super) fn of_flat<'a>(event: &'a Json, env: &[String]) -> Vec<Datum<'a>> {
    let args = event["args"].as_array().map_or(&[][..], Vec::as_slice);
    let mut data: Vec<Datum<'a>> = args.iter().filter_map(|arg| of_flat_arg(arg, env)).collect();
    if event["syscall"].is_string() {
        data.extend(event["returnValue"].as_i64().map(Datum::result));
    }
    data
}

fn of_flat_arg<'a>(arg: &'a Json, env: &[String]) -> Option<Datum<'a>> {
    let (name, value) = (arg["name"].as_str()?, &arg["value"]);
    let (kind, value) = match (arg["type"].as_str()?, value) {
        ("const char**", Json::Array(items)) if name == "env" => {
            let chosen = |s: &Json| s.as_str().is_some_and(|s| shown(env, s));
            if env.is_empty() {
                return None;
            }
            ("str_array", array(items.iter().filter(|s| chosen(s)).cloned().collect()))
        }
        ("const char**", Json::Array(items)) => ("str_array", array(items.clone())),
        ("struct sockaddr*", Json::Object(members)) => {
            let members: Vec<_> = members.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
            ("sockaddr", address(&members))
        }
        ("void*", Json::String(hex)) => {
            let number = u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok()?;
            ("pointer", number.to_string().into())
        }
        ("bytes", Json::String(_)) => ("bytes", value.clone()),
        (_, Json::String(_)) => ("str", value.clone()),
        (_, Json::Bool(_)) => ("bool", value.clone()),
        ("int", Json::Number(_)) => ("int32", value.clone()),
        ("unsigned int", Json::Number(_)) => ("u_int32", value.clone()),
        ("long", Json::Number(n)) => ("int64", n.to_string().into()),
        (_, Json::Number(n)) => ("u_int64", n.to_string().into()),
        (_, other) => ("str", other.to_string().into()),
    };
    let true_len = arg["trueLength"].as_u64().map(|n| n as u32);
    Some(Datum { name, kind, value, true_len, from_user: arg["fromUser"] == true })
}

//! One condition on an event: what is looked at, how, and with which values. Judged exactly, in userspace.

use std::borrow::Cow;

use haechi_ebpf::event::{Field, FieldDef, FieldType};
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::Value;
use haechi_signatures::model::Event;
use haechi_signatures::path;
use haechi_signatures::sockaddr::{self, SockAddr};

use super::Error;
use super::scope::Scope;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Is,
    Not,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Longest first: `<=` before `<`.
const OPS: &[(&str, Op)] =
    &[("!=", Op::Not), ("<=", Op::AtMost), (">=", Op::AtLeast), ("=", Op::Is), ("<", Op::Less), (">", Op::More)];

impl Op {
    /// Splits `left OP right` at the first operator.
    pub(super) fn split(text: &str) -> Option<(&str, Self, &str)> {
        let at = text.find(['!', '=', '<', '>'])?;
        let (sign, op) = OPS.iter().find(|(sign, _)| text[at..].starts_with(sign))?;
        Some((text[..at].trim(), *op, text[at + sign.len()..].trim()))
    }
}

/// What a condition looks at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    Data(Field, &'static FieldDef),
    Return,
    Scope(&'static Scope),
}

/// What was found there.
pub(super) enum Got<'a> {
    Number(i128),
    Text(Cow<'a, str>),
    /// A number that is also spelled.
    Symbol(i128, Symbol),
    /// Several numbers, any of which may match.
    Any(Vec<i128>),
    Nothing,
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Number(i128),
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Anything, as long as there is something.
    Present,
}

/// One condition.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) subject: Subject,
    pub(super) op: Op,
    pub(super) values: Vec<Want>,
}

impl Test {
    pub(super) fn new(text: &str, subject: Subject, op: Op, values: &str) -> Result<Self, Error> {
        let form = |problem| Error::Form { text: text.to_owned(), problem };
        if values.is_empty() {
            return Err(form("a value is missing"));
        }
        let numeric = subject.is_number();
        if !numeric && !matches!(op, Op::Is | Op::Not) {
            return Err(form("this is compared with = and != only"));
        }
        let values = values
            .split(',')
            .map(|value| match number(value) {
                Some(n) if numeric => Ok(Want::Number(n)),
                _ if subject.is_truth() => truth(value).ok_or_else(|| form("this field is true or false")),
                _ if numeric && !(subject.is_spelled() && matches!(op, Op::Is | Op::Not)) => {
                    Err(Error::Value { text: text.to_owned(), value: value.to_owned(), subject: subject.name() })
                }
                _ => Ok(pattern(value)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { subject, op, values })
    }

    /// Whether the values of `other` are alternatives (or further exclusions) of this one's.
    pub(super) fn joins(&self, other: &Self) -> bool {
        self.op == other.op && matches!(self.op, Op::Is | Op::Not) && self.subject.same(&other.subject)
    }

    pub(super) fn holds(&self, event: &Event<'_>) -> bool {
        let got = self.subject.get(event);
        match self.op {
            Op::Is => self.values.iter().any(|v| v.equals(&got)),
            Op::Not => !self.values.iter().any(|v| v.equals(&got)),
            op => self.values.iter().all(|v| v.orders(&got, op)),
        }
    }
}

impl Subject {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Data(a, _), Self::Data(b, _)) => a == b,
            (Self::Return, Self::Return) => true,
            (Self::Scope(a), Self::Scope(b)) => a.name == b.name,
            _ => false,
        }
    }

    fn is_number(&self) -> bool {
        match self {
            Self::Data(_, def) => !def.ty.is_variable() && def.ty != FieldType::Bool,
            Self::Return => true,
            Self::Scope(scope) => scope.numeric,
        }
    }

    fn is_spelled(&self) -> bool {
        matches!(self, Self::Data(_, def) if def.symbol != Symbol::None)
    }

    fn is_truth(&self) -> bool {
        matches!(self, Self::Data(_, def) if def.ty == FieldType::Bool)
    }

    fn name(&self) -> String {
        match self {
            Self::Data(_, def) => format!("data.{}", def.name),
            Self::Return => "retval".into(),
            Self::Scope(scope) => scope.name.into(),
        }
    }

    fn get<'a>(&self, event: &Event<'a>) -> Got<'a> {
        match self {
            Self::Data(field, def) => data(event, *field, def),
            Self::Return => event.view.ret().map_or(Got::Nothing, |r| Got::Number(r.into())),
            Self::Scope(scope) => (scope.get)(event),
        }
    }
}

fn data<'a>(event: &Event<'a>, field: Field, def: &FieldDef) -> Got<'a> {
    let spelled = |n: i128| if def.symbol == Symbol::None { Got::Number(n) } else { Got::Symbol(n, def.symbol) };
    match event.view.value(field.0 as usize) {
        Some(Value::Int(n)) => spelled(n.into()),
        Some(Value::Uint(n)) => spelled(n.into()),
        Some(Value::Bool(b)) => Got::Text(if b { "true" } else { "false" }.into()),
        Some(Value::Text(text)) => Got::Text(match def.ty {
            FieldType::SockAddr => SockAddr::parse(text.bytes).map(|a| a.to_string()).unwrap_or_default().into(),
            FieldType::Ip => sockaddr::ip_text(text.bytes).into(),
            FieldType::StrArray => text.strings().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ").into(),
            FieldType::Path if text.from_user => path::normal(&String::from_utf8_lossy(text.bytes)).into_owned().into(),
            _ => String::from_utf8_lossy(text.bytes),
        }),
        // Where the kernel could not name the file, what the process wrote is the next best.
        None if def.name == "pathname" => path::of(event).map_or(Got::Nothing, |place| Got::Text(place.path)),
        None => Got::Nothing,
    }
}

impl Want {
    fn equals(&self, got: &Got<'_>) -> bool {
        match (self, got) {
            (_, Got::Nothing) => false,
            (Self::Present, Got::Text(text)) => !text.is_empty(),
            (Self::Present, _) => true,
            (Self::Number(n), Got::Number(g) | Got::Symbol(g, _)) => n == g,
            (Self::Number(n), Got::Any(all)) => all.contains(n),
            (_, Got::Text(text)) => self.matches(text),
            (_, Got::Symbol(n, symbol)) => self.matches(&symbol.of(*n as u64).to_string()),
            _ => false,
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(x) => text == x,
            Self::Prefix(x) => text.starts_with(x.as_str()),
            Self::Suffix(x) => text.ends_with(x.as_str()),
            Self::Contains(x) => text.contains(x.as_str()),
            Self::Number(_) | Self::Present => false,
        }
    }

    fn orders(&self, got: &Got<'_>, op: Op) -> bool {
        let (Self::Number(n), Got::Number(g) | Got::Symbol(g, _)) = (self, got) else { return false };
        match op {
            Op::Less => g < n,
            Op::AtMost => g <= n,
            Op::More => g > n,
            Op::AtLeast => g >= n,
            Op::Is => g == n,
            Op::Not => g != n,
        }
    }
}

fn number(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(Into::into),
        None => text.parse::<i64>().map(Into::into).or_else(|_| text.parse::<u64>().map(Into::into)).ok(),
    }
}

fn truth(text: &str) -> Option<Want> {
    match text {
        "true" | "1" => Some(Want::Exact("true".into())),
        "false" | "0" => Some(Want::Exact("false".into())),
        _ => None,
    }
}

fn pattern(text: &str) -> Want {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => Want::Present,
        (Some(rest), Some(_)) => Want::Contains(rest.strip_suffix('*').unwrap_or(rest).to_owned()),
        (Some(rest), None) => Want::Suffix(rest.to_owned()),
        (None, Some(rest)) => Want::Prefix(rest.to_owned()),
        (None, None) => Want::Exact(text.to_owned()),
    }
}

//! How large a value may become. The machine counts instructions, but one call can double a text, and twenty such calls
//! in a row, no loop needed, are all the memory there is. What such a call would make is estimated before it is made.

use regorus::unstable::{BUILTINS, BuiltinFcn, Expr, Ref, Span};
use regorus::{LimitError, Value};

/// Bytes of a value, roughly. Far beyond the largest event, whose arguments and environment have 8 KiB each.
pub(super) const LARGEST: u64 = 1 << 20;
/// What any value takes besides its text, roughly.
const EACH: u64 = 16;
/// Values inside one another.
const DEEPEST: usize = 64;
/// Digits of a width in a format.
const WIDTH_DIGITS: usize = 4;

/// What a function would make of these arguments, at most.
type Estimate = fn(&[Value]) -> u64;

/// Functions that make more than they are given, and how much at most.
const GROWING: [(&str, Estimate); 14] = [
    ("concat", joined),
    ("replace", replaced),
    ("regex.replace", replaced),
    ("strings.replace_n", |a| product(weight_of(a.first()), text(a.get(1)))),
    ("sprintf", formatted),
    ("json.marshal", escaped),
    ("base64.encode", escaped),
    ("hex.encode", escaped),
    ("array.concat", sum),
    ("object.union", sum),
    ("object.union_n", sum),
    ("union", sum),
    ("__builtin_sets.union", sum),
    ("split", sum),
];

/// The function behind each entry of the table, with a look at what it would make before it.
const GATES: [Function; GROWING.len()] = [
    gate::<0>, gate::<1>, gate::<2>, gate::<3>, gate::<4>, gate::<5>, gate::<6>, gate::<7>, gate::<8>, gate::<9>,
    gate::<10>, gate::<11>, gate::<12>, gate::<13>,
];

type Function = fn(&Span, &[Ref<Expr>], &[Value], bool) -> anyhow::Result<Value>;

/// Puts the look before a function called `name`, where it needs one.
pub(super) fn gated(name: &str, (function, arity): BuiltinFcn) -> BuiltinFcn {
    let place = GROWING.iter().position(|g| g.0 == name);
    (place.map_or(function, |i| GATES[i]), arity)
}

fn gate<const I: usize>(span: &Span, params: &[Ref<Expr>], args: &[Value], strict: bool) -> anyhow::Result<Value> {
    let (name, estimate) = GROWING[I];
    let usage = estimate(args);
    if usage > LARGEST {
        return Err(LimitError::MemoryLimitExceeded { usage, limit: LARGEST }.into());
    }
    match BUILTINS.get(name) {
        Some((function, _)) => function(span, params, args, strict),
        None => Ok(Value::Undefined),
    }
}

/// Whether a value is small enough to be taken out of the machine.
pub(super) fn fits(value: &Value) -> bool {
    weight(value) <= LARGEST
}

fn joined(args: &[Value]) -> u64 {
    let items = match args.get(1) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Set(items)) => items.len(),
        _ => 0,
    };
    product(text(args.first()), items as u64).saturating_add(weight_of(args.get(1)))
}

/// Each byte of the text may become all of the new one.
fn replaced(args: &[Value]) -> u64 {
    product(text(args.first()).saturating_add(1), text(args.get(2))).saturating_add(sum(args))
}

fn formatted(args: &[Value]) -> u64 {
    let format = match args.first() {
        Some(Value::String(format)) => &**format,
        _ => "",
    };
    let wide = format.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > WIDTH_DIGITS);
    let widths = format.matches('%').count() as u64 * 10_u64.pow(WIDTH_DIGITS as u32);
    if wide { u64::MAX } else { sum(args).saturating_add(widths) }
}

/// A byte may become six, as in `\\u0000`.
fn escaped(args: &[Value]) -> u64 {
    product(sum(args), 6)
}

fn sum(args: &[Value]) -> u64 {
    args.iter().map(weight).fold(0, u64::saturating_add)
}

fn product(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

fn text(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::String(text)) => text.len() as u64,
        _ => 0,
    }
}

fn weight_of(value: Option<&Value>) -> u64 {
    value.map_or(0, weight)
}

/// Bytes of a value, roughly, as if it shared nothing; a little more than [`LARGEST`] stands for anything beyond.
fn weight(value: &Value) -> u64 {
    let mut left = LARGEST + 1;
    count(value, DEEPEST, &mut left);
    LARGEST + 1 - left
}

fn count(value: &Value, depth: usize, left: &mut u64) {
    *left = if depth == 0 { 0 } else { left.saturating_sub(EACH) };
    if *left == 0 {
        return;
    }
    let mut inner = |v: &Value| {
        if *left > 0 {
            count(v, depth - 1, left);
        }
    };
    match value {
        Value::String(text) => *left = left.saturating_sub(text.len() as u64),
        Value::Array(items) => items.iter().for_each(inner),
        Value::Set(items) => items.iter().for_each(inner),
        Value::Object(members) => members.iter().for_each(|(k, v)| {
            inner(k);
            inner(v);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_weighed_as_if_it_shared_nothing() {
        assert_eq!(weight(&Value::from("abc")), EACH + 3);
        let mut value = Value::from("x");
        for _ in 0..40 {
            value = Value::from(vec![value.clone(), value]);
        }
        assert!(!fits(&value), "two to the fortieth");
        let deep = (0..DEEPEST + 1).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        assert!(!fits(&deep) && fits(&Value::from(vec![Value::Null; 1000])));
    }

    #[test]
    fn every_function_of_the_table_exists() {
        for (name, _) in GROWING {
            assert!(BUILTINS.contains_key(name), "no function {name}");
        }
    }
}

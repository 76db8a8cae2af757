//! What an event must be for a signature to match it at all, taken from its text: an event that is not is turned away
//! before the input is built, or, by its path, in the kernel.
//!
//! Only what stands at the top of a body and can be meant in one way is taken: equality with a text, membership in a set of
//! texts, `startswith`, `endswith` and `helpers.is_file_write`, of an argument, the name of the event or that of the
//! process. Everything else is taken to hold. Where nothing is found for one body, nothing is turned away.

use std::collections::{BTreeMap, BTreeSet};

use haechi_ebpf::event::{EventDef, Field, FieldType, security_file_open, syscall};
use regorus::unstable::{AssignOp, BoolOp, Expr, Literal, Module, Query, Rule, RuleHead};
use serde_json::Value;

use super::MATCH;
use crate::demand::Paths;
use crate::flat::value_json;
use crate::model::Event;
use crate::path::{leaf, normal};

/// What is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Argument(String),
    EventName,
    ProcessName,
}

/// What it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    OneOf(Vec<String>),
    Starts(String),
    Ends(String),
    /// Flags of an open that can write.
    Write,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Test(Subject, Want);

/// Names that mean here what they mean everywhere: a module that gives them another meaning is not understood.
const TAKEN: [&str; 4] = ["startswith", "endswith", "helpers", "input"];

/// Necessary conditions: all tests of one way must hold. No way at all: nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Necessary(Vec<Vec<Test>>);

impl Necessary {
    /// Those of the signature in `module`.
    pub(super) fn of(module: &Module) -> Self {
        let mut helpers =
            module.imports.iter().filter(|i| i.r#as.is_none() && dotted(&i.refr).last() == Some(&"helpers"));
        let helpers = helpers.next().is_some_and(|i| dotted(&i.refr) == ["data", "tracee", "helpers"])
            && helpers.next().is_none();
        let (sets, names) = sets(module);
        if TAKEN.iter().any(|name| names.contains(*name)) || module.imports.iter().any(|i| i.r#as.is_some()) {
            return Self::default();
        }
        let mut ways = Vec::new();
        for rule in &module.policy {
            match rule.as_ref() {
                Rule::Default { refr, value, .. } if dotted(refr) == [MATCH] && !is_false(value) => {
                    return Self::default();
                }
                Rule::Spec { head: RuleHead::Compr { refr, .. }, bodies, .. } if dotted(refr) == [MATCH] => {
                    let tests = bodies.iter().map(|b| Body::new(&b.query, helpers, &sets).tests(&b.query));
                    ways.extend(tests);
                    if bodies.is_empty() {
                        return Self::default();
                    }
                }
                Rule::Spec { head: RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. }, .. }
                    if dotted(refr).first() == Some(&MATCH) =>
                {
                    return Self::default();
                }
                _ => {}
            }
        }
        if ways.iter().any(Vec::is_empty) { Self::default() } else { Self(ways) }
    }

    /// Whether `event` can match.
    pub(super) fn holds(&self, event: &Event<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|way| way.iter().all(|t| t.holds(event)))
    }

    /// The only paths of such events that can match; any, where that is not known. A path that a process wrote counts in
    /// its normal form.
    pub(super) fn paths(&self, def: &EventDef) -> Paths {
        let mut paths = Paths::default();
        let Some(field) = def.fields.iter().find(|f| f.ty == FieldType::Path) else { return paths };
        for way in self.0.iter().filter(|way| can_be(way, def)) {
            let test = way.iter().find_map(|Test(subject, want)| {
                let own = *subject == Subject::Argument(field.name.to_owned()) && is_plain(want);
                own.then_some(want)
            });
            match test {
                Some(Want::OneOf(texts)) => paths.leaves.extend(texts.iter().map(|t| leaf(t).to_owned())),
                Some(Want::Starts(text)) => paths.prefixes.push(text.clone()),
                Some(Want::Ends(text)) => match text.strip_prefix('/') {
                    Some(name) if !name.contains('/') => paths.leaves.push(name.to_owned()),
                    _ => paths.suffixes.push(text.clone()),
                },
                _ => return Paths::default(),
            }
        }
        paths
    }

    /// Whether only opens that can write match.
    pub(super) fn writes(&self, def: &EventDef) -> bool {
        let write = Test(Subject::Argument("flags".to_owned()), Want::Write);
        def.id == security_file_open::ID
            && !self.0.is_empty()
            && self.0.iter().filter(|way| can_be(way, def)).all(|way| way.contains(&write))
    }
}

/// Whether a way is open to events of this kind.
fn can_be(way: &[Test], def: &EventDef) -> bool {
    way.iter().all(|test| match test {
        Test(Subject::EventName, Want::OneOf(names)) => def.id == syscall::ID || names.iter().any(|n| n == def.name),
        _ => true,
    })
}

/// Whether a path that fits, fits in its normal form as well.
fn is_plain(want: &Want) -> bool {
    let plain = |text: &String| normal(text) == *text && !text.ends_with('/') && text.starts_with('/');
    match want {
        Want::OneOf(texts) => texts.iter().all(plain),
        Want::Starts(text) => normal(text) == *text && text.starts_with('/'),
        Want::Ends(text) => !leaf(text).is_empty() && normal(text) == *text,
        Want::Write => false,
    }
}

impl Test {
    fn holds(&self, event: &Event<'_>) -> bool {
        let Self(subject, want) = self;
        match subject {
            Subject::EventName => want.takes(event.name()),
            Subject::ProcessName => want.takes(&String::from_utf8_lossy(event.view.comm())),
            // What a call is given may be told by other names than those of the record.
            Subject::Argument(_) if event.view.event() == syscall::ID => true,
            Subject::Argument(name) => {
                let def = event.def();
                let Some(index) = def.field(name) else { return false };
                let value = value_json(event, Field(index as u8));
                matches!(value, Some(Value::String(text)) if want.takes(&text))
            }
        }
    }
}

impl Want {
    fn takes(&self, text: &str) -> bool {
        match self {
            Self::OneOf(texts) => texts.iter().any(|t| t == text),
            Self::Starts(start) => text.starts_with(start.as_str()),
            Self::Ends(end) => text.ends_with(end.as_str()),
            Self::Write => ["o_wronly", "o_rdwr"].iter().any(|mode| text.to_lowercase().contains(mode)),
        }
    }
}

/// Sets of texts that the module has under a name, and all names that it gives a meaning.
fn sets(module: &Module) -> (BTreeMap<String, Vec<String>>, BTreeSet<String>) {
    let mut sets = BTreeMap::new();
    let mut names = BTreeSet::new();
    for rule in &module.policy {
        let Rule::Spec { head, bodies, .. } = rule.as_ref() else { continue };
        let (RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. }) = head;
        let name = dotted(refr).first().map(|n| (*n).to_owned()).unwrap_or_default();
        let value = match head {
            RuleHead::Compr { assign: Some(assign), .. } if dotted(refr).len() == 1 => Some(&assign.value),
            _ => None,
        };
        let texts = value.and_then(|value| match value.as_ref() {
            Expr::Set { items, .. } => items.iter().map(|i| literal(i)).collect::<Option<Vec<_>>>(),
            _ => None,
        });
        let constant = bodies.iter().all(|b| b.query.stmts.is_empty());
        if names.insert(name.clone()) && constant {
            sets.extend(texts.map(|texts| (name, texts)));
        } else {
            // More than one definition: whatever they mean together.
            sets.remove(&name);
        }
    }
    (sets, names)
}

/// One body of the signature: which of its names stand for what.
struct Body<'a> {
    helpers: bool,
    sets: &'a BTreeMap<String, Vec<String>>,
    aliases: BTreeMap<&'a str, Subject>,
    /// Names that the body makes, or may make.
    own: BTreeSet<&'a str>,
}

impl<'a> Body<'a> {
    fn new(query: &'a Query, helpers: bool, sets: &'a BTreeMap<String, Vec<String>>) -> Self {
        let mut body = Self { helpers, sets, aliases: BTreeMap::new(), own: BTreeSet::new() };
        for stmt in &query.stmts {
            match &stmt.literal {
                Literal::SomeVars { vars, .. } => body.own.extend(vars.iter().map(|v| v.text())),
                Literal::SomeIn { key, value, .. } => {
                    body.own.extend(key.iter().chain([value]).flat_map(|e| dotted(e)));
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { lhs, rhs, .. } = expr.as_ref() {
                        body.own.extend(dotted(lhs));
                        body.own.extend(dotted(rhs));
                        if let ([name], Some(subject), true) =
                            (&*dotted(lhs), body.subject(rhs), stmt.with_mods.is_empty())
                        {
                            body.aliases.insert(name, subject);
                        }
                    }
                }
                Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        body
    }

    fn tests(&self, query: &Query) -> Vec<Test> {
        let plain = query.stmts.iter().filter(|s| s.with_mods.is_empty());
        let tests = plain.filter_map(|s| match &s.literal {
            Literal::Expr { expr, .. } => self.test(expr),
            _ => None,
        });
        tests.collect()
    }

    fn test(&self, expr: &Expr) -> Option<Test> {
        match expr {
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } | Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                let (subject, text) = match (self.subject(lhs), literal(rhs)) {
                    (Some(subject), Some(text)) => (subject, text),
                    _ => (self.subject(rhs)?, literal(lhs)?),
                };
                Some(Test(subject, Want::OneOf(vec![text])))
            }
            Expr::RefBrack { refr, index, .. } => match &*dotted(refr) {
                [name] if !self.own.contains(name) => {
                    Some(Test(self.subject(index)?, Want::OneOf(self.sets.get(*name)?.clone())))
                }
                _ => None,
            },
            Expr::Call { fcn, params, .. } => match (&*dotted(fcn), &**params) {
                (["startswith"], [text, start]) => Some(Test(self.subject(text)?, Want::Starts(literal(start)?))),
                (["endswith"], [text, end]) => Some(Test(self.subject(text)?, Want::Ends(literal(end)?))),
                (["helpers", "is_file_write"], [flags]) if self.helpers => {
                    Some(Test(self.subject(flags)?, Want::Write))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn subject(&self, expr: &Expr) -> Option<Subject> {
        if let Expr::Call { fcn, params, .. } = expr {
            let argument = self.helpers && *dotted(fcn) == ["helpers", "get_tracee_argument"];
            return match &**params {
                [name] if argument => literal(name).map(Subject::Argument),
                _ => None,
            };
        }
        match &*dotted(expr) {
            ["input", "eventName"] => Some(Subject::EventName),
            ["input", "processName"] => Some(Subject::ProcessName),
            [name] => self.aliases.get(name).cloned(),
            _ => None,
        }
    }
}

/// The names in a reference like `a.b["c"]`; none for anything else.
fn dotted(expr: &Expr) -> Vec<&str> {
    let with = |refr: &'_ Expr| (!dotted(refr).is_empty()).then_some(());
    match expr {
        Expr::Var { span, .. } => vec![span.text()],
        Expr::RefDot { refr, field, .. } if with(refr).is_some() => {
            let mut names = dotted(refr);
            names.push(field.0.text());
            names
        }
        Expr::RefBrack { refr, index, .. } if with(refr).is_some() => match (dotted(refr), index.as_ref()) {
            (mut names, Expr::String { value: regorus::Value::String(name), .. }) => {
                names.push(name);
                names
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn is_false(expr: &Expr) -> bool {
    matches!(expr, Expr::Bool { value: regorus::Value::Bool(false), .. })
}

/// The text that is written there.
fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::String { value: regorus::Value::String(text), .. }
        | Expr::RawString { value: regorus::Value::String(text), .. } => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

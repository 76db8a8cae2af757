//! YAML as a tree that knows its lines. Knows no key; refuses what a configuration does not need: anchors, tags, several
//! documents, keys that are no words, and nesting without end.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deeper nesting is refused.
const MAX_DEPTH: usize = 32;

/// A node and the line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Scalar { text: String, quoted: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) name: String,
}

/// A line and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) line: usize,
    pub(super) problem: String,
}

fn bad<T>(line: usize, problem: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { line, problem: problem.into() })
}

/// The one document in `text`; `None` where there is nothing but comments.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Bad> {
    let mut open: Vec<(Node, Option<Key>)> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| Bad { line: e.marker().line(), problem: e.info().to_owned() })?;
        let line = span.start.line();
        let complete = match event {
            Event::Scalar(text, style, anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                let quoted = style != ScalarStyle::Plain;
                Node { line, value: Value::Scalar { text: text.into_owned(), quoted } }
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if open.len() >= MAX_DEPTH => {
                plain(line, anchor, tag.is_some())?;
                return bad(line, "this is nested too deeply");
            }
            Event::SequenceStart(anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                open.push((Node { line, value: Value::List(Vec::new()) }, None));
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                open.push((Node { line, value: Value::Map(Vec::new()) }, None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, _)) => node,
                None => return bad(line, "an end without a beginning"),
            },
            Event::Alias(_) => return bad(line, "references (`*name`) are not supported"),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        match open.last_mut() {
            Some(parent) => place(parent, complete)?,
            None if root.is_some() => return bad(complete.line, "a second document"),
            None => root = Some(complete),
        }
    }
    Ok(root.filter(|node| !node.is_null()))
}

fn plain(line: usize, anchor: usize, tagged: bool) -> Result<(), Bad> {
    match (anchor, tagged) {
        (0, false) => Ok(()),
        (0, true) => bad(line, "tags (`!name`) are not supported"),
        _ => bad(line, "anchors (`&name`) are not supported"),
    }
}

fn place((parent, key): &mut (Node, Option<Key>), node: Node) -> Result<(), Bad> {
    match &mut parent.value {
        Value::List(items) => items.push(node),
        Value::Map(entries) => match key.take() {
            Some(key) => entries.push((key, node)),
            None => {
                let Value::Scalar { text: name, .. } = node.value else {
                    return bad(node.line, "a key must be a word");
                };
                if let Some((first, _)) = entries.iter().find(|e| e.0.name == name) {
                    return bad(node.line, format!("`{name}` was already set on line {}", first.line));
                }
                *key = Some(Key { line: node.line, name });
            }
        },
        Value::Scalar { .. } => {}
    }
    Ok(())
}

impl Node {
    /// Whether it says "nothing".
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar { quoted: true, .. } => "a text",
            Value::Scalar { text, .. } if matches!(text.as_str(), "true" | "false") => "true or false",
            Value::Scalar { text, .. } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { .. } => "a text",
        }
    }

    fn expected<T>(&self, what: &str) -> Result<T, Bad> {
        bad(self.line, format!("expected {what}, found {}", self.kind()))
    }

    pub(super) fn text(&self) -> Result<String, Bad> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Ok(text.clone()),
            _ => self.expected("a text"),
        }
    }

    pub(super) fn truth(&self) -> Result<bool, Bad> {
        match &self.value {
            Value::Scalar { text, quoted: false } if text == "true" => Ok(true),
            Value::Scalar { text, quoted: false } if text == "false" => Ok(false),
            _ => self.expected("true or false"),
        }
    }

    pub(super) fn number(&self, min: u64, max: u64) -> Result<u64, Bad> {
        let Value::Scalar { text, quoted: false } = &self.value else { return self.expected("a number") };
        let Ok(number) = text.replace('_', "").parse::<u64>() else { return self.expected("a whole number") };
        if number < min || number > max {
            return bad(self.line, format!("{number} is out of range: {min} to {max}"));
        }
        Ok(number)
    }

    pub(super) fn list(&self) -> Result<&[Self], Bad> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => self.expected("a list"),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, Bad> {
        self.list()?.iter().map(Self::text).collect()
    }

    pub(super) fn map(&self) -> Result<&[(Key, Self)], Bad> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            _ => self.expected("a map"),
        }
    }
}

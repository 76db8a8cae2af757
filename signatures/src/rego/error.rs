//! What can be wrong with a Rego file, and what to do about it.

use super::select::SELECTED;
use super::{MATCH, METADOC};

/// Why a file could not be loaded. The others are loaded all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {problem}; {}", line.map(|l| format!(":{l}")).unwrap_or_default(), problem.remedy())]
pub struct LoadError {
    /// The file.
    pub file: String,
    /// The line, where one is to blame.
    pub line: Option<u32>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not Rego.
    #[error("{0}")]
    Syntax(String),
    /// It is Rego, but cannot be turned into a program.
    #[error("cannot be compiled: {0}")]
    Compile(String),
    /// A rule is missing that every signature has.
    #[error("has no rule `{0}`")]
    Missing(&'static str),
    /// A rule that every signature has failed, or has no value.
    #[error("`{rule}` has no usable value: {why}")]
    Value {
        /// The rule.
        rule: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A regular expression in it is none.
    #[error("`{pattern}` is no regular expression: {why}")]
    Pattern {
        /// What is written.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// It calls something that a rule must not do.
    #[error("calls `{0}`")]
    Forbidden(String),
    /// Another file has a rule of this name.
    #[error("its name `{name}` is taken by {by}")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        by: String,
    },
}

impl Problem {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "rules are written in Rego v0, without `if` and `contains` in rule heads",
            Self::Compile(_) => "write this expression in another way",
            Self::Missing(rule) => match *rule {
                METADOC => "add one with id, version, name, eventName, description, tags and properties",
                SELECTED => "add one that names the events, as {\"source\": \"tracee\", \"name\": \"ptrace\"}",
                MATCH => "add one that is true, or an object of evidence, when the event is what you look for",
                _ => "add it",
            },
            Self::Value { .. } => "it must not depend on the input",
            Self::Pattern { .. } => "correct it; look-around and back-references do not exist",
            Self::Forbidden(_) => "a rule has no clock, no network, no chance, and makes nothing of unlimited size",
            Self::Taken { .. } => "give it another eventName",
        }
    }
}

/// Why a rule failed on an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It ran too long.
    #[error("it took more than {0} instructions for one event")]
    Instructions(usize),
    /// It makes too much of what it is shown.
    #[error("it makes a value of more than {0} bytes of one event")]
    Memory(u64),
    /// Two bodies gave different values.
    #[error("two bodies of `tracee_match` gave different objects for one event")]
    Conflict,
    /// Anything else that the machine says.
    #[error("{0}")]
    Machine(String),
}

impl LoadError {
    /// From what the parser says, which has the place in its text: `--> file:line:column`, then the code, then the
    /// message.
    pub(super) fn syntax(file: &str, said: &dyn std::fmt::Display) -> Self {
        let said = said.to_string();
        let place = said.lines().find_map(|l| l.trim().strip_prefix("--> "));
        let mut parts = place.unwrap_or_default().rsplitn(3, ':');
        let line = parts.nth(1).and_then(|l| l.parse().ok());
        let named = parts.next().filter(|_| line.is_some()).unwrap_or(file);
        let message = said.lines().rev().find_map(|l| l.split_once("error: ")).map_or(said.as_str(), |(_, m)| m);
        Self { file: named.to_owned(), line, problem: Problem::Syntax(message.trim().to_owned()) }
    }
}

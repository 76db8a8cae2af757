//! How an engine is set up, with every default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exceptions::Exception;
use crate::flat::Host;
use crate::sources::Sources;

use super::{Engine, ReloadReport};

/// Settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rules that come with Haechi are on.
    pub builtin: bool,
    /// Directories with rules of your own.
    pub dirs: Vec<PathBuf>,
    /// Rules that are off.
    pub disabled: Vec<String>,
    /// Seconds in which the same finding is told once; 0 tells every one.
    pub window_seconds: u64,
    /// Findings remembered for that at once; the oldest gives way.
    pub window_entries: usize,
    /// Limits of every rule.
    pub limits: Limits,
    /// Settings of single rules, by name.
    pub rules: BTreeMap<String, RuleConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            builtin: true,
            dirs: vec![PathBuf::from("/etc/haechi/rules")],
            disabled: Vec::new(),
            window_seconds: 60,
            window_entries: 2048,
            limits: Limits::default(),
            rules: BTreeMap::new(),
        }
    }
}

/// Limits of every rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Instructions that a Rego rule may take for one event.
    pub instructions: usize,
    /// Milliseconds that a rule may take for one event, where the engine has a clock.
    pub milliseconds: u64,
    /// Failures within `aside_seconds` after which a rule is put aside.
    pub failures: u32,
    /// Seconds for which it is put aside.
    pub aside_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { instructions: 25_000, milliseconds: 50, failures: 8, aside_seconds: 60 }
    }
}

/// Settings of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// Paths of programs that may do what the rule looks for; a trailing `*` stands for any end.
    pub allow: Vec<String>,
    /// Exceptions.
    pub exceptions: Vec<Exception>,
}

impl RuleConfig {
    /// Its exceptions, the allowed programs among them.
    #[must_use]
    pub fn all(&self) -> Vec<Exception> {
        let allowed = self.allow.iter().map(|exe| Exception { exe: Some(exe.clone()), ..Exception::default() });
        allowed.chain(self.exceptions.iter().cloned()).collect()
    }
}

/// Why an engine cannot be set up like this.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// It would silence the rule.
    #[error("an exception of rule {0} sets nothing and would silence it; to turn the rule off, add it to `disabled`")]
    EmptyException(String),
}

impl Config {
    /// Builds the engine for events of `host`, with the built-in rules and those in `sources`. A broken rule does not
    /// stop the others: the report names it.
    ///
    /// # Errors
    /// The settings contradict themselves.
    pub fn build(&self, host: Host, sources: &Sources) -> Result<(Engine, ReloadReport), ConfigError> {
        self.check()?;
        let mut engine = Engine::new(self.clone(), host);
        let report = engine.reload(sources);
        Ok((engine, report))
    }

    /// Whether the settings can be meant.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.rules.iter().find(|(_, r)| r.all().iter().any(Exception::is_empty)) {
            Some((name, _)) => Err(ConfigError::EmptyException(name.clone())),
            None => Ok(()),
        }
    }
}

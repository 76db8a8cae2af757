//! The configuration: a YAML file, strict. One table ([`KEYS`]) says which keys there are, what they mean, how they are
//! read and how they are shown; errors, defaults, docs and suggestions all come from it. Knows no stage at work.

mod keys;
mod yaml;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use haechi_ebpf::program::Step;
use haechi_signatures::demand::Demand;
use haechi_signatures::engine;

use crate::core::Options;
use crate::flows;
use crate::kernel;
use crate::servers;
use crate::sinks::{Format, Spec};
use crate::suggest;
use crate::tree;

pub use keys::{KEYS, Key};
use yaml::{Bad, Node};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/haechi/haechi.yaml";

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Events to show besides findings, as `--events` takes them.
    pub events: Vec<String>,
    /// What is watched at all, as `--scope` takes it.
    pub scope: Vec<String>,
    /// Settings of the rules.
    pub rules: engine::Config,
    /// Bytes of the ring for records that the agent's own knowledge rests on.
    pub critical_ring_bytes: u32,
    /// Bytes of the ring for all others.
    pub bulk_ring_bytes: u32,
    /// Bytes of the ring for connections.
    pub flow_ring_bytes: u32,
    /// Whether connections are watched.
    pub flows: bool,
    /// Seconds between two looks at all connections.
    pub flow_seconds: u64,
    /// Programs that metrics of connections know by name.
    pub flow_names: usize,
    /// Connections known at a time.
    pub connections: usize,
    /// Variables of a new program's environment that are shown.
    pub env: Vec<String>,
    /// Hooks that must not be used.
    pub without: Vec<Step>,
    /// Print what the kernel programs log.
    pub debug_log: bool,
    /// Whether findings carry the hash of the program.
    pub executable_hash: bool,
    /// Spell flags instead of giving their numbers.
    pub decoded: bool,
    /// Processes known at a time.
    pub processes: usize,
    /// Bytes of records that may wait for the core.
    pub queue_bytes: usize,
    /// Items that may wait for each sink.
    pub sink_queue: usize,
    /// The sinks.
    pub sinks: Vec<Spec>,
    /// Whether others may watch.
    pub serve: bool,
    /// Where and how.
    pub server: servers::Config,
    /// Events to serve besides those shown, as `--events` takes them.
    pub serve_events: Vec<String>,
    /// What the agent logs about itself.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            scope: Vec::new(),
            rules: engine::Config::default(),
            critical_ring_bytes: kernel::Config::default().critical_ring_bytes,
            bulk_ring_bytes: kernel::Config::default().bulk_ring_bytes,
            flow_ring_bytes: kernel::Config::default().flow_ring_bytes,
            flows: true,
            flow_seconds: 15,
            flow_names: 50,
            connections: flows::LIMIT,
            env: ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"].map(Into::into).into(),
            without: Vec::new(),
            debug_log: false,
            executable_hash: true,
            decoded: true,
            processes: tree::Config::default().limit,
            queue_bytes: 32 << 20,
            sink_queue: 4096,
            sinks: vec![Spec { kind: "stdout".into(), format: Format::Pretty, path: None }],
            serve: false,
            server: servers::Config::default(),
            serve_events: Vec::new(),
            log: "info".into(),
        }
    }
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It means nothing.
    #[error("{problem} at {file}:{line}{hint}")]
    Bad {
        /// In which file.
        file: String,
        /// On which line.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What may have been meant.
        hint: String,
    },
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or says something that has no meaning.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a file called `file`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let mut config = Self::default();
        let at =
            |bad: Bad, hint: String| Error::Bad { file: file.to_owned(), line: bad.line, problem: bad.problem, hint };
        let Some(root) = yaml::parse(text).map_err(|bad| at(bad, String::new()))? else { return Ok(config) };
        config.take("", &root).map_err(|(bad, hint)| at(bad, hint))?;
        Ok(config)
    }

    /// Takes in the keys below `prefix`.
    fn take(&mut self, prefix: &str, node: &Node) -> Result<(), (Bad, String)> {
        let entries = node.map().map_err(|bad| (bad, String::new()))?;
        for (key, value) in entries {
            let path = if prefix.is_empty() { key.name.clone() } else { format!("{prefix}.{}", key.name) };
            if let Some(known) = KEYS.iter().find(|k| k.path == path) {
                (known.set)(self, value).map_err(|mut bad| {
                    bad.problem = format!("`{path}`: {}", bad.problem);
                    (bad, String::new())
                })?;
            } else if KEYS.iter().any(|k| k.path.starts_with(&format!("{path}."))) {
                // A section with nothing in it says nothing.
                if !value.is_null() {
                    self.take(&path, value)?;
                }
            } else {
                let hint = keys::hint(prefix, &key.name);
                return Err((Bad { line: key.line, problem: format!("unknown key `{path}`") }, hint));
            }
        }
        Ok(())
    }

    /// What the kernel is opened with.
    #[must_use]
    pub fn kernel(&self, demands: Vec<Demand>) -> kernel::Config {
        kernel::Config {
            demands,
            critical_ring_bytes: self.critical_ring_bytes,
            bulk_ring_bytes: self.bulk_ring_bytes,
            flow_ring_bytes: self.flow_ring_bytes,
            env_bytes: if self.env.is_empty() { 0 } else { kernel::Config::default().env_bytes },
            debug_log: self.debug_log,
            without: self.without.clone(),
        }
    }

    /// What the core is told at the start.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            events: self.events.clone(),
            scope: self.scope.clone(),
            executable_hash: self.executable_hash,
            processes: self.processes,
            flows: self.flows,
            connections: self.connections,
            flow_names: self.flow_names,
            rules: self.rules.clone(),
            env: self.env.clone(),
            decoded: self.decoded,
        }
    }

    /// The settings as a file with every key, its meaning before it.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if above != section {
                section = above;
                // A string takes everything.
                let _ = writeln!(out, "{section}:");
            }
            let indent = if above.is_empty() { "" } else { "  " };
            for line in key.doc.lines() {
                let _ = writeln!(out, "{indent}# {line}");
            }
            let _ = writeln!(out, "{indent}{name}: {}", (key.show)(self));
        }
        out
    }
}

#[cfg(test)]
mod tests;

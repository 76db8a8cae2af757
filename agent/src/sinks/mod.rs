//! Where findings and events go. Each sink is one file here and one line in [`KINDS`]. A sink has a bounded queue and a
//! thread of its own: a slow or broken one loses its own items, counted by name, and never holds up the others or the
//! core. What it lost it shows as a gap.

mod file;
mod lines;
mod queue;
mod stdout;
pub mod table;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::render::{self, Context, Item};

use queue::Queue;
pub use queue::Status;

/// How long a sink may write nothing at the end before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// A kind of sink.
pub struct Kind {
    /// Name in the configuration.
    pub name: &'static str,
    /// One line for the docs.
    pub doc: &'static str,
    /// Whether it needs `path`.
    pub needs_path: bool,
    build: fn(&Spec, &Context) -> io::Result<Box<dyn Sink>>,
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "stdout",
        doc: "Standard output; the agent ends when it was the only sink and its reader is gone.",
        needs_path: false,
        build: stdout::build,
    },
    Kind {
        name: "file",
        doc: "Appends to the file at `path`, which only its owner may read when it is new.",
        needs_path: true,
        build: file::build,
    },
];

/// A form of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

impl Format {
    /// Names in the configuration.
    pub const NAMES: &[(&'static str, Self)] = &[("pretty", Self::Pretty), ("json", Self::Json)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|n| n.1 == self).map_or("", |n| n.0)
    }

    /// What writes a line in it.
    #[must_use]
    pub const fn render(self) -> fn(&Item, &Context, &mut Vec<u8>) {
        match self {
            Self::Pretty => render::pretty::write,
            Self::Json => render::json::write,
        }
    }
}

/// How a sink is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name of its kind.
    pub kind: String,
    /// Form of its lines.
    pub format: Format,
    /// Where it writes to, for those that need it.
    pub path: Option<PathBuf>,
}

/// A sink at work. It is called from its own thread only.
trait Sink: Send {
    /// Takes an item and holds it back.
    fn gather(&mut self, item: &Item);

    /// How often it wants to be flushed though nothing came; `None` for never.
    fn beat(&self) -> Option<Duration> {
        None
    }

    /// Lets go of everything held back. After an error all of it counts as lost.
    fn flush(&mut self) -> io::Result<()>;
}

/// Why a sink cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such kind.
    #[error("there is no sink `{0}`{hint}", hint = crate::suggest::hint(.0, KINDS.iter().map(|k| k.name)))]
    Kind(String),
    /// It needs a path.
    #[error("sink `{0}` needs a `path`")]
    Path(String),
    /// It cannot be opened.
    #[error("sink `{name}` cannot be opened")]
    Open {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// All sinks of a run.
pub struct Sinks {
    queues: Vec<Queue>,
}

impl Sinks {
    /// Starts the sinks, and the `table` of connections where one is asked for, each with a queue of `capacity` items. `closed` is called when the reader of one is gone.
    ///
    /// # Errors
    /// The first that cannot be set up.
    pub fn build(
        specs: &[Spec],
        table: Option<&table::Spec>,
        context: &Context,
        capacity: usize,
        closed: &Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, Error> {
        let mut queues = Vec::new();
        if let Some(spec) = table {
            let name = "flows".to_owned();
            let open = |source| Error::Open { name: name.clone(), source };
            let sink = Box::new(table::Table::new(spec.clone(), context).map_err(open)?);
            queues.push(Queue::start(name.clone(), sink, capacity, closed.clone()).map_err(open)?);
        }
        for spec in specs {
            let kind = KINDS.iter().find(|k| k.name == spec.kind).ok_or_else(|| Error::Kind(spec.kind.clone()))?;
            if kind.needs_path && spec.path.is_none() {
                return Err(Error::Path(spec.kind.clone()));
            }
            let name = match &spec.path {
                Some(path) => format!("{}:{}", kind.name, path.display()),
                None => kind.name.to_owned(),
            };
            let open = |source| Error::Open { name: name.clone(), source };
            let sink = (kind.build)(spec, context).map_err(open)?;
            queues.push(Queue::start(name.clone(), sink, capacity, closed.clone()).map_err(open)?);
        }
        Ok(Self { queues })
    }

    /// Hands an item to every sink.
    pub fn send(&self, item: &Arc<Item>) {
        for queue in &self.queues {
            queue.send(item);
        }
    }

    /// How each fares.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        self.queues.iter().map(Queue::status).collect()
    }

    /// Lets every sink write what is left and ends it. One that is stuck is left behind after a few seconds, and what it
    /// did not write is counted.
    #[must_use]
    pub fn finish(self) -> Vec<Status> {
        self.queues.into_iter().map(|queue| queue.finish(PATIENCE)).collect()
    }
}

/// Counts by name, as sinks keep them.
type ByName = BTreeMap<String, u64>;

#[cfg(test)]
mod tests;

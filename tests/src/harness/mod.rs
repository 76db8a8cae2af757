//! Starts agents and actors, waits with deadlines, cleans up, counts. It knows the product by its command line and
//! its JSON lines; it must not know what a test is about.

mod actor;
mod agent;
mod bpf;
mod expect;
mod guard;
mod line;
mod runner;
mod shared;

pub use actor::{Did, Said};
pub use agent::{Agent, Out, Spec, Stopped};
pub use bpf::Bpf;
pub use expect::{Want, fields, who};
pub use guard::{Cgroup, Netns, Scratch, ip, sweep};
pub use line::Line;
pub use runner::{Options, Skip, main, wait_until};
pub use shared::Shared;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machines::Machine;

/// A test: its name and what it does.
pub type Test = (&'static str, fn(&Context) -> anyhow::Result<()>);

/// What a test gets: where it runs, which programs it drives.
#[derive(Debug)]
pub struct Context {
    /// The agent under test.
    pub haechi: PathBuf,
    /// The actors.
    pub actor: PathBuf,
    /// What must work here.
    pub machine: &'static Machine,
    /// A directory of this run on a tmpfs of its own: inodes there are numbered as stat(2) says, on every machine.
    pub scratch: Scratch,
    /// The agent that tests share.
    pub shared: Shared,
}

impl Context {
    /// Drives `haechi`, and the actors beside this program.
    ///
    /// # Errors
    /// When not root.
    pub fn new(haechi: PathBuf, machine: &'static Machine) -> anyhow::Result<Self> {
        let actor = std::env::current_exe()?.with_file_name("actor");
        Ok(Self { haechi, actor, machine, scratch: Scratch::new()?, shared: Shared::default() })
    }

    /// How long to wait for something that takes a moment on a fast machine.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(20) * self.machine.slow
    }

    /// A new empty directory, its path.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn dir(&self, name: &str) -> anyhow::Result<String> {
        let path = self.scratch.path().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(path.display().to_string())
    }

    /// A new file with this content, its path.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<String> {
        let path = self.scratch.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    }
}

/// The path as text, as it appears in events.
fn text(path: &Path) -> String {
    path.display().to_string()
}

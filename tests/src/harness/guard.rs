//! What a run makes and must not leave behind: each thing is a guard that removes it, and is also kept in one list,
//! so that a run that is given up half-way can be swept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};

use crate::facts;
use crate::sys::call;

/// Something to undo.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Made {
    Process(u32),
    Mount(PathBuf),
    Directory(PathBuf),
    Cgroup(PathBuf),
    Netns(String),
}

static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());

fn made() -> std::sync::MutexGuard<'static, Vec<Made>> {
    MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn add(thing: Made) {
    made().push(thing);
}

fn undo(thing: &Made) {
    made().retain(|m| m != thing);
    let undone = match thing {
        Made::Process(pid) => call(libc::SYS_kill, [(*pid as i32).into(), libc::SIGKILL.into()]).map(drop),
        Made::Mount(path) => std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(std::io::Error::from)
            .and_then(|p| call(libc::SYS_umount2, [p.as_c_str().into(), libc::MNT_DETACH.into()]).map(drop)),
        Made::Directory(path) => fs::remove_dir_all(path),
        Made::Cgroup(path) => fs::remove_dir(path),
        Made::Netns(name) => ip(&format!("netns del {name}")).map_err(std::io::Error::other),
    };
    if let Err(e) = undone {
        // A process that ended by itself, a cgroup that a test removed.
        if e.raw_os_error() != Some(libc::ESRCH) && e.kind() != std::io::ErrorKind::NotFound {
            eprintln!("e2e: left behind: {thing:?}: {e}");
        }
    }
}

/// Undoes everything that is still there, newest first.
pub fn sweep() {
    let things: Vec<Made> = made().drain(..).rev().collect();
    things.iter().for_each(undo);
}

/// A process of ours, ended by its id when the guard goes.
#[derive(Debug)]
pub(super) struct Process(Made);

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        add(Made::Process(pid));
        Self(Made::Process(pid))
    }

    /// It was reaped: its id may belong to somebody else now.
    pub(super) fn gone(&self) {
        made().retain(|m| *m != self.0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let listed = made().contains(&self.0);
        if listed {
            undo(&self.0);
        }
    }
}

/// A directory with a tmpfs on it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes it below /tmp.
    ///
    /// # Errors
    /// When not root.
    pub fn new() -> Result<Self> {
        Self::with("size=256m")
    }

    /// The same with options of tmpfs.
    ///
    /// # Errors
    /// When not root.
    pub fn with(options: &str) -> Result<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/haechi-e2e-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        add(Made::Directory(path.clone()));
        let options = std::ffi::CString::new(options)?;
        let at = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        call(
            libc::SYS_mount,
            [c"haechi-e2e".into(), at.as_c_str().into(), c"tmpfs".into(), 0.into(), options.as_c_str().into()],
        )
        .context("a tmpfs for the run")?;
        add(Made::Mount(path.clone()));
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        undo(&Made::Mount(self.path.clone()));
        undo(&Made::Directory(self.path.clone()));
    }
}

/// A cgroup v2 of ours.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Only takes note of the path, for a cgroup that an actor makes and removes.
    #[must_use]
    pub fn noted(name: &str) -> Self {
        let path = Path::new(facts::cgroup_root()).join(format!("haechi-e2e-{}-{name}", std::process::id()));
        add(Made::Cgroup(path.clone()));
        Self { path }
    }

    /// Makes one with exactly this name, which must tell nobody else's apart.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn made(name: &str) -> Result<Self> {
        let path = Path::new(facts::cgroup_root()).join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        add(Made::Cgroup(path.clone()));
        Ok(Self { path })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        undo(&Made::Cgroup(self.path.clone()));
    }
}

/// Runs `ip` with these words, for namespaces of ours.
///
/// # Errors
/// What it says.
pub fn ip(words: &str) -> Result<()> {
    let out = Command::new("ip").args(words.split_whitespace()).output().context("ip")?;
    ensure!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// A network namespace of ours. Its links and sockets go with it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one with its loopback up.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("haechi-e2e-{}-{name}-{number}", std::process::id());
        ip(&format!("netns add {name}"))?;
        add(Made::Netns(name.clone()));
        let made = Self { name };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// What `ip netns` calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// The number that the kernel gives it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn inode(&self) -> Result<u64> {
        Ok(facts::File::at(self.path())?.inode)
    }

    /// Runs `ip` in it.
    ///
    /// # Errors
    /// What it says.
    pub fn ip(&self, words: &str) -> Result<()> {
        ip(&format!("-n {} {words}", self.name))
    }

    /// Runs a program in it; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, words: &str) -> Result<String> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let out = Command::new("nsenter").arg(format!("--net={}", self.path().display())).args(&words).output()?;
        ensure!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(String::from_utf8(out.stdout)?)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        undo(&Made::Netns(self.name.clone()));
    }
}

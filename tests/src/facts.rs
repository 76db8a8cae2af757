//! What the kernel itself says about tasks and files, by other ways than the agent's: /proc, stat(2). Expected values
//! come from here. It must not know the agent.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A task, as /proc shows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Task {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Process in its innermost pid namespace.
    pub ns_pid: u32,
    /// Thread in its innermost pid namespace.
    pub ns_tid: u32,
    /// Start of the thread in clock ticks since boot (stat, field 22).
    pub start: u64,
    /// The same of its process.
    pub leader_start: u64,
    /// Name of the thread.
    pub comm: String,
    /// Executable.
    pub exe: String,
    /// Working directory.
    pub cwd: String,
    /// Users: real, effective.
    pub uid: [u32; 2],
    /// Groups: real, effective.
    pub gid: [u32; 2],
    /// Capability sets: inheritable, permitted, effective.
    pub caps: [u64; 3],
    /// Namespaces: mount, pid, network.
    pub ns: [u32; 3],
    /// Path in the cgroup v2 tree.
    pub cgroup: String,
    /// Id of that cgroup.
    pub cgroup_id: u64,
    /// Login user (audit).
    pub login_uid: u32,
    /// Audit session.
    pub session: u32,
}

/// Nanoseconds in a clock tick of /proc.
pub const TICK: u64 = 10_000_000;

impl Task {
    /// The calling thread.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn me() -> Result<Self> {
        let link = fs::read_link("/proc/thread-self").context("/proc/thread-self")?;
        let ids: Vec<u32> = link.to_string_lossy().split('/').filter_map(|p| p.parse().ok()).collect();
        let [pid, tid] = ids[..] else { anyhow::bail!("/proc/thread-self is {}", link.display()) };
        Self::of(pid, tid)
    }

    /// A thread of a process, in the numbering of the caller's /proc.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(pid: u32, tid: u32) -> Result<Self> {
        let dir = format!("/proc/{pid}/task/{tid}");
        let status = read(&format!("{dir}/status"))?;
        let line = |name: &str| -> Vec<String> {
            let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let number = |name: &str, i: usize| line(name).get(i).and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
        let mask = |name: &str| line(name).first().and_then(|n| u64::from_str_radix(n, 16).ok()).unwrap_or(0);
        let ns = |name: &str| fs::metadata(format!("{dir}/ns/{name}")).map_or(0, |m| m.ino() as u32);
        let link = |name: &str| fs::read_link(format!("{dir}/{name}")).unwrap_or_default().display().to_string();
        let cgroup = cgroup_path(&format!("{dir}/cgroup"));
        Ok(Self {
            pid,
            tid,
            ppid: number("PPid", 0),
            ns_pid: line("NStgid").last().and_then(|n| n.parse().ok()).unwrap_or(0),
            ns_tid: line("NSpid").last().and_then(|n| n.parse().ok()).unwrap_or(0),
            start: start(&format!("{dir}/stat"))?,
            leader_start: start(&format!("/proc/{pid}/stat"))?,
            comm: read(&format!("{dir}/comm"))?.trim_end().to_owned(),
            exe: link("exe"),
            cwd: link("cwd"),
            uid: [number("Uid", 0), number("Uid", 1)],
            gid: [number("Gid", 0), number("Gid", 1)],
            caps: [mask("CapInh"), mask("CapPrm"), mask("CapEff")],
            ns: [ns("mnt"), ns("pid"), ns("net")],
            cgroup_id: cgroup_id(&cgroup),
            cgroup,
            login_uid: audit(&format!("{dir}/loginuid")),
            session: audit(&format!("{dir}/sessionid")),
        })
    }
}

fn read(path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path).with_context(|| path.to_owned())?).into_owned())
}

/// Start in ticks: the 20th word after the name, which is in brackets and may hold anything.
fn start(path: &str) -> Result<u64> {
    let text = read(path)?;
    let rest = text.rsplit_once(')').context("stat without a name")?.1;
    rest.split_whitespace().nth(19).and_then(|w| w.parse().ok()).context("stat without a start")
}

/// A kernel without audit has no such file; it then reports nobody.
fn audit(path: &str) -> u32 {
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(u32::MAX)
}

fn cgroup_path(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_default().to_owned()
}

/// Where the cgroup v2 tree is mounted on this machine.
#[must_use]
pub fn cgroup_root() -> &'static str {
    if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" }
}

/// Id of a cgroup v2 by its path in the tree; 0 when it cannot be seen.
#[must_use]
pub fn cgroup_id(path: &str) -> u64 {
    fs::metadata(format!("{}{path}", cgroup_root())).map_or(0, |m| m.ino())
}

/// A file, as stat(2) shows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct File {
    /// Path under which it was looked at.
    pub path: String,
    /// Device as the kernel numbers it: major << 20 | minor.
    pub dev: u32,
    /// Inode.
    pub inode: u64,
    /// Change time, nanoseconds since the epoch.
    pub ctime: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Links.
    pub nlink: u64,
    /// The device that it stands for, as the kernel numbers it.
    pub rdev: u32,
}

/// Whether a file is seen through an overlay: stat(2) then makes up a device, and shows the links of the file below.
#[must_use]
pub fn on_overlay(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut holds: Vec<(&str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(place, _)| Path::new(path).starts_with(place))
        .collect();
    // The longest holds the file; of two at one place the later lies on top.
    holds.sort_by_key(|(place, _)| place.len());
    holds.last().is_some_and(|(_, kind)| *kind == "overlay")
}

impl File {
    /// Looks at `path`, following links.
    ///
    /// # Errors
    /// When it is not there.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
        Ok(Self::from_meta(path.display().to_string(), &meta))
    }

    /// Looks at `path` itself, where that is a link.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of_link(path: &str) -> Result<Self> {
        Ok(Self::from_meta(path.to_owned(), &fs::symlink_metadata(path).with_context(|| path.to_owned())?))
    }

    /// From what stat(2) returned.
    #[must_use]
    pub fn from_meta(path: String, meta: &fs::Metadata) -> Self {
        Self {
            path,
            dev: kernel_dev(meta.dev()),
            inode: meta.ino(),
            ctime: (meta.ctime() as u64).wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec() as u64),
            mode: meta.mode(),
            nlink: meta.nlink(),
            rdev: kernel_dev(meta.rdev()),
        }
    }
}

/// stat(2) shows a device in another packing than the kernel keeps it.
fn kernel_dev(dev: u64) -> u32 {
    libc::major(dev) << 20 | libc::minor(dev)
}

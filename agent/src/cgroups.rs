//! Which cgroup is which container: learned from the kernel's records and from one scan at start. Bounded. Knows no
//! process; the scan is the only part that touches a file system, and runs outside the core.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haechi_signatures::model::Container;

use crate::container;

/// Cgroups known at a time.
pub const MAX_CGROUPS: usize = 16_384;

/// The cgroups of the v2 hierarchy, by id.
#[derive(Debug)]
pub struct Cgroups {
    known: HashMap<u64, Cgroup>,
    by_age: VecDeque<u64>,
    removed: VecDeque<(u64, u64)>,
    limit: usize,
    evicted: u64,
}

/// One cgroup.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// Path from the root of the hierarchy.
    pub path: Arc<str>,
    /// The container it belongs to.
    pub container: Option<Arc<Container>>,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::with_limit(MAX_CGROUPS)
    }
}

impl Cgroups {
    /// Holds at most `limit`.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            known: HashMap::new(),
            by_age: VecDeque::new(),
            removed: VecDeque::new(),
            limit: limit.max(1),
            evicted: 0,
        }
    }

    /// A cgroup exists. The oldest is forgotten where there is no room.
    pub fn learn(&mut self, id: u64, path: &str) {
        if self.known.get(&id).is_some_and(|c| &*c.path == path) {
            return;
        }
        let container = container::from_cgroup_path(path).map(Arc::new);
        if self.known.insert(id, Cgroup { path: path.into(), container }).is_some() {
            return;
        }
        self.by_age.push_back(id);
        while self.known.len() > self.limit {
            let Some(oldest) = self.by_age.pop_front() else { break };
            if self.known.remove(&oldest).is_some() {
                self.evicted += 1;
            }
        }
    }

    /// A cgroup was removed at `time`; it stays known for records that are still to come.
    pub fn remove(&mut self, id: u64, time: u64) {
        if self.known.contains_key(&id) {
            self.removed.push_back((time, id));
        }
    }

    /// Forgets what was removed before `time`.
    pub fn advance(&mut self, time: u64) {
        while self.removed.front().is_some_and(|(removed, _)| *removed < time) {
            if let Some((_, id)) = self.removed.pop_front() {
                self.known.remove(&id);
            }
        }
        if self.by_age.len() > 2 * self.known.len() + 64 {
            self.by_age.retain(|id| self.known.contains_key(id));
        }
    }

    /// The cgroup with this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Cgroup> {
        self.known.get(&id)
    }

    /// How many are known, and how many were forgotten for want of room.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.known.len(), self.evicted)
    }
}

/// Every cgroup there is now, by id, with its path: parents before children, at most [`MAX_CGROUPS`].
///
/// # Errors
/// When no cgroup v2 hierarchy is mounted, or it cannot be read.
pub fn scan() -> io::Result<Vec<(u64, String)>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let Some((root, mount)) = find_mount(&mounts) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 hierarchy is mounted"));
    };
    walk(&mount, &root)
}

/// Root within the hierarchy and mount point of the cgroup2 mount that shows most.
fn find_mount(mountinfo: &str) -> Option<(String, PathBuf)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut fields = left.split(' ').skip(3);
            let (root, mount) = (fields.next()?, fields.next()?);
            (right.split(' ').next() == Some("cgroup2")).then(|| (unescape(root), PathBuf::from(unescape(mount))))
        })
        .min_by_key(|(root, _)| root.len())
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |t, (from, to)| t.replace(from, to))
}

fn walk(mount: &Path, root: &str) -> io::Result<Vec<(u64, String)>> {
    let mut found = vec![(fs::metadata(mount)?.ino(), root.to_owned())];
    let mut next = 0;
    while next < found.len() && found.len() < MAX_CGROUPS {
        let parent = found[next].1.clone();
        next += 1;
        let below = parent.strip_prefix(root).unwrap_or(&parent).trim_start_matches('/');
        // A cgroup may go while we look; what is gone needs no name.
        let Ok(entries) = fs::read_dir(mount.join(below)) else { continue };
        for entry in entries.flatten() {
            if let (Ok(kind), Ok(meta)) = (entry.file_type(), entry.metadata())
                && kind.is_dir()
                && found.len() < MAX_CGROUPS
            {
                let name = entry.file_name();
                found.push((meta.ino(), format!("{}/{}", parent.trim_end_matches('/'), name.to_string_lossy())));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let mut cgroups = Cgroups::with_limit(2);
        for id in 1..=3 {
            cgroups.learn(id, &format!("/default/c{id}"));
        }
        assert!(cgroups.get(1).is_none());
        let container = cgroups.get(3).and_then(|c| c.container.clone()).expect("a container");
        assert_eq!((container.id.as_str(), cgroups.counts()), ("c3", (2, 1)));
    }

    #[test]
    fn a_removed_cgroup_stays_until_its_time_has_passed() {
        let mut cgroups = Cgroups::default();
        cgroups.learn(7, "/docker/x");
        cgroups.remove(7, 100);
        cgroups.advance(100);
        assert!(cgroups.get(7).is_some());
        cgroups.advance(101);
        assert!(cgroups.get(7).is_none());
    }

    #[test]
    fn the_v2_mount_is_found_on_pure_and_hybrid_hosts() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(hybrid), Some(("/".into(), "/sys/fs/cgroup/unified".into())));
        let bind = "9 1 0:38 /docker/a /x\\040y rw shared:1 - cgroup2 none rw\n\
                    8 1 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n";
        assert_eq!(find_mount(bind), Some(("/".into(), "/sys/fs/cgroup".into())));
        assert_eq!(find_mount("1 1 0:1 / / rw - ext4 /dev/sda rw"), None);
    }

    #[test]
    fn a_walk_names_directories_by_inode() {
        let dir = std::env::temp_dir().join(format!("haechi-cgroups-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).expect("a directory of our own");
        fs::write(dir.join("a/file"), "").expect("a file of our own");
        let found = walk(&dir, "/").expect("readable");
        fs::remove_dir_all(&dir).expect("what we made");
        let paths: Vec<&str> = found.iter().map(|f| f.1.as_str()).collect();
        assert_eq!(paths, ["/", "/a", "/a/b"]);
    }
}

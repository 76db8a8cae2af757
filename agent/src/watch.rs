//! Notices when rules change on disk: watches directories and those below them, in a thread that sleeps until the kernel
//! has something to say. A change may be an edit, a move, or the swap of a symbolic link as Kubernetes does it with a
//! mounted ConfigMap; all of them touch a directory that is watched. Says only that something changed; what, others find
//! out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use tokio::sync::Notify;
use tracing::warn;

/// Time given to a change before it counts: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
/// Directories watched at most.
const MAX_DIRS: usize = 1024;
/// Directories below one another.
const MAX_DEPTH: usize = 16;

/// Watches `dirs` from now on and tells `changed` of each change. A directory that does not exist yet is watched through
/// its nearest parent that does. The thread ends with the process.
///
/// # Errors
/// When the kernel gives no watch.
pub fn start(dirs: &[PathBuf], changed: Arc<Notify>) -> io::Result<()> {
    let mut inotify = Inotify::init()?;
    let dirs = dirs.to_vec();
    watch(&inotify, &dirs);
    thread::Builder::new().name("haechi-watch".into()).spawn(move || {
        loop {
            if let Err(error) = next(&mut inotify) {
                return warn!(%error, "rules are no longer watched: changes need SIGHUP");
            }
            watch(&inotify, &dirs);
            changed.notify_one();
        }
    })?;
    Ok(())
}

/// Waits for a change and for those that come with it.
fn next(inotify: &mut Inotify) -> io::Result<()> {
    let mut buffer = [0; 4096];
    inotify.read_events_blocking(&mut buffer)?;
    thread::sleep(SETTLE);
    loop {
        match inotify.read_events(&mut buffer) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Watches what is there now; what is watched already stays so.
fn watch(inotify: &Inotify, dirs: &[PathBuf]) {
    let mut found = Vec::new();
    for dir in dirs {
        if dir.is_dir() {
            below(dir, 0, &mut found);
        } else if let Some(parent) = dir.ancestors().skip(1).find(|d| d.is_dir()) {
            found.push(parent.to_owned());
        }
    }
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    for dir in found {
        if let Err(error) = inotify.watches().add(&dir, mask) {
            warn!(dir = %dir.display(), %error, "this directory cannot be watched: changes of rules there need SIGHUP");
        }
    }
}

fn below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if depth > MAX_DEPTH || found.len() >= MAX_DIRS {
        return;
    }
    found.push(dir.to_owned());
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            below(&entry.path(), depth + 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tokio::time::timeout;

    /// A directory that is gone when this is.
    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            // Nothing can be done about a failure here.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn edits_new_directories_and_swapped_links_are_noticed() {
        let dir = Dir(std::env::temp_dir().join(format!("haechi-watch-{}", std::process::id())));
        let rules = dir.0.join("rules");
        fs::create_dir_all(&dir.0).expect("a directory of our own");
        let changed = Arc::new(Notify::new());
        // The directory itself comes later.
        start(std::slice::from_ref(&rules), changed.clone()).expect("a watch");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let wait = |what: &str| {
            runtime
                .block_on(async { timeout(Duration::from_secs(30), changed.notified()).await })
                .unwrap_or_else(|_| panic!("nobody noticed: {what}"));
        };
        fs::create_dir(&rules).expect("below ours");
        wait("the directory came");
        fs::write(rules.join("a.rego"), "x").expect("below ours");
        wait("a file came");
        fs::create_dir(rules.join("..1")).expect("below ours");
        symlink("..1", rules.join("..data_tmp")).expect("below ours");
        wait("a version came");
        fs::rename(rules.join("..data_tmp"), rules.join("..data")).expect("below ours");
        wait("the link was swapped");
    }
}

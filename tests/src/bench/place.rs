//! Where the benchmark keeps its files: a memory file system in a mount namespace of its own, which the kernel takes
//! away with the last process in it. Everything the benchmark starts lives in that namespace too.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::sys::call;

/// The directory and what is mounted on it.
pub(super) struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes it. Must be called while there is one thread.
    pub(super) fn make() -> Result<Self> {
        call(libc::SYS_unshare, [libc::CLONE_NEWNS.into()]).context("a mount namespace: must be root")?;
        let private = (libc::MS_REC | libc::MS_PRIVATE) as i64;
        call(libc::SYS_mount, [c"none".into(), c"/".into(), 0.into(), private.into(), 0.into()])
            .context("mounts of our own")?;
        let path = std::env::temp_dir().join(format!("haechi-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let place = Self { path };
        let (at, options) = (CString::new(place.path.as_os_str().as_encoded_bytes())?, c"size=256m");
        call(
            libc::SYS_mount,
            [c"haechi-bench".into(), at.as_c_str().into(), c"tmpfs".into(), 0.into(), options.into()],
        )
        .context("a memory file system")?;
        Ok(place)
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file below it, making the directories; its path.
    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path.display().to_string())
    }

    /// A file whose path has eight components from the root, across our mount.
    pub(super) fn deep_file(&self) -> Result<String> {
        let above = self.path.components().count() - 1;
        let names = ["a", "srv", "www", "app", "data", "conf", "keys"];
        let dirs = names[..names.len().saturating_sub(above)].join("/");
        self.file(&format!("{dirs}/watched"), "x")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(at) = CString::new(self.path.as_os_str().as_encoded_bytes()) {
            // Without it the namespace takes the mount away when we end.
            let _ = call(libc::SYS_umount2, [at.as_c_str().into(), libc::MNT_DETACH.into()]);
        }
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("haechi-bench: left behind: {}: {error}", self.path.display());
        }
    }
}

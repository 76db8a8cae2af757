//! The emulator and the boot tool: which are there, and how to get what is missing. virtme-ng lives in a Python
//! environment of our own, so that the system's Python is left alone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{place, sh};

/// Debian packages a virtual machine needs, each with a file that shows it is there.
pub(crate) const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("busybox-static", "/bin/busybox"),
    ("kmod", "/bin/kmod"),
    ("file", "/usr/bin/file"),
    ("udev", "/bin/udevadm"),
    ("python3-venv", "/usr/share/doc/python3-venv"),
];

const VIRTME: &str = "virtme-ng==1.42";

/// The packages that are not there.
pub(crate) fn missing() -> Vec<&'static str> {
    PACKAGES.iter().filter(|(_, sign)| !Path::new(sign).exists()).map(|(package, _)| *package).collect()
}

/// The boot tool, installed on first use.
pub(crate) fn vng() -> Result<PathBuf> {
    let missing = missing();
    if !missing.is_empty() {
        bail!("virtual machines need {}: run `cargo xtask setup --vm`", missing.join(", "));
    }
    let home = place::cache()?.join("venv");
    let vng = home.join("bin/vng");
    let stamp = home.join("ready");
    let ready = || fs::read_to_string(&stamp).is_ok_and(|s| s == VIRTME) && vng.exists();
    if ready() {
        return Ok(vng);
    }
    fs::create_dir_all(home.parent().context("the cache has no parent")?)?;
    let lock = File::create(home.with_extension("lock"))?;
    lock.lock()?;
    if !ready() {
        // Debian's own Python when it is there: others on PATH may come and go with a user's environment.
        let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        sh::output(Command::new(python).args(["-m", "venv", "--clear"]).arg(&home))
            .context("python3 with venv is needed")?;
        sh::output(Command::new(home.join("bin/pip")).args(["install", "--quiet", VIRTME]))?;
        fs::write(&stamp, VIRTME)?;
    }
    Ok(vng)
}

//! Brings a kernel's packages into the cache and unpacks them there. The host's package sources, lists and installed
//! packages stay as they are: apt works in directories of our own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::kernels::{Kernel, Unpacked, newest};
use super::mirror::Mirror;
use crate::{place, sh};

/// The kernel, from the cache when it is there. Fails with a reason that makes sense as "skipped: why".
pub(crate) fn fetch(kernel: &Kernel) -> Result<Unpacked> {
    let home = place::cache()?.join("kernels");
    let ready = home.join(kernel.name);
    if let Some(unpacked) = Unpacked::find(&ready) {
        return Ok(unpacked);
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    // Two runners that want the same kernel must not unpack over each other.
    let lock = File::create(home.join(format!("{}.lock", kernel.name)))?;
    lock.lock()?;
    if let Some(unpacked) = Unpacked::find(&ready) {
        return Ok(unpacked);
    }

    let work = home.join(format!("{}.part", kernel.name));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    download(kernel, &Apt::new(&work)?)?;
    let tree = work.join("tree");
    unpack(&work, &tree)?;
    let unpacked =
        Unpacked::find(&tree).with_context(|| format!("no kernel image in the packages of {}", kernel.name))?;
    depmod(&tree)?;
    fs::rename(&tree, &ready)?;
    fs::remove_dir_all(&work)?;
    Unpacked::find(&ready).with_context(|| format!("{} vanished", unpacked.image.display()))
}

/// apt-get and apt-cache on a private directory.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: &Path) -> Result<Self> {
        for sub in ["sources", "lists/partial", "debs"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        Ok(Self { dir: dir.to_path_buf() })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.join("debs")).arg("-q");
        let options = [
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", self.dir.join("sources").display().to_string()),
            ("Dir::State::lists", self.dir.join("lists").display().to_string()),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("APT::Sandbox::User", "root".to_owned()),
            // An old suite's signature stays good, only its date is over.
            ("Acquire::Check-Valid-Until", "false".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            // Only the list of packages, none of what desktop programs want.
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false".to_owned()),
        ];
        for (name, value) in options {
            command.args(["-o", &format!("{name}={value}")]);
        }
        command
    }
}

fn download(kernel: &Kernel, apt: &Apt) -> Result<()> {
    if sh::which("apt-get").is_none() || sh::which("dpkg-deb").is_none() {
        bail!("kernel {} comes from Debian's packages, and this host has no apt-get and dpkg-deb", kernel.name);
    }
    let mirror = Mirror::of_host();
    let mut reasons = Vec::new();
    for (archive, suite) in kernel.suites {
        match mirror
            .source(*archive, suite)
            .map_err(|why| anyhow!(why))
            .and_then(|s| from_suite(kernel, apt, suite, &s))
        {
            Ok(()) => return Ok(()),
            Err(why) => reasons.push(format!("{suite}: {why:#}")),
        }
    }
    bail!("kernel {} cannot be had: {}", kernel.name, reasons.join("; "))
}

fn from_suite(kernel: &Kernel, apt: &Apt, suite: &str, source: &str) -> Result<()> {
    fs::write(apt.dir.join("sources/kernel.sources"), source)?;
    eprintln!("fetching kernel {} from {suite}", kernel.name);
    sh::output(apt.command("apt-get").arg("update"))?;
    let offered = sh::output(apt.command("apt-cache").args(["pkgnames", "linux-"]))?;
    let mut wanted = Vec::new();
    for prefix in kernel.packages {
        wanted.push(newest(prefix, offered.lines()).with_context(|| format!("no package named {prefix}*"))?);
    }
    sh::output(apt.command("apt-get").arg("download").args(wanted))?;
    Ok(())
}

fn unpack(work: &Path, tree: &Path) -> Result<()> {
    for deb in fs::read_dir(work.join("debs"))?.flatten() {
        sh::output(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(tree))?;
    }
    // Packages of new kernels hold usr/lib/modules; the boot code looks for lib/modules beside boot/.
    if !tree.join("lib").exists() {
        fs::rename(tree.join("usr/lib"), tree.join("lib")).context("the packages hold no modules")?;
    }
    Ok(())
}

fn depmod(tree: &Path) -> Result<()> {
    let depmod = ["/usr/sbin/depmod", "/sbin/depmod"].into_iter().find(|p| Path::new(p).exists());
    let depmod = depmod.context("depmod is missing: install kmod")?;
    for release in fs::read_dir(tree.join("lib/modules"))?.flatten() {
        sh::output(Command::new(depmod).arg("-b").arg(tree).arg(release.file_name()))?;
    }
    Ok(())
}

//! Boots one kernel under software emulation on the host's own file system, read-only but for one directory, runs one
//! command, and brings back its output and exit code within a deadline.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::{env, fs, io, thread};

use anyhow::{Context, Result, bail};

use super::guest::{Errand, script};
use super::kernels::Unpacked;
use super::warden::Warden;
use crate::sh;

/// How a guest is made.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Words for the kernel's command line.
    pub append: Vec<String>,
    /// Count instructions instead of time, on one processor: what the guest measures no longer depends on the host's load.
    pub icount: bool,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self { append: Vec::new(), icount: false, memory: 3072, cpus: 2 }
    }
}

/// Drivers for hardware that no test uses. Without them a guest is up in half the time.
const IDLE_DRIVERS: &str = "modprobe.blacklist=kvm,kvm_amd,kvm_intel,ahci,sr_mod,sg,powernow_k8,iTCO_wdt,iTCO_vendor_support,\
lpc_ich,i2c_i801,psmouse,evdev,joydev,pcspkr,bochs,bochs_drm,ghash_clmulni_intel,aesni_intel,crc32_pclmul,crct10dif_pclmul";

/// What a boot may take on top of the command's deadline, on a busy machine.
const BOOT: Duration = Duration::from_secs(180);

/// vng's code for a guest that ended without handing over a result.
const GUEST_DIED: i32 = 255;

/// Runs the command in the guest; each line of its standard output goes to ours and to `each`. The exit code is the command's.
pub(crate) fn boot(
    vng: &Path,
    kernel: &Unpacked,
    machine: &Machine,
    errand: &Errand<'_>,
    each: impl FnMut(&str),
) -> Result<i32> {
    let init = Init::write(errand)?;
    let mut command = Command::new(vng);
    command.env("PATH", with_siblings(vng)?);
    command.arg("--disable-kvm").arg("--force-9p").arg("--run").arg(&kernel.image);
    command.args(["--memory", &format!("{}M", machine.memory)]);
    command.arg("--rwdir").arg(errand.results).args(["--append", IDLE_DRIVERS]);
    for word in &machine.append {
        command.args(["--append", word]);
    }
    if machine.icount {
        command.args(["--cpus", "1", "--qemu-opts=-icount shift=0,sleep=off"]);
    } else {
        command.args(["--cpus", &machine.cpus.to_string()]);
    }
    command.arg("--").arg(format!("bash {}", init.0.display()));
    // The emulator opens its outputs anew, which empties a file that one of them may be: it gets pipes.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start vng")?;
    let warden = Warden::over(child.id());
    let mut complaints = child.stderr.take().context("the child's error output was not piped")?;
    let complaints = thread::spawn(move || io::copy(&mut complaints, &mut io::stderr()));

    let (done, overdue) = (errand.deadline + BOOT, child.id());
    let (finished, wait) = mpsc::sync_channel::<()>(1);
    let guard = thread::spawn(move || {
        let late = wait.recv_timeout(done) == Err(RecvTimeoutError::Timeout);
        if late {
            sh::end_tree(overdue);
        }
        late
    });
    let passed = sh::pass_on(&mut child, each);
    if passed.is_err() {
        // Nobody listens any more.
        sh::end_tree(child.id());
    }
    let status = child.wait()?;
    drop(warden);
    drop(finished);
    let late = guard.join().unwrap_or(false);
    // What cannot be shown cannot be shown; the exit code still counts.
    let _shown = complaints.join();
    passed?;
    if late {
        bail!("the guest did not end within {} s and was stopped", done.as_secs());
    }
    match status.code() {
        Some(GUEST_DIED) | None => bail!("the guest ended without a result ({status}): did its kernel panic?"),
        Some(code) => Ok(code),
    }
}

/// vng starts its other half by name: ours must be found before any that the user has.
fn with_siblings(vng: &Path) -> Result<OsString> {
    let home = vng.parent().context("vng has no directory")?.to_path_buf();
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths([home].into_iter().chain(env::split_paths(&path)))?)
}

/// The guest's first script, on disk as long as the guest runs.
struct Init(PathBuf);

impl Init {
    fn write(errand: &Errand<'_>) -> Result<Self> {
        fs::create_dir_all(errand.results).with_context(|| format!("cannot make {}", errand.results.display()))?;
        let path = errand.results.join(format!(".init-{}", std::process::id()));
        fs::write(&path, script(errand))?;
        Ok(Self(path))
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // A leftover script is harmless.
        let _kept = fs::remove_file(&self.0);
    }
}

//! `cargo xtask setup`: makes sure that all that building and testing needs is there. Looks at files first, so that it
//! costs nothing when nothing is missing; installs Debian's packages where it can and says what to do where it cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::toolchain::{self, Compiler, DEBIAN_RUST};
use crate::{place, sh, vm};

/// What the kernel build needs, found or installed.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// Compiles the kernel programs.
    pub compiler: Compiler,
    /// Links them.
    pub linker: PathBuf,
}

/// Needed whichever compiler it is, each with a file that shows it is there.
const EVERYWHERE: &[(&str, &str)] =
    &[("gcc", "/usr/bin/cc"), ("bpftool", "/usr/sbin/bpftool"), ("protobuf-compiler", "/usr/bin/protoc")];

/// Needed only while bpf-linker is built.
const FOR_LINKER: &[(&str, &str)] = &[
    ("g++", "/usr/bin/c++"),
    ("zlib1g-dev", "/usr/include/zlib.h"),
    ("libzstd-dev", "/usr/include/zstd.h"),
    ("libxml2-dev", "/usr/include/libxml2"),
];

const LINKER_VERSION: &str = "^0.13";

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    let with_vm = match args {
        [] => false,
        [one] if one == "--vm" => true,
        _ => bail!("usage: cargo xtask setup [--vm]"),
    };
    let tools = all()?;
    eprintln!("kernel programs: {:?}, linked by {}", tools.compiler, tools.linker.display());
    if with_vm {
        machines()?;
        eprintln!("virtual machines: ready");
    }
    Ok(0)
}

/// Everything that `build` and `run` need.
pub(crate) fn all() -> Result<Tools> {
    install(&missing(EVERYWHERE))?;
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => {
            install(&missing(DEBIAN_RUST))?;
            Compiler::find().context(elsewhere("a Rust compiler for kernel programs"))?
        }
    };
    let llvm = compiler.llvm()?;
    let linker = match toolchain::linker(&compiler, llvm) {
        Some(linker) => linker,
        None => build_linker(&compiler, llvm)?,
    };
    Ok(Tools { compiler, linker })
}

/// What virtual machines need.
pub(crate) fn machines() -> Result<()> {
    install(&vm::tools::missing().into_iter().map(str::to_owned).collect::<Vec<_>>())?;
    vm::tools::vng().map(drop)
}

fn missing(table: &[(&str, &str)]) -> Vec<String> {
    table.iter().filter(|(_, sign)| !Path::new(sign).exists()).map(|(package, _)| (*package).to_owned()).collect()
}

fn build_linker(compiler: &Compiler, llvm: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let mut packages = missing(FOR_LINKER);
    if !prefix.join("bin/llvm-config").exists() || !prefix.join("include/llvm-c").exists() {
        packages.push(format!("llvm-{llvm}-dev"));
    }
    if !prefix.join("lib/libPolly.a").exists() {
        packages.push(format!("libpolly-{llvm}-dev"));
    }
    install(&packages)?;
    let home = toolchain::linker_home(llvm)?;
    eprintln!("building bpf-linker for LLVM {llvm}, once (about a minute)");
    let feature = format!("llvm-{llvm}");
    // Our own cargo builds it: any recent one will do. In a directory of its own, not in the workspace's settings.
    let mut cargo = place::cargo();
    cargo.current_dir("/").env("LLVM_PREFIX", &prefix).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    cargo.args(["install", "bpf-linker", "--quiet", "--locked", "--force", "--version", LINKER_VERSION]);
    cargo.args(["--no-default-features", "--features", &feature, "--root"]).arg(&home);
    sh::run(&mut cargo).with_context(|| elsewhere("bpf-linker"))?;
    toolchain::linker(compiler, llvm)
        .with_context(|| format!("bpf-linker in {} does not use LLVM {llvm}", home.display()))
}

fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if sh::which("apt-get").is_none() {
        bail!("missing: {list} (Debian's names). {}", elsewhere("these"));
    }
    if !place::is_root() {
        bail!(
            "missing: {list}. Run:\n    sudo apt-get update && sudo apt-get install -y {list}\nthen the same command again"
        );
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let wanted = || {
        let mut apt = apt();
        apt.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
        apt
    };
    eprintln!("installing {list}");
    // The lists on the host are usually good; fetching them anew is for those that are missing or too old.
    if sh::output(&mut wanted()).is_err() {
        sh::output(apt().args(["update", "-q"]))?;
        sh::output(&mut wanted()).with_context(|| elsewhere(&list))?;
    }
    Ok(())
}

/// What to do where Debian's way does not work.
fn elsewhere(what: &str) -> String {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("this system").trim_matches('"');
    format!(
        "{what} cannot be installed from the packages of {system}. The other way is rustup:\n    \
         rustup toolchain install nightly --component rust-src\n    \
         cargo install bpf-linker        (or the prebuilt one: cargo binstall bpf-linker)\n\
         and the packages of your system for a C compiler and bpftool"
    )
}

//! `cargo xtask build`: first the kernel programs with the second toolchain, then the agent that carries them.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::setup::Tools;
use crate::toolchain::{Compiler, TARGET};
use crate::{place, setup, sh};

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    let profile = match args {
        [] => Profile::Dev,
        [one] if one == "--release" => Profile::Release,
        _ => bail!("usage: cargo xtask build [--release]"),
    };
    let haechi = all(profile)?;
    eprintln!("built {}", haechi.display());
    Ok(0)
}

/// How the agent is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build, fast enough to watch a host.
    Dev,
    /// For hosts in earnest and for measuring.
    Release,
}

impl Profile {
    /// Where cargo puts what it built so.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    /// Cargo's arguments for it.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

/// Setup, kernel programs, agent; hands back the agent's path.
pub(crate) fn all(profile: Profile) -> Result<PathBuf> {
    let tools = setup::all()?;
    kernel(&tools)?;
    sh::run(place::cargo().args(["build", "-p", "haechi-agent", "--bin", "haechi"]).args(profile.arguments()))?;
    Ok(place::built(profile.directory(), "haechi"))
}

/// The kernel programs alone, into target/kernel/ where the agent's build looks for them. Cargo skips what is fresh.
pub(crate) fn kernel(tools: &Tools) -> Result<()> {
    let mut cargo = tools.compiler.program("cargo");
    cargo.current_dir(place::root());
    cargo.args(["build", "--profile", "kernel", "-p", "haechi-ebpf", "--bin", "haechi-kernel", "--features", "kernel"]);
    cargo.args(["--target", TARGET, "--target-dir", "target/kernel"]);
    match tools.compiler {
        Compiler::Debian => {
            cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        }
        Compiler::Nightly { .. } => {
            cargo.args(["-Z", "build-std=core"]);
        }
    }
    let linker = tools.linker.display();
    cargo.env("RUSTFLAGS", format!("-C debuginfo=2 -C link-arg=--btf -C linker={linker}"));
    sh::run(&mut cargo)
}

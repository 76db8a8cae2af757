//! The second toolchain: which Rust compiles the kernel programs, and which linker writes them. There are two ways to
//! have one (Debian's packages, or rustup's nightly) and this file knows both; it installs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{place, sh};

/// The target of the kernel programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A compiler that can make kernel programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// Debian's rustc-web with its prebuilt core for BPF.
    Debian,
    /// rustup's nightly with the library sources, which builds core itself.
    Nightly {
        /// Its directory name under `toolchains/`.
        name: String,
    },
}

/// Debian's files: both programs and the prebuilt core.
pub(crate) const DEBIAN_RUST: &[(&str, &str)] = &[
    ("rustc-web", "/usr/bin/rustc"),
    ("cargo-web", "/usr/bin/cargo"),
    ("libstd-rust-web-dev-bpf", "/usr/lib/rustlib/bpfel-unknown-none/lib"),
];

impl Compiler {
    /// What is there, Debian's first: it is stable and needs no sources.
    pub(crate) fn find() -> Option<Self> {
        if DEBIAN_RUST.iter().all(|(_, sign)| Path::new(sign).exists()) {
            return Some(Self::Debian);
        }
        let rustup = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
        let rustup = rustup.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".rustup")))?;
        let toolchains = fs::read_dir(rustup.join("toolchains")).ok()?.flatten();
        let with_sources = toolchains.filter(|t| t.path().join("lib/rustlib/src/rust/library/core").exists());
        let mut names = with_sources.filter_map(|t| t.file_name().into_string().ok());
        names.find(|name| name.starts_with("nightly")).map(|name| Self::Nightly { name })
    }

    /// The major version of the LLVM inside the compiler: the linker must have the same one.
    pub(crate) fn llvm(&self) -> Result<u32> {
        let text = sh::output(self.program("rustc").arg("-vV"))?;
        let version = text.lines().find_map(|l| l.strip_prefix("LLVM version: ")).context("rustc -vV names no LLVM")?;
        let major = version.split('.').next().unwrap_or_default();
        major.parse().with_context(|| format!("`{version}` is no LLVM version"))
    }

    /// `cargo` or `rustc` of this toolchain, free of what the cargo that started us put in the environment.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = match self {
            Self::Debian => Command::new(format!("/usr/bin/{name}")),
            Self::Nightly { name: toolchain } => {
                let mut command = Command::new("rustup");
                command.args(["run", toolchain, name]);
                command
            }
        };
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(belongs_to_the_caller) {
                command.env_remove(variable);
            }
        }
        command
    }
}

/// Whether a variable speaks of the toolchain that started us. How to reach the registry stays.
fn belongs_to_the_caller(variable: &str) -> bool {
    const KEPT: &[&str] = &["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "RUSTUP_HOME"];
    const OURS: &[&str] = &["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP"];
    OURS.iter().any(|p| variable.starts_with(p)) && !KEPT.iter().any(|p| variable.starts_with(p))
}

/// Where our own bpf-linker for that LLVM goes: beside nobody else's, named by what it was built for.
pub(crate) fn linker_home(llvm: u32) -> Result<PathBuf> {
    Ok(place::cache()?.join(format!("bpf-linker-llvm-{llvm}")))
}

/// A bpf-linker that can read what the compiler writes.
pub(crate) fn linker(compiler: &Compiler, llvm: u32) -> Option<PathBuf> {
    let ours = linker_home(llvm).ok().map(|home| home.join("bin/bpf-linker"));
    let cargos = place::cargo_bin().map(|dir| dir.join("bpf-linker"));
    let candidates = [ours, cargos, sh::which("bpf-linker")].into_iter().flatten().filter(|p| p.is_file());
    let mut fitting = candidates.filter(|path| match compiler {
        Compiler::Debian => is_linked_to(path, llvm),
        // A downloaded bpf-linker carries rustc's own LLVM inside; its dependencies tell nothing.
        Compiler::Nightly { .. } => true,
    });
    fitting.next()
}

fn is_linked_to(program: &Path, llvm: u32) -> bool {
    let libraries = sh::output(Command::new("ldd").arg(program)).unwrap_or_default();
    let names = [format!("libLLVM.so.{llvm}."), format!("libLLVM-{llvm}.so")];
    libraries.lines().any(|line| names.iter().any(|n| line.contains(n.as_str())) && !line.contains("not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_toolchain_does_not_leak() {
        for gone in
            ["CARGO", "CARGO_MANIFEST_DIR", "RUSTC_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"]
        {
            assert!(belongs_to_the_caller(gone), "{gone}");
        }
        for kept in ["PATH", "HOME", "CARGO_HOME", "CARGO_HTTP_CAINFO", "RUSTUP_HOME", "https_proxy", "RUST_BACKTRACE"]
        {
            assert!(!belongs_to_the_caller(kept), "{kept}");
        }
    }
}

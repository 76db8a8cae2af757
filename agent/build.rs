//! Makes Rust of `proto/`, with the `protoc` that `cargo xtask setup` installs. Then it finds the kernel object that
//! `cargo xtask build` made and hands it to the source, without the debug sections that only its making needed: three
//! quarters of it. It builds no object: cargo in cargo deadlocks. Without the object userspace still checks and tests;
//! `haechi run` then says what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const OBJECT: &str = "target/kernel/bpfel-unknown-none/kernel/haechi-kernel";

/// What the agent serves.
const PROTO: &str = "haechi/v1/haechi.proto";
/// What the steps of all streams are in Rust: one type, which carries a record that was encoded already.
const STEP: &str = "crate::servers::wire::Step";

fn main() {
    if let Err(error) = protocol() {
        println!("cargo::error=proto/{PROTO}: {error}; protoc is missing? `cargo xtask setup` installs it");
    }
    kernel_object();
}

fn protocol() -> std::io::Result<()> {
    let dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let steps = ["WatchFindingsResponse", "WatchEventsResponse", "WatchFlowsResponse"];
    steps
        .into_iter()
        .fold(tonic_prost_build::configure(), |made, step| made.extern_path(format!(".haechi.v1.{step}"), STEP))
        .file_descriptor_set_path(out.join("haechi.bin"))
        .compile_protos(&[dir.join(PROTO)], &[dir])
}

fn kernel_object() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let object = env::var_os("HAECHI_KERNEL_OBJECT").map_or_else(|| root.join(OBJECT), PathBuf::from);
    println!("cargo::rerun-if-env-changed=HAECHI_KERNEL_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("haechi-kernel.o");
    let copied = fs::read(&object).and_then(|bytes| fs::write(&out, bytes));
    if copied.is_err() {
        println!("cargo::warning=no kernel object at {}: run `cargo xtask build`", object.display());
        if let Err(error) = fs::write(&out, []) {
            println!("cargo::error=cannot write {}: {error}", out.display());
        }
    } else {
        strip(&out);
    }
    println!("cargo::rustc-env=HAECHI_KERNEL_OBJECT={}", out.display());
}

/// Takes the debug sections out; types and lines (.BTF, .BTF.ext), which the kernel wants, stay. Where there is no tool for
/// it the object is larger, and works as well.
fn strip(object: &Path) {
    let llvm = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
    let llvm = llvm.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("llvm-")));
    let tools = [PathBuf::from("llvm-objcopy")].into_iter().chain(llvm.map(|dir| dir.join("bin/llvm-objcopy")));
    let stripped = object.with_extension("stripped");
    for tool in tools {
        let done = Command::new(tool).arg("--strip-debug").arg(object).arg(&stripped).output();
        if done.is_ok_and(|out| out.status.success()) && fs::rename(&stripped, object).is_ok() {
            return;
        }
    }
    println!("cargo::warning=no llvm-objcopy: the kernel object keeps its debug sections");
}

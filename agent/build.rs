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

/// Takes out what loading does not need: the debug sections, and which line an instruction came from. The loader copies the
/// lines of all functions for each of them, which was most of the agent's memory at its start; HAECHI_KERNEL_LINES=1 keeps
/// them, for the verifier's log. Where there is no tool for it the object is larger, and works as well.
fn strip(object: &Path) {
    println!("cargo::rerun-if-env-changed=HAECHI_KERNEL_LINES");
    let llvm = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
    let llvm = llvm.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("llvm-")));
    let tools = [PathBuf::from("llvm-objcopy")].into_iter().chain(llvm.map(|dir| dir.join("bin/llvm-objcopy")));
    for tool in tools {
        let types = object.with_extension("types");
        let dump = format!("--dump-section=.BTF.ext={}", types.display());
        if objcopy(&tool, &["--strip-debug", &dump], object) {
            let update = format!("--update-section=.BTF.ext={}", types.display());
            let lines = env::var_os("HAECHI_KERNEL_LINES").is_some() || !drop_lines(&types);
            if !lines && !objcopy(&tool, &[&update], object) {
                println!("cargo::warning=the kernel object keeps its lines");
            }
            return;
        }
    }
    println!("cargo::warning=no llvm-objcopy: the kernel object keeps its debug sections");
}

fn objcopy(tool: &Path, how: &[&str], object: &Path) -> bool {
    let done = object.with_extension("copy");
    let ran = Command::new(tool).args(how).arg(object).arg(&done).output();
    ran.is_ok_and(|out| out.status.success()) && fs::rename(&done, object).is_ok()
}

/// Cuts the lines off a dumped `.BTF.ext`; whether that is done. `struct btf_ext_header` of the kernel's
/// tools/lib/bpf/libbpf_internal.h: magic, version, flags, length of the header (8 bytes in all); then offset and length of
/// functions, lines and relocations, offsets from the header's end. Lines are the last where there are no relocations.
fn drop_lines(types: &Path) -> bool {
    let Ok(mut bytes) = fs::read(types) else { return false };
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (Some(header), Some(from), Some(len)) = (word(4), word(16), word(20)) else { return false };
    let relocations = if header >= 32 { word(28) } else { Some(0) };
    let start = (header + from) as usize;
    if relocations != Some(0) || start + len as usize != bytes.len() {
        return false;
    }
    bytes.truncate(start);
    bytes[20..24].fill(0);
    if header >= 32 {
        bytes[24..28].copy_from_slice(&from.to_le_bytes());
    }
    fs::write(types, bytes).is_ok()
}

//! Finds the kernel object that `cargo xtask build` made and hands its path to the source. It builds nothing: cargo in
//! cargo deadlocks. Without the object userspace still checks and tests; `haechi run` then says what is missing.

use std::path::PathBuf;
use std::{env, fs};

const OBJECT: &str = "target/kernel/bpfel-unknown-none/kernel/haechi-kernel";

fn main() {
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
    }
    println!("cargo::rustc-env=HAECHI_KERNEL_OBJECT={}", out.display());
}

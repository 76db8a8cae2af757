//! The laws as data: which crates may be named where, where unsafe code may be, what may lie in the root, which files may
//! be long. Nothing else in the project repeats these lists.

/// Crates that must stay behind one door.
#[derive(Debug)]
pub(crate) struct Border {
    /// Crate names as they stand in `use`, each also standing for those that begin with it and `_`.
    pub crates: &'static [&'static str],
    /// Path prefixes where they may be named.
    pub inside: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

/// Where code may name which crates.
pub(crate) const BORDERS: &[Border] = &[
    Border {
        crates: &["aya"],
        inside: &["agent/src/kernel/", "agent-ebpf/src/kernel/"],
        why: "the kernel has one door: no other stage may depend on how programs are loaded",
    },
    Border {
        crates: &["regorus", "cel", "cel_interpreter", "cel_parser"],
        inside: &["signatures/"],
        why: "rule engines are an affair of the signatures alone",
    },
    Border {
        crates: &["tonic", "prost"],
        inside: &["agent/build.rs", "agent/src/servers/", "agent/src/sinks/grpc", "proto/", "tests/src/"],
        why: "the wire format of servers must not reach into the stages",
    },
    Border {
        crates: &["opentelemetry"],
        inside: &["agent/src/telemetry", "agent/src/sinks/otlp"],
        why: "telemetry is one sink among others",
    },
];

/// Crates that a package must not depend on.
#[derive(Debug)]
pub(crate) struct Diet {
    /// The manifest.
    pub manifest: &'static str,
    /// Beginnings of dependency names it must not have.
    pub without: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

/// What packages must do without.
pub(crate) const DIETS: &[Diet] = &[
    Diet {
        manifest: "signatures/Cargo.toml",
        without: &["aya", "tokio", "haechi-agent", "tonic", "prost", "opentelemetry"],
        why: "detections are tested alone, and run wherever events come from",
    },
    Diet {
        manifest: "xtask/Cargo.toml",
        without: &["haechi", "aya", "tokio", "clap", "serde"],
        why: "a chore starts at once on a fresh machine",
    },
];

/// Where `unsafe` may stand, and why.
pub(crate) const UNSAFE: &[(&str, &str)] = &[
    ("agent-ebpf/src/kernel/", "reads of kernel memory and the program entry points"),
    ("agent/src/kernel/", "bpf(2) and ring memory"),
    ("tests/src/sys.rs", "system calls that the standard library lacks, for the actors"),
];

/// Where the agent may ask for the time of day; everything else takes it from records, so that a replay is exact.
pub(crate) const CLOCKS: &[&str] = &["agent/src/clock.rs"];

/// What the root may hold, besides files whose name begins with a dot and what git ignores.
pub(crate) const ROOT: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "agent",
    "agent-ebpf",
    "signatures",
    "xtask",
    "proto",
    "deploy",
    "tests",
    "docs",
];

/// Lines a source file may have.
pub(crate) const LONGEST: usize = 600;

/// Files that may be longer, all of them tables, and why.
pub(crate) const LONG: &[(&str, &str)] = &[];

/// Directories that hold our Rust sources.
pub(crate) const SOURCES: &[&str] = &["agent", "agent-ebpf", "signatures", "tests", "xtask", "proto"];

//! TRC-1012: the loader, which runs in every process, was replaced or changed.

use super::known::{PACKAGER_WHY, PACKAGERS};
use super::written::{Files, Written};
use crate::model::Severity;
use crate::rule::{AboutDef, ExcuseDef};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1012",
    name: "default_loader_mod",
    version: "1",
    title: "The default loader was opened for writing",
    description: "A process opened for writing the program that loads all others (ld-linux, ld-musl). What is in \
                  it runs in every process that is started, root's too, and no program on disk looks changed.",
    remedy: "Compare the loader with that of its package (`dpkg -V libc6`, `rpm -V glibc`). If it differs, every \
             process that was started since is in doubt: rebuild the machine or container.",
    severity: Severity::High,
    mitre: ("Defense Evasion", "T1574", "Hijack Execution Flow"),
    tags: &["linux", "container"],
    excuses: &[ExcuseDef::below(PACKAGERS, PACKAGER_WHY)],
};

/// Which files.
const FILES: Files = Files {
    paths: &[
        "/lib/ld*",
        "/lib32/ld*",
        "/lib64/ld*",
        "/libx32/ld*",
        "/lib/x86_64-linux-gnu/ld*",
        "/lib/i386-linux-gnu/ld*",
        "/lib/aarch64-linux-gnu/ld*",
        "/usr/lib/ld*",
        "/usr/lib32/ld*",
        "/usr/lib64/ld*",
        "/usr/libx32/ld*",
        "/usr/lib/x86_64-linux-gnu/ld*",
        "/usr/lib/i386-linux-gnu/ld*",
        "/usr/lib/aarch64-linux-gnu/ld*",
    ],
    only: |path| crate::path::leaf(path).starts_with("ld") && crate::path::leaf(path).contains(".so"),
    ..Files::NONE
};

pub(super) fn new() -> Written {
    Written::new(&ABOUT, FILES)
}

//! Programs and places that more than one rule knows. A list says what it is; why its members are left alone, the rule
//! that uses it.

use haechi_ebpf::wire::at;

use crate::model::Event;

/// Programs that install software. They own what they write, and so do the scripts that they run.
pub(super) const PACKAGERS: &[&str] = &[
    "/usr/bin/dpkg",
    "/usr/bin/dpkg-deb",
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/bin/unattended-upgrade",
    "/usr/bin/rpm",
    "/usr/bin/dnf5",
    "/usr/bin/microdnf",
    "/usr/bin/rpm-ostree",
    "/usr/bin/zypper",
    "/usr/bin/pacman",
    "/sbin/apk",
    "/usr/bin/apk",
    "/usr/sbin/apk",
    "/usr/lib/snapd/snapd",
];

/// Why what they do is no finding.
pub(super) const PACKAGER_WHY: &str = "installing and upgrading software writes such files, by itself and by the scripts of packages; who \
     installs what is another question";

/// Programs that look into others because somebody asked them to.
pub(super) const DEBUGGERS: &[&str] = &[
    "/usr/bin/gdb",
    "/usr/bin/gdbserver",
    "/usr/bin/lldb*",
    "/usr/lib/llvm-*",
    "/usr/bin/strace",
    "/usr/bin/ltrace",
    "/usr/bin/rr",
    "/usr/sbin/criu",
    "/usr/bin/criu",
];

/// Shells, by their last component.
const SHELLS: &[&str] =
    &["sh", "bash", "dash", "ash", "rbash", "zsh", "ksh", "ksh93", "mksh", "csh", "tcsh", "fish", "busybox", "toybox"];

/// Whether `path` is that of a shell.
pub(super) fn is_shell(path: &str) -> bool {
    SHELLS.contains(&crate::path::leaf(path))
}

/// The program that this process ran before the exec, else that of its parent.
pub(super) fn program_before<'a>(event: &Event<'a>) -> &'a str {
    let exec_id = event.view.header_u32(at::EXEC_ID);
    let own = event.process.and_then(|p| p.images.iter().rev().find(|i| i.exec_id < exec_id));
    let parent = || event.ancestors(1).next().and_then(|p| p.images.last());
    own.or_else(parent).map_or("", |i| &i.exe)
}

/// The process whose memory the file at `path` is, as its number is written there.
pub(super) fn memory_of(path: &str) -> Option<u32> {
    let mut parts = path.strip_suffix("/mem")?.rsplit('/');
    let (mut number, mut above) = (parts.next()?, parts.next()?);
    // A thread's file is that of its process.
    if above == "task" {
        (number, above) = (parts.next()?, parts.next()?);
    }
    if above == "proc" { number.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_told_from_other_files() {
        for (path, want) in [
            ("/proc/12/mem", Some(12)),
            ("/host/proc/12/mem", Some(12)),
            ("/proc/12/task/13/mem", Some(12)),
            ("/dev/mem", None),
            ("/proc/12/root/home/mem", None),
            ("/tmp/12/mem", None),
        ] {
            assert_eq!(memory_of(path), want, "{path}");
        }
    }
}

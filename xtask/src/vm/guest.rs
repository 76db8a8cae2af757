//! The script that runs first inside a guest: mounts what is missing, says what kernel this is, then becomes the command.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What the guest must know.
#[derive(Debug)]
pub(crate) struct Errand<'a> {
    /// Which kernel, for `HAECHI_VM`.
    pub kernel: &'a str,
    /// The command and its arguments.
    pub command: &'a [String],
    /// Where to run it.
    pub directory: &'a Path,
    /// The one directory whose files the host sees.
    pub results: &'a Path,
    /// How long the command may take.
    pub deadline: Duration,
    /// Environment that crosses into the guest.
    pub environment: &'a [(String, String)],
}

// Facts go to the error stream: standard output belongs to the command.
const PREPARE: &str = r#"
have() { grep -qs "^[^ ]* $1 $2 " /proc/mounts; }
have /sys/fs/bpf bpf || mount -t bpf bpf /sys/fs/bpf
have /sys/fs/cgroup cgroup2 || mount -t cgroup2 cgroup2 /sys/fs/cgroup
have /sys/kernel/tracing tracefs || mount -t tracefs tracefs /sys/kernel/tracing
have /sys/kernel/security securityfs || mount -t securityfs securityfs /sys/kernel/security
# Scratch files on a plain memory file system; /tmp here is an overlay over the host's.
mkdir -p /run/haechi && export TMPDIR=/run/haechi
# The host's own limits, so that one test does not mean two things.
ulimit -n 20000; ulimit -l unlimited
{
    echo "vm: kernel $(uname -r), $(nproc) cpu, $(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo) MiB"
    echo "vm: lsm $(cat /sys/kernel/security/lsm)"
    for at in /sys/kernel/btf/vmlinux /sys/fs/bpf /sys/fs/cgroup/cgroup.controllers /sys/kernel/tracing/events; do
        if [ -e "$at" ]; then echo "vm: have $at"; else echo "vm: LACK $at"; fi
    done
} >&2
"#;

/// The script's text.
pub(crate) fn script(errand: &Errand<'_>) -> String {
    let mut text = String::from("#!/bin/bash\n");
    for (name, value) in errand.environment {
        line(&mut text, &format!("export {name}={}", quoted(value)));
    }
    line(&mut text, &format!("export HAECHI_VM={}", quoted(errand.kernel)));
    line(&mut text, &format!("export HAECHI_RESULTS={}", quoted(&errand.results.display().to_string())));
    text.push_str(PREPARE);
    line(&mut text, &format!("cd {} || exit 125", quoted(&errand.directory.display().to_string())));
    let command = errand.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    line(&mut text, &format!("exec timeout --kill-after=5 {} {command}", errand.deadline.as_secs()));
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes every write");
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cross_unchanged() {
        let command = ["printf", "%s|", "a b", "it's", "$HOME", "", "*"].map(str::to_owned);
        let errand = Errand {
            kernel: "6.1",
            command: &command,
            directory: Path::new("/"),
            results: Path::new("/out dir"),
            deadline: Duration::from_secs(20),
            environment: &[("HAECHI_X".to_owned(), "a'b".to_owned())],
        };
        let text = script(&errand);
        let last = text.lines().last().expect("the script has lines");
        let shell = std::process::Command::new("bash").args(["-c", last]).output().expect("bash runs");
        assert_eq!(
            String::from_utf8_lossy(&shell.stdout),
            "%s|a b|it's|$HOME||*|".strip_prefix("%s|").expect("prefix")
        );
        assert!(text.contains("export HAECHI_X='a'\\''b'\n"), "{text}");
        assert!(text.contains("export HAECHI_RESULTS='/out dir'\n"), "{text}");
    }
}

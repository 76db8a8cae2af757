//! Where the agent stands: whether it sees the whole host from here. One table of checks; each gives what is wrong and
//! what would help.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

/// Something that limits what the agent sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Limit {
    /// What is wrong.
    pub(super) problem: String,
    /// What would help.
    pub(super) remedy: &'static str,
}

/// Inode numbers that the kernel gives to the first namespaces.
const FIRST_PID_NS: u64 = 0xefff_fffc;
const FIRST_CGROUP_NS: u64 = 0xefff_fffb;

/// Capabilities that are needed, by bit.
const CAPABILITIES: &[(u32, &str)] = &[(39, "CAP_BPF"), (38, "CAP_PERFMON"), (19, "CAP_SYS_PTRACE")];
const CAP_SYS_ADMIN: u32 = 21;

const CHECKS: &[fn() -> Option<Limit>] = &[pid_namespace, cgroup_namespace, capabilities, lockdown, types];

/// All that limits the agent here.
pub(super) fn limits() -> Vec<Limit> {
    CHECKS.iter().filter_map(|check| check()).collect()
}

fn pid_namespace() -> Option<Limit> {
    let own = fs::metadata("/proc/self/ns/pid").ok()?.ino();
    (own != FIRST_PID_NS).then(|| Limit {
        problem: "this is not the host's pid namespace: programs of processes cannot be hashed, process numbers differ"
            .into(),
        remedy: "run with the host's pid namespace (hostPID: true, docker run --pid=host)",
    })
}

fn cgroup_namespace() -> Option<Limit> {
    let own = fs::metadata("/proc/self/ns/cgroup").ok()?.ino();
    (own != FIRST_CGROUP_NS).then(|| Limit {
        problem: "this is a private cgroup namespace: containers that run already cannot be recognised".into(),
        remedy: "run with the host's cgroup namespace (privileged: true, docker run --cgroupns=host)",
    })
}

fn capabilities() -> Option<Limit> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    missing(u64::from_str_radix(line.trim(), 16).ok()?)
}

fn missing(effective: u64) -> Option<Limit> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(bit, _)| !has(*bit) && !has(CAP_SYS_ADMIN)).map(|c| c.1).collect();
    (!missing.is_empty()).then(|| Limit {
        problem: format!("capabilities are missing: {}", missing.join(", ")),
        remedy: "run as root, or add these capabilities",
    })
}

fn lockdown() -> Option<Limit> {
    let mode = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    mode.contains("[confidentiality]").then(|| Limit {
        problem: "the kernel is locked down (confidentiality): programs may not read its memory".into(),
        remedy: "boot with lockdown=integrity",
    })
}

fn types() -> Option<Limit> {
    (!fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false)).then(|| Limit {
        problem: "the kernel's type information is not there (/sys/kernel/btf/vmlinux)".into(),
        remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y and mount /sys",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_stand_in_for_others_are_enough() {
        assert_eq!(missing(u64::MAX), None);
        assert_eq!(missing(1 << CAP_SYS_ADMIN), None);
        assert_eq!(missing(1 << 39 | 1 << 38 | 1 << 19), None);
        let limit = missing(1 << 39).expect("two are missing");
        assert_eq!(limit.problem, "capabilities are missing: CAP_PERFMON, CAP_SYS_PTRACE");
    }
}

//! The kernels that can be had, as rows: which Debian suites carry each and how its packages are named.

use std::path::{Path, PathBuf};

/// The half of a Debian archive that a suite lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archive {
    /// The main archive.
    Main,
    /// The security archive.
    Security,
}

/// A kernel that the project is tested on.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What the user types, and what `uname -r` begins with.
    pub name: &'static str,
    /// Suites to look in, the first that has it wins.
    pub suites: &'static [(Archive, &'static str)],
    /// Package names up to the build number; the first holds the kernel image, all are unpacked.
    pub packages: &'static [&'static str],
}

use Archive::{Main, Security};

/// All of them, oldest first.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suites: &[(Main, "bullseye"), (Security, "bullseye-security")],
        packages: &["linux-image-5.10.0-"],
    },
    Kernel {
        name: "6.1",
        suites: &[(Security, "bookworm-security"), (Main, "bookworm")],
        packages: &["linux-image-6.1.0-"],
    },
    Kernel {
        name: "6.12",
        suites: &[(Security, "bookworm-security"), (Main, "trixie")],
        packages: &["linux-image-6.12."],
    },
    Kernel {
        name: "7.2",
        suites: &[(Main, "sid"), (Main, "forky")],
        packages: &["linux-binary-7.2.", "linux-modules-7.2."],
    },
];

/// The row with that name.
pub(crate) fn find(name: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|k| k.name == name)
}

/// The names, for messages.
pub(crate) fn names() -> String {
    KERNELS.iter().map(|k| k.name).collect::<Vec<_>>().join("|")
}

/// Of all package names on offer, the newest build whose name is `prefix`, a number, perhaps `+debN`, and `-amd64`.
/// Other flavours (cloud, rt, unsigned, debug symbols) have words where the number must be.
pub(crate) fn newest<'a>(prefix: &str, offered: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    offered.filter_map(|name| Some((build_number(prefix, name)?, name))).max().map(|(_, name)| name)
}

fn build_number(prefix: &str, name: &str) -> Option<u32> {
    let build = name.strip_prefix(prefix)?.strip_suffix("-amd64")?;
    let (number, rest) = build.split_once('+').unwrap_or((build, "deb"));
    if !rest.starts_with("deb") || !rest[3..].bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse().ok()
}

/// An unpacked kernel, ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    /// The compressed image.
    pub image: PathBuf,
}

impl Unpacked {
    /// Finds the image under `dir`, where Debian's packages put it: in boot/, or from 7.x on beside the modules.
    pub(crate) fn find(dir: &Path) -> Option<Self> {
        let mut places = vec![dir.join("boot")];
        places.extend(std::fs::read_dir(dir.join("lib/modules")).ok()?.flatten().map(|entry| entry.path()));
        let files = places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
        let image = files
            .map(|f| f.path())
            .find(|f| f.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"vmlinuz")))?;
        Some(Self { image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_newest_plain_build() {
        let offered = [
            "linux-image-5.10.0-9-amd64",
            "linux-image-5.10.0-32-amd64",
            "linux-image-5.10.0-33-cloud-amd64",
            "linux-image-5.10.0-34-amd64-unsigned",
            "linux-image-6.1.0-99-amd64",
        ];
        assert_eq!(newest("linux-image-5.10.0-", offered.into_iter()), Some("linux-image-5.10.0-32-amd64"));
    }

    #[test]
    fn compares_builds_as_numbers_and_keeps_to_debian_suffixes() {
        let offered =
            ["linux-image-6.12.9+deb12-amd64", "linux-image-6.12.117+deb12-amd64", "linux-image-6.12.200+rt-amd64"];
        assert_eq!(newest("linux-image-6.12.", offered.into_iter()), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(newest("linux-image-6.13.", offered.into_iter()), None);
    }

    #[test]
    fn names_are_unique() {
        for (at, kernel) in KERNELS.iter().enumerate() {
            assert_eq!(KERNELS.iter().position(|k| k.name == kernel.name), Some(at));
        }
    }
}

//! Reads which Debian mirror the host itself uses, so that kernels of other suites come from the same place.
//! Reads apt's configuration, never writes it.

use std::path::Path;
use std::{env, fs};

use super::kernels::Archive;

/// Where the two halves of the Debian archive are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirror {
    main: Option<String>,
    security: Option<String>,
    keyring: Option<String>,
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Mirror {
    /// The host's mirror; `HAECHI_DEBIAN_MIRROR` and `HAECHI_DEBIAN_SECURITY` name another one, on hosts that are not Debian.
    pub(crate) fn of_host() -> Self {
        let mut mirror = Self::read(Path::new("/etc/apt"));
        mirror.main = env::var("HAECHI_DEBIAN_MIRROR").ok().or(mirror.main);
        mirror.security = env::var("HAECHI_DEBIAN_SECURITY").ok().or(mirror.security);
        mirror
    }

    fn read(apt: &Path) -> Self {
        let mut mirror = Self::default();
        let mut files = vec![apt.join("sources.list")];
        files.extend(fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten().map(|e| e.path()));
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => mirror.take_stanzas(&text),
                Some("list") => mirror.take_lines(&text),
                _ => {}
            }
        }
        mirror
    }

    fn take_stanzas(&mut self, text: &str) {
        for stanza in text.split("\n\n") {
            let field = |name: &str| {
                let value = stanza.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
                value.unwrap_or_default().trim()
            };
            if field("Enabled").eq_ignore_ascii_case("no") || !field("Types").split_whitespace().any(|t| t == "deb") {
                continue;
            }
            for suite in field("Suites").split_whitespace() {
                self.take(field("URIs").split_whitespace().next().unwrap_or_default(), suite, field("Signed-By"));
            }
        }
    }

    fn take_lines(&mut self, text: &str) {
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
            let rest = rest.trim_start();
            let (options, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                Some((options, rest)) => (options, rest),
                None => ("", rest),
            };
            let keyring = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).unwrap_or_default();
            let mut words = rest.split_whitespace();
            if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
                self.take(uri, suite, keyring);
            }
        }
    }

    /// Other vendors' repositories have suites of other names, which tells them from Debian's.
    fn take(&mut self, uri: &str, suite: &str, keyring: &str) {
        const RELEASES: &[&str] = &["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"];
        let place = match suite.strip_suffix("-security") {
            Some(release) if RELEASES.contains(&release) => &mut self.security,
            None if RELEASES.contains(&suite) && uri.contains("debian") => &mut self.main,
            _ => return,
        };
        if place.is_none() && !uri.is_empty() {
            *place = Some(uri.to_owned());
        }
        if keyring.starts_with('/') {
            self.keyring.get_or_insert_with(|| keyring.to_owned());
        }
    }

    /// An apt source for one suite, or why there is none.
    pub(crate) fn source(&self, archive: Archive, suite: &str) -> Result<String, String> {
        let uri = match archive {
            Archive::Main => self.main.as_deref(),
            Archive::Security => self.security.as_deref(),
        };
        let uri = uri.ok_or_else(|| {
            format!(
                "this host has no Debian source for {suite}; name one in HAECHI_DEBIAN_MIRROR or HAECHI_DEBIAN_SECURITY"
            )
        })?;
        let keyring = self.keyring.as_deref().unwrap_or(KEYRING);
        if !Path::new(keyring).exists() {
            return Err(format!("{keyring} is missing: install debian-archive-keyring"));
        }
        Ok(format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stanzas_and_leaves_other_vendors_alone() {
        let mut mirror = Mirror::default();
        mirror.take_stanzas(
            "Types: deb\n# old\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nSigned-By: /k.gpg\n\n\
             Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\n\n\
             Types: deb\nURIs: http://other.test/tool\nSuites: nodistro\n",
        );
        let expected = Mirror {
            main: Some("http://mirror.test/debian".to_owned()),
            security: Some("http://mirror.test/debian-security".to_owned()),
            keyring: Some("/k.gpg".to_owned()),
        };
        assert_eq!(mirror, expected);
    }

    #[test]
    fn reads_one_line_sources() {
        let mut mirror = Mirror::default();
        mirror.take_lines("# deb http://no.test/debian sid main\ndeb [signed-by=/k.gpg arch=amd64] http://m.test/debian trixie main\n");
        assert_eq!(mirror.main.as_deref(), Some("http://m.test/debian"));
        assert_eq!(mirror.keyring.as_deref(), Some("/k.gpg"));
        assert_eq!(mirror.security, None);
    }

    #[test]
    fn without_a_source_it_says_what_to_set() {
        let why = Mirror::default().source(Archive::Main, "sid").expect_err("there is no mirror");
        assert!(why.contains("HAECHI_DEBIAN_MIRROR"), "{why}");
    }
}

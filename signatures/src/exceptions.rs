//! Exceptions: who may do what a rule looks for. Some are part of a rule and say why, the others are configuration. Both
//! are applied to what a rule found, and counted.

use serde::{Deserialize, Serialize};

use crate::model::Event;
use crate::path;

/// One exception: everything that is set must hold. A text that ends in `*` is the beginning of what it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exception {
    /// Path of the program.
    pub exe: Option<String>,
    /// Path of the program of the parent process.
    pub parent: Option<String>,
    /// Path of the program, of that of the parent, or of one further up.
    pub below: Option<String>,
    /// Beginning of the path that the event is about.
    pub path: Option<String>,
    /// Real user.
    pub uid: Option<u32>,
    /// Id of the container, or its beginning; `*` is any container.
    pub container: Option<String>,
}

impl Exception {
    /// Whether nothing is set: it would silence the rule altogether.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it holds for `event`.
    #[must_use]
    pub fn holds(&self, event: &Event<'_>) -> bool {
        fn ok<T>(wanted: Option<&T>, test: impl FnOnce(&T) -> bool) -> bool {
            wanted.is_none_or(test)
        }
        ok(self.exe.as_ref(), |e| fits(e, event.exe()))
            && ok(self.uid.as_ref(), |u| *u == event.view.header_u32(haechi_ebpf::wire::at::UID))
            && ok(self.parent.as_ref(), |p| fits(p, parent_exe(event)))
            && ok(self.below.as_ref(), |p| is_below(event, p))
            && ok(self.container.as_ref(), |c| {
                event.container().is_some_and(|is| c == "*" || is.id.starts_with(c.trim_end_matches('*')))
            })
            && ok(self.path.as_ref(), |p| is_about(event, p))
    }
}

/// Who a rule leaves alone by itself. Of each list that is not empty one must hold; texts are as in [`Exception`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Excuse {
    /// Paths of programs.
    pub exes: Vec<String>,
    /// Paths of programs, one of which does it or is further up.
    pub below: Vec<String>,
    /// Beginnings of the path that the event is about.
    pub paths: Vec<String>,
    /// Why it is none of the rule's business.
    pub why: String,
}

impl Excuse {
    /// Whether it holds for `event`.
    #[must_use]
    pub fn holds(&self, event: &Event<'_>) -> bool {
        let ok = |list: &[String], test: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(test);
        ok(&self.exes, &|e| fits(e, event.exe()))
            && ok(&self.below, &|p| is_below(event, p))
            && ok(&self.paths, &|p| is_about(event, p))
    }

    /// Whether it can be meant: what sets nothing would silence the rule.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let lists = [&self.exes, &self.below, &self.paths];
        !self.why.is_empty() && lists.iter().any(|l| !l.is_empty())
    }
}

/// How far up a program is looked for.
const DEPTH: usize = 16;

fn is_below(event: &Event<'_>, pattern: &str) -> bool {
    fits(pattern, event.exe()) || event.ancestors(DEPTH).any(|p| p.images.last().is_some_and(|i| fits(pattern, &i.exe)))
}

fn is_about(event: &Event<'_>, start: &str) -> bool {
    path::of(event).is_some_and(|place| place.path.starts_with(start.trim_end_matches('*')))
}

fn parent_exe<'a>(event: &Event<'a>) -> &'a str {
    event.ancestors(1).next().and_then(|p| p.images.last()).map_or("", |i| &i.exe)
}

/// Whether `text` is what `pattern` says. What is unknown fits nothing.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        _ if text.is_empty() => false,
        Some(start) => text.starts_with(start),
        None => text == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Container, Image, Process, ProcessKey, Processes};
    use crate::record::Builder;
    use haechi_ebpf::event::security_file_open as open;
    use haechi_ebpf::wire::{View, at};
    use std::sync::Arc;

    struct Two([Process; 2]);

    impl Processes for Two {
        fn get(&self, key: ProcessKey) -> Option<&Process> {
            self.0.iter().find(|p| p.key == key)
        }
    }

    fn process(pid: u32, parent: u32, exe: &str) -> Process {
        let image = Arc::new(Image { exe: exe.into(), ..Image::default() });
        let key = |pid| ProcessKey { pid, start: pid.into() };
        let container = Some(Arc::new(Container { id: "abcdef".into(), ..Container::default() }));
        Process { key: key(pid), parent: key(parent), images: vec![image], container, ..Process::default() }
    }

    #[test]
    fn every_condition_must_hold() {
        let tree = Two([process(2, 1, "/usr/bin/tar"), process(1, 0, "/opt/backup")]);
        let record = Builder::new(&open::DEF)
            .process(2, 2, 0)
            .header_u32(at::UID, 33)
            .text(open::field::pathname, "/etc/shadow")
            .finish();
        let event = Event::join(View::parse(&record).expect("a record"), &tree);
        let parse = |json: &str| serde_json::from_str::<Exception>(json).expect("an exception");
        for (json, want) in [
            (r#"{"exe": "/usr/bin/tar"}"#, true),
            (r#"{"exe": "/usr/bin/ta"}"#, false),
            (r#"{"exe": "/usr/bin/*"}"#, true),
            (r#"{"exe": "/usr/bin/tar", "parent": "/opt/backup"}"#, true),
            (r#"{"exe": "/usr/bin/tar", "parent": "/bin/sh"}"#, false),
            (r#"{"below": "/opt/*"}"#, true),
            (r#"{"below": "/usr/bin/tar"}"#, true),
            (r#"{"below": "/bin/x"}"#, false),
            (r#"{"path": "/etc/"}"#, true),
            (r#"{"path": "/var/"}"#, false),
            (r#"{"uid": 33}"#, true),
            (r#"{"uid": 0}"#, false),
            (r#"{"container": "abc"}"#, true),
            (r#"{"container": "*"}"#, true),
            (r#"{"container": "b"}"#, false),
        ] {
            assert_eq!(parse(json).holds(&event), want, "{json}");
        }
        let excuse = |json: &str| serde_json::from_str::<Excuse>(json).expect("an excuse");
        for (json, want) in [
            (r#"{"exes": ["/bin/x", "/usr/bin/tar"], "why": "w"}"#, true),
            (r#"{"exes": ["/usr/bin/tar"], "below": ["/bin/x"], "why": "w"}"#, false),
            (r#"{"below": ["/opt/backup"], "paths": ["/var/", "/etc/sh"], "why": "w"}"#, true),
        ] {
            assert_eq!(excuse(json).holds(&event), want, "{json}");
            assert!(excuse(json).is_sound());
        }
        assert!(!excuse(r#"{"why": "w"}"#).is_sound() && !excuse(r#"{"paths": ["/"]}"#).is_sound());
        assert!(parse("{}").is_empty());
        let unknown = Event { process: None, image: None, ..event };
        assert!(!parse(r#"{"exe": "*"}"#).holds(&unknown), "an unknown program is no exception");
        assert!(!parse(r#"{"container": "*"}"#).holds(&unknown));
        serde_json::from_str::<Exception>(r#"{"user": 1}"#).expect_err("a misspelt key is an error");
    }
}

//! Paths as text: the lexical normal form of one that a process wrote, and which path an event is about. Knows no file
//! system: what the kernel resolved is taken as it is.

use std::borrow::Cow;

use haechi_ebpf::event::{Field, FieldType};

use crate::model::Event;

/// The path with `//`, `.` and `..` taken out, without looking at any file system. `..` at the root stays at the root;
/// what leads out of a relative path stays in front.
#[must_use]
pub fn normal(path: &str) -> Cow<'_, str> {
    let dirty = path.contains("//") || path.split('/').any(|c| matches!(c, "." | ".."));
    if !dirty {
        return Cow::Borrowed(path);
    }
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let body = parts.join("/");
    Cow::Owned(if absolute { format!("/{body}") } else { body })
}

/// The last component.
#[must_use]
pub fn leaf(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What an event says about the path it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The path, in normal form where a process wrote it, lossily where it is not UTF-8.
    pub path: Cow<'a, str>,
    /// Only a part of it is there.
    pub truncated: bool,
    /// A process wrote it, and may have changed it since.
    pub from_user: bool,
}

/// The path that `event` is about: its first field of that type which could be had.
#[must_use]
pub fn of<'a>(event: &Event<'a>) -> Option<Place<'a>> {
    let mut fields = event.def().fields.iter().enumerate().filter(|(_, f)| f.ty == FieldType::Path);
    let text = fields.find_map(|(i, _)| event.text(Field(i as u8)))?;
    let path = String::from_utf8_lossy(text.bytes);
    let path = match (text.from_user, path) {
        (false, path) => path,
        (true, Cow::Borrowed(path)) => normal(path),
        (true, Cow::Owned(path)) => Cow::Owned(normal(&path).into_owned()),
    };
    Some(Place { path, truncated: text.truncated, from_user: text.from_user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_are_taken_out() {
        for (path, want) in [
            ("/etc/shadow", "/etc/shadow"),
            ("/etc/../etc//./shadow", "/etc/shadow"),
            ("/../../etc/shadow", "/etc/shadow"),
            ("/etc/ssh/", "/etc/ssh/"),
            ("/etc//ssh/", "/etc/ssh"),
            ("../../etc/shadow", "../../etc/shadow"),
            ("a/../../b", "../b"),
            ("./id_rsa", "id_rsa"),
            ("/..hidden/...", "/..hidden/..."),
            ("", ""),
        ] {
            assert_eq!(normal(path), want, "{path}");
        }
        assert_eq!(leaf("/etc/shadow"), "shadow");
        assert_eq!(leaf("shadow"), "shadow");
    }
}

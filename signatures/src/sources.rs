//! The text of a user's rules. Reading them is apart from loading them, so that a replay can load what the live run
//! read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name, as found.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// The files of a user's rules, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources(pub Vec<Source>);

/// Limits of what is read.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Files.
    pub files: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all.
    pub total_bytes: u64,
    /// Directories below one another.
    pub depth: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { files: 1000, file_bytes: 1 << 20, total_bytes: 16 << 20, depth: 16 }
    }
}

/// Why a file or directory was not read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system would not let us.
    #[error("{}: cannot be read: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is not text.
    #[error("{}: is not UTF-8 text", path.display())]
    Text {
        /// Where.
        path: PathBuf,
    },
    /// It is more than we take.
    #[error("{}: left out, because it goes beyond {limit}", path.display())]
    Bound {
        /// Where.
        path: PathBuf,
        /// Which limit.
        limit: &'static str,
    },
}

impl SourceError {
    /// What was not read: a file, or a directory with all that is below it.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::Text { path } | Self::Bound { path, .. } => path,
        }
    }
}

impl Sources {
    /// Takes from `before` what could not be read now: a rule goes when its file does, not when a disk fails.
    /// Returns the names of these files.
    pub fn keep(&mut self, before: &Self, errors: &[SourceError]) -> Vec<String> {
        let unread = |source: &&Source| errors.iter().any(|e| Path::new(&source.file).starts_with(e.path()));
        let kept: Vec<Source> = before.0.iter().filter(unread).cloned().collect();
        let names = kept.iter().map(|s| s.file.clone()).collect();
        self.0.extend(kept);
        self.0.sort_by(|a, b| a.file.cmp(&b.file));
        names
    }

    /// Reads all `*.rego` files below `dirs`. What cannot be read is reported and left out. A directory that is not
    /// there holds no rules.
    #[must_use]
    pub fn read(dirs: &[PathBuf], bounds: Bounds) -> (Self, Vec<SourceError>) {
        let mut reader = Reader { bounds, total: 0, found: Vec::new(), errors: Vec::new() };
        for dir in dirs {
            match dir.try_exists() {
                Ok(true) => reader.directory(dir, 0),
                Ok(false) => {}
                Err(error) => reader.errors.push(SourceError::Io { path: dir.clone(), error }),
            }
        }
        reader.found.sort_by(|a, b| a.file.cmp(&b.file));
        reader.found.dedup_by(|a, b| a.file == b.file);
        (Self(reader.found), reader.errors)
    }
}

struct Reader {
    bounds: Bounds,
    total: u64,
    found: Vec<Source>,
    errors: Vec<SourceError>,
}

impl Reader {
    fn directory(&mut self, dir: &Path, depth: usize) {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.errors.push(SourceError::Io { path: dir.to_owned(), error }),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // Kubernetes keeps the versions of a mounted ConfigMap in such directories, and links the files.
            if entry.file_name().as_encoded_bytes().starts_with(b"..") {
                continue;
            }
            // A linked directory could lead anywhere, round in a circle too; a linked file is just a file.
            let link = entry.file_type().is_ok_and(|t| t.is_symlink());
            if path.is_dir() && !link {
                if depth < self.bounds.depth {
                    self.directory(&path, depth + 1);
                } else {
                    self.errors.push(SourceError::Bound { path, limit: "the depth of directories" });
                }
            } else if path.is_file() && path.extension().is_some_and(|e| e == "rego") {
                match self.file(&path) {
                    Ok(source) => self.found.push(source),
                    Err(error) => self.errors.push(error),
                }
            }
        }
    }

    fn file(&mut self, path: &Path) -> Result<Source, SourceError> {
        let bound = |limit| SourceError::Bound { path: path.to_owned(), limit };
        if self.found.len() >= self.bounds.files {
            return Err(bound("the number of files"));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|f| f.take(self.bounds.file_bytes + 1).read_to_end(&mut bytes))
            .map_err(|error| SourceError::Io { path: path.to_owned(), error })?;
        let len = bytes.len() as u64;
        if len > self.bounds.file_bytes {
            return Err(bound("the size of a file"));
        }
        if self.total + len > self.bounds.total_bytes {
            return Err(bound("the size of all files"));
        }
        self.total += len;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source { file: path.display().to_string(), text }),
            Err(_) => Err(SourceError::Text { path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory that is gone when this is.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("haechi-sources-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory of our own");
            Self(path)
        }

        fn write(&self, name: &str, text: &[u8]) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("below ours")).expect("a directory");
            fs::write(path, text).expect("a file");
        }

        fn names(&self, sources: &Sources) -> Vec<String> {
            let root = format!("{}/", self.0.display());
            sources.0.iter().map(|s| s.file.strip_prefix(&root).expect("below ours").to_owned()).collect()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            // Nothing can be done about a failure here.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_found_at_any_depth_and_once() {
        let dir = Dir::new("find");
        dir.write("b.rego", b"b");
        dir.write("deep/er/a.rego", b"a");
        dir.write("note.txt", b"no");
        dir.write("..2024/real.rego", b"real");
        symlink("..2024/real.rego", dir.0.join("map.rego")).expect("a link");
        symlink(".", dir.0.join("circle")).expect("a link");
        let missing = dir.0.join("missing");
        let (sources, errors) = Sources::read(&[dir.0.clone(), dir.0.clone(), missing], Bounds::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(dir.names(&sources), ["b.rego", "deep/er/a.rego", "map.rego"]);
        assert_eq!(sources.0[2].text, "real");
    }

    #[test]
    fn what_cannot_be_read_any_more_stays_as_it_was() {
        let dir = Dir::new("keep");
        for name in ["a.rego", "b/c.rego", "d.rego", "e.rego"] {
            dir.write(name, b"before");
        }
        let (before, _) = Sources::read(std::slice::from_ref(&dir.0), Bounds::default());
        dir.write("a.rego", b"\xff");
        dir.write("d.rego", b"now");
        fs::remove_file(dir.0.join("e.rego")).expect("a file of ours");
        let bounds = Bounds { depth: 0, ..Bounds::default() };
        let (mut now, errors) = Sources::read(std::slice::from_ref(&dir.0), bounds);
        let kept = now.keep(&before, &errors);
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(dir.names(&now), ["a.rego", "b/c.rego", "d.rego"]);
        assert_eq!(now.0.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(), ["before", "before", "now"]);
    }

    #[test]
    fn limits_leave_out_and_say_so() {
        let dir = Dir::new("bounds");
        for (name, text) in [("a.rego", &b"12345"[..]), ("b.rego", b"123456789"), ("c.rego", b"123"), ("d.rego", b"1")]
        {
            dir.write(name, text);
        }
        dir.write("x/y.rego", b"1");
        dir.write("bad.rego", b"\xff");
        let bounds = Bounds { files: 2, file_bytes: 8, total_bytes: 7, depth: 0 };
        let (sources, errors) = Sources::read(std::slice::from_ref(&dir.0), bounds);
        assert_eq!(dir.names(&sources), ["a.rego", "d.rego"]);
        let errors: Vec<_> = errors.iter().map(|e| e.to_string().rsplit('/').next().unwrap_or("").to_owned()).collect();
        assert_eq!(
            errors,
            [
                "b.rego: left out, because it goes beyond the size of a file",
                "bad.rego: is not UTF-8 text",
                "c.rego: left out, because it goes beyond the size of all files",
                "x: left out, because it goes beyond the depth of directories",
            ]
        );
    }
}

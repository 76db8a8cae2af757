//! Whole inputs to start from: made by the product's own writers, and kept in `tests/fuzz/<target>/`: captured ones, and
//! those that once broke a reader.

use std::path::Path;

use super::{Target, unhex};

/// All of a target. Files end in `.hex`, or in the target's own suffix and are taken as they are.
pub(super) fn of(target: &Target) -> Vec<Vec<u8>> {
    let mut all = (target.seeds)();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("hex") => all.extend(std::str::from_utf8(&bytes).ok().and_then(unhex)),
            Some(suffix) if suffix == target.suffix => all.push(bytes),
            _ => {}
        }
    }
    all
}

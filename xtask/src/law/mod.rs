//! `cargo xtask law`: checks the laws that a compiler does not. They are data (table.rs) and small functions (rules.rs).

mod rules;
mod source;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tally::Tally;
use crate::{place, sh};
use rules::{File, LAWS};

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    if !args.is_empty() {
        bail!("usage: cargo xtask law");
    }
    let tally = check()?;
    println!("{tally}");
    Ok(i32::from(tally.failed > 0))
}

/// Checks all laws, prints every breach, and counts laws kept and broken.
pub(crate) fn check() -> Result<Tally> {
    let root = place::root();
    let sources = sources(&root)?;
    if sources.is_empty() {
        bail!("no sources under {}: nothing was checked", root.display());
    }
    let mut tally = Tally::default();
    let mut report = |name: &str, breaches: Vec<String>| {
        for breach in &breaches {
            println!("{breach}  [{name}]");
        }
        tally += Tally::one(breaches.is_empty());
    };
    let files = read(&root, &sources)?;
    for law in LAWS {
        let found = files.iter().flat_map(|(path, text)| {
            let breaches = (law.breaches)(&File::new(path, text));
            breaches.into_iter().map(move |(line, what)| format!("{path}:{line}: {what}"))
        });
        report(law.name, found.collect());
    }
    report("packages keep their diet", diets(&root)?);
    report("the root stays small", strangers(&visible(&root)?));
    Ok(tally)
}

fn read(root: &Path, sources: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.strip_prefix(root)?.to_string_lossy().into_owned(), text))
    };
    sources.iter().map(read).collect()
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pending: Vec<PathBuf> =
        table::SOURCES.iter().map(|dir| root.join(dir)).filter(|dir| dir.is_dir()).collect();
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn diets(root: &Path) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for diet in table::DIETS {
        let text =
            fs::read_to_string(root.join(diet.manifest)).with_context(|| format!("cannot read {}", diet.manifest))?;
        for (line, name) in dependencies(&text) {
            if diet.without.iter().any(|start| name.starts_with(start)) {
                breaches.push(format!("{}:{line}: depends on {name}: {}", diet.manifest, diet.why));
            }
        }
    }
    Ok(breaches)
}

/// Names in the dependency tables of a manifest, with their lines. What only its tests use is no part of its diet.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (at, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies") && table != "dev-dependencies";
            if let Some(name) = table.strip_prefix("dependencies.") {
                found.push((at + 1, name.to_owned()));
            }
        } else if inside && !line.starts_with('#') && line.contains('=') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.push((at + 1, name.trim_matches('"').to_owned()));
        }
    }
    found
}

/// What git would publish from the root directory.
fn visible(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = sh::output(&mut git)?;
    let mut names: Vec<String> = listed.lines().filter_map(|l| l.split('/').next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn strangers(names: &[String]) -> Vec<String> {
    let strange = names.iter().filter(|n| !n.starts_with('.') && !table::ROOT.contains(&n.as_str()));
    strange.map(|n| format!("{n}: does not belong in the root")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_all_spellings_are_seen() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\naya.workspace = true\n# tokio = \"1\"\n\"a-b\" = { path = \"..\" }\n\
                        [dev-dependencies]\ntokio = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n[dependencies.tonic]\nversion = \"1\"\n";
        let names: Vec<String> = dependencies(manifest).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["aya", "a-b", "libc", "tonic"]);
    }

    #[test]
    fn a_stranger_in_the_root_is_named() {
        let names = ["agent", ".ci", "README.md", "notes.txt"].map(str::to_owned);
        assert_eq!(strangers(&names), ["notes.txt: does not belong in the root"]);
    }

    #[test]
    fn every_listed_long_file_exists_and_is_long() {
        for (path, why) in table::LONG {
            let text = fs::read_to_string(place::root().join(path)).expect("a listed file exists");
            assert!(text.lines().count() > table::LONGEST, "{path} ({why}) is short by now: take it off the list");
        }
    }
}

//! `cargo xtask docs`: writes the pages that the agent derives from its tables; `--check` says which of them are stale.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tally::Tally;
use crate::{place, sh};

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    let check_only = match args {
        [] => false,
        [one] if one == "--check" => true,
        _ => bail!("usage: cargo xtask docs [--check]"),
    };
    sh::run(place::cargo().args(["build", "--quiet", "-p", "haechi-agent", "--bin", "haechi"]))?;
    let haechi = place::built("debug", "haechi");
    if !can_write(&haechi) {
        bail!("`{} docs` does not work: there is nothing to write pages with", haechi.display());
    }
    if check_only {
        let tally = check(&haechi)?;
        println!("{tally}");
        return Ok(i32::from(tally.failed > 0));
    }
    write(&haechi, &place::root().join("docs"))?;
    Ok(0)
}

/// Whether the agent can write pages at all.
pub(crate) fn can_write(haechi: &Path) -> bool {
    sh::output(Command::new(haechi).args(["docs", "--help"])).is_ok()
}

/// Compares the pages in docs/ with what the agent would write. One check a page.
pub(crate) fn check(haechi: &Path) -> Result<Tally> {
    let fresh = Scratch::new()?;
    write(haechi, &fresh.0)?;
    let mut tally = Tally::default();
    let pages = pages(&fresh.0)?;
    if pages.is_empty() {
        bail!("`haechi docs` wrote no page");
    }
    let docs = place::root().join("docs");
    for page in &pages {
        let expected = fs::read(fresh.0.join(page))?;
        let same = fs::read(docs.join(page)).is_ok_and(|found| found == expected);
        if !same {
            println!("docs/{}: stale, run `cargo xtask docs`", page.display());
        }
        tally += Tally::one(same);
    }
    for page in orphans(&docs, &pages)? {
        println!("docs/{}: says that it is generated, but nothing generates it", page.display());
        tally += Tally::one(false);
    }
    Ok(tally)
}

fn write(haechi: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    sh::output(Command::new(haechi).arg("docs").arg(into)).map(drop)
}

fn pages(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.insert(path.strip_prefix(dir)?.to_path_buf());
            }
        }
    }
    Ok(found)
}

/// Pages that once were generated and no longer are.
fn orphans(docs: &Path, generated: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>> {
    let others = pages(docs)?.into_iter().filter(|page| !generated.contains(page));
    Ok(others.filter(|page| fs::read_to_string(docs.join(page)).is_ok_and(|text| says_generated(&text))).collect())
}

fn says_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains("cargo xtask docs") && line.to_lowercase().contains("generated"))
}

/// A directory that goes when the check is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("haechi-docs-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover in the temporary directory harms nobody.
        let _kept = fs::remove_dir_all(&self.0);
    }
}

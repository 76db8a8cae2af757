//! Records that a real kernel wrote, kept as hex, and what they must be read as. Where the wire format, a symbol table
//! or the JSON changes, these files change, and everybody sees it. `golden --capture` takes them from a recording.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use haechi_agent::core::Input;
use haechi_agent::record::{Frame, Reader};
use haechi_agent::render::{self, Happening, Item};
use haechi_ebpf::wire::{View, flag};
use haechi_signatures::flat::{Host, event_json};
use haechi_signatures::model::Event;
use serde_json::{Value, json};

use crate::fuzzing::unhex;

/// Where they are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The day they are shown on: a machine booted at its beginning.
const BOOT: u64 = 1_800_000_000_000_000_000;

/// What a record is read as: the flat form that rules see, and the lines that users see.
///
/// # Errors
/// When it is no record.
pub fn read(bytes: &[u8]) -> Result<Value> {
    let view = View::parse(bytes)?;
    let event = Event::join(view, &());
    let host = Host { name: "node".into(), boot: BOOT };
    let item = Item::Event(Happening::of(&event));
    let env = vec!["CHOSEN".to_owned()];
    let mut context = render::Context { host: host.clone(), env, decoded: true, colour: false };
    let mut decoded = Vec::new();
    render::json::write(&item, &context, &mut decoded);
    context.decoded = false;
    let mut raw = Vec::new();
    render::json::write(&item, &context, &mut raw);
    let line = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).context("a line is JSON");
    Ok(json!({ "flat": event_json(&event, &host), "decoded": line(&decoded)?, "raw": line(&raw)? }))
}

/// Compares every record with what it must be read as, or writes that down.
///
/// # Errors
/// Names those that differ.
pub fn check(bless: bool) -> Result<usize> {
    let mut stale = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(directory())? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "hex") {
            continue;
        }
        count += 1;
        let bytes = unhex(&fs::read_to_string(&path)?).with_context(|| format!("{}: no hex", path.display()))?;
        let shown = serde_json::to_string_pretty(&read(&bytes).with_context(|| path.display().to_string())?)? + "\n";
        let kept = path.with_extension("json");
        if bless {
            fs::write(kept, shown)?;
        } else if fs::read_to_string(&kept).unwrap_or_default() != shown {
            stale.push(kept.display().to_string());
        }
    }
    ensure!(stale.is_empty(), "read otherwise than before; if that is meant, `golden --bless`: {}", stale.join(", "));
    Ok(count)
}

/// Takes the first record of each kind that an actor caused, from a recording.
///
/// # Errors
/// When it is none.
pub fn capture(recording: &Path) -> Result<usize> {
    let mut reader = Reader::open(recording)?;
    let mut found = BTreeMap::new();
    while let Some(frame) = reader.next_frame()? {
        let Frame::Input(Input::Batch(batch) | Input::Seed(batch)) = frame else { continue };
        for record in batch.records() {
            let view = View::parse(record)?;
            if view.comm() == b"actor" {
                found.entry(name(&view)).or_insert_with(|| record.to_vec());
            }
        }
    }
    for (name, record) in &found {
        let lines: Vec<String> =
            record.chunks(32).map(|c| c.iter().map(|b| format!("{b:02x}")).collect::<String>()).collect();
        fs::write(directory().join(format!("{name}.hex")), lines.join("\n") + "\n")?;
    }
    Ok(found.len())
}

fn name(view: &View<'_>) -> String {
    let mut name = Event::join(*view, &()).name().to_owned();
    for (bit, suffix) in [(flag::COMPAT, "compat"), (flag::IO_URING, "uring")] {
        if view.flags() & bit != 0 {
            name = format!("{name}-{suffix}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::{EVENTS, Ring};

    #[test]
    fn records_of_a_real_kernel_are_read_as_ever() {
        let count = check(false).expect("nothing changed");
        assert!(count >= EVENTS.iter().filter(|e| e.ring != Ring::None).count(), "{count} records");
    }

    #[test]
    fn every_event_of_the_kernel_is_here() {
        let missing: Vec<&str> = EVENTS
            .iter()
            .filter(|e| e.ring != Ring::None && e.name != "syscall")
            .map(|e| e.name)
            .filter(|n| !directory().join(format!("{n}.hex")).exists())
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

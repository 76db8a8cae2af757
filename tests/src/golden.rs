//! Records that a real kernel wrote, kept as hex, and what they must be read as. Where the wire format, a symbol table
//! or the JSON changes, these files change, and everybody sees it. `golden --record` makes new ones on the running kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use haechi_agent::core::Input;
use haechi_agent::record::{Frame, Reader};
use haechi_agent::render::{self, Happening, Item};
use haechi_ebpf::event::{EVENTS, Ring};
use haechi_ebpf::wire::{View, flag};
use haechi_signatures::flat::{Host, event_json};
use haechi_signatures::model::Event;
use serde_json::{Value, json};

use crate::fuzzing::unhex;
use crate::harness::{Cgroup, Context, Spec};

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

/// The kept records, by file; one that is not hex is left out.
#[must_use]
pub fn records() -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory()).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "hex"));
    files.sort();
    files.into_iter().filter_map(|p| unhex(&fs::read_to_string(&p).ok()?).map(|bytes| (p, bytes))).collect()
}

/// Compares every record with what it must be read as, or writes that down.
///
/// # Errors
/// Names those that differ.
pub fn check(bless: bool) -> Result<usize> {
    let mut stale = Vec::new();
    let records = records();
    for (path, bytes) in &records {
        let shown = serde_json::to_string_pretty(&read(bytes).with_context(|| path.display().to_string())?)? + "\n";
        let kept = path.with_extension("json");
        if bless {
            fs::write(kept, shown)?;
        } else if fs::read_to_string(&kept).unwrap_or_default() != shown {
            stale.push(kept.display().to_string());
        }
    }
    ensure!(stale.is_empty(), "read otherwise than before; if that is meant, `golden --bless`: {}", stale.join(", "));
    Ok(records.len())
}

/// What actors do so that there is a record of each kind; `{}` is a directory.
const DEEDS: &[&str] = &[
    "open how=openat path={}/file",
    "open how=openat path={}/file compat=1",
    "open how=uring path={}/file",
    "connect to=inet",
    "connect to=inet6 by=compat",
    "connect to=unix path={}/socket by=uring",
    "ptrace what=poketext",
    "ptrace what=poketext compat=1",
    "memfd name=secret",
    "memfd name=secret compat=1",
    "exec arg=report arg=two_words env=CHOSEN:yes stdin=pipe",
    "fork",
    "exit how=signal value=15",
    "getppid n=1",
    "change by=symlink path={}/link to=../target",
    "change by=renameat2 path={}/link to={}/renamed",
    "change by=unlink path={}/renamed",
    "change by=mknodat path={}/pipe mode=4480",
    "change by=unlink path={}/pipe compat=1",
    "change by=fchmod path={}/file mode=2505",
    "mount by=mount path={}/mounted",
    "mount by=umount2 path={}/mounted",
    "mount by=move_mount path={}/mounted",
    "endpoint by=listen to=inet6",
    "endpoint by=bind to=unix path={}/bound",
    "endpoint by=accept4 to=inet",
    "endpoint by=dup2 to=inet",
    "reach by=bpf",
    "reach by=finit_module path={}/file",
    "reach by=kill",
    "reach by=unshare",
    "reach by=readv",
    "reach by=writev",
];

/// Records an agent that watches actors, and takes the records from there.
///
/// # Errors
/// When the agent or an actor fails.
pub fn record(context: &Context) -> Result<usize> {
    let dir = context.dir("golden")?;
    fs::write(format!("{dir}/file"), "x")?;
    fs::create_dir(format!("{dir}/mounted"))?;
    let recording = format!("{dir}/recording");
    let names: Vec<&str> = EVENTS.iter().filter(|e| e.name != "syscall").map(|e| e.name).chain(["getppid"]).collect();
    let mut elder = context.busy_actor(&["wait"])?;
    elder.hear()?;
    let spec = Spec::run(&["--events", &names.join(","), "--record", &recording]).config("kernel:\n  env: [CHOSEN]\n");
    let agent = context.agent(&spec)?;
    for deed in DEEDS {
        let deed = deed.replace("{}", &dir);
        context.actor_lines(&deed.split(' ').collect::<Vec<_>>())?;
    }
    let cgroup = Cgroup::noted("golden");
    context.actor(&["cgroup", &format!("path={}", cgroup.path().display())])?;
    talk()?;
    agent.stop()?;
    elder.stop()?;
    capture(recording.as_ref())
}

/// A connection over loopback, both of whose ends are ours.
fn talk() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"question")?;
    client.shutdown(Shutdown::Write)?;
    server.read_to_end(&mut Vec::new())?;
    server.write_all(b"answer")?;
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Takes the first record of each kind that an actor or this process caused, from a recording.
fn capture(recording: &Path) -> Result<usize> {
    let mut reader = Reader::open(recording)?;
    let mut found = BTreeMap::new();
    while let Some(frame) = reader.next_frame()? {
        let Frame::Input(Input::Batch(batch) | Input::Seed(batch)) = frame else { continue };
        for record in batch.records() {
            let view = View::parse(record)?;
            if view.comm() == b"actor" || view.def().ring == Ring::Flow && view.process().0 == std::process::id() {
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

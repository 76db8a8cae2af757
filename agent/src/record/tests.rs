//! Recordings: what is written is read, replays are exact, damage is told and never more than that.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use haechi_signatures::sources::Sources;

use super::*;
use crate::core::{Answer, Core, Exe, Input, Output, Rules};
use crate::loss::Lost;
use crate::render::{Context, Item, json};
use crate::replay;
use crate::testing::{Who, batch, executed, opened, rule, start};

/// Memory that can be written to from a box.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn inputs() -> Vec<Input> {
    let who = Who(11, 200, 2);
    let seed = haechi_signatures::record::Builder::new(&haechi_ebpf::event::existing_process::DEF).process(1, 1, 1);
    vec![
        Input::Cgroups(vec![(7, "/default/web".into())]),
        Input::Seed(batch([seed.finish()])),
        Input::Batch(batch([executed(1000, who, 1, "/tmp/odd"), opened(2000, who, "/etc/shadow")])),
        Input::Lost(vec![Lost { event: 16, cause: 1, count: 3 }]),
        Input::Answer(Answer { exe: Exe { dev: 8, inode: 77, ctime: 99 }, sha256: Some("ab".into()) }),
        Input::Reload(Box::new(Rules { sources: Sources(vec![rule("late", "/late")]), ..Rules::default() })),
        Input::Batch(batch([opened(3000, who, "/late"), vec![1, 2, 3]])),
        Input::Surveyed(60_000_000_000, 61_000_000_000),
        Input::Tick(70_000_000_000),
        Input::End,
    ]
}

/// The bytes of a recording, and what the run that made it showed.
fn recorded() -> (Vec<u8>, Vec<u8>) {
    let start = start(|c| (c.executable_hash, c.events) = (true, vec!["sched_process_exec".into()]));
    let context = Context {
        host: start.host.clone(),
        env: start.options.env.clone(),
        decoded: start.options.decoded,
        colour: false,
    };
    let shared = Shared::default();
    let mut recorder = Recorder::over(Path::new("x"), Box::new(shared.clone()));
    recorder.begin(&start).expect("memory takes everything");
    let (mut core, _) = Core::build(&start).expect("valid settings");
    let (mut outputs, mut lines) = (Vec::new(), Vec::new());
    for input in inputs() {
        recorder.write(&input);
        core.step(&input, &mut outputs);
    }
    for output in outputs {
        match output {
            Output::Event(e) => json::write(&Item::Event(e), &context, &mut lines),
            Output::Finding(f) => json::write(&Item::Finding(f), &context, &mut lines),
            _ => {}
        }
    }
    assert_eq!(recorder.skipped(), 0);
    let bytes = shared.0.lock().expect("nobody panicked").clone();
    (bytes, lines)
}

fn play(bytes: &[u8]) -> (Vec<u8>, Result<(), String>) {
    let mut out = Vec::new();
    let result = Reader::over(bytes)
        .map_err(|e| e.to_string())
        .and_then(|mut r| replay::play(&mut r, json::write, false, &mut out).map(drop).map_err(|e| e.to_string()));
    (out, result)
}

#[test]
fn a_replay_gives_the_bytes_of_the_run() {
    let (bytes, live) = recorded();
    assert!(String::from_utf8_lossy(&live).contains("\"name\":\"late\""));
    assert_eq!(play(&bytes), (live, Ok(())));
}

#[test]
fn a_recording_cut_anywhere_is_told_and_played_up_to_there() {
    let (bytes, live) = recorded();
    for keep in 0..bytes.len() {
        let (out, result) = play(&bytes[..keep]);
        let error = result.expect_err("it is cut");
        assert!(live.starts_with(&out), "{keep}");
        assert!(keep < 16 || error.contains("byte "), "{keep}: {error}");
    }
}

#[test]
fn any_changed_byte_is_found() {
    let (bytes, _) = recorded();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        play(&damaged).1.expect_err("a bit was turned over");
    }
    let mut damaged = bytes.clone();
    let last = bytes.len() - 9;
    damaged[last] = 77;
    let error = play(&damaged).1.expect_err("no such kind");
    assert_eq!(error, format!("the recording is damaged at byte {last}: the checksum is wrong"));
}

#[test]
fn a_recording_of_other_events_is_refused() {
    let (mut bytes, _) = recorded();
    bytes[8] ^= 1;
    let error = play(&bytes).1.expect_err("another table");
    assert!(error.contains("with other events"), "{error}");
    assert!(play(b"#!/bin/sh and more of it").1.expect_err("no recording").contains("no recording"));
}

#[test]
fn a_full_disk_ends_the_recording_only() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut recorder = Recorder::over(Path::new("x"), Box::new(Full));
    recorder.write(&Input::Tick(1));
    recorder.write(&Input::Tick(2));
    assert_eq!(recorder.skipped(), 2);
}

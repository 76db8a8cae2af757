//! Sinks that are slow, broken or full.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex};

use haechi_ebpf::wire::View;
use haechi_signatures::model::Event;

use super::lines::Lines;
use super::*;
use crate::render::Happening;
use crate::testing::{Who, opened};

/// Nothing here takes so long.
const PATIENT: Duration = Duration::from_secs(60);

fn item(time: u64) -> Item {
    let record = opened(time, Who(1, 1, 1), "/x");
    Item::Event(Happening::of(&Event::join(View::parse(&record).expect("a record"), &())))
}

/// Shows what it writes, and fails when it is told to.
struct Told {
    gathered: Vec<String>,
    shown: SyncSender<Vec<String>>,
    orders: Receiver<io::Result<()>>,
}

impl Sink for Told {
    fn gather(&mut self, item: &Item) {
        self.gathered.push(item.name().to_owned());
    }

    fn flush(&mut self) -> io::Result<()> {
        let order = self.orders.recv().unwrap_or(Ok(()));
        self.shown.send(std::mem::take(&mut self.gathered)).map_err(io::Error::other)?;
        order
    }
}

struct Rig {
    queue: Queue,
    shown: Receiver<Vec<String>>,
    order: SyncSender<io::Result<()>>,
    closed: Arc<(Mutex<bool>, Condvar)>,
}

fn rig(capacity: usize) -> Rig {
    let (show, shown) = sync_channel(100);
    let (order, orders) = sync_channel(100);
    let closed = Arc::new((Mutex::new(false), Condvar::new()));
    let told = closed.clone();
    let close = move || {
        *told.0.lock().expect("nobody panicked") = true;
        told.1.notify_all();
    };
    let sink = Box::new(Told { gathered: Vec::new(), shown: show, orders });
    let queue = Queue::start("told".into(), sink, capacity, Arc::new(close)).expect("a thread");
    Rig { queue, shown, order, closed }
}

#[test]
fn a_slow_sink_loses_its_own_items_counts_them_and_shows_the_gap() {
    let rig = rig(2);
    // The first flush waits for an order; two more fit in the queue; the rest does not.
    rig.queue.send(&Arc::new(item(1)));
    while rig.queue.status().lost.is_empty() {
        rig.queue.send(&Arc::new(item(2)));
    }
    let lost = rig.queue.status().lost[0].clone();
    assert_eq!(lost.0, "security_file_open");
    drop(rig.order);
    let status = rig.queue.finish(PATIENT);
    let shown: Vec<String> = rig.shown.iter().flatten().collect();
    assert!(shown.contains(&"lost_events".to_owned()), "{shown:?}");
    let items = shown.iter().filter(|n| *n == "security_file_open").count() as u64;
    assert_eq!((status.delivered, status.lost), (items, vec![lost]));
}

#[test]
fn findings_get_through_a_flood_of_events() {
    let rig = rig(2);
    while rig.queue.status().lost.is_empty() {
        rig.queue.send(&Arc::new(item(1)));
    }
    let finding = Item::Finding(Box::new(crate::render::example()));
    rig.queue.send(&Arc::new(finding));
    drop(rig.order);
    let status = rig.queue.finish(PATIENT);
    assert!(rig.shown.iter().flatten().any(|name| name == "some_rule"));
    assert_eq!(status.lost.len(), 1, "{status:?}");
}

#[test]
fn a_sink_whose_reader_is_gone_says_so_and_loses_what_comes_after() {
    let rig = rig(8);
    rig.order.send(Err(io::ErrorKind::BrokenPipe.into())).expect("it listens");
    rig.queue.send(&Arc::new(item(1)));
    let (lock, changed) = &*rig.closed;
    let guard = lock.lock().expect("nobody panicked");
    drop(changed.wait_while(guard, |closed| !*closed).expect("nobody panicked"));
    assert!(rig.queue.is_closed());
    rig.queue.send(&Arc::new(item(2)));
    let status = rig.queue.finish(PATIENT);
    assert_eq!((status.delivered, status.lost), (0, vec![("security_file_open".into(), 2)]));
}

#[test]
fn a_full_disk_loses_and_goes_on_when_there_is_room() {
    let rig = rig(8);
    rig.order.send(Err(io::ErrorKind::StorageFull.into())).expect("it listens");
    rig.queue.send(&Arc::new(item(1)));
    rig.shown.recv().expect("it was tried");
    drop(rig.order);
    rig.queue.send(&Arc::new(item(2)));
    let status = rig.queue.finish(PATIENT);
    assert_eq!((status.delivered, status.lost, status.closed), (1, vec![("security_file_open".into(), 1)], false));
}

#[test]
fn a_sink_that_is_stuck_is_left_behind_and_what_it_holds_is_counted() {
    let rig = rig(8);
    for time in 0..3 {
        rig.queue.send(&Arc::new(item(time)));
    }
    // No order comes: it neither writes nor fails.
    let status = rig.queue.finish(Duration::ZERO);
    assert_eq!((status.delivered, status.lost), (0, vec![("items not written by the end".into(), 3)]));
    drop(rig.order);
}

#[test]
fn the_word_of_a_gap_is_said_until_it_is_written() {
    let rig = rig(8);
    for (time, full) in [(1, true), (2, true), (3, false), (4, true)] {
        let order = if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
        rig.order.send(order).expect("it listens");
        rig.queue.send(&Arc::new(item(time)));
        let shown = rig.shown.recv().expect("it was tried");
        assert_eq!(shown.len(), if time == 1 { 1 } else { 1 + usize::from(time < 4) }, "{time}: {shown:?}");
    }
    drop(rig.order);
    // Nothing came after the last loss, and still it is told.
    let status = rig.queue.finish(PATIENT);
    assert_eq!(rig.shown.iter().collect::<Vec<_>>(), [["lost_events"]]);
    assert_eq!((status.delivered, status.lost), (1, vec![("security_file_open".into(), 3)]));
}

#[test]
fn a_line_torn_by_an_error_does_not_spoil_the_next() {
    /// Takes a few bytes, then none for a while, then all.
    #[derive(Clone, Default)]
    struct Torn(Arc<Mutex<(u32, Vec<u8>)>>);
    impl io::Write for Torn {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().expect("nobody panicked");
            state.0 += 1;
            let take = match state.0 {
                1 => 10,
                2 | 3 => return Err(io::ErrorKind::StorageFull.into()),
                _ => bytes.len(),
            };
            state.1.extend_from_slice(&bytes[..take]);
            Ok(take)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let out = Torn::default();
    let mut lines = Lines::new(out.clone(), Format::Json, Context::default());
    for time in 0..2 {
        lines.gather(&item(time));
        lines.flush().expect_err("no room");
    }
    lines.gather(&item(2));
    lines.flush().expect("room again");
    let text = String::from_utf8(out.0.lock().expect("nobody panicked").1.clone()).expect("text");
    let all: Vec<&str> = text.lines().collect();
    assert_eq!(all.len(), 2);
    serde_json::from_str::<serde_json::Value>(all[0]).expect_err("torn");
    serde_json::from_str::<serde_json::Value>(all[1]).expect("whole");
}

#[test]
fn files_grow_and_sinks_that_cannot_be_are_named() {
    let path = std::env::temp_dir().join(format!("haechi-sink-{}.json", std::process::id()));
    let spec = |kind: &str, path: Option<&std::path::Path>| Spec {
        kind: kind.into(),
        format: Format::Json,
        path: path.map(Into::into),
    };
    let closed: Arc<dyn Fn() + Send + Sync> = Arc::new(|| {});
    for _ in 0..2 {
        let sinks =
            Sinks::build(&[spec("file", Some(&path))], None, &Context::default(), 8, &closed).expect("writable");
        sinks.send(&Arc::new(item(1)));
        assert_eq!(sinks.finish()[0].delivered, 1);
    }
    let text = std::fs::read_to_string(&path).expect("written");
    std::fs::remove_file(&path).expect("ours");
    assert_eq!(text.lines().count(), 2);
    let error =
        |spec: Spec| Sinks::build(&[spec], None, &Context::default(), 8, &closed).err().expect("refused").to_string();
    assert_eq!(error(spec("fiel", None)), "there is no sink `fiel`; did you mean `file`?");
    assert_eq!(error(spec("file", None)), "sink `file` needs a `path`");
    let nowhere = std::path::Path::new("/nowhere/x");
    assert_eq!(error(spec("file", Some(nowhere))), "sink `file:/nowhere/x` cannot be opened");
}

//! One watcher: reads its stream at its own speed, picks, and hands on. When it is slow it falls behind in the ring, and
//! nobody else notices.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haechi_ebpf::loss::Loss;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use super::encode::line;
use super::pick::Pick;
use super::wire::Step;
use super::wire::proto::{Begin, Form, Lost, Position};
use super::{Served, Stream};
use crate::render::Item;

/// Records read together.
const TOGETHER: usize = 64;
/// Steps on their way to the socket.
const AHEAD: usize = 64;

/// What a client gets.
pub(super) type Steps = ReceiverStream<Result<Step, Status>>;

/// Counts among the watchers while it lives.
struct Place {
    served: Arc<Served>,
    stream: Stream,
}

impl Place {
    fn take(served: Arc<Served>, stream: Stream) -> Result<Self, Status> {
        let all: usize = served.lanes.iter().map(|lane| lane.watchers.load(Ordering::SeqCst)).sum();
        if all >= served.limit {
            return Err(Status::resource_exhausted(format!("{all} watch already: `serve.watchers` is the limit")));
        }
        served.lanes[stream as usize].watchers.fetch_add(1, Ordering::SeqCst);
        Ok(Self { served, stream })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.served.lanes[self.stream as usize].watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Watcher {
    place: Place,
    form: Form,
    pick: Pick,
    next: u64,
    steps: mpsc::Sender<Result<Step, Status>>,
}

/// The client is gone.
struct Gone;

/// Begins to watch.
///
/// # Errors
/// When there is no room, or the position is none.
pub(super) fn watch(
    served: Arc<Served>,
    stream: Stream,
    form: i32,
    since: Option<Position>,
    pick: Pick,
    unserved: Vec<String>,
) -> Result<Steps, Status> {
    let form = Form::try_from(form).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let Range { start: oldest, end: newest } = served.lanes[stream as usize].ring.numbers();
    let (next, restarted) = match since {
        None => (newest, false),
        Some(at) if !at.instance.is_empty() && at.instance != served.instance => (oldest, true),
        Some(at) if at.next > newest => {
            return Err(Status::out_of_range(format!("there is no record {} yet: the next is {newest}", at.next)));
        }
        // Whatever there is.
        Some(at) if at.next == 0 => (oldest, false),
        Some(at) => (at.next, false),
    };
    let begin = Begin { instance: served.instance.clone(), next, restarted, unserved };
    let place = Place::take(served, stream)?;
    let (steps, receiver) = mpsc::channel(AHEAD);
    let watcher = Watcher { place, form, pick, next, steps };
    tokio::spawn(async move {
        // A client that goes needs no farewell.
        let _ = watcher.run(begin).await;
    });
    Ok(ReceiverStream::new(receiver))
}

impl Watcher {
    async fn run(mut self, begin: Begin) -> Result<(), Gone> {
        let mut news = self.place.served.news.subscribe();
        self.send(Step { number: begin.next, begin: Some(begin), ..Step::default() }).await?;
        loop {
            // Asked before it is read: what comes in between is news.
            let over = *news.borrow_and_update();
            while self.some().await? {
                // A pick that takes nothing sends nothing, and the thread belongs to all.
                yield_now().await;
                if self.steps.is_closed() {
                    return Err(Gone);
                }
            }
            if over {
                return Ok(());
            }
            tokio::select! {
                result = news.changed() => result.map_err(|_closed| Gone)?,
                () = self.steps.closed() => return Err(Gone),
            }
        }
    }

    /// Sends some of what there is; whether there was any.
    async fn some(&mut self) -> Result<bool, Gone> {
        let served = self.place.served.clone();
        let lane = &served.lanes[self.place.stream as usize];
        let mut items = Vec::with_capacity(TOGETHER);
        let read = lane.ring.read(self.next, TOGETHER, &mut items);
        if read.lost > 0 {
            let lost = self.lost(read.lost, items.first().map_or(0, |item| item.time()));
            self.send(Step { number: read.first, lost: Some(lost), ..Step::default() }).await?;
        }
        for (number, item) in (read.first..).zip(&items) {
            self.next = number + 1;
            if self.pick.takes(item) {
                let step = served.encoder.step(self.place.stream, self.form, number, item, &served.context);
                self.send(step).await?;
                lane.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.next = self.next.max(read.first);
        Ok(!items.is_empty())
    }

    fn lost(&self, records: u64, time: u64) -> Lost {
        let name = self.place.stream.name();
        let gap = Item::gap(name, Loss::Queue.name(), records, time).filter(|_| self.form != Form::Unspecified);
        let line = gap.map(|gap| line(self.form, &gap, &self.place.served.context)).unwrap_or_default();
        Lost { records, line: String::from_utf8_lossy(&line).into_owned() }
    }

    async fn send(&self, step: Step) -> Result<(), Gone> {
        self.steps.send(Ok(step)).await.map_err(|_closed| Gone)
    }
}

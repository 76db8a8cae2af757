//! What others may watch: findings, events and connections, each in a store of what came last ([`ring`]), served to any
//! number of clients by gRPC on a thread of their own.
//!
//! ```text
//! core (thread) -> rings <- a task for each watcher -> sockets     (haechi-serve, one thread)
//! ```
//!
//! The core only puts what it has made already into a ring, and wakes the thread when somebody watches. Whatever is dear
//! (filters, encoding, writing) is done by the thread, once for all watchers of the same form.

pub mod address;
pub mod client;
mod convert;
mod door;
mod encode;
mod pick;
pub mod ring;
mod service;
mod stream;
pub mod wire;

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use haechi_ebpf::event::{lost_events, net_flow};
use haechi_signatures::model::About;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tonic::transport::Server as Grpc;
use tracing::{error, info, warn};

use crate::core::Start;
use crate::filter::Selection;
use crate::loss::Ledger;
use crate::render::{Context, Item};
use crate::worker::Telling;
use address::{Address, Listener};
use door::Door;
use encode::Encoder;
use ring::Ring;
use service::Service;

/// How long watchers may take at the end to read what is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections besides those of as many watchers as there may be.
const OTHERS: usize = 32;

/// Bytes of a request.
const REQUEST: usize = 64 << 10;

/// How it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where.
    pub address: Address,
    /// Bytes of findings that are kept, and of events.
    pub ring_bytes: usize,
    /// Bytes of connections that are kept.
    pub flow_ring_bytes: usize,
    /// Watchers at a time.
    pub watchers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: Address::Unix("/run/haechi/haechi.sock".into()),
            ring_bytes: 16 << 20,
            flow_ring_bytes: 80 << 20,
            watchers: 1024,
        }
    }
}

/// One of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What rules found.
    Findings,
    /// Events that are shown or served.
    Events,
    /// Connections.
    Flows,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Findings, Self::Events, Self::Flows];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["findings", "events", "flows"][self as usize]
    }
}

/// One stream: what came last, and who watches.
#[derive(Debug)]
struct Lane {
    ring: Ring,
    watchers: AtomicUsize,
    sent: AtomicU64,
}

/// How a stream fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fare {
    /// Who watches now.
    pub watchers: u64,
    /// Records sent, to all watchers together.
    pub sent: u64,
    /// Records that watchers lost.
    pub lost: u64,
    /// Bytes kept.
    pub bytes: u64,
}

/// What is served: filled by the core, read by the watchers.
pub struct Served {
    /// This run of the agent.
    instance: String,
    start: Start,
    context: Context,
    /// What is shown by the sinks, and what is served besides.
    visible: [Selection; 2],
    limit: usize,
    lanes: [Lane; 3],
    /// Whether something came since the last flush.
    fresh: AtomicBool,
    wake: Notify,
    closing: AtomicBool,
    /// Changes when there is something to read; true at the end.
    news: watch::Sender<bool>,
    rules: Mutex<Vec<About>>,
    ledger: Mutex<Ledger>,
    telling: OnceLock<Arc<Telling>>,
    encoder: Encoder,
}

impl Served {
    /// Nothing yet. `visible`: what is shown by the sinks, and what is served besides.
    #[must_use]
    pub fn new(config: &Config, start: &Start, context: &Context, visible: [Selection; 2]) -> Self {
        let lane = |bytes| Lane { ring: Ring::new(bytes), watchers: AtomicUsize::new(0), sent: AtomicU64::new(0) };
        Self {
            instance: format!("{:016x}", start.host.boot.wrapping_add(start.time)),
            start: start.clone(),
            context: Context { colour: false, ..context.clone() },
            visible,
            limit: config.watchers,
            lanes: [lane(config.ring_bytes), lane(config.ring_bytes), lane(config.flow_ring_bytes)],
            fresh: AtomicBool::new(false),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            news: watch::Sender::new(false),
            rules: Mutex::default(),
            ledger: Mutex::default(),
            telling: OnceLock::new(),
            encoder: Encoder::default(),
        }
    }

    /// What is served besides what is shown.
    #[must_use]
    pub const fn offered(&self) -> &Selection {
        &self.visible[1]
    }

    /// Takes a record in. `shown`: the sinks get it too.
    pub fn push(&self, item: &Arc<Item>, shown: bool) {
        let to = |stream: Stream| self.lanes[stream as usize].ring.push(item.clone());
        match &**item {
            Item::Finding(_) => to(Stream::Findings),
            // Whatever somebody watches may be missing there.
            Item::Event(_) if item.name() == lost_events::DEF.name => Stream::ALL.into_iter().for_each(to),
            Item::Event(_) if item.name() == net_flow::DEF.name => {
                to(Stream::Flows);
                if shown {
                    to(Stream::Events);
                }
            }
            Item::Event(_) => to(Stream::Events),
        }
        self.fresh.store(true, Ordering::Relaxed);
    }

    /// Wakes who watches, if something came.
    pub fn flush(&self) {
        if self.fresh.swap(false, Ordering::SeqCst) && self.lanes.iter().any(|l| l.watchers.load(Ordering::SeqCst) > 0)
        {
            self.wake.notify_one();
        }
    }

    /// These rules are loaded now.
    pub fn set_rules(&self, rules: Vec<About>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// So much was lost by now.
    pub fn set_ledger(&self, ledger: &Ledger) {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone_from(ledger);
    }

    /// Who counts.
    pub fn set_telling(&self, telling: Arc<Telling>) {
        // There is one core in a run.
        let _ = self.telling.set(telling);
    }

    /// How each stream fares.
    #[must_use]
    pub fn fares(&self) -> [Fare; 3] {
        self.lanes.each_ref().map(|lane| Fare {
            watchers: lane.watchers.load(Ordering::Relaxed) as u64,
            sent: lane.sent.load(Ordering::Relaxed),
            lost: lane.ring.missed(),
            bytes: lane.ring.bytes() as u64,
        })
    }

    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Passes every wake-up on to all who watch.
    async fn pump(&self) {
        loop {
            self.wake.notified().await;
            let over = self.closing.load(Ordering::SeqCst);
            self.news.send_replace(over);
            if over {
                return;
            }
        }
    }

    /// Comes at the end.
    async fn over(self: Arc<Self>) {
        // The sender lives as long as this.
        let _ = self.news.subscribe().wait_for(|over| *over).await;
    }
}

/// The thread that serves.
#[derive(Debug)]
pub struct Server {
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts serving at `listener`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(listener: Listener, served: Arc<Served>) -> io::Result<Self> {
        // Of its own: watchers must not hold up what steers the agent.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("haechi-serve".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, served)) {
                error!(%error, "nothing is served any more");
            }
        })?;
        Ok(Self { thread })
    }

    /// Lets every watcher read what is left, and ends. One that does not read is left behind after a few seconds.
    pub fn finish(self, served: &Served) {
        served.close();
        if self.thread.join().is_err() {
            error!("the server failed");
        }
    }
}

async fn serve(listener: Listener, served: Arc<Served>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<wire::Service<Service>>().await;
    let about =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(wire::DESCRIPTORS);
    let router = Grpc::builder()
        .add_service(wire::Service::new(Service::new(served.clone())).max_decoding_message_size(REQUEST))
        .add_service(health_service)
        .add_service(about().build_v1()?)
        .add_service(about().build_v1alpha()?);
    let over = served.clone().over();
    let patience = async {
        served.clone().over().await;
        sleep(PATIENCE).await;
    };
    let serving = async {
        let places = served.limit.saturating_add(OTHERS);
        match listener {
            Listener::Unix(listener, path, inode) => {
                info!(address = %Address::Unix(path.clone()), "serving");
                let clients = Door::Unix(UnixListener::from_std(listener)?).open(places);
                let result = router.serve_with_incoming_shutdown(clients, over).await;
                address::remove(&path, inode);
                result?;
            }
            Listener::Tcp(listener) => {
                info!(address = %listener.local_addr()?, "serving");
                let clients = Door::Tcp(TcpListener::from_std(listener)?).open(places);
                router.serve_with_incoming_shutdown(clients, over).await?;
            }
        }
        Ok(())
    };
    let mut pump = pin!(served.pump());
    let mut serving = pin!(serving);
    let mut patience = pin!(patience);
    let mut pumping = true;
    loop {
        tokio::select! {
            result = &mut serving => return result,
            () = &mut pump, if pumping => pumping = false,
            () = &mut patience => {
                warn!("watchers that do not read are left behind");
                return Ok(());
            }
        }
    }
}

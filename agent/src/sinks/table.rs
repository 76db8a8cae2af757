//! Connections for people: a table of the busiest, drawn anew now and then. Or each record of a connection as a line, for
//! machines. What nobody wants to see is left out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use haechi_ebpf::event::net_flow;
use haechi_ebpf::flow::{Phase, mark};
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::View;
use haechi_signatures::model::Container;
use haechi_signatures::path::leaf;

use super::lines::Lines;
use super::{Format, Sink};
use crate::escape::Safe;
use crate::filter::connection::{self, Filter};
use crate::flows::{Place, Tenant};
use crate::render::{Context, Happening, Item};

/// Connections that the table remembers; when there are more, those that moved least are forgotten.
const REMEMBERED: usize = 131_072;
/// How long a connection that ended stays in the table.
const ENDED: Duration = Duration::from_secs(5);

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Bytes in both directions, most first.
    Bytes,
    /// Round trip, longest first.
    Rtt,
    /// Segments sent again, most first.
    Retransmits,
}

/// How the table is drawn.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Which connections.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// How many.
    pub rows: usize,
    /// Time between two tables.
    pub interval: Duration,
    /// Lines of JSON instead.
    pub json: bool,
}

/// A connection in the table.
struct Row {
    who: String,
    pid: u32,
    direction: &'static str,
    local: String,
    remote: String,
    /// The process at the other end.
    peer: Option<String>,
    state: String,
    tx: u64,
    rx: u64,
    /// Bytes when the last table was drawn.
    drawn: u64,
    srtt: u64,
    retransmits: u64,
    ended: Option<Instant>,
}

impl Row {
    fn bytes(&self) -> u64 {
        self.tx + self.rx
    }
}

pub(super) struct Table {
    spec: Spec,
    lines: Lines<File>,
    out: File,
    clear: bool,
    rows: HashMap<(u64, u64), Row>,
    drawn: Instant,
}

impl Table {
    pub(super) fn new(spec: Spec, context: &Context) -> io::Result<Self> {
        // Descriptors of our own: no lock and no buffer that others share.
        let out = || io::stdout().as_fd().try_clone_to_owned().map(File::from);
        Ok(Self {
            lines: Lines::new(out()?, if spec.json { Format::Json } else { Format::Pretty }, context.clone()),
            out: out()?,
            clear: io::stdout().is_terminal(),
            rows: HashMap::new(),
            drawn: Instant::now(),
            spec,
        })
    }

    fn take(&mut self, happening: &Happening, view: &View<'_>) {
        use net_flow::field as f;
        let number = |field| view.number(field).unwrap_or_default();
        let key = key(view);
        let end = |address, port| {
            let port = number(port) as u16;
            connection::address(view, address)
                .map_or_else(|| format!(":{port}"), |address| SocketAddr::new(address, port).to_string())
        };
        let progress = number(f::phase) == u64::from(Phase::Progress as u32);
        let state = match number(f::reason) {
            _ if progress => {
                Symbol::TcpState.of(number(f::state)).to_string().trim_start_matches("TCP_").to_ascii_lowercase()
            }
            reason => Symbol::FlowReason.of(reason).to_string(),
        };
        let adopted = number(f::marks) & u64::from(mark::ADOPTED) != 0;
        let exe = happening.program();
        let place = happening.place.as_deref();
        let container = |tenant: fn(&Place) -> Option<&Tenant>| place.and_then(tenant).and_then(Tenant::container);
        let containers = (container(|p| p.tenant.as_ref()), container(|p| p.peer_tenant.as_ref()));
        let peer = place.and_then(|p| p.peer.as_ref()).map(|name| {
            let pid = name.process.as_ref().map_or(0, |p| p.process.pid);
            let text = short(name.text(), containers.1);
            if pid == 0 { text } else { format!("{text}[{pid}]") }
        });
        let who = short(leaf(exe), containers.0);
        // The other end may have been told of before this one was known.
        if let Some(other) = place.and_then(|p| p.peer.as_ref()?.process.as_ref())
            && let Some(row) = self.rows.get_mut(&other.flow)
        {
            row.peer.get_or_insert_with(|| format!("{who}[{}]", view.process().0));
        }
        // One that was known once stays: the other end may be told of no more.
        let peer = peer.or_else(|| self.rows.get_mut(&key)?.peer.take());
        let row = Row {
            who,
            peer,
            pid: view.process().0,
            direction: ["?", "->", "<-"].get(number(f::direction) as usize).copied().unwrap_or("?"),
            local: end(f::src, f::src_port),
            remote: end(f::dst, f::dst_port),
            state,
            tx: number(f::tx_bytes),
            rx: number(f::rx_bytes),
            drawn: self
                .rows
                .get(&key)
                .map_or(if adopted { number(f::tx_bytes) + number(f::rx_bytes) } else { 0 }, |r| r.drawn),
            srtt: number(f::srtt),
            retransmits: number(f::retransmits),
            ended: (!progress).then(Instant::now),
        };
        self.rows.insert(key, row);
        if self.rows.len() > REMEMBERED {
            let mut sizes: Vec<u64> = self.rows.values().map(Row::bytes).collect();
            let middle = sizes.len() / 2;
            let middle = *sizes.select_nth_unstable(middle).1;
            self.rows.retain(|_, row| row.ended.is_none() && row.bytes() > middle);
        }
    }

    fn draw(&mut self) -> String {
        let since = self.drawn.elapsed().as_secs_f64().max(0.001);
        self.drawn = Instant::now();
        let mut rows: Vec<&mut Row> = self.rows.values_mut().collect();
        let (sort, all) = (self.spec.sort, rows.len());
        rows.sort_by_key(|row| {
            let by = match sort {
                Sort::Bytes => row.bytes(),
                Sort::Rtt => row.srtt,
                Sort::Retransmits => row.retransmits,
            };
            std::cmp::Reverse((by, row.bytes()))
        });
        let mut out = String::new();
        if self.clear {
            out.push_str("\u{1b}[H\u{1b}[2J");
        }
        let (process, pid, local, remote, state) = ("PROCESS", "PID", "LOCAL", "REMOTE", "STATE");
        // A string takes everything.
        let _ = writeln!(
            out,
            "{process:<16} {pid:>7} {local:>28}    {remote:<28} {state:<14} {:>9} {:>9} {:>10} {:>9} {:>7}  PEER",
            "SENT", "RECEIVED", "BYTES/s", "RTT", "RESENT"
        );
        for row in rows.iter().take(self.spec.rows) {
            let rate = (row.bytes().saturating_sub(row.drawn)) as f64 / since;
            let _ = writeln!(
                out,
                "{:<16} {:>7} {:>28} {} {:<28} {:<14} {:>9} {:>9} {:>10} {:>7}us {:>7}  {}",
                Safe(&row.who).to_string(),
                row.pid,
                row.local,
                row.direction,
                row.remote,
                row.state,
                size(row.tx),
                size(row.rx),
                size(rate as u64),
                row.srtt,
                row.retransmits,
                Safe(row.peer.as_deref().unwrap_or_default())
            );
        }
        if all > self.spec.rows {
            let _ = writeln!(out, "and {} more", all - self.spec.rows);
        }
        out.push('\n');
        rows.into_iter().for_each(|row| row.drawn = row.bytes());
        self.rows.retain(|_, row| row.ended.is_none_or(|at| at.elapsed() < ENDED));
        out
    }
}

impl Sink for Table {
    fn gather(&mut self, item: &Item) {
        let Item::Event(happening) = item else { return };
        let Some(view) = happening.view() else { return };
        if view.event() != net_flow::ID {
            // A gap: machines see it in its place, people as they see those of other output.
            return self.lines.gather(item);
        }
        if self.spec.filter.takes(&view, happening.program(), happening.containers()) {
            if self.spec.json {
                self.lines.gather(item);
            } else {
                self.take(happening, &view);
            }
        } else {
            // It did fit before: another state, or another owner.
            self.rows.remove(&key(&view));
        }
    }

    fn beat(&self) -> Option<Duration> {
        (!self.spec.json).then_some(self.spec.interval)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()?;
        if !self.spec.json && self.drawn.elapsed() >= self.spec.interval {
            let text = self.draw();
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Table {
    /// What came since the last table is shown too.
    fn drop(&mut self) {
        if !self.spec.json && !self.rows.is_empty() {
            let text = self.draw();
            // Nobody is left to tell.
            let _ = self.out.write_all(text.as_bytes());
        }
    }
}

/// What names a connection.
fn key(view: &View<'_>) -> (u64, u64) {
    use net_flow::field as f;
    (view.number(f::cookie).unwrap_or_default(), view.number(f::start_time).unwrap_or_default())
}

/// A process by name, else the container whose network namespace it is in.
fn short(name: &str, container: Option<&Container>) -> String {
    match (name, container) {
        ("", Some(container)) => format!("?@{}", container.short_id()),
        ("", None) => "?".into(),
        (name, _) => name.into(),
    }
}

/// Bytes, short.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { bytes.to_string() } else { format!("{value:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 999, 1000, 1024, 1 << 20, 1 << 40].map(size), ["0", "999", "1.0K", "1.0K", "1.0M", "1.0T"]);
    }
}

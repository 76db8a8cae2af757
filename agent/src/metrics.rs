//! The agent's counters in Prometheus' text format. One table; the docs come from it too. Written to a file for the
//! textfile collector of node_exporter, whole or not at all.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use haechi_ebpf::event::EVENTS;
use haechi_ebpf::loss::Loss;
use haechi_ebpf::symbol::Symbol;
use haechi_signatures::engine::Counters;

use crate::flows::Totals;
use crate::loss::Ledger;
use crate::poller::Cost;
use crate::servers::{Fare, Stream};
use crate::worker;

/// What the counters stood at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Tried and lost.
    pub ledger: Ledger,
    /// Of the core and the sinks.
    pub worker: worker::Snapshot,
    /// Inputs that wait for the core.
    pub waiting: usize,
    /// What looking at connections cost.
    pub poll: Cost,
    /// How each stream fares for those who watch.
    pub served: [Fare; 3],
}

/// Values of the labels, and the number.
type Sample = (Vec<String>, u64);

/// One metric.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Its samples.
    samples: fn(&Snapshot) -> Vec<Sample>,
}

fn one(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

/// Counts by number, under the spelling of the number, from `first` on.
fn spelled(symbol: Symbol, first: usize, counts: &[u64]) -> Vec<Sample> {
    counts.iter().enumerate().skip(first).map(|(i, n)| (vec![symbol.of(i as u64).to_string()], *n)).collect()
}

fn top(snapshot: &Snapshot, value: fn(&Totals) -> u64) -> Vec<Sample> {
    snapshot.worker.counts.flows.top.iter().map(|row| (vec![row.name.clone()], value(&row.totals))).collect()
}

fn rules(snapshot: &Snapshot, value: fn(&Counters) -> u64) -> Vec<Sample> {
    snapshot.worker.counts.rules.iter().map(|(name, c)| (vec![name.clone()], value(c))).collect()
}

fn served(snapshot: &Snapshot, value: fn(&Fare) -> u64) -> Vec<Sample> {
    Stream::ALL.into_iter().zip(&snapshot.served).map(|(s, fare)| (vec![s.name().to_owned()], value(fare))).collect()
}

/// All metrics.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "haechi_events_tried_total",
        kind: "counter",
        help: "Records that the kernel programs tried to send.",
        labels: &["event"],
        samples: |s| EVENTS.iter().map(|e| (vec![e.name.into()], s.ledger.tried(e.id))).collect(),
    },
    Metric {
        name: "haechi_events_total",
        kind: "counter",
        help: "Records that reached the rules.",
        labels: &["event"],
        samples: |s| EVENTS.iter().map(|e| (vec![e.name.into()], s.worker.counts.delivered[e.id as usize])).collect(),
    },
    Metric {
        name: "haechi_events_lost_total",
        kind: "counter",
        help: "Records that were lost, by cause.",
        labels: &["event", "reason"],
        samples: |s| {
            let pairs = EVENTS.iter().flat_map(|e| Loss::ALL.map(|cause| (e, cause)));
            pairs.map(|(e, c)| (vec![e.name.into(), c.name().into()], s.ledger.lost(e.id, c))).collect()
        },
    },
    Metric {
        name: "haechi_findings_total",
        kind: "counter",
        help: "Findings that were told.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.fired),
    },
    Metric {
        name: "haechi_findings_suppressed_total",
        kind: "counter",
        help: "Findings that only raised the count of an earlier one.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.suppressed),
    },
    Metric {
        name: "haechi_findings_excepted_total",
        kind: "counter",
        help: "Findings that an exception kept quiet.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.excepted),
    },
    Metric {
        name: "haechi_rule_events_total",
        kind: "counter",
        help: "Events of a kind that a rule wants.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.seen),
    },
    Metric {
        name: "haechi_rule_prefiltered_total",
        kind: "counter",
        help: "Of these, turned away by what the rule declares and by what its text needs, before it was asked.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.prefiltered),
    },
    Metric {
        name: "haechi_rule_evaluations_total",
        kind: "counter",
        help: "Events that a rule was asked about.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.evaluated),
    },
    Metric {
        name: "haechi_rule_errors_total",
        kind: "counter",
        help: "Times that a rule failed or took too long.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.errors),
    },
    Metric {
        name: "haechi_rule_nanoseconds_total",
        kind: "counter",
        help: "Time spent in a rule; not measured while recording.",
        labels: &["rule"],
        samples: |s| rules(s, |c| c.ns),
    },
    Metric {
        name: "haechi_processes",
        kind: "gauge",
        help: "Processes known.",
        labels: &[],
        samples: |s| one(s.worker.counts.processes as u64),
    },
    Metric {
        name: "haechi_processes_evicted_total",
        kind: "counter",
        help: "Processes forgotten early for want of room.",
        labels: &[],
        samples: |s| one(s.worker.counts.processes_evicted),
    },
    Metric {
        name: "haechi_cgroups",
        kind: "gauge",
        help: "Cgroups known.",
        labels: &[],
        samples: |s| one(s.worker.counts.cgroups as u64),
    },
    Metric {
        name: "haechi_cgroups_evicted_total",
        kind: "counter",
        help: "Cgroups forgotten early for want of room.",
        labels: &[],
        samples: |s| one(s.worker.counts.cgroups_evicted),
    },
    Metric {
        name: "haechi_flows",
        kind: "gauge",
        help: "Connections that live.",
        labels: &[],
        samples: |s| one(s.worker.counts.flows.live as u64),
    },
    Metric {
        name: "haechi_flows_seen_total",
        kind: "counter",
        help: "Connections seen, by who connected.",
        labels: &["direction"],
        samples: |s| spelled(Symbol::FlowDirection, 0, &s.worker.counts.flows.seen),
    },
    Metric {
        name: "haechi_flows_ended_total",
        kind: "counter",
        help: "Connections that ended, by how.",
        labels: &["reason"],
        samples: |s| spelled(Symbol::FlowReason, 1, &s.worker.counts.flows.ended),
    },
    Metric {
        name: "haechi_flows_failed_total",
        kind: "counter",
        help: "Connects that failed, by how.",
        labels: &["reason"],
        samples: |s| spelled(Symbol::FlowReason, 1, &s.worker.counts.flows.failed),
    },
    Metric {
        name: "haechi_flow_transmit_bytes_total",
        kind: "counter",
        help: "Bytes that programs sent over TCP, each counted once; programs without a name of their own are `other`.",
        labels: &["program"],
        samples: |s| top(s, |t| t.tx),
    },
    Metric {
        name: "haechi_flow_receive_bytes_total",
        kind: "counter",
        help: "Bytes that programs received over TCP.",
        labels: &["program"],
        samples: |s| top(s, |t| t.rx),
    },
    Metric {
        name: "haechi_flow_retransmitted_segments_total",
        kind: "counter",
        help: "TCP segments sent again.",
        labels: &["program"],
        samples: |s| top(s, |t| t.retransmits),
    },
    Metric {
        name: "haechi_flows_evicted_total",
        kind: "counter",
        help: "Connections forgotten early for want of room.",
        labels: &[],
        samples: |s| one(s.worker.counts.flows.evicted),
    },
    Metric {
        name: "haechi_flows_unseen_ends_total",
        kind: "counter",
        help: "Connections whose end was lost; found by a survey of all. Their last totals are missing.",
        labels: &[],
        samples: |s| one(s.worker.counts.flows.unseen_ends),
    },
    Metric {
        name: "haechi_flow_networks",
        kind: "gauge",
        help: "Network namespaces of containers that are known.",
        labels: &[],
        samples: |s| one(s.worker.counts.places.networks.0 as u64),
    },
    Metric {
        name: "haechi_flow_networks_evicted_total",
        kind: "counter",
        help: "Network namespaces of containers forgotten early for want of room.",
        labels: &[],
        samples: |s| one(s.worker.counts.places.networks.1),
    },
    Metric {
        name: "haechi_flow_ends",
        kind: "gauge",
        help: "Ends of connections, by which the other end is named.",
        labels: &[],
        samples: |s| one(s.worker.counts.places.ends.0 as u64),
    },
    Metric {
        name: "haechi_flow_ends_evicted_total",
        kind: "counter",
        help: "Ends of connections forgotten early for want of room.",
        labels: &[],
        samples: |s| one(s.worker.counts.places.ends.1),
    },
    Metric {
        name: "haechi_flow_polls_total",
        kind: "counter",
        help: "Times that all connections were looked at.",
        labels: &[],
        samples: |s| one(s.poll.polls),
    },
    Metric {
        name: "haechi_flow_poll_nanoseconds_total",
        kind: "counter",
        help: "Time spent looking at connections.",
        labels: &[],
        samples: |s| one(s.poll.ns),
    },
    Metric {
        name: "haechi_flow_poll_deferred_total",
        kind: "counter",
        help: "Connections that were told a poll later for want of room in the ring.",
        labels: &[],
        samples: |s| one(s.poll.deferred),
    },
    Metric {
        name: "haechi_flow_poll_errors_total",
        kind: "counter",
        help: "Times that the kernel refused to look at connections.",
        labels: &[],
        samples: |s| one(s.poll.errors),
    },
    Metric {
        name: "haechi_queue_length",
        kind: "gauge",
        help: "Inputs that wait for the rules.",
        labels: &[],
        samples: |s| one(s.waiting as u64),
    },
    Metric {
        name: "haechi_sink_delivered_total",
        kind: "counter",
        help: "Events and findings that a sink took.",
        labels: &["sink"],
        samples: |s| s.worker.sinks.iter().map(|k| (vec![k.name.clone()], k.delivered)).collect(),
    },
    Metric {
        name: "haechi_sink_lost_total",
        kind: "counter",
        help: "Events and findings that a sink did not take, by name.",
        labels: &["sink", "event"],
        samples: |s| {
            let of = |k: &crate::sinks::Status| {
                let name = k.name.clone();
                k.lost.clone().into_iter().map(move |(event, n)| (vec![name.clone(), event], n))
            };
            s.worker.sinks.iter().flat_map(of).collect()
        },
    },
    Metric {
        name: "haechi_served_watchers",
        kind: "gauge",
        help: "Clients that watch a stream.",
        labels: &["stream"],
        samples: |s| served(s, |f| f.watchers),
    },
    Metric {
        name: "haechi_served_bytes",
        kind: "gauge",
        help: "Bytes of records that are kept for those who watch.",
        labels: &["stream"],
        samples: |s| served(s, |f| f.bytes),
    },
    Metric {
        name: "haechi_served_records_total",
        kind: "counter",
        help: "Records sent to clients that watch, to all of them together.",
        labels: &["stream"],
        samples: |s| served(s, |f| f.sent),
    },
    Metric {
        name: "haechi_served_lost_total",
        kind: "counter",
        help: "Records that clients did not get, being slow or away for too long; each was told.",
        labels: &["stream"],
        samples: |s| served(s, |f| f.lost),
    },
];

/// The text of all metrics.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for metric in METRICS {
        // A string takes everything.
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", metric.name, metric.help, metric.name, metric.kind);
        for (values, number) in (metric.samples)(snapshot) {
            let label = |(name, value): (&&str, &String)| format!("{name}=\"{}\"", escape(value));
            let labels: Vec<String> = metric.labels.iter().zip(&values).map(label).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(out, "{}{labels} {number}", metric.name);
        }
    }
    out
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Writes all metrics to `path`; a reader sees the old file or the new one.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".tmp");
    fs::write(&next, render(snapshot))?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::security_file_open as open;

    #[test]
    fn every_metric_is_there_with_its_labels() {
        let mut snapshot = Snapshot::default();
        snapshot.ledger.set_lost(open::ID, Loss::RingFull, 7);
        snapshot.worker.counts.rules = vec![("a\"b".into(), Counters { fired: 3, ..Counters::default() })];
        let text = render(&snapshot);
        for line in [
            "haechi_events_lost_total{event=\"security_file_open\",reason=\"ring_full\"} 7",
            "haechi_findings_total{rule=\"a\\\"b\"} 3",
            "haechi_processes 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        for metric in METRICS {
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind)));
            assert_eq!(metric.kind == "counter", metric.name.ends_with("_total"), "{}", metric.name);
        }
    }
}

//! `haechi flows`: the connections of this node, live.

use std::time::Duration;

use super::{Failure, OrFail, Settings, WRONG, colour, run};
use crate::filter::connection::{DIRECTIONS, Filter, Words};
use crate::pipeline::Run;
use crate::sinks::table::{Sort, Spec};

/// Which connections: for all commands that show some.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Wanted {
    /// Only of this process: a number, the name of a program, or its path; may be given again.
    #[arg(long, value_name = "PROCESS")]
    process: Vec<String>,
    /// Only with this address at one end: 10.0.0.1, 10.0.0.0/8, fd00::/8; may be given again.
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// Only with this port at one end; may be given again.
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Only outgoing or incoming connections.
    #[arg(long, value_name = "DIRECTION", value_parser = DIRECTIONS)]
    direction: Option<String>,
    /// Only in this state, as established or syn_sent; may be given again.
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only of this container, or in its network namespace: its id or the beginning of it; may be given again.
    #[arg(long, value_name = "ID")]
    container: Vec<String>,
    /// Only in this network namespace: the number that `readlink /proc/PID/ns/net` shows; may be given again.
    #[arg(long, value_name = "NUMBER")]
    netns: Vec<u32>,
}

impl Wanted {
    /// As the filter takes them.
    pub(super) fn words(&self) -> Words {
        let Self { process, address, port, direction, state, container, netns } = self.clone();
        Words {
            processes: process,
            addresses: address,
            ports: port,
            direction,
            states: state,
            containers: container,
            netns,
        }
    }
}

/// What `flows` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Every record of a connection as a line of JSON, instead of a table.
    #[arg(long)]
    json: bool,
    /// What the table is sorted by.
    #[arg(long, value_enum, default_value = "bytes")]
    sort: Sort,
    /// Rows of the table.
    #[arg(short, long, value_name = "N", default_value_t = 30)]
    number: usize,
    /// Seconds between two tables.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    #[command(flatten)]
    filter: Wanted,
    /// End after this time, as 10s or 5m.
    #[arg(long, value_name = "TIME", value_parser = run::duration)]
    duration: Option<Duration>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut config = args.settings.load()?;
    let filter = Filter::parse(args.filter.words()).or_fail(WRONG)?;
    // Connections alone: nothing is judged, and what the configuration sends elsewhere stays with `run`.
    config.rules.builtin = false;
    config.rules.dirs.clear();
    config.events = vec!["net_flow".into()];
    config.flows = true;
    config.flow_seconds = args.interval;
    config.sinks.clear();
    config.serve = false;
    run::log_to_stderr(&config.log, config.debug_log);
    let spec = Spec {
        filter,
        sort: args.sort,
        rows: args.number,
        interval: Duration::from_secs(args.interval),
        json: args.json,
    };
    run::start(&config, &Run { duration: args.duration, table: Some(spec), colour: colour(), ..Run::default() })
}

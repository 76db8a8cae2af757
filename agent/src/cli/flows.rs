//! `haechi flows`: the connections of this node, live.

use std::time::Duration;

use haechi_ebpf::symbol::Symbol;

use super::{Failure, OrFail, Settings, WRONG, colour, run};
use crate::pipeline::Run;
use crate::sinks::table::{Filter, Sort, Spec};

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
    #[arg(long, value_name = "DIRECTION", value_parser = ["outgoing", "incoming", "unknown"])]
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
    /// End after this time, as 10s or 5m.
    #[arg(long, value_name = "TIME", value_parser = run::duration)]
    duration: Option<Duration>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut config = args.settings.load()?;
    let addresses = args.address.iter().map(|a| a.parse()).collect::<Result<_, _>>().or_fail(WRONG)?;
    let filter = Filter {
        processes: args.process.clone(),
        addresses,
        ports: args.port.clone(),
        direction: args.direction.clone(),
        states: args.state.iter().map(|s| s.to_ascii_uppercase().replace('-', "_")).collect(),
        containers: args.container.clone(),
        netns: args.netns.clone(),
    };
    if let Some(wrong) = filter.states.iter().find(|s| !is_state(s)) {
        return Err(Failure::wrong(format!("`{}` is no state of a TCP connection", wrong.to_ascii_lowercase())));
    }
    // Connections alone: nothing is judged, and what the configuration sends elsewhere stays with `run`.
    config.rules.builtin = false;
    config.rules.dirs.clear();
    config.events = vec!["net_flow".into()];
    config.flows = true;
    config.flow_seconds = args.interval;
    config.sinks.clear();
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

fn is_state(name: &str) -> bool {
    let bare = |name: &str| name.trim_start_matches("TCP_").to_owned();
    (1..=12).any(|number| bare(&Symbol::TcpState.of(number).to_string()) == bare(name))
}

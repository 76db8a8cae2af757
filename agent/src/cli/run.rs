//! `haechi run`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::{FAILED, Failure, KERNEL, OrFail, OutputFormat, Settings, WRONG, colour, stdout_only};
use crate::config::Config;
use crate::pipeline::{self, Error, Reread, Run, Summary};

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Show findings and events on standard output in this form only, whatever sinks the configuration names.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
    /// Record everything that the agent takes in, to be played again.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// End after this time, as 10s, 5m or 500ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// End after so many events and findings.
    #[arg(long, value_name = "N")]
    exit_after: Option<u64>,
    /// Let others watch, as `haechi watch` does, whatever the configuration says; where, it says.
    #[arg(long)]
    serve: bool,
    /// Write metrics to this file every 10 seconds, for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut config = args.settings.load()?;
    if let Some(format) = args.output {
        config.sinks = stdout_only(format);
    }
    config.serve |= args.serve;
    log_to_stderr(&config.log, config.debug_log);
    let settings = args.settings.clone();
    let reread = move || settings.load().map(|config| config.rules).map_err(|failure| failure.words);
    let run = Run {
        record: args.record.clone(),
        duration: args.duration,
        exit_after: args.exit_after,
        metrics_file: args.metrics_file.clone(),
        table: None,
        colour: colour(),
        reread: Some(Reread(Arc::new(reread))),
    };
    start(&config, &run)
}

/// Runs the agent to its end and says what was seen and lost.
pub(super) fn start(config: &Config, run: &Run) -> Result<(), Failure> {
    let summary = watch(config, run)?;
    // Standard error may be gone; the totals are then nobody's.
    let _ = io::stderr().write_all(totals(&summary).as_bytes());
    Ok(())
}

/// Runs the agent to its end.
pub(super) fn watch(config: &Config, run: &Run) -> Result<Summary, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail(FAILED)?;
    runtime.block_on(pipeline::run(config, run)).map_err(|error| failure(&error))
}

fn failure(error: &Error) -> Failure {
    let code = match error {
        Error::Core(_) => WRONG,
        Error::Kernel(_) => KERNEL,
        _ => FAILED,
    };
    Failure::new(code, error)
}

/// `kernel`: what the programs log was asked for, and is shown whatever the level of the agent's own words.
pub(super) fn log_to_stderr(level: &str, kernel: bool) {
    let mut filter = EnvFilter::try_from_env("HAECHI_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    if kernel && let Ok(shown) = "haechi::kernel=debug".parse() {
        filter = filter.add_directive(shown);
    }
    // A second initialisation in one process changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
        .with_target(false)
        .without_time()
        .try_init();
}

fn totals(summary: &Summary) -> String {
    use haechi_ebpf::event::EVENTS;
    use haechi_ebpf::loss::Loss;
    let counts = &summary.totals.counts;
    let delivered: u64 = counts.delivered.iter().sum();
    let mut losses = Vec::new();
    for event in EVENTS {
        for cause in Loss::ALL {
            let lost = summary.ledger.lost(event.id, cause);
            if lost > 0 {
                losses.push(format!("{lost} {} ({})", event.name, cause.name()));
            }
        }
    }
    let unknown = counts.rejected.first().copied().unwrap_or_default();
    if unknown > 0 {
        losses.push(format!("{unknown} of no known event (rejected)"));
    }
    for sink in &summary.totals.sinks {
        losses.extend(sink.lost.iter().map(|(name, lost)| format!("{lost} {name} (at {})", sink.name)));
    }
    if summary.totals.unrecorded > 0 {
        losses.push(format!("{} inputs missing in the recording", summary.totals.unrecorded));
    }
    let losses = if losses.is_empty() { "none".to_owned() } else { losses.join(", ") };
    format!("haechi: {delivered} events, {} findings, lost: {losses}\n", counts.findings)
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|e| format!("a number is missing, as in 10s: {e}"))?;
    let seconds = match &text[digits..] {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        unit => return Err(format!("`{unit}` is none of ms, s, m, h")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("18446744073709551615h"), Err("too long".into()));
        assert!(duration("s").is_err() && duration("5 days").is_err());
    }
}

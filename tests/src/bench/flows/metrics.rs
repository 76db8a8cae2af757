//! The metrics that the agent writes of itself, every ten seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::gate::pause;

/// Longest wait for a file that says what is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A file of metrics, and what it said last.
pub(super) struct Metrics {
    path: PathBuf,
    last: String,
}

/// What is read of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Connections that live, as ends.
    pub(super) live: f64,
    /// Times that all were looked at.
    pub(super) polls: f64,
    /// Nanoseconds of that.
    pub(super) ns: f64,
    /// Ends that had to wait for the next time.
    pub(super) deferred: f64,
}

impl Metrics {
    pub(super) fn new(path: &Path) -> Self {
        // What a former agent wrote is not what this one says.
        let _ = fs::remove_file(path);
        Self { path: path.to_owned(), last: String::new() }
    }

    /// The next that it says, once `enough` holds of it.
    pub(super) fn next(&mut self, enough: impl Fn(&Sample) -> bool) -> Result<Sample> {
        let end = Instant::now() + PATIENCE;
        let mut sample = Sample::default();
        while Instant::now() < end {
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            if !text.is_empty() && text != self.last {
                sample = parse(&text);
                self.last = text;
                if enough(&sample) {
                    return Ok(sample);
                }
            }
            pause(Duration::from_millis(50));
        }
        bail!("the metrics do not come to what is waited for: {sample:?}")
    }
}

fn parse(text: &str) -> Sample {
    let value = |name: &str| {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        text.lines().find_map(of).unwrap_or(0.0)
    };
    Sample {
        live: value("haechi_flows"),
        polls: value("haechi_flow_polls_total"),
        ns: value("haechi_flow_poll_nanoseconds_total"),
        deferred: value("haechi_flow_poll_deferred_total"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        let sample =
            parse("# HELP haechi_flows x\nhaechi_flows_seen_total 9\nhaechi_flows 7\nhaechi_flow_polls_total 3\n");
        assert_eq!((sample.live, sample.polls, sample.ns), (7.0, 3.0, 0.0));
    }
}

//! `haechi signatures cost`: watches this host for a while as `run` would, tells nobody, and says what each rule cost.

use std::fmt::Write;
use std::time::Duration;

use haechi_signatures::engine::Counters;
use serde_json::json;

use super::{Failure, Settings, print, run};
use crate::escape::Safe;
use crate::pipeline::Run;

/// Watches for `duration` and prints a line for each rule, the dearest first.
pub(super) fn cost(settings: &Settings, duration: Duration, as_json: bool) -> Result<(), Failure> {
    let mut config = settings.load()?;
    // Findings are told by `run`; here nobody may wait for a sink.
    config.sinks.clear();
    run::log_to_stderr(&config.log, config.debug_log);
    let summary = run::watch(&config, &Run { duration: Some(duration), ..Run::default() })?;
    let mut rules = summary.totals.counts.rules;
    rules.sort_by(|(a_name, a), (b_name, b)| b.ns.cmp(&a.ns).then_with(|| a_name.cmp(b_name)));
    if as_json {
        let line = |(name, counters): &(String, Counters)| json!({ "rule": name, "counters": counters });
        return print(&format!("{:#}\n", json!(rules.iter().map(line).collect::<Vec<_>>())));
    }
    print(&table(&rules))
}

fn table(rules: &[(String, Counters)]) -> String {
    let mut out = format!(
        "{:<32} {:>10} {:>11} {:>10} {:>9} {:>9} {:>12} {:>9}\n",
        "RULE", "EVENTS", "PREFILTERED", "EVALUATED", "FINDINGS", "EXCEPTED", "NS", "NS EACH"
    );
    for (name, c) in rules {
        let each = c.ns.checked_div(c.evaluated).unwrap_or(0);
        let (name, findings) = (Safe(name).to_string(), c.fired + c.suppressed);
        // A string takes everything.
        let _ = writeln!(
            out,
            "{name:<32} {:>10} {:>11} {:>10} {findings:>9} {:>9} {:>12} {each:>9}",
            c.seen, c.prefiltered, c.evaluated, c.excepted, c.ns
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_was_never_asked_costs_nothing() {
        let asked = Counters { seen: 10, prefiltered: 6, evaluated: 4, ns: 1000, ..Counters::default() };
        let text = table(&[("busy".into(), asked), ("idle".into(), Counters::default())]);
        let cells: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(cells[1], ["busy", "10", "6", "4", "0", "0", "1000", "250"]);
        assert_eq!(cells[2], ["idle", "0", "0", "0", "0", "0", "0", "0"]);
    }
}

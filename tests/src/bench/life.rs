//! The life of a process: posix_spawn of /bin/true and waiting for it. By time here, by instructions in a virtual
//! machine that counts them: there the result does not depend on how busy the machine is.

use anyhow::Result;

use super::Bench;
use super::agent::settings;
use super::contest;
use super::guest;
use super::loader::Loader;
use super::report::Measured;

pub(super) fn process_life(bench: &Bench) -> Result<Measured> {
    let mut loader = Loader::start(&["spawn"])?;
    let pids = [loader.pid()];
    let time = if bench.quick { 200 } else { 1000 };
    let settings = settings(bench, "", &[])?;
    let outcome = contest::run(bench, &settings, &pids, &mut |_| Ok(loader.time(time)?.median))?;
    drop(loader);
    let mut measured = outcome.measured(|r| r.agent.with / r.agent.bare);
    measured.extra.insert("host_ratio", measured.value);
    measured.extra.insert("host_agent_ns", outcome.of(|r| r.agent.with).0);
    match guest::outside(bench) {
        Ok(counted) => {
            // Instructions are what is promised; they have no noise to speak of.
            measured.value = counted.own_ratio();
            (measured.noisy, measured.spread) = (String::new(), counted.spread());
            measured.rounds = counted.rounds();
            measured.extra.insert("guest_bare_instructions", counted.bare());
            measured.extra.insert("guest_own_ratio", counted.own_ratio());
            measured.extra.insert("guest_all_ratio", counted.all_ratio());
            measured.notes.push(
                "instructions of the spawning process and its children, kernel included, on 6.1; guest_all_ratio: with \
                 the agent's own on the same processor; bare and floor: nanoseconds on this host"
                    .into(),
            );
        }
        Err(error) => {
            measured.notes.push(format!("by time on this host, not by instructions: {error:#}"));
        }
    }
    Ok(measured)
}

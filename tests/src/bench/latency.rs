//! How long after the kernel saw it a finding is on standard output: on a quiet machine, and while twenty thousand events
//! a second pass through the agent to the same pipe.

use std::io::Read as _;
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::agent::{Agent, Lines, settings};
use super::gate::{Watch, pause};
use super::loader::Loader;
use super::report::Measured;
use super::stats::{quantile, spread};
use crate::sys::{booted, call};

/// A finding comes about this often, microseconds.
const EVERY: u32 = 18_000;
/// Events a second besides.
const LOAD: u32 = 20_000;
/// The part of one processor that others may use while a stretch is measured.
const OTHERS: f64 = 0.2;
/// Findings that a result needs.
const ENOUGH: usize = 1000;

pub(super) fn latency(bench: &Bench) -> Result<Measured> {
    let idle = phase(bench, false)?;
    let busy = phase(bench, true)?;
    let p99 = |times: &[f64]| quantile(times, 0.99);
    let mut measured = Measured {
        value: p99(&idle.findings).max(p99(&busy.findings)),
        rounds: idle.stretches + busy.stretches,
        spread: spread(&[p99(&idle.findings), p99(&busy.findings)]),
        noisy: [&idle, &busy].iter().filter(|p| !p.noisy.is_empty()).map(|p| &*p.noisy).collect::<Vec<_>>().join("; "),
        ..Measured::default()
    };
    for (name, value) in [
        ("idle_p50", quantile(&idle.findings, 0.5)),
        ("idle_p99", p99(&idle.findings)),
        ("idle_max", quantile(&idle.findings, 1.0)),
        ("idle_findings", idle.findings.len() as f64),
        ("load_p50", quantile(&busy.findings, 0.5)),
        ("load_p99", p99(&busy.findings)),
        ("load_max", quantile(&busy.findings, 1.0)),
        ("load_findings", busy.findings.len() as f64),
        ("load_events_p99", p99(&busy.events)),
        ("load_events_per_s", busy.events.len() as f64 / busy.seconds),
        ("load_agent_cpu_percent", 100.0 * busy.agent_cpu),
    ] {
        measured.extra.insert(name, value);
    }
    measured.notes.push(format!("the agent's last words: {} / {}", idle.said, busy.said));
    Ok(measured)
}

/// Milliseconds from the kernel to us.
#[derive(Default)]
struct Phase {
    findings: Vec<f64>,
    events: Vec<f64>,
    seconds: f64,
    stretches: usize,
    noisy: String,
    agent_cpu: f64,
    said: String,
}

fn phase(bench: &Bench, loaded: bool) -> Result<Phase> {
    let watched = bench.place.deep_file()?;
    let filter = format!("security_file_open.data.pathname={watched}");
    // Every finding is shown, and none waits for the hash of a program.
    let yaml = "rules:\n  dedup_window: 0\n";
    let events = ["--events", filter.as_str()];
    let settings = settings(bench, yaml, if loaded { &events } else { &[] })?;
    let mut agent = Agent::start(bench, &settings, Lines::Read)?;
    let reader = Reader::start(agent.lines()?, booted()?)?;
    let every = format!("every={EVERY}");
    let odd = Loader::start(&["open", "path=/etc/shadow", &every])?;
    let burst = format!("burst={}", LOAD / 1000);
    let load = match loaded {
        true => Some(Loader::start(&["open", &format!("path={watched}"), "every=1000", &burst])?),
        false => None,
    };
    let mut pids = vec![agent.pid(), odd.pid()];
    pids.extend(load.as_ref().map(Loader::pid));
    let stretch = Duration::from_secs(2);
    let (wanted, tries) = if bench.quick { (ENOUGH / 10, 6) } else { (ENOUGH, 60) };
    // The first moments have a cold cache and the answer to a first question in them.
    pause(Duration::from_millis(500));
    let (mut phase, mut spoiled) = (Phase::default(), Phase::default());
    for _ in 0..tries {
        reader.take()?;
        let (watch, cpu) = (Watch::start(&pids), agent.cpu());
        pause(stretch);
        let (findings, events) = reader.take()?;
        let into = if watch.others() < OTHERS { &mut phase } else { &mut spoiled };
        into.agent_cpu += (agent.cpu() - cpu) / watch.seconds();
        into.seconds += watch.seconds();
        into.findings.extend(findings);
        into.events.extend(events);
        into.stretches += 1;
        if phase.findings.len() >= wanted {
            break;
        }
    }
    if phase.findings.len() < wanted {
        let (clean, all) = (phase.stretches, phase.stretches + spoiled.stretches);
        let name = if loaded { "loaded" } else { "idle" };
        let noisy = format!("{name}: others used the processors in all but {clean} of {all} stretches");
        let Phase { findings, events, seconds, stretches, agent_cpu, .. } = spoiled;
        phase.findings.extend(findings);
        phase.events.extend(events);
        (phase.seconds, phase.stretches) = (phase.seconds + seconds, phase.stretches + stretches);
        phase.agent_cpu += agent_cpu;
        phase.noisy = noisy;
    }
    phase.agent_cpu /= phase.stretches.max(1) as f64;
    drop((odd, load));
    phase.said = agent.stop()?;
    ensure!(!phase.findings.is_empty(), "no finding came: {}", phase.said);
    Ok(phase)
}

/// Findings and events.
type Times = (Vec<f64>, Vec<f64>);

/// Reads the agent's lines, and knows when.
struct Reader {
    times: std::sync::mpsc::Receiver<Times>,
    ask: Arc<AtomicBool>,
}

impl Reader {
    fn start(lines: ChildStdout, booted: i64) -> Result<Self> {
        let (sender, times) = std::sync::mpsc::sync_channel(1);
        let ask = Arc::new(AtomicBool::new(false));
        let asked = ask.clone();
        thread::Builder::new().name("reader".into()).spawn(move || {
            let mut reading = Reading { lines, booted, held: Vec::new(), times: Times::default() };
            while reading.more().unwrap_or(false) {
                if asked.swap(false, Ordering::AcqRel) && sender.send(std::mem::take(&mut reading.times)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { times, ask })
    }

    /// What came since the last time. Findings come all the time, so there is an answer soon.
    fn take(&self) -> Result<Times> {
        self.ask.store(true, Ordering::Release);
        self.times.recv_timeout(Duration::from_secs(10)).context("no lines come from the agent")
    }
}

struct Reading {
    lines: ChildStdout,
    booted: i64,
    held: Vec<u8>,
    times: Times,
}

impl Reading {
    /// One read; whether there will be more.
    fn more(&mut self) -> Result<bool> {
        let start = self.held.len();
        self.held.resize(start + (64 << 10), 0);
        let read = self.lines.read(&mut self.held[start..])?;
        let now = boot_clock()? + self.booted;
        self.held.truncate(start + read);
        let end = self.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        for line in self.held[..end].split(|b| *b == b'\n') {
            if let Some(time) = nanoseconds_of_day(line) {
                const DAY: i64 = 86_400_000_000_000;
                let took = (now - time).rem_euclid(DAY) as f64 / 1e6;
                let is_finding = line.windows(9).any(|w| w == b"\"threat\":");
                if is_finding { self.times.0.push(took) } else { self.times.1.push(took) }
            }
        }
        self.held.drain(..end);
        Ok(read > 0)
    }
}

fn boot_clock() -> Result<i64> {
    let mut time = [0_u8; 16];
    let out: &mut [u8] = &mut time;
    call(libc::SYS_clock_gettime, [libc::CLOCK_BOOTTIME.into(), out.into()])?;
    let word = |at: usize| time[at..].first_chunk().map_or(0, |b| i64::from_ne_bytes(*b));
    Ok(word(0) * 1_000_000_000 + word(8))
}

/// The time of a line, `{"timestamp":"2026-11-24T10:02:25.123456789Z",..`, since midnight.
fn nanoseconds_of_day(line: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(line.strip_prefix(b"{\"timestamp\":\"")?.get(11..)?).ok()?;
    let (clock, rest) = text.split_once(['.', 'Z'])?;
    let mut parts = clock.split(':').map(|p| p.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let digits = rest.split(['Z', '"']).next().unwrap_or_default();
    let fraction = format!("{digits:0<9}").get(..9)?.parse::<i64>().unwrap_or(0);
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_lines_are_read() {
        let line = |time: &str| format!("{{\"timestamp\":\"2026-11-24T{time}\",\"id\":1}}");
        let of = |time: &str| nanoseconds_of_day(line(time).as_bytes());
        assert_eq!(of("00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(of("23:59:59.000000001Z"), Some(86_399_000_000_001));
        assert_eq!(of("01:02:03Z"), Some(3_723_000_000_000));
        assert_eq!(nanoseconds_of_day(b"{\"id\":1}"), None);
    }
}

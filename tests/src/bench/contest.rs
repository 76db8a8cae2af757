//! The comparison: the same load bare, under empty programs, bare, under the agent, bare. Each sample stands between two
//! bare ones; where those two disagree the machine was doing something else, and the sample is taken again.

use anyhow::Result;

use super::Bench;
use super::agent::{Agent, Lines};
use super::floor::{Floor, programs};
use super::stats::{median, spread};

/// Bare samples around another may differ by this part.
const DRIFT: f64 = 0.05;
/// How often a sample is taken again.
const RETRIES: usize = 4;
/// Rounds that must be clean for the result to prove anything.
const CLEAN: usize = 3;

/// One undisturbed comparison, or the last of several disturbed ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// The mean of the bare samples around it.
    pub(super) bare: f64,
    /// The sample.
    pub(super) with: f64,
    clean: bool,
}

/// A round: what was measured against bare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Under empty programs.
    pub(super) floor: Option<Pair>,
    /// Under the agent.
    pub(super) agent: Pair,
}

/// All rounds.
#[derive(Debug)]
pub(super) struct Outcome {
    rounds: Vec<Round>,
    /// Why the result proves nothing; empty when it does.
    pub(super) noisy: String,
    /// What the agent said last in each round, where it lost anything.
    pub(super) losses: Vec<String>,
    /// Empty programs of the floor.
    pub(super) hooks: usize,
}

/// A sample of the load; with the agent under which it is taken.
pub(super) type Sample<'a> = dyn FnMut(Option<&Agent>) -> Result<f64> + 'a;

/// Compares `rounds` times.
pub(super) fn run(bench: &Bench, settings: &[String], with_floor: bool, sample: &mut Sample<'_>) -> Result<Outcome> {
    let hooks = if with_floor { programs(bench, settings)? } else { Vec::new() };
    let (mut rounds, mut losses, mut attached) = (Vec::new(), Vec::new(), 0);
    // The first is slower: nothing is warm.
    sample(None)?;
    while rounds.len() < bench.rounds {
        let floor = match with_floor {
            true => Some(pair(bench, sample, |bench, sample| {
                let floor = Floor::attach(&bench.btf, &hooks)?;
                attached = floor.len();
                let value = sample(None)?;
                Ok((value, bench.gate.alone(floor.len())))
            })?),
            false => None,
        };
        let agent = pair(bench, sample, |bench, sample| {
            let agent = Agent::start(bench, settings, Lines::Dropped)?;
            let value = sample(Some(&agent))?;
            let said = agent.stop()?;
            if !said.ends_with("lost: none") {
                losses.push(said);
            }
            Ok((value, true))
        })?;
        rounds.push(Round { floor, agent });
    }
    let clean = |r: &Round| r.agent.clean && r.floor.is_none_or(|f| f.clean);
    let count = rounds.iter().filter(|r| clean(r)).count();
    let mut noisy = String::new();
    if count >= CLEAN.min(bench.rounds) {
        rounds.retain(clean);
    } else {
        noisy = format!("in {count} of {} rounds the samples around agreed to {DRIFT}", rounds.len());
    }
    Ok(Outcome { rounds, noisy, losses, hooks: attached })
}

fn pair(
    bench: &Bench,
    sample: &mut Sample<'_>,
    mut with: impl FnMut(&Bench, &mut Sample<'_>) -> Result<(f64, bool)>,
) -> Result<Pair> {
    let mut last = None;
    for _ in 0..=RETRIES {
        bench.gate.wait();
        let before = sample(None)?;
        let (value, undisturbed) = with(bench, sample)?;
        let after = sample(None)?;
        let alone = bench.gate.alone(0);
        let clean = undisturbed && alone && (before - after).abs() <= DRIFT * before.min(after);
        let pair = Pair { bare: f64::midpoint(before, after), with: value, clean };
        if clean {
            return Ok(pair);
        }
        last = Some(pair);
    }
    last.ok_or_else(|| anyhow::anyhow!("no sample was taken"))
}

impl Outcome {
    /// Rounds behind the result.
    pub(super) fn len(&self) -> usize {
        self.rounds.len()
    }

    /// The middle, the least and the most of what `of` makes of a round.
    pub(super) fn of(&self, of: impl Fn(&Round) -> f64) -> (f64, Option<[f64; 2]>) {
        let values: Vec<f64> = self.rounds.iter().map(of).collect();
        (median(&values), spread(&values))
    }

    /// The load alone.
    pub(super) fn bare(&self) -> f64 {
        self.of(|r| r.agent.bare).0
    }

    /// The load under empty programs.
    pub(super) fn floor(&self) -> Option<f64> {
        let floors: Vec<f64> = self.rounds.iter().filter_map(|r| r.floor.map(|f| f.with)).collect();
        (!floors.is_empty()).then(|| median(&floors))
    }
}

//! The comparison: the same load bare, under empty programs, bare, under the agent, bare. Each sample stands between two
//! bare ones; where those two disagree the machine was doing something else, and the sample is taken again.

use anyhow::{Context as _, Result};

use super::Bench;
use super::agent::{Agent, Lines};
use super::floor::{Floor, programs};
use super::gate::Watch;
use super::report::Measured;
use super::stats::{median, spread};

/// Bare samples around another may differ by this part.
const DRIFT: f64 = 0.05;
/// Others may use this part of one processor meanwhile.
const OTHERS: f64 = 0.25;
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
    pub(super) floor: Pair,
    /// Under the agent.
    pub(super) agent: Pair,
    /// Under the agent with other settings, where the row asks for that.
    pub(super) other: Option<Pair>,
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

/// Compares `rounds` times. `pids` are the processes of the load.
pub(super) fn run(bench: &Bench, settings: &[String], pids: &[u32], sample: &mut Sample<'_>) -> Result<Outcome> {
    run_beside(bench, settings, None, pids, sample)
}

/// The same, and the agent with `other` settings too.
pub(super) fn run_beside(
    bench: &Bench,
    settings: &[String],
    other: Option<&[String]>,
    pids: &[u32],
    sample: &mut Sample<'_>,
) -> Result<Outcome> {
    let hooks = programs(bench, settings)?;
    let (mut rounds, mut losses, mut attached) = (Vec::new(), Vec::new(), 0);
    let mut judge = Judge { bench, pids: pids.to_vec(), sample };
    // The first is slower: nothing is warm.
    judge.sample(None, 0)?;
    while rounds.len() < bench.rounds {
        let floor = judge.pair(|judge| {
            let floor = Floor::attach(&bench.btf, &hooks)?;
            attached = floor.len();
            judge.sample(None, floor.len())
        })?;
        let mut under = |settings: &[String]| {
            judge.pair(|judge| {
                let agent = Agent::start(bench, settings, Lines::Dropped)?;
                let sample = judge.sample(Some(&agent), attached)?;
                let said = agent.stop()?;
                if !said.ends_with("lost: none") {
                    losses.push(said);
                }
                Ok(sample)
            })
        };
        let agent = under(settings)?;
        let other = other.map(&mut under).transpose()?;
        rounds.push(Round { floor, agent, other });
    }
    let clean = |r: &Round| r.agent.clean && r.floor.clean && r.other.is_none_or(|o| o.clean);
    let count = rounds.iter().filter(|r| clean(r)).count();
    let mut noisy = String::new();
    if count >= CLEAN.min(bench.rounds) {
        rounds.retain(clean);
    } else {
        noisy = format!("only {count} of {} rounds were undisturbed by other programs", rounds.len());
    }
    Ok(Outcome { rounds, noisy, losses, hooks: attached })
}

/// Takes samples, and judges whether others disturbed them.
struct Judge<'a, 'b> {
    bench: &'a Bench,
    pids: Vec<u32>,
    sample: &'a mut Sample<'b>,
}

impl Judge<'_, '_> {
    /// A sample, and whether it was undisturbed; `links`: tracing programs of ours.
    fn sample(&mut self, agent: Option<&Agent>, links: usize) -> Result<(f64, bool)> {
        let pids: Vec<u32> = self.pids.iter().copied().chain(agent.map(Agent::pid)).collect();
        let watch = Watch::start(&pids);
        let value = (self.sample)(agent)?;
        Ok((value, watch.others() < OTHERS && self.bench.gate.alone(links)))
    }

    /// A sample between two bare ones.
    fn pair(&mut self, mut with: impl FnMut(&mut Self) -> Result<(f64, bool)>) -> Result<Pair> {
        let mut best: Option<(f64, Pair)> = None;
        for _ in 0..=RETRIES {
            self.bench.gate.wait();
            let (before, first) = self.sample(None, 0)?;
            let (value, second) = with(self)?;
            let (after, third) = self.sample(None, 0)?;
            let drift = (before - after).abs() / before.min(after);
            let clean = first && second && third && drift <= DRIFT;
            let pair = Pair { bare: f64::midpoint(before, after), with: value, clean };
            if clean {
                return Ok(pair);
            }
            if best.is_none_or(|b| drift < b.0) {
                best = Some((drift, pair));
            }
        }
        best.map(|b| b.1).context("no sample was taken")
    }
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

    /// The row whose value is what `of` makes of a round.
    pub(super) fn measured(&self, of: impl Fn(&Round) -> f64) -> Measured {
        let (value, spread) = self.of(of);
        Measured {
            value,
            spread,
            bare: Some(self.bare()),
            floor: Some(self.floor()),
            rounds: self.len(),
            noisy: self.noisy.clone(),
            ..Measured::default()
        }
    }

    /// The load alone.
    pub(super) fn bare(&self) -> f64 {
        self.of(|r| r.agent.bare).0
    }

    /// The load under empty programs.
    pub(super) fn floor(&self) -> f64 {
        self.of(|r| r.floor.with).0
    }
}

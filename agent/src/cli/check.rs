//! `haechi check`: opens the kernel as `run` would, says how each event is seen, and lets go again.

use std::fmt::Write;

use serde_json::json;

use super::vantage::{self, Limit};
use super::{Failure, KERNEL, OrFail, Settings, WRONG, print};
use crate::clock;
use crate::core::{Core, Start};
use crate::kernel::{Choice, Kernel};
use haechi_signatures::sources::{Bounds, Sources};

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = args.settings.load()?;
    let (sources, _) = Sources::read(&config.rules.dirs, Bounds::default());
    let start = Start { host: clock::host(), time: clock::boot_now(), options: config.options(), sources };
    let (core, _) = Core::build(&start).or_fail(WRONG)?;
    let limits = vantage::limits();
    match Kernel::open(&config.kernel(core.demands())) {
        Ok(kernel) => {
            let (choices, programs) = (kernel.choices(), kernel.attached());
            if args.json {
                let all = json!({"events": choices, "programs": programs, "limits": limits});
                return print(&format!("{all:#}\n"));
            }
            print(&report(choices, &programs, &limits))
        }
        Err(error) => {
            if args.json {
                let all = json!({"events": [], "error": error.to_string(), "limits": limits});
                print(&format!("{all:#}\n"))?;
            } else {
                print(&shown(&limits))?;
            }
            Err(Failure::new(KERNEL, &error))
        }
    }
}

fn report(choices: &[Choice], programs: &[&str], limits: &[Limit]) -> String {
    let mut out = String::new();
    for choice in choices {
        // A string takes everything.
        let _ = writeln!(out, "{:<26} {}", choice.event, choice.step.unwrap_or("NOT SEEN"));
        if !choice.programs.is_empty() {
            let _ = writeln!(out, "    by        {}", choice.programs.join(", "));
        }
        if !choice.blind.is_empty() {
            let _ = writeln!(out, "    misses    {}", choice.blind);
        }
        for refused in &choice.refused {
            let _ = writeln!(out, "    not {:<9} {}: {}", refused.step, refused.program, refused.reason);
            if !refused.remedy.is_empty() {
                let _ = writeln!(out, "                  {}", refused.remedy);
            }
        }
    }
    let _ = writeln!(out, "\n{} programs attached: {}", programs.len(), programs.join(", "));
    out + &shown(limits)
}

fn shown(limits: &[Limit]) -> String {
    limits.iter().map(|l| format!("\nlimited: {}\n    {}\n", l.problem, l.remedy)).collect()
}

//! The hook plan: for each event the best way that this kernel allows, and why not a better one.

use haechi_ebpf::event::{EventId, by_id};
use haechi_ebpf::program::{Step, plans};
use serde::Serialize;

use super::programs::Refusal;

/// How one event is produced.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Number of the event.
    #[serde(skip)]
    pub id: EventId,
    /// Name of the event.
    pub event: &'static str,
    /// The step in use; `None`: it cannot be had.
    pub step: Option<&'static str>,
    /// The same, as the kernel programs number it.
    #[serde(skip)]
    pub step_kind: Option<Step>,
    /// It could be had, but is not worth what it would cost here.
    #[serde(skip)]
    pub declined: bool,
    /// Programs attached for it.
    pub programs: Vec<&'static str>,
    /// What this way cannot see.
    pub blind: String,
    /// Better ways and why they were not possible, and programs that would see more.
    pub refused: Vec<Refused>,
}

/// A way that was not possible.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The step.
    pub step: &'static str,
    /// The program of it that cannot run.
    pub program: &'static str,
    /// What the kernel said.
    pub reason: String,
    /// What would help.
    pub remedy: &'static str,
}

/// Takes the first way to produce `event` whose programs all attach. `attach` tries one program. `cheap`: not by what
/// makes every system call slower.
pub(super) fn choose(
    event: EventId,
    without: &[Step],
    cheap: bool,
    mut attach: impl FnMut(&'static str) -> Result<(), Refusal>,
) -> Choice {
    let (mut refused, mut declined) = (Vec::new(), false);
    for plan in plans(event) {
        if cheap && plan.step == Step::RawSyscall {
            declined = true;
            refused.push(Refused {
                step: plan.step.name(),
                program: plan.programs.first().copied().unwrap_or(""),
                reason: "makes every system call slower, and nothing else here needs it".into(),
                remedy: "ask for the event by its name",
            });
            continue;
        }
        if without.contains(&plan.step) {
            refused.push(Refused {
                step: plan.step.name(),
                program: plan.programs.first().copied().unwrap_or(""),
                reason: "turned off by configuration".into(),
                remedy: "take it out of kernel.without",
            });
            continue;
        }
        let refusal = |program, refusal: Refusal| Refused {
            step: plan.step.name(),
            program,
            reason: refusal.reason,
            remedy: refusal.remedy,
        };
        let failed = plan.programs.iter().find_map(|p| attach(p).err().map(|r| refusal(*p, r)));
        if let Some(failed) = failed {
            refused.push(failed);
            continue;
        }
        let mut programs = plan.programs.to_vec();
        for program in plan.optional {
            match attach(program) {
                Ok(()) => programs.push(program),
                Err(reason) => refused.push(refusal(program, reason)),
            }
        }
        return Choice {
            id: event,
            event: by_id(event).map_or("", |d| d.name),
            step: Some(plan.step.name()),
            step_kind: Some(plan.step),
            declined: false,
            programs,
            blind: plan.blind.into(),
            refused,
        };
    }
    Choice {
        id: event,
        event: by_id(event).map_or("", |d| d.name),
        step: None,
        step_kind: None,
        declined,
        programs: Vec::new(),
        blind: "all of it: no way to produce it works here".into(),
        refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::security_file_open;

    fn refuse(reason: &str) -> Result<(), Refusal> {
        Err(Refusal { reason: reason.into(), remedy: "" })
    }

    #[test]
    fn takes_the_first_way_that_works_and_says_why_not_a_better_one() {
        let choice = choose(security_file_open::ID, &[Step::Lsm], false, |program| match program {
            "file_open_fexit" => refuse("EPERM"),
            "io_uring_submit" => refuse("no tracepoint"),
            "file_open_kprobe" => refuse("no kprobes"),
            _ => Ok(()),
        });
        assert_eq!(choice.step, Some("raw-syscall"));
        assert_eq!(choice.programs, ["sys_exit"]);
        let why: Vec<_> = choice.refused.iter().map(|r| (r.step, r.reason.as_str())).collect();
        assert_eq!(
            why,
            [
                ("fexit", "EPERM"),
                ("lsm", "turned off by configuration"),
                ("kprobe", "no kprobes"),
                ("raw-syscall", "no tracepoint")
            ]
        );
    }

    #[test]
    fn an_event_that_cannot_be_had_is_said_so() {
        let choice = choose(security_file_open::ID, &[], false, |_| refuse("EPERM"));
        assert_eq!((choice.step, choice.refused.len()), (None, 4));
    }
}

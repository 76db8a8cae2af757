//! Compares an event with what its doer knows, field by field. A field of the table that no expectation names is an
//! error: so every field is asserted.

use anyhow::{Result, ensure};
use haechi_ebpf::event::EventDef;
use serde_json::{Value, json};

use super::Line;
use crate::facts::{TICK, Task};

/// What a field must be.
#[derive(Clone, Debug)]
pub enum Want {
    /// This.
    Is(Value),
    /// Missing.
    Absent,
    /// Missing, or this.
    IsOrAbsent(Value),
    /// Nanoseconds since boot that /proc shows as this many ticks.
    Ticks(u64),
    /// Flags of open(2), but for two that belong to the descriptor or the ABI and not to the file: O_CLOEXEC, O_LARGEFILE.
    Flags(u32),
    /// Type and permissions.
    Mode(u32),
    /// Something that `true` is said of.
    Fits(fn(&Value) -> bool),
}

const NOT_THE_FILES: u64 = 0o2_100_000;

macro_rules! want_from {
    ($($ty:ty),+) => { $( impl From<$ty> for Want { fn from(v: $ty) -> Self { Self::Is(json!(v)) } } )+ };
}
want_from!(u32, u64, i32, i64, bool, &str, String, &String, Vec<String>, Value);

impl Want {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Is(want) => want == value,
            Self::Absent => value.is_null(),
            Self::IsOrAbsent(want) => value.is_null() || want == value,
            Self::Ticks(ticks) => value.as_u64().is_some_and(|v| v / TICK == *ticks),
            Self::Flags(flags) => {
                value.as_u64().is_some_and(|v| v & !NOT_THE_FILES == u64::from(*flags) & !NOT_THE_FILES)
            }
            Self::Mode(mode) => value.as_u64() == Some(u64::from(*mode)),
            Self::Fits(fits) => fits(value),
        }
    }
}

/// Checks all fields of an event.
///
/// # Errors
/// The fields that differ, and those that no expectation names.
pub fn fields(line: &Line, def: &EventDef, want: &[(&str, Want)]) -> Result<()> {
    let mut wrong = Vec::new();
    for field in def.fields {
        let value = line.data(field.name);
        match want.iter().find(|w| w.0 == field.name) {
            None => wrong.push(format!("{}: {value}: nothing is expected of it", field.name)),
            Some((_, want)) if !want.holds(&value) => wrong.push(format!("{}: {value}, not {want:?}", field.name)),
            Some(_) => {}
        }
    }
    for (name, _) in want {
        if def.field(name).is_none() {
            wrong.push(format!("{name}: no such field"));
        }
    }
    ensure!(wrong.is_empty(), "{}:\n  {}\n  line: {}", def.name, wrong.join("\n  "), line.0);
    Ok(())
}

/// /proc cuts a start to a tick, and the clock of the wall is set now and then: 50 ms.
const CLOCK_ERROR: u128 = 50_000_000;

/// Checks the part of a line that says who did it.
///
/// # Errors
/// What differs.
pub fn who(line: &Line, task: &Task) -> Result<()> {
    let want: &[(&str, Want)] = &[
        ("/workload/process/host_pid", task.pid.into()),
        ("/workload/process/pid", task.ns_pid.into()),
        ("/workload/process/real_user/id", task.uid[0].into()),
        ("/workload/process/executable/path", (&task.exe).into()),
        ("/workload/process/thread/host_tid", task.tid.into()),
        ("/workload/process/thread/tid", task.ns_tid.into()),
        ("/workload/process/thread/name", (&task.comm).into()),
    ];
    let mut wrong: Vec<String> = want
        .iter()
        .map(|(at, want)| (at, want, line.at(at)))
        .filter(|(_, want, value)| !want.holds(value))
        .map(|(at, want, value)| format!("{at}: {value}, not {want:?}"))
        .collect();
    if task.pid == task.tid {
        let booted = crate::sys::booted()?;
        let started = i128::from(booted) + i128::from(task.start * TICK);
        let near = line.start().is_some_and(|s| (s - started).unsigned_abs() < CLOCK_ERROR);
        if !near {
            wrong.push(format!("start_time: {:?}, not {started}", line.start()));
        }
    }
    ensure!(wrong.is_empty(), "who did it:\n  {}\n  line: {}", wrong.join("\n  "), line.0);
    Ok(())
}

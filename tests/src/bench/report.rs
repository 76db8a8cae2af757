//! Rows as people and machines read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    /// Less is.
    Lower,
    /// More is.
    Higher,
}

/// What a row found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// What is compared with the goal.
    pub(super) value: f64,
    /// The load alone.
    pub(super) bare: Option<f64>,
    /// The load under empty programs on the same hooks.
    pub(super) floor: Option<f64>,
    /// Rounds behind it.
    pub(super) rounds: usize,
    /// The value in the least and the most of the rounds.
    pub(super) spread: Option<[f64; 2]>,
    /// Why the value proves nothing; empty when it does.
    pub(super) noisy: String,
    /// What else there is to know.
    pub(super) notes: Vec<String>,
    /// Other numbers of the same run.
    pub(super) extra: BTreeMap<&'static str, f64>,
}

/// A line of the result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    id: &'static str,
    value: Option<f64>,
    unit: &'static str,
    bare: Option<f64>,
    floor: Option<f64>,
    goal: f64,
    better: Better,
    /// Whether the goal is reached; nothing when that could not be found out.
    holds: Option<bool>,
    rounds: usize,
    spread: Option<[f64; 2]>,
    note: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<&'static str, f64>,
}

impl Row {
    pub(super) fn of(id: &'static str, unit: &'static str, goal: f64, better: Better, m: Measured) -> Self {
        let reached = if better == Better::Lower { m.value <= goal } else { m.value >= goal };
        let mut notes = m.notes;
        if !m.noisy.is_empty() {
            notes.insert(0, format!("noisy: {}", m.noisy));
        }
        Self {
            id,
            value: Some(short(m.value)),
            unit,
            bare: m.bare.map(short),
            floor: m.floor.map(short),
            goal,
            better,
            holds: m.noisy.is_empty().then_some(reached),
            rounds: m.rounds,
            spread: m.spread.map(|s| s.map(short)),
            note: notes.join("; "),
            extra: m.extra.into_iter().map(|(name, value)| (name, short(value))).collect(),
        }
    }

    pub(super) fn missing(id: &'static str, unit: &'static str, goal: f64, better: Better, why: &str) -> Self {
        let mut row = Self::of(id, unit, goal, better, Measured { noisy: "-".into(), ..Measured::default() });
        (row.value, row.note) = (None, why.to_owned());
        row
    }

    /// As one JSON object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Four digits that count: more would be noise.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// All rows, aligned, with what there is to say below.
pub(super) fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let head = ["row", "value", "unit", "goal", "holds", "bare", "floor", "rounds", "spread"].map(str::to_owned);
    let mut cells = vec![head];
    for row in rows {
        let sign = if row.better == Better::Lower { "<=" } else { ">=" };
        let holds = match row.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "?",
        };
        cells.push([
            row.id.to_owned(),
            number(row.value),
            row.unit.to_owned(),
            format!("{sign} {}", row.goal),
            holds.to_owned(),
            number(row.bare),
            number(row.floor),
            row.rounds.to_string(),
            row.spread.map_or_else(|| "-".to_owned(), |[a, b]| format!("{a} .. {b}")),
        ]);
    }
    let width = |i: usize| cells.iter().map(|c| c[i].len()).max().unwrap_or(0);
    let mut out = String::new();
    for (at, line) in cells.iter().enumerate() {
        let padded: Vec<String> = line.iter().enumerate().map(|(i, c)| format!("{c:<0$}", width(i))).collect();
        // A string takes everything.
        let _ = writeln!(out, "{}", padded.join("  ").trim_end());
        if let Some(row) = at.checked_sub(1).and_then(|i| rows.get(i)) {
            for (name, value) in &row.extra {
                let _ = writeln!(out, "    {name} {value}");
            }
            for note in row.note.split("; ").filter(|n| !n.is_empty()) {
                let _ = writeln!(out, "    {note}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_has_a_direction_and_noise_proves_nothing() {
        let row = |better, value, noisy: &str| {
            Row::of("x", "ns", 5.0, better, Measured { value, noisy: noisy.into(), ..Measured::default() }).holds
        };
        assert_eq!(row(Better::Lower, 5.0, ""), Some(true));
        assert_eq!(row(Better::Lower, 5.1, ""), Some(false));
        assert_eq!(row(Better::Higher, 5.1, ""), Some(true));
        assert_eq!(row(Better::Higher, 5.1, "too busy"), None);
        assert_eq!(short(123_456.0), 123_500.0);
    }

    #[test]
    fn what_is_missing_says_why() {
        let row = Row::missing("x", "ns", 5.0, Better::Lower, "no wrk");
        let json: serde_json::Value = serde_json::from_str(&row.json()).expect("is JSON");
        assert!(json["value"].is_null() && json["holds"].is_null());
        assert_eq!((&json["note"], &json["better"]), (&"no wrk".into(), &"lower".into()));
        assert!(table(&[row]).contains("no wrk"));
    }
}

//! A line that the agent printed: how to find the parts of its JSON. Where the form changes, only this file does.

use serde_json::Value;

/// One line of `--output json`.
#[derive(Clone, Debug)]
pub struct Line(pub Value, String);

impl Line {
    /// Takes a line as it was printed; one that is no JSON becomes a JSON string.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone())), text)
    }

    /// The line, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.1
    }

    /// Name of the event or the finding.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is a finding.
    #[must_use]
    pub fn is_finding(&self) -> bool {
        self.0.get("threat").is_some()
    }

    /// The value at a JSON pointer; null when missing.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Value {
        self.0.pointer(pointer).cloned().unwrap_or_default()
    }

    /// Process in the host's numbering.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.at("/workload/process/host_pid").as_u64().unwrap_or_default()
    }

    /// Thread in the host's numbering.
    #[must_use]
    pub fn tid(&self) -> u64 {
        self.at("/workload/process/thread/host_tid").as_u64().unwrap_or_default()
    }

    /// A field of the event, whatever kind of value holds it; null when absent.
    #[must_use]
    pub fn data(&self, field: &str) -> Value {
        self.entry(field).map_or(Value::Null, |(kind, v)| match (kind.as_str(), v.get("value")) {
            ("str", _) => v.clone(),
            (_, Some(list)) => list.clone(),
            _ => numbers(v),
        })
    }

    /// Enough of it for a message.
    #[must_use]
    pub fn brief(&self) -> String {
        self.0.to_string().chars().take(600).collect()
    }

    /// What the call returned.
    #[must_use]
    pub fn ret(&self) -> Option<i64> {
        self.data("returnValue").as_i64()
    }

    /// When its thread started, nanoseconds since the epoch; only the first thread of a process says it.
    #[must_use]
    pub fn start(&self) -> Option<i128> {
        nanoseconds(self.at("/workload/process/thread/start_time").as_str()?)
    }

    /// When it happened, nanoseconds since the epoch.
    #[must_use]
    pub fn time(&self) -> Option<i128> {
        nanoseconds(self.at("/timestamp").as_str()?)
    }

    /// Whether it was done in a 32-bit system call.
    #[must_use]
    pub fn compat(&self) -> bool {
        self.at("/workload/process/thread/compat") == true
    }

    /// Whether it was done through io_uring.
    #[must_use]
    pub fn io_uring(&self) -> bool {
        self.at("/workload/process/thread/io_uring") == true
    }

    /// Whether a field was read from the memory of the process.
    #[must_use]
    pub fn from_user(&self, field: &str) -> bool {
        self.mark(field, "from_user") == true
    }

    /// Whether a field was cut.
    #[must_use]
    pub fn truncated(&self, field: &str) -> bool {
        self.mark(field, "truncated") == true
    }

    /// Names of the fields it carries.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        let data = self.0.get("data").and_then(Value::as_array);
        data.into_iter().flatten().filter_map(|d| d.get("name")?.as_str()).collect()
    }

    /// What else the entry of a field says, as `truncated`.
    #[must_use]
    pub fn mark(&self, field: &str, mark: &str) -> Value {
        let data = self.0.get("data").and_then(Value::as_array);
        let entry = data.into_iter().flatten().find(|d| d.get("name").and_then(Value::as_str) == Some(field));
        entry.and_then(|e| e.get(mark)).map_or(Value::Null, numbers)
    }

    fn entry(&self, field: &str) -> Option<(&String, &Value)> {
        let data = self.0.get("data")?.as_array()?;
        let entry = data.iter().find(|d| d.get("name").and_then(Value::as_str) == Some(field))?;
        entry.as_object()?.iter().find(|(k, _)| KINDS.contains(&k.as_str()))
    }
}

/// Kinds of value in an entry, as the contract of the JSON lists them.
const KINDS: &[&str] =
    &["str", "int32", "int64", "u_int32", "u_int64", "bool", "bytes", "str_array", "sockaddr", "pointer", "timespec"];

/// An RFC 3339 time in UTC, as nanoseconds since the epoch.
fn nanoseconds(text: &str) -> Option<i128> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let numbers = |s: &str, by: char| s.split(by).map(|n| n.parse::<i128>().ok()).collect::<Option<Vec<_>>>();
    let [year, month, day]: [i128; 3] = numbers(date, '-')?.try_into().ok()?;
    let [hour, minute, second]: [i128; 3] = numbers(clock, ':')?.try_into().ok()?;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let part = format!("{fraction:0<9}").get(..9)?.parse::<i128>().ok()?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + part)
}

/// 64-bit numbers travel as strings: JSON readers cut them otherwise.
fn numbers(value: &Value) -> Value {
    match value {
        Value::String(s) => {
            let number = s.parse::<u64>().map(Value::from).or_else(|_| s.parse::<i64>().map(Value::from));
            number.unwrap_or_else(|_| value.clone())
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-02T00:00:00.5Z", Some(86_400_500_000_000)),
            ("2024-02-29T12:30:01.000000001Z", Some(1_709_209_801_000_000_001)),
            ("2026-11-24", None),
        ] {
            assert_eq!(nanoseconds(text), want, "{text}");
        }
    }

    #[test]
    fn fields_are_found_whatever_their_kind() {
        let line = serde_json::json!({ "data": [
            { "name": "a", "u_int64": "18446744073709551615" },
            { "name": "b", "str_array": { "value": ["1", "x"] } },
            { "name": "c", "str": "007", "truncated": true },
        ] });
        let line = Line::new(line.to_string());
        assert_eq!(line.data("a"), u64::MAX);
        assert_eq!(line.data("b"), serde_json::json!(["1", "x"]));
        assert_eq!(line.data("c"), "007");
        assert!(line.truncated("c") && !line.truncated("a"));
        assert!(line.data("d").is_null());
    }
}

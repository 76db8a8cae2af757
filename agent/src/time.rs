//! Times as people and machines read them: RFC 3339, UTC, nanoseconds. Knows no clock and no time zone.

use std::fmt;

/// A time in nanoseconds since the epoch; displays as `2026-11-24T09:13:22.123456789Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

/// The parts of a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    nanos: u64,
}

impl Utc {
    /// The time of an event that happened `boot` nanoseconds after boot.
    #[must_use]
    pub const fn of_boot(boot: u64, boot_offset: u64) -> Self {
        Self(boot.saturating_add(boot_offset))
    }

    /// Only the time of day, to the millisecond: `09:13:22.123`.
    #[must_use]
    pub const fn clock(self) -> Clock {
        Clock(self)
    }

    /// Days to a date with the year beginning in March, so that the leap day comes last.
    const fn civil(self) -> Civil {
        let seconds = self.0 / 1_000_000_000;
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Civil {
            year: era * 400 + year_of_era + if month <= 2 { 1 } else { 0 },
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            second_of_day: seconds % 86_400,
            nanos: self.0 % 1_000_000_000,
        }
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, second_of_day: s, nanos } = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", s / 3600, s / 60 % 60, s % 60)
    }
}

/// A time of day, as [`Utc::clock`] gives it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Utc);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { second_of_day: s, nanos, .. } = self.0.civil();
        write!(f, "{:02}:{:02}:{:02}.{:03}", s / 3600, s / 60 % 60, s % 60, nanos / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(Utc(seconds * 1_000_000_000).to_string(), want);
        }
        assert_eq!(Utc::of_boot(7, 1_000_000_000).to_string(), "1970-01-01T00:00:01.000000007Z");
        assert_eq!(Utc(86_399_999_000_000).clock().to_string(), "23:59:59.999");
    }
}

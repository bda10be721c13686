//! Budget periods: UTC day, ISO week from Monday, calendar month.

use std::sync::Arc;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Over which time a cap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// A UTC day.
    Daily,
    /// An ISO week, from Monday 00:00 UTC.
    Weekly,
    /// A calendar month in UTC.
    Monthly,
}

impl Period {
    /// All periods, shortest first.
    pub const ALL: [Self; 3] = [Self::Daily, Self::Weekly, Self::Monthly];

    /// The wire's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// Reads the wire's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == text)
    }

    /// The key of the period that `at` lies in: `2026-11-22`, `2026-W47`, `2026-11`.
    #[must_use]
    pub fn key(self, at: Timestamp) -> String {
        let date = utc_date(at);
        match self {
            Self::Daily => date.to_string(),
            Self::Weekly => {
                let week = date.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Monthly => format!("{:04}-{:02}", date.year(), date.month()),
        }
    }

    /// When the period that `at` lies in began.
    #[must_use]
    pub fn starts(self, at: Timestamp) -> Timestamp {
        let date = utc_date(at);
        let first = match self {
            Self::Daily => Some(date),
            Self::Weekly => {
                let monday = date.iso_week_date().weekday().since(Weekday::Monday);
                date.checked_sub(i64::from(monday).days()).ok()
            }
            Self::Monthly => Some(date.first_of_month()),
        };
        first.and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map_or(Timestamp::MIN, |zoned| zoned.timestamp())
    }

    /// When the period that `at` lies in ends: the instant its spend counts as nothing again.
    #[must_use]
    pub fn ends(self, at: Timestamp) -> Timestamp {
        let date = utc_date(at);
        let next = match self {
            Self::Daily => date.tomorrow().ok(),
            Self::Weekly => {
                let monday = date.iso_week_date().weekday().since(Weekday::Monday);
                date.checked_add((7 - i64::from(monday)).days()).ok()
            }
            Self::Monthly => date.last_of_month().tomorrow().ok(),
        };
        next.and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
    }
}

/// The names of the periods that one instant lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    keys: [Arc<str>; 3],
    starts: Timestamp,
    ends: [Timestamp; 3],
}

impl Keys {
    pub(super) fn at(now: Timestamp) -> Self {
        Self { keys: Period::ALL.map(|p| p.key(now).into()), starts: now, ends: Period::ALL.map(|p| p.ends(now)) }
    }

    pub(super) fn key(&self, period: Period) -> &Arc<str> {
        &self.keys[period as usize]
    }

    /// Whether `now` lies in the same period.
    pub(super) fn holds(&self, period: Period, now: Timestamp) -> bool {
        // A clock that was set back is taken at its word only when it left the day.
        now < self.ends[period as usize] && (now >= self.starts || *period.key(now) == **self.key(period))
    }

    /// Whether `now` lies in the same day, hence in the same week and month.
    pub(super) fn hold_at(&self, now: Timestamp) -> bool {
        self.holds(Period::Daily, now)
    }
}

fn utc_date(at: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(at).date()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Period;

    #[test]
    fn keys_and_ends_follow_the_utc_calendar() {
        let at = "2026-11-22T23:59:59Z".parse().unwrap();
        let seen = Period::ALL.map(|period| (period.key(at), period.ends(at).to_string()));
        let expected = [
            ("2026-11-22", "2026-11-23T00:00:00Z"),
            ("2026-W47", "2026-11-23T00:00:00Z"),
            ("2026-11", "2026-12-01T00:00:00Z"),
        ];
        assert_eq!(seen, expected.map(|(key, ends)| (key.to_owned(), ends.to_owned())));
    }

    #[test]
    fn a_period_starts_where_the_one_before_it_ends() {
        let mut at = "2027-01-05T12:00:00Z".parse().unwrap();
        for period in Period::ALL.into_iter().cycle().take(60) {
            let starts = period.starts(at);
            assert_eq!(period.ends(starts - jiff::SignedDuration::from_millis(1)), starts, "{at}");
            assert!(starts <= at && at < period.ends(starts));
            at = starts - jiff::SignedDuration::from_millis(1);
        }
    }

    #[test]
    fn the_iso_year_of_a_week_can_differ_from_the_calendar_year() {
        let at = "2027-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(Period::Weekly.key(at), "2026-W53");
        assert_eq!(Period::Weekly.ends(at).to_string(), "2027-01-04T00:00:00Z");
    }
}

//! What was used and what it cost, by time and by whatever a usage row says of itself (R21).
//!
//! The words are those of Anthropic's Usage and Cost Admin API, where it has one.

use jiff::{SignedDuration, Timestamp};

use super::Report;
use crate::spend::{Money, Split, table};
use crate::store::StoreError;

/// How long a bucket of time is; buckets begin at whole minutes, hours or days of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// `1m`.
    Minute,
    /// `1h`.
    Hour,
    /// `1d`.
    Day,
}

/// What rows can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The principal.
    Account,
    /// The billing group that a request's tag named.
    Workspace,
    /// The model's id in the catalogue.
    Model,
    /// The upstream that answered.
    Upstream,
    /// `standard` or `fast`.
    Speed,
    /// `0-200k` or `200k-1M`, by the tokens of the prompt.
    ContextWindow,
    /// The client's session.
    Session,
}

/// What a report is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The buckets' length.
    pub width: Width,
    /// The beginning of the first bucket.
    pub from: Timestamp,
    /// The end of the last bucket.
    pub until: Timestamp,
    /// One line for each of what these say; none: one line a bucket.
    pub by: Vec<Dimension>,
    /// Only rows that say one of these words there; no words: all rows.
    pub only: Vec<(Dimension, Vec<String>)>,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its bucket begins.
    pub bucket: Timestamp,
    /// What it says in each [`Wanted::by`].
    pub key: Vec<Option<String>>,
    /// What it adds up to.
    pub totals: Totals,
}

/// Sums over usage rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many requests.
    pub requests: i64,
    /// Input tokens that were not cached.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Tokens read from the prompt cache.
    pub cache_read: i64,
    /// Tokens written to it for five minutes.
    pub cache_write_5m: i64,
    /// Tokens written to it for an hour.
    pub cache_write_1h: i64,
    /// Web searches.
    pub web_searches: i64,
    /// What it cost.
    pub charge: Money,
    /// What that was for; less than the charge where some of it is estimated.
    pub split: Split,
}

impl Totals {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write_5m: self.cache_write_5m.saturating_add(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            web_searches: self.web_searches.saturating_add(other.web_searches),
            charge: self.charge.plus(other.charge),
            split: self.split.plus(&other.split),
        }
    }
}

impl Width {
    /// Its length in milliseconds.
    #[must_use]
    pub const fn millis(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// The beginning of the bucket that holds `at`.
    #[must_use]
    pub fn start(self, at: Timestamp) -> Timestamp {
        let millis = at.as_millisecond();
        Timestamp::from_millisecond(millis - millis.rem_euclid(self.millis())).unwrap_or(at)
    }

    /// The beginning of the bucket `count` later, or the end of time.
    #[must_use]
    pub fn later(self, bucket: Timestamp, count: usize) -> Timestamp {
        let millis = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(self.millis());
        bucket.checked_add(SignedDuration::from_millis(millis)).unwrap_or(Timestamp::MAX)
    }
}

impl Report {
    /// The lines of a report, by time and then by what they say; a bucket without requests has none.
    ///
    /// # Errors
    /// When the database does not answer, or not in time.
    pub async fn usage(&self, wanted: &Wanted) -> Result<Vec<Line>, StoreError> {
        table::usage_lines(&self.store, wanted).await
    }
}

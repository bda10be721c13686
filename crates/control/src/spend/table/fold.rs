//! Usage rows added up by the hour, so that a report over weeks need not read every one of them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::Rows;
use crate::spend::Money;
use crate::spend::report::usage::Width;
use crate::store::{Row, Store, StoreError, Tx};

/// A settlement of a request that began longer ago than this looks whether its hour has been added up already.
const LATE: SignedDuration = SignedDuration::from_hours(1);
/// Hours are added up when they have been over for this long. What lies between is for clocks that differ, and for
/// transactions that take their time.
const QUIET: SignedDuration = SignedDuration::from_hours(2);

/// Locked until the transaction ends: an hour is either added up with a row, or the row finds it added up without.
const FOLDED_UNTIL: &str = "SELECT until FROM usage_fold";
const MARK_LATE: &str = "
    INSERT INTO usage_late (hour) SELECT CAST(e.value->>0 AS BIGINT) FROM json_each($1) AS e WHERE true
    ON CONFLICT (hour) DO NOTHING";

async fn hold(tx: &mut Tx) -> Result<i64, StoreError> {
    tx.fetch_for_update(FOLDED_UNTIL, &[]).await?.first().map_or_else(|| Err(lost()), |row| row.int(0))
}

fn lost() -> StoreError {
    StoreError::inconsistent("usage_fold has no row".to_owned())
}

/// To be called in the transaction that adds or changes rows of requests that began then: hours that were added up without
/// them are added up again.
pub(in crate::spend) async fn mark_late(
    tx: &mut Tx,
    now: Timestamp,
    began: impl Iterator<Item = Timestamp>,
) -> Result<(), StoreError> {
    let hours: BTreeSet<i64> =
        began.filter(|at| *at < now - LATE).map(|at| Width::Hour.start(at).as_millisecond()).collect();
    if hours.is_empty() {
        return Ok(());
    }
    let until = hold(tx).await?;
    let late = Rows::of(hours.into_iter().filter(|hour| *hour < until), |row, hour| row.int(hour));
    match late.param_unless_empty() {
        Some(param) => tx.execute(MARK_LATE, &param).await.map(|_| ()),
        None => Ok(()),
    }
}

const NEXT_LATE: &str = "SELECT MIN(hour) FROM usage_late";
const NEXT: &str = "SELECT MIN(started_at) FROM usage WHERE started_at >= $1";
const FORGET_HOUR: &str = "DELETE FROM usage_hour WHERE hour = $1";
const NOT_LATE: &str = "DELETE FROM usage_late WHERE hour = $1";
const ADVANCE: &str = "UPDATE usage_fold SET until = $1 WHERE until < $1";
const ADD_UP: &str = "
    INSERT INTO usage_hour
        (hour, principal, billing_group, model, upstream, session_id, fast, long_prompt, requests, input_tokens,
         output_tokens, cache_read, cache_write_5m, cache_write_1h, web_searches, charge, charge_input,
         charge_cache_read, charge_cache_write_5m, charge_cache_write_1h, charge_output, charge_web_search)
    SELECT CAST($1 AS BIGINT), principal, billing_group, model, upstream, session_id, fast,
           CASE WHEN input_tokens + cache_read + cache_write_5m + cache_write_1h > 200000 THEN 1 ELSE 0 END,
           COUNT(*), CAST(SUM(input_tokens) AS BIGINT), CAST(SUM(output_tokens) AS BIGINT),
           CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write_5m) AS BIGINT), CAST(SUM(cache_write_1h) AS BIGINT),
           CAST(SUM(web_searches) AS BIGINT), CAST(SUM(charge) AS BIGINT), CAST(SUM(charge_input) AS BIGINT),
           CAST(SUM(charge_cache_read) AS BIGINT), CAST(SUM(charge_cache_write_5m) AS BIGINT),
           CAST(SUM(charge_cache_write_1h) AS BIGINT), CAST(SUM(charge_output) AS BIGINT),
           CAST(SUM(charge_web_search) AS BIGINT)
    FROM usage WHERE started_at >= $1 AND started_at < $2
    GROUP BY 2, 3, 4, 5, 6, 7, 8";

/// Adds up one hour; gives whether there may be another.
pub(in crate::spend) async fn fold_hour(store: &Store, now: Timestamp) -> Result<bool, StoreError> {
    // Nothing is lost with it: an hour and the word that it is added up are committed together.
    let mut tx = store.begin_lazily().await?;
    let until = hold(&mut tx).await?;
    let late = first_int(tx.fetch(NEXT_LATE, &[]).await?)?;
    if let Some(hour) = late {
        tx.execute(FORGET_HOUR, &[hour.into()]).await?;
        add_up(&mut tx, hour).await?;
        tx.execute(NOT_LATE, &[hour.into()]).await?;
        tx.commit().await?;
        return Ok(true);
    }
    let quiet = Width::Hour.start(now - QUIET).as_millisecond();
    let next = first_int(tx.fetch(NEXT, &[until.into()]).await?)?;
    let next = next.map(|at| at - at.rem_euclid(Width::Hour.millis())).filter(|hour| *hour < quiet);
    if let Some(hour) = next {
        add_up(&mut tx, hour).await?;
    }
    // Hours without a row are passed over.
    let done = next.map_or(quiet, |hour| hour + Width::Hour.millis());
    tx.execute(ADVANCE, &[done.into()]).await?;
    tx.commit().await?;
    Ok(next.is_some())
}

async fn add_up(tx: &mut Tx, hour: i64) -> Result<u64, StoreError> {
    tx.execute(ADD_UP, &[hour.into(), (hour + Width::Hour.millis()).into()]).await
}

fn first_int(rows: Vec<Row>) -> Result<Option<i64>, StoreError> {
    rows.first().map_or(Ok(None), |row| row.int_or_null(0))
}

/// Which hours are added up.
#[derive(Debug, Clone, Default)]
pub(super) struct Folded {
    until: i64,
    late: BTreeSet<i64>,
}

const LATE_HOURS: &str = "SELECT hour FROM usage_late WHERE hour >= $1 AND hour < $2";

impl Folded {
    /// As far as a report from then until then is concerned.
    pub(super) async fn read(store: &Store, from: Timestamp, until: Timestamp) -> Result<Self, StoreError> {
        let params = [from.as_millisecond().into(), until.as_millisecond().into()];
        // First: an hour that is added up again in between is then read row by row, and not missed.
        let late = store.fetch(LATE_HOURS, &params).await?;
        Self::of(&late, store.fetch_optional(FOLDED_UNTIL, &[]).await?)
    }

    fn of(late: &[Row], until: Option<Row>) -> Result<Self, StoreError> {
        let until = until.ok_or_else(lost)?.int(0)?;
        Ok(Self { until, late: late.iter().map(|row| row.int(0)).collect::<Result<_, _>>()? })
    }

    /// The time from `start` to `end`, which are beginnings of hours, cut into spans that are added up and spans that are not.
    pub(super) fn spans(&self, start: i64, end: i64) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut push = |from: i64, until: i64, folded: bool| {
            if from < until {
                spans.push(Span { from, until, folded });
            }
        };
        let (mut from, folded_until) = (start, end.min(self.until));
        for late in self.late.range(start..folded_until.max(start)) {
            push(from, *late, true);
            from = late + Width::Hour.millis();
            push(*late, from, false);
        }
        push(from, folded_until, true);
        push(from.max(folded_until), end, false);
        spans
    }
}

/// A stretch of time, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) until: i64,
    /// Its hours are added up.
    pub(super) folded: bool,
}

const RENAME_HOURS: &str = "UPDATE usage_hour SET principal = $1, session_id = NULL WHERE principal = $2";

/// To be called first in a transaction that comes after all usage rows of the subject are renamed.
pub(in crate::spend) async fn rename_hours(tx: &mut Tx, sub: &str, pseudonym: &str) -> Result<u64, StoreError> {
    hold(tx).await?;
    tx.execute(RENAME_HOURS, &[pseudonym.into(), sub.into()]).await
}

/// A day's worth of them, so that no statement holds up the ledger.
const SWEEP_HOURS: &str = "DELETE FROM usage_hour WHERE hour IN
    (SELECT hour FROM usage_hour WHERE hour < $1 GROUP BY hour ORDER BY hour LIMIT 24)";

/// Removes what was added up before then, the beginning of an hour; the rows it came from are counted where they go.
pub(in crate::spend) async fn sweep_hours(store: &Store, before: Timestamp) -> Result<(), StoreError> {
    while store.execute(SWEEP_HOURS, &[before.as_millisecond().into()]).await? > 0 {}
    Ok(())
}

/// An hour that is added up, compared with its rows.
const HOUR_APART: &str = "SELECT CAST(SUM(x.charge) AS BIGINT) FROM (
        SELECT charge, requests FROM usage_hour WHERE hour = $1
        UNION ALL SELECT -charge, -1 FROM usage WHERE started_at >= $1 AND started_at < $2
    ) AS x HAVING SUM(x.charge) <> 0 OR SUM(x.requests) <> 0";

/// The hours from then until then that are added up wrongly, and by how much their charges are too large together.
pub(in crate::spend) async fn hours_apart(
    tx: &mut Tx,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<(Timestamp, Money)>, StoreError> {
    let params = [from.as_millisecond().into(), until.as_millisecond().into()];
    let late = tx.fetch(LATE_HOURS, &params).await?;
    let folded = Folded::of(&late, tx.fetch_optional(FOLDED_UNTIL, &[]).await?)?;
    let (start, end) = (Width::Hour.start(from).as_millisecond(), until.as_millisecond());
    let mut apart = Vec::new();
    for Span { from, until, .. } in folded.spans(start, end).into_iter().filter(|span| span.folded) {
        for hour in (from..until).step_by(HOUR_MILLIS) {
            let row = tx.fetch_optional(HOUR_APART, &[hour.into(), (hour + Width::Hour.millis()).into()]).await?;
            if let Some(row) = row {
                let hour = Timestamp::from_millisecond(hour);
                let hour = hour.map_err(|_| StoreError::inconsistent("usage_hour.hour".to_owned()))?;
                apart.push((hour, Money::from_nano(row.int(0)?)));
            }
        }
    }
    Ok(apart)
}

const HOUR_MILLIS: usize = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn span(from: i64, until: i64, folded: bool) -> Span {
        Span { from: from * HOUR, until: until * HOUR, folded }
    }

    #[test]
    fn late_hours_and_the_latest_ones_are_read_row_by_row() {
        let folded = Folded { until: 20 * HOUR, late: [3, 7, 8, 19].map(|hour| hour * HOUR).into() };
        let spans = |from, until| folded.spans(from * HOUR, until * HOUR);
        assert_eq!(spans(9, 12), [span(9, 12, true)]);
        assert_eq!(spans(20, 24), [span(20, 24, false)]);
        assert_eq!(spans(30, 31), [span(30, 31, false)]);
        assert_eq!(spans(3, 4), [span(3, 4, false)]);
        assert_eq!(
            spans(0, 24),
            [
                span(0, 3, true),
                span(3, 4, false),
                span(4, 7, true),
                span(7, 8, false),
                span(8, 9, false),
                span(9, 19, true),
                span(19, 20, false),
                span(20, 24, false),
            ]
        );
        assert_eq!(spans(5, 5), []);
    }
}

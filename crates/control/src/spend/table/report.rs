//! Sums over usage rows.

use jiff::Timestamp;

use super::Rows;
use crate::spend::Money;
use crate::spend::report::usage::{Dimension, Line, Totals, Wanted, Width};
use crate::store::{Param, Row, Store, StoreError};

/// The dimension's column, or what takes its place.
const fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Account => "principal",
        Dimension::Workspace => "billing_group",
        Dimension::Model => "model",
        Dimension::Upstream => "upstream",
        Dimension::Session => "session_id",
        Dimension::Speed => "CASE WHEN fast = 1 THEN 'fast' ELSE 'standard' END",
        Dimension::ContextWindow => {
            "CASE WHEN input_tokens + cache_read + cache_write_5m + cache_write_1h > 200000 THEN '200k-1M' \
             ELSE '0-200k' END"
        }
    }
}

/// The statement for a report: made of the pieces above alone, what the caller says is bound.
fn statement(wanted: &Wanted) -> String {
    let width = match wanted.width {
        Width::Minute => "60000",
        Width::Hour => "3600000",
        Width::Day => "86400000",
    };
    let by: String = wanted.by.iter().map(|dimension| format!(", {}", column(*dimension))).collect();
    let places: String = (2..2 + wanted.by.len()).map(|place| format!(", {place}")).collect();
    let only: String = wanted
        .only
        .iter()
        .enumerate()
        .map(|(index, (dimension, _))| {
            let (column, param) = (column(*dimension), index + 3);
            format!(" AND {column} IN (SELECT e.value->>0 FROM json_each(${param}) AS e)")
        })
        .collect();
    format!(
        "SELECT started_at / {width}{by}, COUNT(*), CAST(SUM(input_tokens) AS BIGINT), \
         CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write_5m) AS BIGINT), \
         CAST(SUM(cache_write_1h) AS BIGINT), CAST(SUM(web_searches) AS BIGINT), CAST(SUM(charge) AS BIGINT) \
         FROM usage WHERE started_at >= $1 AND started_at < $2{only} GROUP BY 1{places} ORDER BY 1{places}"
    )
}

/// The lines of a report.
pub(in crate::spend) async fn usage_lines(store: &Store, wanted: &Wanted) -> Result<Vec<Line>, StoreError> {
    let lists: Vec<Rows> = wanted.only.iter().map(|(_, words)| Rows::of_texts(words.iter())).collect();
    let mut params: Vec<Param<'_>> = vec![wanted.from.as_millisecond().into(), wanted.until.as_millisecond().into()];
    params.extend(lists.iter().flat_map(Rows::param));
    let rows = store.fetch(&statement(wanted), &params).await?;
    rows.iter().map(|row| read_line(row, wanted)).collect()
}

fn read_line(row: &Row, wanted: &Wanted) -> Result<Line, StoreError> {
    let first = wanted.by.len() + 1;
    let bucket = Timestamp::from_millisecond(row.int(0)?.saturating_mul(wanted.width.millis()));
    let key = (1..first).map(|column| Ok(row.text_or_null(column)?.map(str::to_owned)));
    Ok(Line {
        bucket: bucket.map_err(|_| StoreError::inconsistent("usage.started_at".to_owned()))?,
        key: key.collect::<Result<_, StoreError>>()?,
        totals: Totals {
            requests: row.int(first)?,
            input: row.int(first + 1)?,
            output: row.int(first + 2)?,
            cache_read: row.int(first + 3)?,
            cache_write_5m: row.int(first + 4)?,
            cache_write_1h: row.int(first + 5)?,
            web_searches: row.int(first + 6)?,
            charge: Money::from_nano(row.int(first + 7)?),
        },
    })
}

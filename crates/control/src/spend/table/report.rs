//! Sums over usage rows.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
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

/// No statement sums over more than this: each ends within the time of a statement, and few lines come of it at once.
const CHUNK: Width = Width::Day;
/// How many statements of one report run at the same time.
const AT_ONCE: usize = 2;

/// The statement for a chunk: made of the pieces above alone, what the caller says is bound.
fn statement(wanted: &Wanted) -> String {
    let columns = wanted.by.iter().map(|dimension| column(*dimension));
    // A bucket as long as a chunk need not be reckoned: without that the database knows how few groups there will be.
    let bucket = match wanted.width {
        Width::Minute => Some("started_at / 60000"),
        Width::Hour => Some("started_at / 3600000"),
        Width::Day => None,
    };
    let groups: Vec<&str> = bucket.into_iter().chain(columns).collect();
    let leading: String = groups.iter().map(|group| format!("{group}, ")).collect();
    let places: Vec<String> = (1..=groups.len()).map(|place| place.to_string()).collect();
    let group_by = if places.is_empty() { String::new() } else { format!(" GROUP BY {}", places.join(", ")) };
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
        "SELECT {leading}COUNT(*), CAST(SUM(input_tokens) AS BIGINT), CAST(SUM(output_tokens) AS BIGINT), \
         CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write_5m) AS BIGINT), CAST(SUM(cache_write_1h) AS BIGINT), \
         CAST(SUM(web_searches) AS BIGINT), CAST(SUM(charge) AS BIGINT) \
         FROM usage WHERE started_at >= $1 AND started_at < $2{only}{group_by} HAVING COUNT(*) > 0"
    )
}

/// The lines of a report, in the order of [`Line`]s.
pub(in crate::spend) async fn usage_lines(store: &Store, wanted: &Wanted) -> Result<Vec<Line>, StoreError> {
    let sql = statement(wanted);
    let lists: Vec<Rows> = wanted.only.iter().map(|(_, words)| Rows::of_texts(words.iter())).collect();
    let starts = std::iter::successors(Some(wanted.from), |start| Some(CHUNK.later(CHUNK.start(*start), 1)));
    let chunks = starts.take_while(|start| *start < wanted.until).map(async |start| {
        let end = CHUNK.later(CHUNK.start(start), 1).min(wanted.until);
        let mut params: Vec<Param<'_>> = vec![start.as_millisecond().into(), end.as_millisecond().into()];
        params.extend(lists.iter().flat_map(Rows::param));
        let rows = store.fetch(&sql, &params).await?;
        let mut lines: Vec<Line> = rows.iter().map(|row| read_line(row, wanted, start)).collect::<Result<_, _>>()?;
        lines.sort_by(|a, b| a.bucket.cmp(&b.bucket).then_with(|| a.key.cmp(&b.key)));
        Ok(lines)
    });
    let lines: Vec<Vec<Line>> = stream::iter(chunks).buffered(AT_ONCE).try_collect().await?;
    Ok(lines.into_iter().flatten().collect())
}

fn read_line(row: &Row, wanted: &Wanted, chunk: Timestamp) -> Result<Line, StoreError> {
    let (bucket, keys) = match wanted.width {
        Width::Day => (chunk, 0),
        Width::Hour | Width::Minute => {
            let bucket = Timestamp::from_millisecond(row.int(0)?.saturating_mul(wanted.width.millis()));
            (bucket.map_err(|_| StoreError::inconsistent("usage.started_at".to_owned()))?, 1)
        }
    };
    let first = keys + wanted.by.len();
    let key = (keys..first).map(|column| Ok(row.text_or_null(column)?.map(str::to_owned)));
    Ok(Line {
        bucket,
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

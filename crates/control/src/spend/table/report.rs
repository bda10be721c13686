//! Sums over usage, from what was added up by the hour where that is done, and from the rows where it is not.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::Rows;
use super::fold::{Folded, Span};
use crate::spend::report::usage::{Dimension, Line, Totals, Wanted, Width};
use crate::spend::{Money, Split};
use crate::store::{Param, Row, Store, StoreError};

/// The dimension's column, or what takes its place.
const fn column(dimension: Dimension, folded: bool) -> &'static str {
    match dimension {
        Dimension::Account => "principal",
        Dimension::Workspace => "billing_group",
        Dimension::Model => "model",
        Dimension::Upstream => "upstream",
        Dimension::Session => "session_id",
        Dimension::Speed => "CASE WHEN fast = 1 THEN 'fast' ELSE 'standard' END",
        Dimension::ContextWindow if folded => "CASE WHEN long_prompt = 1 THEN '200k-1M' ELSE '0-200k' END",
        Dimension::ContextWindow => {
            "CASE WHEN input_tokens + cache_read + cache_write_5m + cache_write_1h > 200000 THEN '200k-1M' \
             ELSE '0-200k' END"
        }
    }
}

/// What is added up, in the order in which [`read_line`] reads it.
const SUMS: [&str; 13] = [
    "input_tokens",
    "output_tokens",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "web_searches",
    "charge",
    "charge_input",
    "charge_cache_read",
    "charge_cache_write_5m",
    "charge_cache_write_1h",
    "charge_output",
    "charge_web_search",
];

/// No statement sums over more than this: each ends within the time of a statement, and few lines come of it at once.
const CHUNK: Width = Width::Day;
/// How many statements of one report run at the same time.
const AT_ONCE: usize = 2;

/// The statement for a span of a chunk: made of the pieces above alone, what the caller says is bound.
fn statement(wanted: &Wanted, folded: bool) -> String {
    let (table, at, requests) = if folded {
        ("usage_hour", "hour", "CAST(SUM(requests) AS BIGINT)")
    } else {
        ("usage", "started_at", "COUNT(*)")
    };
    let columns = wanted.by.iter().map(|dimension| column(*dimension, folded).to_owned());
    // A bucket as long as a chunk need not be reckoned: without that the database knows how few groups there will be.
    let bucket = (wanted.width != CHUNK).then(|| format!("{at} / {}", wanted.width.millis()));
    let groups: Vec<String> = bucket.into_iter().chain(columns).collect();
    let leading: String = groups.iter().map(|group| format!("{group}, ")).collect();
    let places: Vec<String> = (1..=groups.len()).map(|place| place.to_string()).collect();
    let group_by = if places.is_empty() { String::new() } else { format!(" GROUP BY {}", places.join(", ")) };
    let sums: String = SUMS.iter().map(|column| format!(", CAST(SUM({column}) AS BIGINT)")).collect();
    let only: String = wanted
        .only
        .iter()
        .enumerate()
        .map(|(index, (dimension, _))| {
            let (column, param) = (column(*dimension, folded), index + 3);
            format!(" AND {column} IN (SELECT e.value->>0 FROM json_each(${param}) AS e)")
        })
        .collect();
    format!(
        "SELECT {leading}{requests}{sums} FROM {table} WHERE {at} >= $1 AND {at} < $2{only}{group_by} HAVING COUNT(*) > 0"
    )
}

/// The lines of a report, in the order of [`Line`]s.
pub(in crate::spend) async fn usage_lines(store: &Store, wanted: &Wanted) -> Result<Vec<Line>, StoreError> {
    let folded = match wanted.width {
        Width::Minute => Folded::default(),
        Width::Hour | Width::Day => Folded::read(store, wanted.from, wanted.until).await?,
    };
    let sql = [false, true].map(|folded| statement(wanted, folded));
    let lists: Vec<Rows> = wanted.only.iter().map(|(_, words)| Rows::of_texts(words.iter())).collect();
    let starts = std::iter::successors(Some(wanted.from), |start| Some(CHUNK.later(CHUNK.start(*start), 1)));
    let chunks = starts.take_while(|start| *start < wanted.until).map(async |start| {
        let end = CHUNK.later(CHUNK.start(start), 1).min(wanted.until);
        let mut lines: Vec<Line> = Vec::new();
        for Span { from, until, folded } in folded.spans(start.as_millisecond(), end.as_millisecond()) {
            let mut params: Vec<Param<'_>> = vec![from.into(), until.into()];
            params.extend(lists.iter().flat_map(Rows::param));
            for row in store.fetch(&sql[usize::from(folded)], &params).await? {
                lines.push(read_line(&row, wanted, start)?);
            }
        }
        lines.sort_by(|a, b| a.bucket.cmp(&b.bucket).then_with(|| a.key.cmp(&b.key)));
        // A bucket may lie in several spans.
        lines.dedup_by(|line, sum| {
            let same = line.bucket == sum.bucket && line.key == sum.key;
            if same {
                sum.totals = sum.totals.plus(&line.totals);
            }
            same
        });
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
    let money = |column: usize| row.int(first + column).map(Money::from_nano);
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
            charge: money(7)?,
            split: Split::new([money(8)?, money(9)?, money(10)?, money(11)?, money(12)?, money(13)?]),
        },
    })
}

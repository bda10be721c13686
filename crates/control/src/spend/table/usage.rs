//! One row for every request that has ended.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::cap::REVISION;
use super::reservation::{DELETE_RESERVATIONS, Found};
use super::{RowWriter, Rows, ids};
use crate::spend::Money;
use crate::spend::ledger::batch::Settle;
use crate::store::{Param, Statement, Store, StoreError, Tx};

const INSERT_USAGE: &str = "
    INSERT INTO usage
        (id, started_at, principal, groups, session_id, agent_id, parent_agent_id, billing_group, model_asked, model,
         model_sent, upstream, status, input_tokens, output_tokens, cache_read, cache_write_5m, cache_write_1h,
         web_searches, fast, charge, estimated, ms, ttfb_ms, account, day, week, month, pool, charge_input,
         charge_cache_read, charge_cache_write_5m, charge_cache_write_1h, charge_output, charge_web_search)
    SELECT e.value->>0, CAST(e.value->>1 AS BIGINT), e.value->>2, e.value->>3, e.value->>4, e.value->>5, e.value->>6,
           e.value->>7, e.value->>8, e.value->>9, e.value->>10, e.value->>11, CAST(e.value->>12 AS BIGINT),
           CAST(e.value->>13 AS BIGINT), CAST(e.value->>14 AS BIGINT), CAST(e.value->>15 AS BIGINT),
           CAST(e.value->>16 AS BIGINT), CAST(e.value->>17 AS BIGINT), CAST(e.value->>18 AS BIGINT),
           CAST(e.value->>19 AS BIGINT), CAST(e.value->>20 AS BIGINT), CAST(e.value->>21 AS BIGINT),
           CAST(e.value->>22 AS BIGINT), CAST(e.value->>23 AS BIGINT), e.value->>24, e.value->>25, e.value->>26,
           e.value->>27, e.value->>28, CAST(e.value->>29 AS BIGINT), CAST(e.value->>30 AS BIGINT),
           CAST(e.value->>31 AS BIGINT), CAST(e.value->>32 AS BIGINT), CAST(e.value->>33 AS BIGINT),
           CAST(e.value->>34 AS BIGINT)
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

pub(in crate::spend) fn write_usage(row: &mut RowWriter<'_>, settle: &Settle) {
    let (record, outcome) = (&settle.record, &settle.outcome);
    let usage = &outcome.usage;
    let millis = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    row.id(record.id);
    row.int(record.started_at.as_millisecond());
    row.text(&record.principal.sub);
    row.groups(&record.principal);
    row.origin(&record.origin);
    row.text(&record.model.id);
    row.text_or_null(outcome.model_sent.as_deref());
    row.text_or_null(outcome.upstream.as_deref());
    row.int_or_null(outcome.status.map(i64::from));
    row.count(usage.input_tokens);
    row.count(usage.output_tokens);
    row.count(usage.cache_read_input_tokens);
    row.count(usage.cache_creation_5m_tokens);
    row.count(usage.cache_creation_1h_tokens);
    row.count(usage.web_search_requests);
    row.int(i64::from(usage.fast));
    row.int(outcome.charge.nano());
    row.int(i64::from(outcome.estimated));
    row.int_or_null(millis(outcome.ms));
    row.int_or_null(millis(outcome.ttfb_ms));
    row.text(&record.account);
    row.periods(&record.keys);
    row.text_or_null(settle.pool.as_deref());
    outcome.split.amounts().into_iter().for_each(|amount| row.int(amount.nano()));
}

const HAS_SPEND: &str = "
    SELECT 1 WHERE EXISTS (SELECT 1 FROM usage WHERE charge > 0) OR EXISTS (SELECT 1 FROM account WHERE settled > 0)";

pub(in crate::spend) async fn has_spend(store: &Store) -> Result<bool, StoreError> {
    Ok(store.fetch_optional(HAS_SPEND, &[]).await?.is_some())
}

/// What recording settlements has told.
#[derive(Debug)]
pub(in crate::spend) struct Settled {
    /// Ids that were not settled before.
    pub(in crate::spend) new: HashSet<Uuid>,
    /// Reservations that ended.
    pub(in crate::spend) ended: Vec<Found>,
    /// The revision of the caps.
    pub(in crate::spend) caps_revision: i64,
}

/// Writes usage, ends reservations, those of requests that were never made too, and looks whether caps have changed, in one
/// round trip.
pub(in crate::spend) async fn settle(
    tx: &mut Tx,
    settles: &[Settle],
    withdrawn: &HashSet<Uuid>,
) -> Result<Settled, StoreError> {
    let rows = Rows::of(settles.iter(), write_usage);
    let ended = Rows::of_ids(settles.iter().map(|settle| settle.record.id).chain(withdrawn.iter().copied()));
    let (usage, ended, name) = (rows.param(), ended.param(), [Param::Text(crate::spend::cap::TOPIC)]);
    let revision: Statement<'_> = (REVISION, &name);
    let statements = [revision, (INSERT_USAGE, &usage), (DELETE_RESERVATIONS, &ended)];
    let nothing_ended = settles.is_empty() && withdrawn.is_empty();
    let wanted = if nothing_ended { &statements[..1] } else { &statements[..] };
    let mut answers = tx.fetch_all(wanted).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    Ok(Settled {
        caps_revision: next().first().map_or(Ok(0), |row| row.int(0))?,
        new: ids(&next())?,
        ended: next().iter().map(Found::read).collect::<Result<_, _>>()?,
    })
}

/// `upstream IS NULL`: only the sweeper writes an estimate without one, and only that is replaced.
const SWEPT: &str =
    "SELECT charge, pool FROM usage WHERE id = $1 AND estimated = 1 AND upstream IS NULL AND status IS NULL";
const REPLACE_SWEPT: &str = "
    UPDATE usage SET upstream = $1, status = $2, input_tokens = $3, output_tokens = $4, cache_read = $5,
        cache_write_5m = $6, cache_write_1h = $7, web_searches = $8, fast = $9, charge = $10, estimated = $11, ms = $12,
        ttfb_ms = $13, model_sent = $14, charge_input = $15, charge_cache_read = $16, charge_cache_write_5m = $17,
        charge_cache_write_1h = $18, charge_output = $19, charge_web_search = $20
    WHERE id = $21";

/// Puts a late settlement in the place of the sweeper's estimate; gives what that changes, and the account of the pool that was
/// charged too. `None` when it was settled already.
pub(in crate::spend) async fn replace_estimate(
    tx: &mut Tx,
    settle: &Settle,
) -> Result<Option<(Money, Option<Arc<str>>)>, StoreError> {
    let id = settle.record.id.to_string();
    let (outcome, usage) = (&settle.outcome, &settle.outcome.usage);
    if outcome.status.is_none() {
        return Ok(None);
    }
    let Some(swept) = tx.fetch_optional(SWEPT, &[(&id).into()]).await? else { return Ok(None) };
    let (estimate, pool) = (Money::from_nano(swept.int(0)?), swept.text_or_null(1)?.map(Arc::from));
    let whole = |value: u64| Param::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let mut params: Vec<Param<'_>> = vec![
        outcome.upstream.as_ref().into(),
        outcome.status.map(i64::from).into(),
        whole(usage.input_tokens),
        whole(usage.output_tokens),
        whole(usage.cache_read_input_tokens),
        whole(usage.cache_creation_5m_tokens),
        whole(usage.cache_creation_1h_tokens),
        whole(usage.web_search_requests),
        i64::from(usage.fast).into(),
        outcome.charge.nano().into(),
        i64::from(outcome.estimated).into(),
        outcome.ms.map_or(Param::Null, whole),
        outcome.ttfb_ms.map_or(Param::Null, whole),
        outcome.model_sent.as_ref().into(),
    ];
    params.extend(outcome.split.amounts().map(|amount| Param::from(amount.nano())));
    params.push((&id).into());
    tx.execute(REPLACE_SWEPT, &params).await?;
    Ok(Some((outcome.charge.minus(estimate), pool)))
}

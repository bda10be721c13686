//! What a proof of the books reads: in pieces, because no statement may take long, and all in one snapshot, because requests go
//! on meanwhile.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::spend::Money;
use crate::store::{Row, StoreError, Tx};

/// A period and an account.
type Key = (String, String);

const ASIDE: &str = "SELECT x.period, x.account, CAST(SUM(x.amount) AS BIGINT) FROM (
            SELECT account, day AS period, amount FROM reservation
            UNION ALL SELECT account, week, amount FROM reservation
            UNION ALL SELECT account, month, amount FROM reservation
            UNION ALL SELECT pool, month, amount FROM reservation WHERE pool IS NOT NULL
            UNION ALL SELECT account, day, amount FROM lease
            UNION ALL SELECT account, week, amount FROM lease
            UNION ALL SELECT account, month, amount FROM lease
        ) AS x GROUP BY x.period, x.account";

/// What requests in flight and leases have set aside.
pub(in crate::spend) async fn aside(tx: &mut Tx) -> Result<HashMap<Key, Money>, StoreError> {
    let sum = |row: &Row| Ok((key(row)?, Money::from_nano(row.int(2)?)));
    tx.fetch(ASIDE, &[]).await?.iter().map(sum).collect()
}

const RESERVED: &str = "SELECT period, id, reserved FROM account WHERE (period, id) > ($1, $2)
    ORDER BY period, id LIMIT 10000";

/// The accounts that follow one, with what they say is set aside; none after the last.
pub(in crate::spend) async fn reserved_after(tx: &mut Tx, after: &Key) -> Result<Vec<(Key, Money)>, StoreError> {
    let rows = tx.fetch(RESERVED, &[(&after.0).into(), (&after.1).into()]).await?;
    rows.iter().map(|row| Ok((key(row)?, Money::from_nano(row.int(2)?)))).collect()
}

const SETTLED: &str = "SELECT period, id, settled FROM account WHERE period = $1 AND id > $2 ORDER BY id LIMIT 10000";

/// As [`reserved_after`], within one period, with what they say is settled.
pub(in crate::spend) async fn settled_after(tx: &mut Tx, after: &Key) -> Result<Vec<(Key, Money)>, StoreError> {
    let rows = tx.fetch(SETTLED, &[(&after.0).into(), (&after.1).into()]).await?;
    rows.iter().map(|row| Ok((key(row)?, Money::from_nano(row.int(2)?)))).collect()
}

fn key(row: &Row) -> Result<Key, StoreError> {
    Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))
}

const FIRST_USAGE: &str = "SELECT MIN(started_at) FROM usage WHERE started_at >= $1 AND started_at < $2";

/// When the first request of a time began; `None` without any.
pub(in crate::spend) async fn first_usage(
    tx: &mut Tx,
    from: Timestamp,
    until: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let params = [from.as_millisecond().into(), until.as_millisecond().into()];
    let Some(row) = tx.fetch_optional(FIRST_USAGE, &params).await? else { return Ok(None) };
    let at = |ms| Timestamp::from_millisecond(ms).map_err(|_| StoreError::inconsistent("usage.started_at".to_owned()));
    row.int_or_null(0)?.map(at).transpose()
}

/// Of an account, and of the pool that was charged too.
#[derive(Debug)]
pub(in crate::spend) struct Charged {
    pub(in crate::spend) account: String,
    pub(in crate::spend) pool: Option<String>,
    pub(in crate::spend) charge: Money,
}

const CHARGED: &str = "SELECT account, pool, CAST(SUM(charge) AS BIGINT) FROM usage
    WHERE started_at >= $1 AND started_at < $2 GROUP BY account, pool";

/// What the requests of a time were charged.
pub(in crate::spend) async fn charged(
    tx: &mut Tx,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Charged>, StoreError> {
    let rows = tx.fetch(CHARGED, &[from.as_millisecond().into(), until.as_millisecond().into()]).await?;
    let read = |row: &Row| {
        let (account, pool) = (row.text(0)?.to_owned(), row.text_or_null(1)?.map(str::to_owned));
        Ok(Charged { account, pool, charge: Money::from_nano(row.int(2)?) })
    };
    rows.iter().map(read).collect()
}

//! Table `rate_limits`.

use crate::store::{Param, Store, StoreError};

/// One statement, so that two replicas cannot both take the last place.
const HIT: &str = "INSERT INTO rate_limits (bucket, hits, resets_at) VALUES ($1, 1, $2)
    ON CONFLICT (bucket) DO UPDATE SET
        hits = CASE WHEN rate_limits.resets_at <= $3 THEN 1 ELSE rate_limits.hits + 1 END,
        resets_at = CASE WHEN rate_limits.resets_at <= $3 THEN excluded.resets_at ELSE rate_limits.resets_at END
    RETURNING hits, resets_at";

const STANDING: &str = "SELECT hits, resets_at FROM rate_limits WHERE bucket = $1 AND resets_at > $2";

const SWEEP: &str = "DELETE FROM rate_limits WHERE bucket IN
    (SELECT bucket FROM rate_limits WHERE resets_at <= $1 LIMIT 2000)";

/// Hits of the window so far, and when it ends.
pub(super) async fn hit(store: &Store, bucket: &str, resets_at: i64, now: i64) -> Result<(i64, i64), StoreError> {
    let params = [Param::Text(bucket), Param::Int(resets_at), Param::Int(now)];
    let row = store.fetch_optional(HIT, &params).await?;
    let row = row.ok_or_else(|| StoreError::inconsistent("rate_limits: an upsert returned no row"))?;
    Ok((row.int(0)?, row.int(1)?))
}

/// Hits of the window under way, and when it ends.
pub(super) async fn standing(store: &Store, bucket: &str, now: i64) -> Result<Option<(i64, i64)>, StoreError> {
    let row = store.fetch_optional(STANDING, &[Param::Text(bucket), Param::Int(now)]).await?;
    row.map(|row| Ok((row.int(0)?, row.int(1)?))).transpose()
}

pub(super) async fn sweep(store: &Store, now: i64) -> Result<u64, StoreError> {
    store.execute_in_portions(SWEEP, &[Param::Int(now)]).await
}

//! Who has been seen, and what they have spent.

use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;

use super::{AccountKey, Rows};
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::report::Order;
use crate::spend::{Money, Period};
use crate::store::{Row, Store, StoreError};

const PUT_PRINCIPALS: &str = "
    INSERT INTO principal (sub, email, name, groups, seen_at)
    SELECT e.value->>0, e.value->>1, e.value->>2, e.value->>3, CAST(e.value->>4 AS BIGINT)
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (sub) DO UPDATE
    SET email = excluded.email, name = excluded.name, groups = excluded.groups, seen_at = excluded.seen_at";

pub(in crate::spend) async fn put_principals(
    store: &Store,
    principals: impl Iterator<Item = &Arc<Principal>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = Rows::of(principals, |row, principal| {
        row.text(&principal.sub);
        row.text_or_null(principal.email.as_deref());
        row.text_or_null(principal.name.as_deref());
        row.groups(principal);
        row.int(now.as_millisecond());
    });
    store.execute(PUT_PRINCIPALS, &rows.param()).await.map(|_| ())
}

macro_rules! principal_columns {
    () => {
        "p.sub, p.email, p.name, p.groups"
    };
}

macro_rules! principal_matches {
    () => {
        "($1 = '' OR LOWER(p.sub) LIKE $1 ESCAPE '\\' OR LOWER(COALESCE(p.email, '')) LIKE $1 ESCAPE '\\' \
         OR LOWER(COALESCE(p.name, '')) LIKE $1 ESCAPE '\\')"
    };
}

const PRINCIPALS_NAMED: &str = concat!(
    "SELECT ",
    principal_columns!(),
    " FROM principal AS p WHERE p.sub IN (SELECT e.value->>0 FROM json_each($1) AS e)"
);
const PRINCIPALS_BY_SUBJECT: &str = concat!(
    "SELECT ",
    principal_columns!(),
    " FROM principal AS p WHERE ",
    principal_matches!(),
    " AND p.sub > $2 ORDER BY p.sub LIMIT $3"
);
/// `$3` is the last amount seen, and `$4` the last subject.
const PRINCIPALS_BY_SPEND: &str = concat!(
    "SELECT ",
    principal_columns!(),
    ", COALESCE(a.settled, 0) FROM principal AS p LEFT JOIN account AS a ON a.period = $2 AND a.id = 'user:' || p.sub \
     WHERE ",
    principal_matches!(),
    " AND (COALESCE(a.settled, 0) < $3 OR (COALESCE(a.settled, 0) = $3 AND p.sub > $4)) \
     ORDER BY COALESCE(a.settled, 0) DESC, p.sub LIMIT $5"
);

fn read_principal(row: &Row) -> Result<Arc<Principal>, StoreError> {
    let sub = row.text(0)?;
    let groups = serde_json::from_str(row.text(3)?)
        .map_err(|_| StoreError::inconsistent(format!("principal.groups of {sub} is not a list of names")))?;
    Ok(Arc::new(Principal {
        sub: sub.to_owned(),
        email: row.text_or_null(1)?.map(str::to_owned),
        name: row.text_or_null(2)?.map(str::to_owned),
        groups,
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    }))
}

/// In the order given; one never seen has nothing but its subject.
pub(in crate::spend) async fn named_principals(
    store: &Store,
    subs: &[String],
) -> Result<Vec<Arc<Principal>>, StoreError> {
    let rows = Rows::of_texts(subs.iter());
    let found = store.fetch(PRINCIPALS_NAMED, &rows.param()).await?;
    let mut known: HashMap<String, Arc<Principal>> = HashMap::new();
    for row in &found {
        let principal = read_principal(row)?;
        known.insert(principal.sub.clone(), principal);
    }
    let unseen = |sub: &String| {
        Arc::new(Principal {
            sub: sub.clone(),
            email: None,
            name: None,
            groups: Vec::new(),
            session: None,
            groups_unread: false,
            billing_group_tag: None,
        })
    };
    Ok(subs.iter().map(|sub| known.get(sub).cloned().unwrap_or_else(|| unseen(sub))).collect())
}

/// Principals in an order, each with what it has spent in the order's period (nothing when ordered by subject).
pub(in crate::spend) async fn principals(
    store: &Store,
    q: &str,
    order: &Order,
    keys: &Keys,
    limit: usize,
) -> Result<Vec<(Arc<Principal>, Money)>, StoreError> {
    let pattern = like(q);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match order {
        Order::Subject { after } => {
            let after = after.as_deref().unwrap_or("");
            let rows = store.fetch(PRINCIPALS_BY_SUBJECT, &[(&pattern).into(), after.into(), limit.into()]).await?;
            rows.iter().map(|row| Ok((read_principal(row)?, Money::ZERO))).collect()
        }
        Order::Spend { period, after } => {
            let (amount, sub) = after.as_ref().map_or((i64::MAX, ""), |(amount, sub)| (amount.nano(), sub.as_str()));
            let params = [(&pattern).into(), keys.key(*period).into(), amount.into(), sub.into(), limit.into()];
            let rows = store.fetch(PRINCIPALS_BY_SPEND, &params).await?;
            rows.iter().map(|row| Ok((read_principal(row)?, Money::from_nano(row.int(4)?)))).collect()
        }
    }
}

/// A LIKE pattern for text that holds `q`, whatever its signs; empty for everything.
fn like(q: &str) -> String {
    if q.is_empty() {
        return String::new();
    }
    let mut pattern = String::from("%");
    for c in q.replace('\0', "").to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

const SETTLED: &str = "SELECT period, id, settled FROM account
    WHERE period IN ($1, $2, $3) AND id IN (SELECT e.value->>0 FROM json_each($4) AS e)";

/// What accounts have spent in the current periods, by period and account.
pub(in crate::spend) async fn settled(
    store: &Store,
    accounts: &[Arc<str>],
    keys: &Keys,
) -> Result<HashMap<AccountKey, Money>, StoreError> {
    let rows = Rows::of_texts(accounts.iter());
    let [day, week, month] = Period::ALL.map(|period| keys.key(period));
    let rows = store.fetch(SETTLED, &[day.into(), week.into(), month.into(), rows.param()[0]]).await?;
    rows.iter().map(|row| Ok(((row.text(0)?.into(), row.text(1)?.into()), Money::from_nano(row.int(2)?)))).collect()
}

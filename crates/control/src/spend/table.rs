//! The tables of spend. One text per statement; lists of rows travel as one JSON array of arrays, so that a statement's
//! text does not depend on how many there are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use super::cap::{Cap, From, Page, Scope};
use super::ledger::account::{Balance, Snapshot};
use super::ledger::batch::{Record, Settle};
use super::period::Keys;
use super::report::Order;
use super::{Money, Period};
use crate::identity::Principal;
use crate::store::{Param, Row, Statement, Store, StoreError, Tx};

/// The name of a period and the account of its payer: the key of an account's row.
pub(super) type AccountKey = (Arc<str>, Arc<str>);

/// Rows on their way into a statement, written as they are named.
#[derive(Debug)]
pub(super) struct Rows(String);

/// One row being written.
#[derive(Debug)]
pub(super) struct RowWriter<'a>(&'a mut String);

impl Rows {
    /// One row per item.
    pub(super) fn of<T>(items: impl Iterator<Item = T>, write: impl Fn(&mut RowWriter<'_>, T)) -> Self {
        let mut rows = String::from("[");
        for item in items {
            rows.push_str(if rows.len() > 1 { ",[" } else { "[" });
            write(&mut RowWriter(&mut rows), item);
            rows.push(']');
        }
        rows.push(']');
        Self(rows)
    }

    /// Rows of one text each.
    pub(super) fn of_texts<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> Self {
        Self::of(texts, |row, text| row.text(text.as_ref()))
    }

    /// Rows of one id each.
    pub(super) fn of_ids(ids: impl Iterator<Item = Uuid>) -> Self {
        Self::of(ids, |row, id| row.id(id))
    }

    fn param(&self) -> [Param<'_>; 1] {
        [Param::Text(&self.0)]
    }

    fn param_unless_empty(&self) -> Option<[Param<'_>; 1]> {
        (self.0 != "[]").then(|| self.param())
    }
}

impl RowWriter<'_> {
    fn separate(&mut self) {
        if !self.0.ends_with('[') {
            self.0.push(',');
        }
    }

    /// Text that a database takes: PostgreSQL has no NUL, and one in a client's header must not spoil a batch.
    pub(super) fn text(&mut self, value: &str) {
        self.separate();
        let clean =
            if value.contains('\0') { Cow::Owned(value.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(value) };
        self.json(&clean);
    }

    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        // Text and lists of text always serialise.
        self.0.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
    }

    pub(super) fn text_or_null(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    fn null(&mut self) {
        self.separate();
        self.0.push_str("null");
    }

    pub(super) fn int(&mut self, value: i64) {
        self.separate();
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, "{value}");
    }

    fn int_or_null(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    fn count(&mut self, value: u64) {
        self.int(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn id(&mut self, id: Uuid) {
        self.separate();
        let _ = write!(self.0, "\"{id}\"");
    }

    /// The groups as the text of a JSON list.
    fn groups(&mut self, principal: &Principal) {
        self.separate();
        let list = serde_json::to_string(&principal.groups).unwrap_or_else(|_| "[]".to_owned());
        // An escaped NUL in it would be one again in the column.
        self.json(&list.replace("\\u0000", "\u{fffd}"));
    }

    /// Day, week, month.
    fn periods(&mut self, keys: &Keys) {
        for period in Period::ALL {
            self.text(keys.key(period));
        }
    }
}

fn ids(rows: &[Row]) -> Result<HashSet<String>, StoreError> {
    rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
}

// --- Accounts -----------------------------------------------------------------------------------------------------

/// Ordered, so that every replica locks in the same order and none waits for one that waits for it.
const LOCK_ACCOUNTS: &str = "
    SELECT account.period, account.id, account.settled, account.reserved
    FROM json_each($1) AS e CROSS JOIN account
    WHERE account.period = e.value->>0 AND account.id = e.value->>1
    ORDER BY account.period, account.id";

/// Takes the rows for the rest of the transaction; those that do not exist are left out.
pub(super) async fn lock_accounts(
    tx: &mut Tx,
    rows: &BTreeSet<AccountKey>,
) -> Result<HashMap<AccountKey, Balance>, StoreError> {
    let rows = Rows::of(rows.iter(), write_key);
    let rows = tx.fetch_for_update(LOCK_ACCOUNTS, &rows.param()).await?;
    rows.iter()
        .map(|row| {
            let settled = Money::from_nano(row.int(2)?);
            let reserved = Money::from_nano(row.int(3)?);
            Ok(((row.text(0)?.into(), row.text(1)?.into()), Balance { settled, reserved }))
        })
        .collect()
}

fn write_key(row: &mut RowWriter<'_>, (period, account): &AccountKey) {
    row.text(period);
    row.text(account);
}

const CREATE_ACCOUNTS: &str = "
    INSERT INTO account (period, id, settled, reserved)
    SELECT e.value->>0, e.value->>1, 0, 0 FROM json_each($1) AS e WHERE true
    ON CONFLICT (period, id) DO NOTHING";

/// Creates rows without spend; one that exists is left alone.
pub(super) async fn create_accounts(tx: &mut Tx, rows: impl Iterator<Item = &AccountKey>) -> Result<(), StoreError> {
    let rows = Rows::of(rows, write_key);
    tx.execute(CREATE_ACCOUNTS, &rows.param()).await.map(|_| ())
}

const CHANGE_ACCOUNTS: &str = "
    INSERT INTO account (period, id, settled, reserved)
    SELECT e.value->>0, e.value->>1, CAST(e.value->>2 AS BIGINT), CAST(e.value->>3 AS BIGINT)
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (period, id) DO UPDATE
    SET settled = account.settled + excluded.settled, reserved = account.reserved + excluded.reserved";

fn rows_of_deltas(deltas: &BTreeMap<AccountKey, Balance>) -> Rows {
    Rows::of(deltas.iter(), |row, (key, delta)| {
        write_key(row, key);
        row.int(delta.settled.nano());
        row.int(delta.reserved.nano());
    })
}

/// Inserts new reservations, adds to accounts (creating the missing ones), and commits.
pub(super) async fn finish(
    tx: Tx,
    reservations: Rows,
    deltas: &BTreeMap<AccountKey, Balance>,
) -> Result<(), StoreError> {
    let changes = rows_of_deltas(deltas);
    let (reservations, changes) = (reservations.param_unless_empty(), changes.param_unless_empty());
    let insert = reservations.as_ref().map(|rows| (INSERT_RESERVATIONS, &rows[..]));
    let change = changes.as_ref().map(|rows| (CHANGE_ACCOUNTS, &rows[..]));
    let statements: Vec<Statement<'_>> = insert.into_iter().chain(change).collect();
    tx.finish(&statements).await
}

const READ_ACCOUNT: &str = "SELECT period, settled, reserved FROM account WHERE id = $1 AND period IN ($2, $3, $4)";

pub(super) async fn read_account(
    store: &Store,
    account: &str,
    keys: &Arc<Keys>,
    read_at: Instant,
) -> Result<Snapshot, StoreError> {
    let [day, week, month] = Period::ALL.map(|period| keys.key(period));
    let rows = store.fetch(READ_ACCOUNT, &[account.into(), day.into(), week.into(), month.into()]).await?;
    let mut balances = [Balance::default(); 3];
    for row in &rows {
        let key = row.text(0)?;
        let balance = Balance { settled: Money::from_nano(row.int(1)?), reserved: Money::from_nano(row.int(2)?) };
        if let Some(period) = Period::ALL.into_iter().find(|period| **keys.key(*period) == *key) {
            balances[period as usize] = balance;
        }
    }
    Ok(Snapshot { keys: Arc::clone(keys), balances, read_at })
}

// --- Reservations -------------------------------------------------------------------------------------------------

const INSERT_RESERVATIONS: &str = "
    INSERT INTO reservation
        (id, account, day, week, month, amount, replica, expires_at, started_at, principal, groups, model, session_id)
    SELECT e.value->>0, e.value->>1, e.value->>2, e.value->>3, e.value->>4, CAST(e.value->>5 AS BIGINT),
           e.value->>6, CAST(e.value->>7 AS BIGINT), CAST(e.value->>8 AS BIGINT), e.value->>9, e.value->>10,
           e.value->>11, e.value->>12
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

pub(super) fn write_reservation(
    row: &mut RowWriter<'_>,
    record: &Record,
    amount: Money,
    replica: &str,
    expires_at: Timestamp,
) {
    row.id(record.id);
    row.text(&record.account);
    row.periods(&record.keys);
    row.int(amount.nano());
    row.text(replica);
    row.int(expires_at.as_millisecond());
    row.int(record.started_at.as_millisecond());
    row.text(&record.principal.sub);
    row.groups(&record.principal);
    row.text(&record.model.id);
    row.text_or_null(record.session_id.as_deref());
}

/// Gives the ids that were not there before.
pub(super) async fn insert_reservations(tx: &mut Tx, rows: &Rows) -> Result<HashSet<String>, StoreError> {
    ids(&tx.fetch(INSERT_RESERVATIONS, &rows.param()).await?)
}

/// A reservation that was found in the table.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: Uuid,
    pub(super) amount: Money,
    account: Arc<str>,
    keys: [Arc<str>; 3],
}

impl Found {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let id = row.text(0)?;
        Ok(Self {
            id: id.parse().map_err(|_| StoreError::inconsistent(format!("reservation.id {id} is not a UUID")))?,
            account: row.text(1)?.into(),
            keys: [row.text(2)?.into(), row.text(3)?.into(), row.text(4)?.into()],
            amount: Money::from_nano(row.int(5)?),
        })
    }

    /// Counts `reserved` more in its account.
    pub(super) fn add_to(&self, deltas: &mut BTreeMap<AccountKey, Balance>, reserved: Money) {
        for key in &self.keys {
            let delta = deltas.entry((key.clone(), self.account.clone())).or_default();
            delta.reserved = delta.reserved.plus(reserved);
        }
    }
}

const DELETE_RESERVATIONS: &str = "
    DELETE FROM reservation WHERE id IN (SELECT e.value->>0 FROM json_each($1) AS e)
    RETURNING id, account, day, week, month, amount";

pub(super) async fn delete_reservations(tx: &mut Tx, ids: &Rows) -> Result<Vec<Found>, StoreError> {
    tx.fetch(DELETE_RESERVATIONS, &ids.param()).await?.iter().map(Found::read).collect()
}

const GROW_RESERVATIONS: &str = "
    UPDATE reservation SET amount = amount + CAST(e.value->>1 AS BIGINT)
    FROM json_each($1) AS e WHERE reservation.id = e.value->>0
    RETURNING reservation.id, reservation.account, reservation.day, reservation.week, reservation.month,
              reservation.amount";

pub(super) async fn grow_reservations(tx: &mut Tx, rows: &Rows) -> Result<Vec<Found>, StoreError> {
    tx.fetch(GROW_RESERVATIONS, &rows.param()).await?.iter().map(Found::read).collect()
}

const RENEW: &str = "UPDATE reservation SET expires_at = $1 WHERE replica = $2";

pub(super) async fn renew_reservations(store: &Store, replica: &str, until: Timestamp) -> Result<u64, StoreError> {
    store.execute(RENEW, &[until.as_millisecond().into(), replica.into()]).await
}

/// `$2` is a replica whose reservations are alive whatever their expiry says: the one that asks.
const EXPIRED: &str = "SELECT id FROM reservation WHERE expires_at < $1 AND replica <> $2 ORDER BY id LIMIT 500";

/// Settles at its estimate what no living replica will settle. The usage row says so, and the real charge replaces it if
/// it still comes.
const SETTLE_EXPIRED: &str = "
    INSERT INTO usage
        (id, started_at, principal, groups, session_id, model, input_tokens, output_tokens, cache_read, cache_write_5m,
         cache_write_1h, web_searches, fast, charge, estimated, account, day, week, month)
    SELECT id, started_at, principal, groups, session_id, model, 0, 0, 0, 0, 0, 0, 0, amount, 1, account, day, week,
           month
    FROM reservation WHERE id IN (SELECT e.value->>0 FROM json_each($1) AS e)
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

/// Settles expired reservations at their estimates; gives how many there were.
pub(super) async fn sweep_expired(store: &Store, before: Timestamp, replica: &str) -> Result<usize, StoreError> {
    let expired = store.fetch(EXPIRED, &[before.as_millisecond().into(), replica.into()]).await?;
    if expired.is_empty() {
        return Ok(0);
    }
    let rows = Rows::of_texts(ids(&expired)?.into_iter());
    let mut tx = store.begin().await?;
    let new = ids(&tx.fetch(SETTLE_EXPIRED, &rows.param()).await?)?;
    let mut deltas = BTreeMap::new();
    let mut settled = 0;
    // Only what this transaction takes away is counted: another replica may be sweeping too.
    for ended in delete_reservations(&mut tx, &rows).await? {
        ended.add_to(&mut deltas, Money::ZERO.minus(ended.amount));
        if new.contains(&ended.id.to_string()) {
            for key in &ended.keys {
                let delta = deltas.entry((key.clone(), ended.account.clone())).or_default();
                delta.settled = delta.settled.plus(ended.amount);
            }
            settled += 1;
        }
    }
    finish(tx, Rows::of_ids(std::iter::empty()), &deltas).await?;
    Ok(settled)
}

// --- Usage --------------------------------------------------------------------------------------------------------

const INSERT_USAGE: &str = "
    INSERT INTO usage
        (id, started_at, principal, groups, session_id, model, upstream, status, input_tokens, output_tokens, cache_read,
         cache_write_5m, cache_write_1h, web_searches, fast, charge, estimated, ms, ttfb_ms, account, day, week, month)
    SELECT e.value->>0, CAST(e.value->>1 AS BIGINT), e.value->>2, e.value->>3, e.value->>4, e.value->>5, e.value->>6,
           CAST(e.value->>7 AS BIGINT), CAST(e.value->>8 AS BIGINT), CAST(e.value->>9 AS BIGINT),
           CAST(e.value->>10 AS BIGINT), CAST(e.value->>11 AS BIGINT), CAST(e.value->>12 AS BIGINT),
           CAST(e.value->>13 AS BIGINT), CAST(e.value->>14 AS BIGINT), CAST(e.value->>15 AS BIGINT),
           CAST(e.value->>16 AS BIGINT), CAST(e.value->>17 AS BIGINT), CAST(e.value->>18 AS BIGINT), e.value->>19,
           e.value->>20, e.value->>21, e.value->>22
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

pub(super) fn write_usage(row: &mut RowWriter<'_>, settle: &Settle) {
    let (record, outcome) = (&settle.record, &settle.outcome);
    let usage = &outcome.usage;
    let millis = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    row.id(record.id);
    row.int(record.started_at.as_millisecond());
    row.text(&record.principal.sub);
    row.groups(&record.principal);
    row.text_or_null(record.session_id.as_deref());
    row.text(&record.model.id);
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
}

/// What recording settlements has told.
#[derive(Debug)]
pub(super) struct Settled {
    /// Ids that were not settled before.
    pub(super) new: HashSet<String>,
    /// Reservations that ended.
    pub(super) ended: Vec<Found>,
    /// The revision of the caps.
    pub(super) caps_revision: i64,
}

/// Writes usage, ends reservations, and looks whether caps have changed, in one round trip.
pub(super) async fn settle(tx: &mut Tx, settles: &[Settle]) -> Result<Settled, StoreError> {
    let rows = Rows::of(settles.iter(), write_usage);
    let ended = Rows::of_ids(settles.iter().map(|settle| settle.record.id));
    let (usage, ended, name) = (rows.param(), ended.param(), [Param::Text(super::cap::TOPIC)]);
    let revision: Statement<'_> = (REVISION, &name);
    let statements = [revision, (INSERT_USAGE, &usage), (DELETE_RESERVATIONS, &ended)];
    let wanted = if settles.is_empty() { &statements[..1] } else { &statements[..] };
    let mut answers = tx.fetch_all(wanted).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    Ok(Settled {
        caps_revision: next().first().map_or(Ok(0), |row| row.int(0))?,
        new: ids(&next())?,
        ended: next().iter().map(Found::read).collect::<Result<_, _>>()?,
    })
}

/// `upstream IS NULL`: only the sweeper writes an estimate without one, and only that is replaced.
const SWEPT: &str = "SELECT charge FROM usage WHERE id = $1 AND estimated = 1 AND upstream IS NULL AND status IS NULL";
const REPLACE_SWEPT: &str = "
    UPDATE usage SET upstream = $1, status = $2, input_tokens = $3, output_tokens = $4, cache_read = $5,
        cache_write_5m = $6, cache_write_1h = $7, web_searches = $8, fast = $9, charge = $10, estimated = $11, ms = $12,
        ttfb_ms = $13
    WHERE id = $14";

/// Puts a late settlement in the place of the sweeper's estimate; gives what that changes, which is nothing when it was
/// settled already.
pub(super) async fn replace_estimate(tx: &mut Tx, settle: &Settle) -> Result<Money, StoreError> {
    let id = settle.record.id.to_string();
    let Some(swept) = tx.fetch_optional(SWEPT, &[(&id).into()]).await? else { return Ok(Money::ZERO) };
    let estimate = Money::from_nano(swept.int(0)?);
    let (outcome, usage) = (&settle.outcome, &settle.outcome.usage);
    if outcome.status.is_none() {
        return Ok(Money::ZERO);
    }
    let whole = |value: u64| Param::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let params = [
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
        (&id).into(),
    ];
    tx.execute(REPLACE_SWEPT, &params).await?;
    Ok(outcome.charge.minus(estimate))
}

// --- Principals ---------------------------------------------------------------------------------------------------

const PUT_PRINCIPALS: &str = "
    INSERT INTO principal (sub, email, name, groups, seen_at)
    SELECT e.value->>0, e.value->>1, e.value->>2, e.value->>3, CAST(e.value->>4 AS BIGINT)
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (sub) DO UPDATE
    SET email = excluded.email, name = excluded.name, groups = excluded.groups, seen_at = excluded.seen_at";

pub(super) async fn put_principals(
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
        billing_group_tag: None,
    }))
}

/// In the order given; one never seen has nothing but its subject.
pub(super) async fn named_principals(store: &Store, subs: &[String]) -> Result<Vec<Arc<Principal>>, StoreError> {
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
            billing_group_tag: None,
        })
    };
    Ok(subs.iter().map(|sub| known.get(sub).cloned().unwrap_or_else(|| unseen(sub))).collect())
}

/// Principals in an order, each with what it has spent in the order's period (nothing when ordered by subject).
pub(super) async fn principals(
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
pub(super) async fn settled(
    store: &Store,
    accounts: &[Arc<str>],
    keys: &Keys,
) -> Result<HashMap<AccountKey, Money>, StoreError> {
    let rows = Rows::of_texts(accounts.iter());
    let [day, week, month] = Period::ALL.map(|period| keys.key(period));
    let rows = store.fetch(SETTLED, &[day.into(), week.into(), month.into(), rows.param()[0]]).await?;
    rows.iter().map(|row| Ok(((row.text(0)?.into(), row.text(1)?.into()), Money::from_nano(row.int(2)?)))).collect()
}

// --- Caps ---------------------------------------------------------------------------------------------------------

const BUMP: &str = "INSERT INTO revision (name, value) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET value = revision.value + 1";
const REVISION: &str = "SELECT value FROM revision WHERE name = $1";

pub(super) async fn bump_revision(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
    tx.execute(BUMP, &[name.into()]).await.map(|_| ())
}

pub(super) async fn revision_in(tx: &mut Tx, name: &str) -> Result<i64, StoreError> {
    tx.fetch_optional(REVISION, &[name.into()]).await?.map_or(Ok(0), |row| row.int(0))
}

pub(super) async fn revision(store: &Store, name: &str) -> Result<i64, StoreError> {
    store.fetch_optional(REVISION, &[name.into()]).await?.map_or(Ok(0), |row| row.int(0))
}

macro_rules! cap_columns {
    () => {
        "id, scope_type, scope_id, period, cents, created_at, updated_at"
    };
}

const ALL_CAPS: &str = concat!("SELECT ", cap_columns!(), " FROM spend_limit");
const CAP: &str = concat!("SELECT ", cap_columns!(), " FROM spend_limit WHERE id = $1");
const CAP_BY_TARGET: &str =
    concat!("SELECT ", cap_columns!(), " FROM spend_limit WHERE scope_type = $1 AND scope_id = $2 AND period = $3");
const DELETE_CAP: &str = concat!("DELETE FROM spend_limit WHERE id = $1 RETURNING ", cap_columns!());
const PUT_CAP: &str = "
    INSERT INTO spend_limit (id, scope_type, scope_id, period, cents, created_at, updated_at, created_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (scope_type, scope_id, period) DO UPDATE SET cents = excluded.cents, updated_at = excluded.updated_at";
const POSITION: &str = "SELECT position FROM spend_limit WHERE id = $1";
/// `$2` is a scope type, or empty for all.
const CAPS_AFTER: &str = concat!(
    "SELECT ",
    cap_columns!(),
    " FROM spend_limit WHERE position > $1 AND ($2 = '' OR scope_type = $2) ORDER BY position LIMIT $3"
);
const CAPS_BEFORE: &str = concat!(
    "SELECT ",
    cap_columns!(),
    " FROM spend_limit WHERE position < $1 AND ($2 = '' OR scope_type = $2) ORDER BY position DESC LIMIT $3"
);

fn read_cap(row: &Row) -> Result<Cap, StoreError> {
    let id = row.text(0)?;
    let wrong = |column: &str| StoreError::inconsistent(format!("spend_limit.{column} of {id}"));
    let at = |column: usize| -> Result<Timestamp, StoreError> {
        Timestamp::from_millisecond(row.int(column)?).map_err(|_| wrong("created_at or updated_at"))
    };
    Ok(Cap {
        id: id.to_owned(),
        scope: Scope::from_columns(row.text(1)?, row.text(2)?).ok_or_else(|| wrong("scope_type"))?,
        period: Period::parse(row.text(3)?).ok_or_else(|| wrong("period"))?,
        cents: row.int_or_null(4)?,
        created_at: at(5)?,
        updated_at: at(6)?,
    })
}

pub(super) async fn all_caps(tx: &mut Tx) -> Result<Vec<Cap>, StoreError> {
    tx.fetch(ALL_CAPS, &[]).await?.iter().map(read_cap).collect()
}

pub(super) async fn find_cap(store: &Store, id: &str) -> Result<Option<Cap>, StoreError> {
    store.fetch_optional(CAP, &[id.into()]).await?.as_ref().map(read_cap).transpose()
}

pub(super) async fn find_cap_by_target(tx: &mut Tx, scope: &Scope, period: Period) -> Result<Option<Cap>, StoreError> {
    let params = [scope.kind().into(), scope.id().into(), period.as_str().into()];
    tx.fetch_optional(CAP_BY_TARGET, &params).await?.as_ref().map(read_cap).transpose()
}

pub(super) async fn put_cap(tx: &mut Tx, cap: &Cap, actor: &str) -> Result<(), StoreError> {
    let params = [
        (&cap.id).into(),
        cap.scope.kind().into(),
        cap.scope.id().into(),
        cap.period.as_str().into(),
        cap.cents.into(),
        cap.created_at.as_millisecond().into(),
        cap.updated_at.as_millisecond().into(),
        actor.into(),
    ];
    tx.execute(PUT_CAP, &params).await.map(|_| ())
}

pub(super) async fn delete_cap(tx: &mut Tx, id: &str) -> Result<Option<Cap>, StoreError> {
    tx.fetch_optional(DELETE_CAP, &[id.into()]).await?.as_ref().map(read_cap).transpose()
}

pub(super) async fn page_of_caps(
    store: &Store,
    from: &From,
    limit: usize,
    scope_kind: Option<&str>,
) -> Result<Option<Page>, StoreError> {
    let (sql, start) = match from {
        From::Start => (CAPS_AFTER, Some(i64::MIN)),
        From::After(id) => (CAPS_AFTER, position(store, id).await?),
        From::Before(id) => (CAPS_BEFORE, position(store, id).await?),
    };
    let Some(start) = start else { return Ok(None) };
    // One more than asked for tells whether there is more.
    let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let params = [start.into(), scope_kind.unwrap_or("").into(), one_more.into()];
    let rows = store.fetch(sql, &params).await?;
    let mut caps: Vec<Cap> = rows.iter().map(read_cap).collect::<Result<_, _>>()?;
    let has_more = caps.len() > limit;
    caps.truncate(limit);
    if matches!(from, From::Before(_)) {
        caps.reverse();
    }
    Ok(Some(Page { caps, has_more }))
}

async fn position(store: &Store, id: &str) -> Result<Option<i64>, StoreError> {
    store.fetch_optional(POSITION, &[id.into()]).await?.map(|row| row.int(0)).transpose()
}

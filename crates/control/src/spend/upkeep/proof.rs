//! A proof of the books: every counter is what its rows add up to.

use std::collections::HashMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Upkeep;
use crate::spend::{Money, Period, table};
use crate::store::{StoreError, Tx};

/// Rows are added up so many at a time: those of an hour.
const CHUNK: SignedDuration = SignedDuration::from_hours(1);

/// A counter that is not what its rows add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The account: `user:<subject>`, `pool:<group>`, or `everyone`.
    pub account: String,
    /// The period's name; of everyone, the beginning of an hour.
    pub period: String,
    /// `settled` or, of everyone, `reported`, which are sums of usage rows, or `reserved`, which is that of reservations and
    /// leases.
    pub counter: &'static str,
    /// How much the counter is above its rows; below, when negative.
    pub excess: Money,
}

/// What a proof of the books has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Periods whose usage rows are all there, and so were added up.
    pub periods: usize,
    /// None when the books are right.
    pub differences: Vec<Difference>,
}

/// What was charged in the day, week and month that are being added up, by account.
#[derive(Debug, Default)]
struct Sums([HashMap<String, Money>; 3]);

impl Upkeep {
    /// Adds up the rows of every period that lies within the retention of usage rows, and compares. May be asked while
    /// the gateway is at work: everything is read as it was at one moment, and no statement takes long, however many rows
    /// there are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn verify(&self) -> Result<Proof, StoreError> {
        let now = self.clock.now();
        let kept = self.oldest_usage(now);
        let mut tx = self.store.begin_snapshot().await?;
        let mut proof = Proof { periods: 0, differences: reserved_differences(&mut tx).await? };
        proof.differences.extend(reported_differences(&mut tx, kept, now).await?);
        let mut sums = Sums::default();
        let mut day = Period::Daily.starts(kept);
        while day <= now {
            let next = Period::Daily.ends(day);
            sums.add_day(&mut tx, day.max(kept), next).await?;
            let ended = Period::ALL.into_iter().filter(|period| period.ends(day) == next || now < next);
            for period in ended {
                let charged = std::mem::take(&mut sums.0[period as usize]);
                // The rows of older ones are not all there any more.
                if period.starts(day) >= kept {
                    proof.differences.extend(settled_differences(&mut tx, period.key(day), charged).await?);
                    proof.periods += 1;
                }
            }
            day = next;
        }
        Ok(proof)
    }
}

impl Sums {
    async fn add_day(&mut self, tx: &mut Tx, from: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let mut at = from;
        // Hours without requests are passed over.
        while let Some(first) = table::first_usage(tx, at, until).await? {
            at = until.min(first + CHUNK);
            for table::Charged { account, pool, charge } in table::charged(tx, first, at).await? {
                for period in Period::ALL {
                    self.add(period, &account, charge);
                }
                if let Some(pool) = pool {
                    self.add(Period::Monthly, &pool, charge);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, period: Period, account: &str, charge: Money) {
        let sums = &mut self.0[period as usize];
        match sums.get_mut(account) {
            Some(sum) => *sum = sum.plus(charge),
            None => drop(sums.insert(account.to_owned(), charge)),
        }
    }
}

/// Of all accounts of one period.
async fn settled_differences(
    tx: &mut Tx,
    period: String,
    mut charged: HashMap<String, Money>,
) -> Result<Vec<Difference>, StoreError> {
    let mut found = Vec::new();
    let mut last = (period, String::new());
    loop {
        let page = table::settled_after(tx, &last).await?;
        for ((period, account), settled) in &page {
            let rows = charged.remove(account).unwrap_or_default();
            found.extend(Difference::between("settled", period, account, *settled, rows));
        }
        match page.into_iter().next_back() {
            Some((key, _)) => last = key,
            None => break,
        }
    }
    let without =
        |(account, rows): (&String, &Money)| Difference::between("settled", &last.0, account, Money::ZERO, *rows);
    found.extend(charged.iter().filter_map(without));
    found.sort_by(|a, b| a.account.cmp(&b.account));
    Ok(found)
}

/// Of all accounts in all periods.
async fn reserved_differences(tx: &mut Tx) -> Result<Vec<Difference>, StoreError> {
    let mut aside = table::aside(tx).await?;
    let mut found = Vec::new();
    let mut last = (String::new(), String::new());
    loop {
        let page = table::reserved_after(tx, &last).await?;
        for (key, reserved) in &page {
            let rows = aside.remove(key).unwrap_or_default();
            found.extend(Difference::between("reserved", &key.0, &key.1, *reserved, rows));
        }
        match page.into_iter().next_back() {
            Some((key, _)) => last = key,
            None => break,
        }
    }
    let without = |((period, account), rows): (&(String, String), &Money)| {
        Difference::between("reserved", period, account, Money::ZERO, *rows)
    };
    found.extend(aside.iter().filter_map(without));
    found.sort_by(|a, b| (&a.account, &a.period).cmp(&(&b.account, &b.period)));
    Ok(found)
}

/// Of the hours that are added up for reports.
async fn reported_differences(tx: &mut Tx, from: Timestamp, until: Timestamp) -> Result<Vec<Difference>, StoreError> {
    let apart = table::hours_apart(tx, from, until).await?;
    let difference = |(hour, excess): (Timestamp, Money)| Difference {
        account: "everyone".to_owned(),
        period: hour.to_string(),
        counter: "reported",
        excess,
    };
    Ok(apart.into_iter().map(difference).collect())
}

impl Difference {
    fn between(counter: &'static str, period: &str, account: &str, says: Money, rows: Money) -> Option<Self> {
        let excess = says.minus(rows);
        let found = || Self { account: account.to_owned(), period: period.to_owned(), counter, excess };
        (excess != Money::ZERO).then(found)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, period, counter, excess } = self;
        let (apart, side) = match excess.nano() {
            below @ i64::MIN..0 => (Money::from_nano(below.saturating_neg()), "less"),
            _ => (*excess, "more"),
        };
        write!(f, "{account} in {period}: {counter} is {apart} {side} than its rows")
    }
}

impl Proof {
    /// Whether every counter is what its rows add up to.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }

    /// The proof as one JSON object; amounts are nano-dollars.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let difference = |found: &Difference| {
            json!({
                "account": found.account,
                "period": found.period,
                "counter": found.counter,
                "excess_nano_usd": found.excess.nano(),
            })
        };
        let differences: Vec<Value> = self.differences.iter().map(difference).collect();
        json!({ "holds": self.holds(), "periods": self.periods, "differences": differences })
    }
}

use std::sync::atomic::Ordering;

use tempfile::TempDir;
use wire::catalog::Catalog;

use super::*;
use crate::clock::{Clock, TestClock};
use crate::policy::{Config as PolicyConfig, Policies};
use crate::spend::ledger::batch::{Aside, Outcome, Record};
use crate::spend::ledger::lease::Held;
use crate::spend::ledger::{Admission, Ledger, Origin, Refusal};
use crate::spend::period::Keys;
use crate::spend::{Caps, Config, GroupMode, Money, Prices, Size};
use crate::store::Config as StoreConfig;

struct House {
    clock: Arc<TestClock>,
    store: Store,
    ledger: Ledger,
    writer: Writer,
    _directory: TempDir,
}

impl House {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::Sqlite { path: directory.path().join("ledger.db") }).await.unwrap();
        let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        let caps = Caps::load(store.clone(), clock.clone(), GroupMode::default()).await.unwrap();
        let (ledger, writer) = Ledger::new(store.clone(), clock.clone(), caps, Prices::default(), &Config::default());
        Self { clock, store, ledger, writer, _directory: directory }
    }

    fn record(&self) -> Arc<Record> {
        let catalog = Catalog::new(Vec::new(), true).unwrap();
        let now = self.clock.now();
        Arc::new(Record {
            id: uuid::Uuid::new_v4(),
            account: "user:alice".into(),
            principal: Arc::new(Principal {
                sub: "alice".to_owned(),
                email: None,
                name: None,
                groups: Vec::new(),
                groups_unread: false,
                session: None,
                billing_group_tag: None,
            }),
            model: Arc::clone(catalog.resolve("claude-sonnet-4-6").unwrap()),
            origin: Origin::default(),
            body_bytes: 1,
            is_bounded: false,
            started_at: now,
            keys: Arc::new(Keys::at(now)),
        })
    }

    async fn number(&self, sql: &str) -> i64 {
        self.store.fetch_optional(sql, &[]).await.unwrap().unwrap().int(0).unwrap()
    }
}

#[tokio::test]
async fn what_is_in_flight_is_renewed_long_before_another_replica_may_sweep_it() {
    let mut house = House::open().await;
    let aside = Aside { record: house.record(), amount: Money::from_nano(5), pool: None };
    house.writer.take(Entry::Admit { aside, leased: false });
    house.writer.commit().await;
    let expires = "SELECT expires_at FROM reservation";
    let in_a_minute = |house: &House| house.clock.now().as_millisecond() + 60_000;
    assert_eq!(house.number(expires).await, in_a_minute(&house));
    let period = UPKEEP * RENEW_EVERY;
    assert!(2 * period < HOLD, "one may fail");
    house.clock.advance(period);
    house.writer.upkeep(RENEW_EVERY).await;
    assert_eq!(house.number(expires).await, in_a_minute(&house));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 0, "its own are not swept");
}

#[tokio::test]
async fn leases_are_used_only_while_no_other_replica_may_sweep_them() {
    let mut house = House::open().await;
    let until = |house: &House| house.ledger.shared.accounts.leases_until();
    house.writer.upkeep(0).await;
    assert!(until(&house).unwrap() + Duration::from_secs(20) <= house.clock.instant() + HOLD);
    house.clock.advance(Duration::from_secs(20));
    house.store.execute("ALTER TABLE lease RENAME TO gone", &[]).await.unwrap();
    let before = until(&house);
    house.writer.upkeep(RENEW_EVERY).await;
    assert_eq!(until(&house), before, "they were not renewed");
}

#[tokio::test]
async fn what_a_lost_database_had_not_on_its_disk_yet_is_entered_again_and_what_it_had_is_not_counted_twice() {
    let mut house = House::open().await;
    let outcome = Outcome { charge: Money::from_nano(5), ..Outcome::default() };
    house.writer.take(Entry::Settle(Settle { record: house.record(), pool: None, outcome }));
    house.writer.commit().await;
    let settled = "SELECT settled FROM account WHERE period = '2026-11'";
    assert_eq!(house.number(settled).await, 5);
    for has_lost in [true, false] {
        if has_lost {
            house.store.execute("DELETE FROM usage", &[]).await.unwrap();
            house.store.execute("DELETE FROM account", &[]).await.unwrap();
        }
        house.writer.lose_database();
        house.writer.down = false;
        house.writer.commit().await;
        assert_eq!((house.number(settled).await, house.number("SELECT COUNT(*) FROM usage").await), (5, 1));
    }
}

#[tokio::test]
async fn what_began_and_ended_while_the_database_was_away_is_not_in_flight_when_it_is_back() {
    let mut house = House::open().await;
    let (settled, withdrawn) = (house.record(), house.record());
    house.writer.lose_database();
    for record in [&settled, &withdrawn] {
        let aside = Aside { record: Arc::clone(record), amount: Money::from_nano(5), pool: None };
        house.writer.take(Entry::Admit { aside, leased: false });
    }
    house.writer.commit().await;
    let outcome = Outcome { charge: Money::from_nano(3), ..Outcome::default() };
    house.writer.take(Entry::Settle(Settle { record: settled, pool: None, outcome }));
    house.writer.take(Entry::Withdraw(withdrawn.id));
    house.writer.down = false;
    house.writer.commit().await;
    assert_eq!(house.number("SELECT COUNT(*) FROM reservation").await, 0);
    assert_eq!(house.number("SELECT settled FROM account WHERE period = '2026-11'").await, 3);
    assert_eq!(house.number("SELECT SUM(reserved) FROM account").await, 0);
}

#[tokio::test]
async fn no_more_is_kept_in_memory_than_there_is_room_for_and_nobody_spends_what_is_not_kept() {
    let mut house = House::open().await;
    house.writer.lose_database();
    let record = house.record();
    let settle = || Settle { record: Arc::clone(&record), pool: None, outcome: Outcome::default() };
    let is_full = |house: &House| house.ledger.shared.board.full.load(Ordering::Relaxed);
    house.writer.backlog.settles.extend((1..MOST_KEPT).map(|_| settle()));
    house.writer.tell_full();
    assert!(!is_full(&house));
    house.writer.backlog.settles.push(settle());
    house.writer.tell_full();
    assert!(is_full(&house));
    let catalog = Arc::new(Catalog::new(Vec::new(), true).unwrap());
    let (policies, _) = Policies::compile(PolicyConfig::default(), catalog);
    let permit = policies.permit(&record.principal, "claude-sonnet-4-6").unwrap();
    let admission = Admission {
        id: uuid::Uuid::new_v4(),
        principal: Arc::clone(&record.principal),
        size: Size::default(),
        quotes: Vec::new(),
        origin: Origin::default(),
    };
    assert_eq!(house.ledger.reserve(&permit, admission).await.unwrap_err(), Refusal::Unavailable);
    house.writer.down = false;
    house.writer.commit().await;
    house.writer.tell_full();
    assert!(!is_full(&house));
}

#[tokio::test]
async fn what_a_lease_says_is_not_believed_after_a_transaction_that_nobody_heard_of() {
    let mut house = House::open().await;
    let record = house.record();
    let held = Held {
        keys: Arc::clone(&record.keys),
        principal: Arc::clone(&record.principal),
        amount: Money::from_nano(5),
        written: Some(Money::from_nano(5)),
    };
    house.writer.leases.settle((Arc::clone(&record.account), "2026-11-22".into()), held);
    assert!(!house.writer.leases.are_stale());
    house.store.execute("ALTER TABLE account RENAME TO gone", &[]).await.unwrap();
    house.writer.take(Entry::Admit { aside: Aside { record, amount: Money::from_nano(1), pool: None }, leased: false });
    house.writer.try_commit(true).await.unwrap_err();
    assert!(house.writer.leases.are_stale());
    assert_eq!(house.writer.leases.rows(), 0, "nobody knows of any");
}

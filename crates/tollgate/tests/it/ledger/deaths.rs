//! What a killed process leaves is settled by another.

use std::sync::Arc;
use std::time::Duration;

use control::clock::TestClock;
use control::spend::{Admission, Period, Scope};

use super::house::{COST, House, USED, config, leased, principal, run, settlement, store_config, warm_up};
use crate::support::database::{Database, on_both_databases};

on_both_databases!(
    what_a_dead_process_had_leased_and_not_used_is_given_back,
    what_was_in_flight_when_its_process_died_is_charged_to_its_pool_too,
    what_a_dead_process_left_is_charged_at_its_estimate_and_the_late_truth_replaces_it_once,
    however_much_dead_processes_left_is_settled_before_anything_is_admitted,
);

async fn what_a_dead_process_had_leased_and_not_used_is_given_back(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let dead = run(&store, Some(database), clock.clone(), &config).await;
    dead.house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10_000).await;
    warm_up(&dead.house, &principal("alice")).await;
    assert!(leased(&dead.house).await > 0);
    let embedded = dead.house.store.is_embedded();
    let database = dead.kill().await;
    if !embedded {
        clock.advance(Duration::from_secs(61));
    }
    let running = run(&store, database, clock, &config).await;
    running.house.ledger.flush().await;
    assert_eq!(running.house.balance("alice").await, (10 * COST.nano(), 0));
    assert_eq!(leased(&running.house).await, 0);
    running.house.verify().await;
    running.end().await;
}

async fn what_was_in_flight_when_its_process_died_is_charged_to_its_pool_too(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let dead = run(&store, Some(database), clock.clone(), &config).await;
    dead.house.pool("eng", 1_000).await;
    let left = dead.house.reserve(&principal("alice")).await.unwrap();
    let (_, reserved) = dead.house.of_pool("eng").await;
    let embedded = dead.house.store.is_embedded();
    let database = dead.kill().await;
    drop(left);
    if !embedded {
        clock.advance(Duration::from_secs(61));
    }
    let running = run(&store, database, clock, &config).await;
    running.house.ledger.flush().await;
    assert!(reserved > 0);
    assert_eq!(running.house.of_pool("eng").await, (reserved, 0));
    running.house.verify().await;
    running.end().await;
}

async fn however_much_dead_processes_left_is_settled_before_anything_is_admitted(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let before = run(&store, Some(database), clock.clone(), &config).await;
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
    for insert in [
        "INSERT INTO reservation (id, account, day, week, month, amount, replica, expires_at, started_at, principal,
             groups, model, model_asked)
         {rows} SELECT '00000000-0000-4000-8000-' || SUBSTR(CAST(1000000000000 + i AS TEXT), 2), 'user:alice',
             '2026-11-22', '2026-W47', '2026-11', 5, 'dead', 0, 0, 'alice', '[]', 'm', 'm' FROM n",
        "INSERT INTO lease (replica, account, day, week, month, amount, expires_at)
         {rows} SELECT 'dead ' || i, 'user:alice', '2026-11-22', '2026-W47', '2026-11', 7, 0 FROM n",
        "INSERT INTO account (period, id, settled, reserved)
         VALUES ('2026-11-22', 'user:alice', 0, 14400), ('2026-W47', 'user:alice', 0, 14400),
                ('2026-11', 'user:alice', 0, 14400)",
    ] {
        before.house.store.execute(&insert.replace("{rows}", rows), &[]).await.unwrap();
    }
    before.house.verify().await;
    let database = before.kill().await;
    let running = run(&store, database, clock, &config).await;
    running.house.ledger.flush().await;
    assert_eq!(running.house.balance("alice").await, (6_000, 0));
    running.house.verify().await;
    running.end().await;
}

async fn what_a_dead_process_left_is_charged_at_its_estimate_and_the_late_truth_replaces_it_once(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let dead = run(&store, Some(database), clock.clone(), &config).await;
    dead.house.cap(Scope::User("alice".to_owned()), Period::Monthly, 100).await;
    let alice = principal("alice");
    let admission = House::admission(&alice);
    let id = admission.id;
    let left = dead.house.reserve_as(&alice, admission).await.unwrap();
    let (_, reserved) = dead.house.balance("alice").await;
    assert!(reserved > COST.nano());
    let embedded = dead.house.store.is_embedded();
    let database = dead.kill().await;
    // Its settlement can reach no writer any more.
    drop(left);

    if !embedded {
        clock.advance(Duration::from_secs(61));
    }
    let running = run(&store, database, clock.clone(), &config).await;
    let house = &running.house;
    // The first upkeep comes before the first entry.
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (reserved, 0));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage WHERE estimated = 1").await, 1);

    for _ in 0..2 {
        let late = house.reserve_as(&alice, Admission { id, ..House::admission(&alice) }).await.unwrap();
        late.settle(settlement(USED));
        house.ledger.flush().await;
        assert_eq!(house.balance("alice").await, (COST.nano(), 0));
    }
    assert_eq!(house.number("SELECT COUNT(*) FROM usage WHERE estimated = 1").await, 0);
    house.verify().await;
    running.end().await;
}

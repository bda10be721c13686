//! A database that is away or hangs keeps nobody waiting, and nothing that was spent meanwhile is lost.

use std::sync::Arc;
use std::time::Duration;

use control::clock::SystemClock;
use control::spend::{Config, Period, Refusal, Scope};

use super::house::{COST, USED, at_once, config, postgres, principal, run, settlement};
use crate::support::database::{self, PostgresServer};

#[tokio::test]
async fn what_was_settled_while_the_database_was_away_is_counted_when_it_is_back() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    let alice = principal("alice");
    let before = house.reserve(&alice).await.unwrap();
    server.stop();
    // Fails open: nobody is kept from working, and what it costs is remembered.
    let during = house.reserve(&alice).await.unwrap();
    assert_eq!(during.standing(), None);
    before.settle(settlement(USED));
    during.settle(settlement(USED));
    server.start_again();
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (2 * COST.nano(), 0));
    house.verify().await;
    running.end().await;
}

#[tokio::test]
async fn a_database_that_hangs_costs_one_wait_and_is_noticed_when_it_answers_again() {
    let url = database::fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    let alice = principal("alice");
    let locker = database::connect(&url).await;
    locker.batch_execute("BEGIN; LOCK TABLE tollgate.account").await.unwrap();
    let first = house.reserve(&alice).await.unwrap();
    assert!(house.ledger.figures().database_down);
    let second = at_once(house.reserve(&alice)).expect("nobody waits for a database that hangs").unwrap();
    assert_eq!(at_once(house.ledger.check_now(&alice)), Some(Ok(())));
    first.settle(settlement(USED));
    second.settle(settlement(USED));
    locker.batch_execute("ROLLBACK").await.unwrap();
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (2 * COST.nano(), 0));
    let third = house.reserve(&alice).await.unwrap();
    assert!(third.standing().is_some(), "the database decides again");
    third.release(502, 1);
    running.end().await;
}

#[tokio::test]
async fn what_was_admitted_while_the_database_was_away_is_set_aside_when_it_is_back() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    house.pool("eng", 100).await;
    server.stop();
    let during = house.reserve(&principal("alice")).await.unwrap();
    server.start_again();
    house.ledger.flush().await;
    let (settled, reserved) = house.balance("alice").await;
    assert!(settled == 0 && reserved > 0, "{settled} {reserved}");
    assert_eq!(house.of_pool("eng").await, (0, reserved));
    during.settle(settlement(USED));
    house.ledger.flush().await;
    assert_eq!((house.balance("alice").await, house.of_pool("eng").await), ((COST.nano(), 0), (COST.nano(), 0)));
    house.verify().await;
    running.end().await;
}

#[tokio::test]
async fn a_row_that_hangs_is_tried_again_while_nobody_waits_for_it() {
    let url = database::fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    let alice = principal("alice");
    house.reserve(&alice).await.unwrap().settle(settlement(USED));
    house.ledger.flush().await;
    let (locker, watcher) = (database::connect(&url).await, database::connect(&url).await);
    locker.batch_execute("BEGIN; SELECT 1 FROM tollgate.account WHERE id = 'user:alice' FOR UPDATE").await.unwrap();
    let waiting =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let until = async |number: i64| {
        while watcher.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) != number {}
    };
    let first = house.reserve(&alice).await.unwrap();
    assert!(house.ledger.figures().database_down);
    until(0).await;
    // Everything but that row answers, so the ledger goes on where it was interrupted.
    until(1).await;
    let second = at_once(house.reserve(&alice)).expect("it is the ledger that waits").unwrap();
    let of_others = at_once(house.reserve(&principal("bob"))).expect("nobody else does either").unwrap();
    locker.batch_execute("ROLLBACK").await.unwrap();
    of_others.release(502, 1);
    first.settle(settlement(USED));
    second.settle(settlement(USED));
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (3 * COST.nano(), 0));
    assert!(house.reserve(&alice).await.unwrap().standing().is_some(), "the database decides again");
    running.end().await;
}

#[tokio::test]
async fn with_fail_closed_nobody_spends_while_the_database_is_away() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let closed = Config { fail_closed: true, ..config(Duration::ZERO) };
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &closed).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    server.stop();
    assert_eq!(house.reserve(&principal("alice")).await.unwrap_err(), Refusal::Unavailable);
    assert_eq!(house.ledger.check_now(&principal("alice")).await, Err(Refusal::Unavailable));
    running.end().await;
}

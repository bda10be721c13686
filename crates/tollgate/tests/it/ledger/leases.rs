//! Who is busy and far from every cap is admitted without a word from the database, and under its caps all the same.

use std::sync::Arc;
use std::time::Duration;

use control::clock::SystemClock;
use control::identity::Principal;
use control::spend::{Money, Period, Refusal, Scope};

use super::house::{COST, USED, at_once, config, leased, postgres, principal, run, settlement, start, warm_up};
use crate::support::database::{Database, PostgresServer, on_both_databases};

on_both_databases!(
    a_busy_account_far_from_its_cap_is_admitted_without_asking,
    near_its_cap_a_busy_account_is_asked_for_in_the_database_again,
    members_of_pools_are_not_leased,
    a_lease_ends_with_any_change_of_caps,
    a_lease_ends_with_the_caps_and_the_groups_that_it_was_measured_by,
);

async fn a_busy_account_far_from_its_cap_is_admitted_without_asking(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10_000).await;
    let alice = principal("alice");
    assert!(at_once(house.reserve(&alice)).is_none(), "nobody knows yet how it stands");
    warm_up(house, &alice).await;
    assert!(leased(house).await > 0);
    let first = at_once(house.reserve(&alice)).unwrap().unwrap();
    assert_eq!(first.standing().unwrap().spent, Money::from_nano(10 * COST.nano()));
    let second = at_once(house.reserve(&alice)).unwrap().unwrap();
    first.settle(settlement(USED));
    house.ledger.flush().await;
    let (settled, reserved) = house.balance("alice").await;
    assert_eq!(settled, 11 * COST.nano());
    assert!(reserved > leased(house).await, "the second is in flight");
    house.verify().await;
    second.release(502, 1);
    let house = house.clone();
    running.end().await;
    house.verify().await;
    assert_eq!((house.balance("alice").await, leased(&house).await), ((11 * COST.nano(), 0), 0));
}

async fn near_its_cap_a_busy_account_is_asked_for_in_the_database_again(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    // A hundred requests.
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 60).await;
    let alice = principal("alice");
    let mut through = 0;
    let refusal = loop {
        match house.reserve(&alice).await {
            Ok(reservation) => drop(reservation.settle(settlement(USED))),
            Err(refusal) => break refusal,
        }
        through += 1;
        let (settled, reserved) = house.balance("alice").await;
        assert!(settled + reserved <= 600_000_000, "{settled} and {reserved} after {through}");
    };
    assert!(matches!(refusal, Refusal::Over(_)), "{refusal:?}");
    assert_eq!(through, 100);
    assert_eq!(leased(house).await, 0);
    house.verify().await;
    running.end().await;
}

/// Which pool pays is decided for every request.
async fn members_of_pools_are_not_leased(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.pool("eng", 100_000).await;
    warm_up(house, &principal("alice")).await;
    assert_eq!(leased(house).await, 0);
    running.end().await;
}

async fn a_lease_ends_with_any_change_of_caps(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 10_000).await;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    at_once(house.reserve(&alice)).unwrap().unwrap().release(502, 1);
    house.cap(Scope::User("bob".to_owned()), Period::Monthly, 1).await;
    assert!(at_once(house.reserve(&alice)).is_none(), "it may be one of hers");
    running.end().await;
}

async fn a_lease_ends_with_the_caps_and_the_groups_that_it_was_measured_by(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10_000).await;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    let other = Arc::new(Principal { groups: vec!["ops".to_owned()], ..(*alice).clone() });
    assert!(at_once(house.reserve(&other)).is_none(), "other groups may have other caps");
    at_once(house.reserve(&alice)).unwrap().unwrap().release(502, 1);
    house.cap(Scope::User("alice".to_owned()), Period::Daily, 1).await;
    let refusal = house.reserve(&alice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Over(_)), "{refusal:?}");
    house.ledger.flush().await;
    house.verify().await;
    running.end().await;
}

#[tokio::test]
async fn leases_admit_with_their_caps_while_the_database_is_away() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 10_000).await;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    server.stop();
    let mut leased = 0;
    while let Some(reservation) =
        at_once(house.reserve(&alice)).map(Result::unwrap).filter(|leased| leased.standing().is_some())
    {
        reservation.settle(settlement(USED));
        leased += 1;
    }
    assert!(leased >= 4, "{leased}");
    server.start_again();
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await.0, (10 + leased) * COST.nano());
    house.verify().await;
    running.end().await;
}

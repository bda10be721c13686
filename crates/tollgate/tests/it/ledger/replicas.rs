//! Several gateways at one database are one.

use std::sync::Arc;
use std::time::Duration;

use control::clock::SystemClock;
use control::spend::{Period, Refusal, Scope};

use super::house::{COST, USED, config, postgres, principal, run, settlement};
use crate::support::database;

#[tokio::test]
async fn two_replicas_hold_one_cap_together() {
    let url = database::fresh_database().await;
    let start = || async { run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::from_secs(30))).await };
    let (one, two) = (start().await, start().await);
    one.house.cap(Scope::Organization, Period::Monthly, 2).await;
    let alice = principal("alice");
    // The other replica has not heard of the cap; a poll or a notice would tell it soon, and this is sooner.
    two.house.caps.refresh_if_changed().await.unwrap();
    let tasks = (0..40).map(|turn| {
        let house = if turn % 2 == 0 { one.house.clone() } else { two.house.clone() };
        let alice = Arc::clone(&alice);
        tokio::spawn(async move { house.reserve(&alice).await.map(|granted| granted.settle(settlement(USED))) })
    });
    let mut through = 0;
    for task in tasks.collect::<Vec<_>>() {
        through += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(through, 4);
    one.house.ledger.flush().await;
    two.house.ledger.flush().await;
    assert_eq!(one.house.balance("alice").await, (4 * COST.nano(), 0));
    one.house.verify().await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn whoever_is_asked_for_in_the_database_is_decided_by_the_caps_that_stand_there() {
    let url = database::fresh_database().await;
    let start = || async { run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await };
    let one = start().await;
    one.house.cap(Scope::Organization, Period::Monthly, 100).await;
    let two = start().await;
    one.house.cap(Scope::User("alice".to_owned()), Period::Monthly, 0).await;
    let refusal = two.house.reserve(&principal("alice")).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Over(_)), "{refusal:?}");
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_replica_hears_of_a_cap_that_another_set() {
    let url = database::fresh_database().await;
    let start = || async { run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await };
    let (one, two) = (start().await, start().await);
    let alice = principal("alice");
    let heard = async {
        let followed = two.house.ledger.follow_caps();
        let capped = async {
            while two.house.caps.in_force(&alice).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = followed => {}, () = capped => {} }
    };
    let set = one.house.cap(Scope::Organization, Period::Monthly, 2);
    let both = Box::pin(async { tokio::join!(set, heard) });
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    one.end().await;
    two.end().await;
}

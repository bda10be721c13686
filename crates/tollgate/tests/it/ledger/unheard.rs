//! A commit whose answer is lost is made again, and counts once.

use std::sync::Arc;
use std::time::Duration;

use control::clock::SystemClock;
use control::spend::{Period, Refusal, Scope};
use wire::usage::Usage;

use super::house::{
    COST, Running, USED, at_once, config, leased, postgres, principal, run, settlement, strict, warm_up,
};
use crate::support::database::{self, Relay};

/// A ledger far from its caps, whose commits can be lost.
async fn start() -> (Running, Relay) {
    let (relay, url) = Relay::to(&database::fresh_database().await).await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::from_secs(30))).await;
    running.house.cap(Scope::Organization, Period::Monthly, 10_000).await;
    // Its first upkeep commits too.
    running.house.ledger.flush().await;
    (running, relay)
}

#[tokio::test]
async fn what_has_grown_is_set_aside_once() {
    let (running, relay) = start().await;
    let house = &running.house;
    let mut capped = house.reserve(&principal("alice")).await.unwrap();
    let seen = Usage { output_tokens: 4_000, ..USED };
    capped.grow("anthropic", &seen);
    relay.lose_a_commit();
    house.ledger.flush().await;
    assert!(!relay.has_a_commit_to_lose());
    let charge = capped.charge("anthropic", &seen).nano();
    assert_eq!(house.balance("alice").await, (0, charge + charge / 4));
    house.verify().await;
    capped.settle(settlement(USED));
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (COST.nano(), 0));
    running.end().await;
}

#[tokio::test]
async fn what_has_begun_without_asking_is_set_aside_at_what_it_has_grown_to() {
    let (running, relay) = start().await;
    let house = &running.house;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    relay.lose_a_commit();
    let mut first = at_once(house.reserve(&alice)).expect("a lease").unwrap();
    while relay.has_a_commit_to_lose() {
        tokio::task::yield_now().await;
    }
    let seen = Usage { output_tokens: 400_000, ..USED };
    first.grow("anthropic", &seen);
    house.ledger.flush().await;
    let charge = first.charge("anthropic", &seen).nano();
    assert_eq!(house.balance("alice").await.1, charge + charge / 4 + leased(house).await);
    house.verify().await;
    first.settle(settlement(USED));
    let house = house.clone();
    running.end().await;
    assert_eq!(house.balance("alice").await, (11 * COST.nano(), 0));
}

#[tokio::test]
async fn what_has_ended_is_charged_once() {
    let (running, relay) = start().await;
    let house = &running.house;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    let asked = house.reserve(&principal("bob")).await.unwrap();
    relay.lose_a_commit();
    for _ in 0..3 {
        house.reserve(&alice).await.unwrap().settle(settlement(USED));
    }
    asked.settle(settlement(USED));
    house.ledger.flush().await;
    assert!(!relay.has_a_commit_to_lose());
    house.verify().await;
    let house = house.clone();
    running.end().await;
    assert_eq!((house.balance("alice").await, leased(&house).await), ((13 * COST.nano(), 0), 0));
    assert_eq!(house.balance("bob").await, (COST.nano(), 0));
    house.verify().await;
}

#[tokio::test]
async fn what_was_granted_is_set_aside_once_when_its_caller_goes_ahead_and_given_back_when_it_does_not() {
    let (running, relay) = start().await;
    let house = &running.house;
    relay.lose_a_commit();
    // Fails open: it goes ahead as nobody said no.
    let ahead = house.reserve(&principal("alice")).await.unwrap();
    assert_eq!(ahead.standing(), None);
    house.ledger.flush().await;
    house.verify().await;
    let (_, reserved) = house.balance("alice").await;
    assert!(reserved > 0, "it is in flight");
    ahead.settle(settlement(USED));
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (COST.nano(), 0));

    let bob = principal("bob");
    let mut asking = Box::pin(house.reserve(&bob));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(asking.as_mut().poll(cx).is_pending())).await);
    relay.lose_a_commit();
    house.ledger.flush().await;
    drop(asking);
    house.ledger.flush().await;
    assert_eq!(house.balance("bob").await, (0, 0));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 1, "bob has asked for nothing");
    house.verify().await;
    running.end().await;
}

#[tokio::test]
async fn what_was_granted_is_given_back_when_nobody_may_spend_without_the_database() {
    let (relay, url) = Relay::to(&database::fresh_database().await).await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &strict()).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 10_000).await;
    house.ledger.flush().await;
    relay.lose_a_commit();
    assert_eq!(house.reserve(&principal("alice")).await.unwrap_err(), Refusal::Unavailable);
    house.ledger.flush().await;
    assert!(!relay.has_a_commit_to_lose());
    assert_eq!(house.balance("alice").await, (0, 0));
    house.verify().await;
    running.end().await;
}

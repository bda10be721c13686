//! A cap lets through what fits under it and at most one request more, whoever comes at once.

use std::sync::Arc;
use std::time::Duration;

use control::identity::Principal;
use control::spend::{Admission, Money, Period, Refusal, Scope, Settlement, Size};
use wire::usage::Usage;

use super::house::{COST, House, USED, fifty_at_once, principal, settlement, start, start_with, strict};
use crate::support::database::{Database, on_both_databases};

on_both_databases!(
    a_cap_lets_no_more_through_than_itself_and_one_request,
    a_request_that_does_not_fit_beside_others_waits_for_them_to_settle,
    a_request_that_waited_too_long_is_told_to_come_back,
    in_strict_mode_a_cap_is_never_passed,
    in_strict_mode_what_has_no_bound_or_never_fits_is_refused,
    in_strict_mode_an_estimate_charges_no_more_than_was_set_aside,
    whose_groups_could_not_be_read_is_treated_as_a_failed_check,
    who_waits_for_room_is_not_overtaken_by_who_needs_less,
    what_is_set_aside_is_learned_from_what_requests_cost,
    a_changed_cap_counts_for_the_next_request,
    a_blocked_caller_is_known_before_its_body_is_read,
);

/// Fifty at once against two cents, each $0.006 and bounded by more: three fit, a fourth may pass the cap by what it
/// costs, and nobody else gets through.
async fn a_cap_lets_no_more_through_than_itself_and_one_request(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Daily, 2).await;
    let alice = principal("alice");
    let tasks = (0..50).map(|_| {
        let (house, alice) = (house.clone(), Arc::clone(&alice));
        tokio::spawn(async move {
            let reservation = house.reserve(&alice).await?;
            // In flight for a while: the others must not fit beside it for that reason alone.
            tokio::task::yield_now().await;
            Ok::<_, Refusal>(reservation.settle(settlement(USED)))
        })
    });
    let mut through = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(charge) => {
                assert_eq!(charge, COST);
                through += 1;
            }
            Err(Refusal::Over(standing)) => assert_eq!(standing.cap.cents, 2),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(through, 4, "two cents and at most one request of $0.006");
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (4 * COST.nano(), 0));
    house.verify().await;
    running.end().await;
}

async fn a_request_that_does_not_fit_beside_others_waits_for_them_to_settle(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 1).await;
    let alice = principal("alice");
    let first = house.reserve(&alice).await.unwrap();
    let mut second = Box::pin(house.reserve(&alice));
    let early = tokio::select! {
        biased;
        answer = &mut second => Some(answer.is_ok()),
        () = house.ledger.flush() => None,
    };
    assert_eq!(early, None, "it does not fit beside the first");
    first.release(502, 1);
    second.await.unwrap().release(502, 1);
    running.end().await;
}

async fn a_request_that_waited_too_long_is_told_to_come_back(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 1).await;
    let alice = principal("alice");
    let first = house.reserve(&alice).await.unwrap();
    let refusal = house.reserve(&alice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::InFlight { .. }), "{refusal:?}");
    first.release(502, 1);
    house.reserve(&alice).await.unwrap().release(502, 1);
    running.end().await;
}

/// A request is bounded by 3 000 tokens of $6 and 200 of $15 a million, so by $0.021; $0.006 each are spent of $0.05.
async fn in_strict_mode_a_cap_is_never_passed(database: Database) {
    let running = start_with(database, &strict()).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Daily, 5).await;
    let alice = principal("alice");
    let through = fifty_at_once(house, |_| Arc::clone(&alice)).await;
    assert_eq!(through, 5, "a sixth, bounded by $0.021, does not fit beside $0.030");
    assert_eq!(house.balance("alice").await, (5 * COST.nano(), 0));
    running.end().await;
}

async fn in_strict_mode_what_has_no_bound_or_never_fits_is_refused(database: Database) {
    let running = start_with(database, &strict()).await;
    let house = &running.house;
    let alice = principal("alice");
    let unbounded =
        || Admission { size: Size { max_tokens: None, ..House::admission(&alice).size }, ..House::admission(&alice) };
    house.reserve_as(&alice, unbounded()).await.unwrap().release(502, 1);
    house.cap(Scope::Organization, Period::Daily, 2).await;
    let refusal = house.reserve_as(&alice, unbounded()).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unbounded(_)), "{refusal:?}");
    let refusal = house.reserve(&alice).await.unwrap_err();
    let Refusal::TooDear { standing, bound } = refusal else { panic!("{refusal:?}") };
    assert_eq!((standing.spent, bound), (Money::ZERO, Money::from_nano(21_000_000)));
    let blocked = house.ledger.figures().blocked;
    assert_eq!((blocked.unbounded, blocked.over_limit), (1, 1));
    running.end().await;
}

async fn in_strict_mode_an_estimate_charges_no_more_than_was_set_aside(database: Database) {
    let running = start_with(database, &strict()).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Daily, 5).await;
    let mut broken_off = house.reserve(&principal("alice")).await.unwrap();
    house.ledger.flush().await;
    let (_, bound) = house.balance("alice").await;
    let guess = Usage { output_tokens: 5_000, ..USED };
    broken_off.grow("anthropic", &guess);
    let charge = broken_off.settle(Settlement { estimated: true, ..settlement(guess) });
    house.ledger.flush().await;
    assert_eq!((charge.nano(), house.balance("alice").await), (bound, (bound, 0)));
    running.end().await;
}

async fn whose_groups_could_not_be_read_is_treated_as_a_failed_check(database: Database) {
    let running = start_with(database, &strict()).await;
    let house = &running.house;
    let alice = Arc::new(Principal { groups: Vec::new(), groups_unread: true, ..(*principal("alice")).clone() });
    house.cap(Scope::Organization, Period::Daily, 100).await;
    house.reserve(&alice).await.expect("no cap asks for groups").release(502, 1);
    house.cap(Scope::Group("eng".to_owned()), Period::Daily, 0).await;
    assert_eq!(house.reserve(&alice).await.unwrap_err(), Refusal::Unavailable);
    assert_eq!(house.ledger.check(&alice).await, Err(Refusal::Unavailable));
    running.end().await;
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::Group("eng".to_owned()), Period::Daily, 0).await;
    house.reserve(&alice).await.expect("the check fails open").release(502, 1);
    running.end().await;
}

async fn who_waits_for_room_is_not_overtaken_by_who_needs_less(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 5).await;
    let alice = principal("alice");
    let first = house.reserve(&alice).await.unwrap();
    let admission = House::admission(&alice);
    let large = Admission { size: Size { max_tokens: Some(2_000), ..admission.size.clone() }, ..admission };
    let mut large = Box::pin(house.reserve_as(&alice, large));
    let mut small = Box::pin(house.reserve(&alice));
    let waits = async {
        tokio::select! {
            biased;
            answer = &mut large => Some(answer.is_ok()),
            answer = &mut small => Some(answer.is_ok()),
            () = house.ledger.flush() => None,
        }
    };
    assert_eq!(waits.await, None, "the small one fits beside the first, but it came after the large one");
    first.release(502, 1);
    large.await.unwrap().release(502, 1);
    small.await.unwrap().release(502, 1);
    running.end().await;
}

async fn what_is_set_aside_is_learned_from_what_requests_cost(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 10_000).await;
    let mut aside = Vec::new();
    for turn in 0..10 {
        let who = format!("p{turn}");
        let reservation = house.reserve(&principal(&who)).await.unwrap();
        aside.push(house.balance(&who).await.1);
        reservation.settle(settlement(USED));
    }
    assert!(aside[0] > 2 * COST.nano(), "the most it can cost: {aside:?}");
    assert_eq!(aside[9], COST.nano(), "what the others did");
    running.end().await;
}

async fn a_changed_cap_counts_for_the_next_request(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    let alice = principal("alice");
    house.reserve(&alice).await.unwrap().settle(settlement(USED));
    house.ledger.flush().await;
    house.cap(Scope::Group("eng".to_owned()), Period::Daily, 0).await;
    assert!(matches!(house.reserve(&alice).await, Err(Refusal::Over(_))));
    house.cap(Scope::User("alice".to_owned()), Period::Daily, 100).await;
    let reservation = house.reserve(&alice).await.unwrap();
    let standing = reservation.standing().unwrap();
    assert_eq!((standing.spent, standing.cap.cents), (COST, 100));
    reservation.release(502, 1);
    running.end().await;
}

async fn a_blocked_caller_is_known_before_its_body_is_read(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    let alice = principal("alice");
    house.reserve(&alice).await.unwrap().settle(settlement(Usage { output_tokens: 1_000, ..USED }));
    house.ledger.flush().await;
    house.cap(Scope::User("alice".to_owned()), Period::Daily, 1).await;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 1).await;
    house.cap(Scope::User("alice".to_owned()), Period::Weekly, 5_000).await;
    let Err(Refusal::Over(standing)) = house.ledger.check_now(&alice).await else { panic!("not blocked") };
    assert_eq!(standing.cap.period, Period::Monthly, "the one that resets last");
    let Err(Refusal::Over(again)) = house.ledger.check(&alice).await else { panic!("not remembered") };
    assert_eq!(again, standing);
    assert_eq!(house.ledger.check(&principal("bob")).await, Ok(()));
    running.end().await;
}

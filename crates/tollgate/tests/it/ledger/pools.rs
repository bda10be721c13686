//! One budget for many: who pays out of which pool, and that none is spent twice.

use std::sync::Arc;
use std::time::Duration;

use control::identity::Principal;
use control::spend::{Refusal, Scope};

use super::house::{COST, USED, fifty_at_once, principal, settlement, start};
use crate::support::database::{Database, on_both_databases};

on_both_databases!(a_pool_is_spent_by_its_members_together_and_holds, the_largest_pool_that_is_not_exhausted_pays,);

async fn a_pool_is_spent_by_its_members_together_and_holds(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.pool("eng", 2).await;
    let through = fifty_at_once(house, |turn| principal(&format!("p{}", turn % 7))).await;
    assert_eq!(through, 4, "two cents and at most one request of $0.006");
    assert_eq!(house.of_pool("eng").await, (4 * COST.nano(), 0));
    let eve = principal("eve");
    for refusal in [house.reserve(&eve).await.unwrap_err(), house.ledger.check_now(&eve).await.unwrap_err()] {
        let Refusal::Over(standing) = refusal else { panic!("{refusal:?}") };
        assert!(standing.cap.shared);
        assert_eq!((&standing.cap.source, standing.cap.cents), (&Scope::Group("eng".to_owned()), 2));
    }
    assert!(matches!(house.ledger.check(&eve).await, Err(Refusal::Over(_))), "known before the body is read");
    running.end().await;
}

async fn the_largest_pool_that_is_not_exhausted_pays(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.pool("contractors", 1).await;
    house.pool("eng", 2).await;
    house.pool("other", 100).await;
    let member = |sub: &str| {
        Arc::new(Principal { groups: vec!["contractors".to_owned(), "eng".to_owned()], ..(*principal(sub)).clone() })
    };
    let mut paid = Vec::new();
    for turn in 0..6 {
        house.reserve(&member(&format!("p{turn}"))).await.unwrap().settle(settlement(USED));
        house.ledger.flush().await;
        paid.push((house.of_pool("eng").await.0 / COST.nano(), house.of_pool("contractors").await.0 / COST.nano()));
    }
    assert_eq!(paid, [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2)]);
    assert!(matches!(house.reserve(&member("p7")).await, Err(Refusal::Over(_))));
    assert_eq!(house.of_pool("other").await, (0, 0));
    house.verify().await;
    running.end().await;
}

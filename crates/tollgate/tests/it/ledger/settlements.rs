//! Whatever is set aside is settled once, however its request ends.

use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock, SystemClock, TestClock};
use control::spend::{Admission, Origin, Period, Refusal, Scope, Settlement};
use wire::usage::Usage;

use super::house::{COST, House, USED, config, principal, run, settlement, start, store_config};
use crate::support::database::{Database, on_both_databases};

on_both_databases!(
    a_grant_that_its_caller_never_took_is_given_back,
    every_request_is_counted_once_however_it_ends,
    a_request_counts_in_the_periods_in_which_it_began,
    who_is_seen_is_written_down_every_day,
    a_reservation_that_was_forgotten_is_charged_at_its_estimate,
    an_answer_that_costs_more_than_was_set_aside_takes_the_room_of_others,
    an_entry_that_the_database_refuses_does_not_hold_up_the_others,
);

async fn a_grant_that_its_caller_never_took_is_given_back(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 100).await;
    let alice = principal("alice");
    let mut asking = Box::pin(house.reserve(&alice));
    let asked = std::future::poll_fn(|cx| std::task::Poll::Ready(asking.as_mut().poll(cx).is_pending()));
    assert!(asked.await, "it is decided by the writer");
    house.ledger.flush().await;
    // Decided and told, and the client is gone before it is heard.
    drop(asking);
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (0, 0));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 0, "it was never made");
    house.verify().await;
    running.end().await;
}

async fn every_request_is_counted_once_however_it_ends(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("capped".to_owned()), Period::Weekly, 100_000).await;
    let tasks = (0..120).map(|turn| {
        let house = house.clone();
        tokio::spawn(async move {
            let who = principal(if turn % 2 == 0 { "capped" } else { "free" });
            let mut reservation = house.reserve(&who).await.unwrap();
            match turn % 6 {
                0 | 1 => drop(reservation.settle(settlement(USED))),
                2 | 3 => reservation.release(503, 3),
                _ => {
                    let many = Usage { output_tokens: 50_000, ..USED };
                    reservation.grow("anthropic", &many);
                    reservation.settle(Settlement { estimated: true, ..settlement(many) });
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    house.ledger.flush().await;
    let each = 20 * COST.nano() + 20 * (3_000_000 + 50_000 * 15_000);
    assert_eq!(house.balance("capped").await.0, each);
    assert_eq!(house.balance("free").await, (each, 0));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 120);
    assert_eq!(house.number("SELECT COUNT(*) FROM usage WHERE estimated = 1").await, 40);
    house.verify().await;
    let house = house.clone();
    running.end().await;
    assert_eq!(house.balance("capped").await, (each, 0));
}

async fn a_request_counts_in_the_periods_in_which_it_began(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-10-31T23:59:59Z".parse().unwrap()));
    let running = run(&store, Some(database), clock.clone(), &config(Duration::ZERO)).await;
    let house = &running.house;
    for cap in [None, Some(100)] {
        if let Some(cents) = cap {
            house.cap(Scope::Organization, Period::Monthly, cents).await;
        }
        let open = house.reserve(&principal("alice")).await.unwrap();
        clock.advance(Duration::from_secs(2));
        open.settle(settlement(USED));
        house.ledger.flush().await;
    }
    let rows = house.store.fetch("SELECT period, settled FROM account ORDER BY period", &[]).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.text(0).unwrap(), row.int(1).unwrap() / COST.nano())).collect();
    let expected = [("2026-10", 1), ("2026-10-31", 1), ("2026-11", 1), ("2026-11-01", 1), ("2026-W44", 2)];
    assert_eq!(rows, expected);
    house.verify().await;
    running.end().await;
}

async fn who_is_seen_is_written_down_every_day(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let running = run(&store, Some(database), clock.clone(), &config(Duration::ZERO)).await;
    let house = &running.house;
    for _ in 0..2 {
        house.reserve(&principal("alice")).await.unwrap().settle(settlement(USED));
        house.ledger.flush().await;
        assert_eq!(house.number("SELECT seen_at FROM principal").await, clock.now().as_millisecond());
        clock.advance(Duration::from_secs(86_400));
    }
    running.end().await;
}

async fn a_reservation_that_was_forgotten_is_charged_at_its_estimate(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 100).await;
    drop(house.reserve(&principal("alice")).await.unwrap());
    house.ledger.flush().await;
    let (settled, reserved) = house.balance("alice").await;
    assert!(settled >= COST.nano(), "{settled}");
    assert_eq!(reserved, 0);
    house.verify().await;
    running.end().await;
}

async fn an_answer_that_costs_more_than_was_set_aside_takes_the_room_of_others(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10).await;
    let alice = principal("alice");
    let mut first = house.reserve(&alice).await.unwrap();
    house.reserve(&alice).await.expect("there is room for two").release(502, 1);
    first.grow("anthropic", &Usage { output_tokens: 6_000, ..USED });
    house.ledger.flush().await;
    let refusal = house.reserve(&alice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::InFlight { .. }), "{refusal:?}");
    first.settle(settlement(USED));
    house.ledger.flush().await;
    house.verify().await;
    running.end().await;
}

async fn an_entry_that_the_database_refuses_does_not_hold_up_the_others(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    let nul = principal("n\0l");
    let origin = Origin { session_id: Some("\0".to_owned()), ..Origin::default() };
    let odd = Admission { origin, ..House::admission(&nul) };
    let odd = house.reserve_as(&nul, odd).await.unwrap();
    let alice = house.reserve(&principal("alice")).await.unwrap();
    // More than the column holds, in a sum: what the database itself refuses.
    let sql = "INSERT INTO account (period, id, settled, reserved) VALUES ($1, 'user:full', 9223372036854775807, 0)";
    house.store.execute(sql, &[(&Period::Monthly.key(house.clock.now())).into()]).await.unwrap();
    let full = house.reserve(&principal("full")).await.unwrap();
    odd.settle(settlement(USED));
    full.settle(settlement(USED));
    alice.settle(settlement(USED));
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await.0, COST.nano());
    assert_eq!(house.balance("n\u{fffd}l").await.0, COST.nano());
    running.end().await;
}

#[tokio::test]
async fn an_end_writes_everything_that_was_settled_before_it() {
    let database = Database::Sqlite.fresh().await;
    let store = store_config(&database);
    let running = run(&store, Some(database), Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = running.house.clone();
    for turn in 0..500 {
        house.reserve(&principal(&format!("p{turn}"))).await.unwrap().settle(settlement(USED));
    }
    running.stop.cancel();
    running.writer.await.unwrap();
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 500);
    house.verify().await;
}

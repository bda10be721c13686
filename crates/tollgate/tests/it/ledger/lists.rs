//! What administrators are shown of caps and of who has spent what.

use std::sync::Arc;
use std::time::Duration;

use control::spend::cap::From;
use control::spend::report::{Order, Whose};
use control::spend::{Period, Report, Scope};

use super::house::{USED, admin, principal, settlement, start};
use crate::support::database::{Database, on_both_databases};

on_both_databases!(
    spend_is_reported_per_principal_and_pages_go_on_where_they_ended,
    caps_are_listed_in_the_order_of_their_creation,
);

async fn spend_is_reported_per_principal_and_pages_go_on_where_they_ended(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    for (sub, times) in [("alice", 1), ("bob", 3), ("carol", 2), ("100%_d", 0)] {
        let who = principal(sub);
        for _ in 0..times {
            house.reserve(&who).await.unwrap().settle(settlement(USED));
        }
        house.reserve(&who).await.unwrap().release(502, 1);
    }
    house.ledger.flush().await;
    house.cap(Scope::User("bob".to_owned()), Period::Monthly, 500).await;
    let report = Report::new(house.store.clone(), house.caps.clone(), Arc::clone(&house.clock));
    let everyone = |q: &str, order| Whose::Everyone { q: q.to_owned(), order, limit: 2 };

    let mut seen = Vec::new();
    let mut order = Some(Order::Spend { period: Period::Monthly, after: None });
    while let Some(from) = order {
        let page = report.effective(&everyone("", from), &[Period::Monthly]).await.unwrap();
        seen.extend(page.rows.iter().map(|row| (row.principal.sub.clone(), row.spent.cents_rounded())));
        order = page.next;
    }
    let expected = [("bob", "1.8"), ("carol", "1.2"), ("alice", "0.6"), ("100%_d", "0")];
    assert_eq!(seen, expected.map(|(sub, spent)| (sub.to_owned(), spent.to_owned())));

    let by_subject = everyone("", Order::Subject { after: Some("alice".to_owned()) });
    let page = report.effective(&by_subject, &Period::ALL).await.unwrap();
    let subs: Vec<&str> = page.rows.iter().map(|row| row.principal.sub.as_str()).collect();
    assert_eq!(subs, ["bob", "bob", "bob", "carol", "carol", "carol"]);
    assert_eq!(page.next, None);

    let found = |q: &str| {
        let (report, whose) = (report.clone(), everyone(q, Order::Subject { after: None }));
        async move {
            let page = report.effective(&whose, &[Period::Daily]).await.unwrap();
            page.rows.into_iter().map(|row| row.principal.sub.clone()).collect::<Vec<_>>()
        }
    };
    assert_eq!(found("%_").await, ["100%_d"], "signs of patterns are plain text");
    assert_eq!(found("CAROL@").await, ["carol"]);

    let named = Whose::Named(vec!["nobody".to_owned(), "bob".to_owned()]);
    let rows = report.effective(&named, &[Period::Monthly]).await.unwrap().rows;
    let shown: Vec<_> = rows.iter().map(control::spend::report::Effective::to_json).collect();
    assert_eq!(shown[0]["actor"]["email_address"], serde_json::Value::Null);
    assert_eq!(shown[1]["amount"], "500");
    assert_eq!(shown[1]["period_to_date_spend"], "1.8");
    assert_eq!(shown[1]["source"]["user_id"], "bob");
    running.end().await;
}

async fn caps_are_listed_in_the_order_of_their_creation(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    for user in ["c", "a", "b"] {
        house.cap(Scope::User(user.to_owned()), Period::Daily, 1).await;
    }
    house.cap(Scope::Organization, Period::Daily, 9).await;
    house.cap(Scope::User("c".to_owned()), Period::Daily, 2).await;
    let caps = &house.caps;
    let page = caps.page(&From::Start, 3, None).await.unwrap().unwrap();
    let listed: Vec<_> = page.caps.iter().map(|listed| (listed.cap.scope.id().to_owned(), listed.cap.cents)).collect();
    assert_eq!(listed, [("c".to_owned(), Some(2)), ("a".to_owned(), Some(1)), ("b".to_owned(), Some(1))]);
    assert!(page.has_more);
    let last = page.caps[2].cap.id.clone();
    let rest = caps.page(&From::After(last.clone()), 3, None).await.unwrap().unwrap();
    assert_eq!((rest.caps.len(), rest.has_more), (1, false));
    let before = caps.page(&From::Before(last), 1, Some("user")).await.unwrap().unwrap();
    assert_eq!((before.caps[0].cap.scope.id(), before.has_more), ("a", true));
    assert!(caps.page(&From::After("spl_none".to_owned()), 1, None).await.unwrap().is_none());

    assert_eq!(caps.delete(&admin(), "spl_none").await.unwrap(), None);
    let gone = caps.delete(&admin(), &page.caps[0].cap.id).await.unwrap().unwrap();
    assert_eq!(gone.cents, Some(2));
    assert_eq!(caps.find(&gone.id).await.unwrap(), None);
    assert_eq!(house.number("SELECT COUNT(*) FROM admin_audit").await, 6);
    running.end().await;
}

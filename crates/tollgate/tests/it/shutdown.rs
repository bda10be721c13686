//! How the gateway ends: as an operator sees it, by signals, exit statuses and what is left in the database.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{PATIENCE, TestGateway};
use crate::support::upstream::{Answer, Gate, Step, message_events};

mod refusals;

const MODEL: &str = "claude-sonnet-4-6";

on_both_databases!(
    an_open_stream_runs_to_its_end_and_is_settled,
    a_stream_that_outlives_the_drain_is_cut_told_and_settled,
    a_signal_among_two_hundred_requests_loses_no_settlement,
);

fn streamed() -> String {
    json!({ "model": MODEL, "max_tokens": 200, "stream": true, "messages": [] }).to_string()
}

/// Waits until nobody listens any more.
async fn refuses_connections(gateway: &TestGateway) {
    let refused = async {
        while TcpStream::connect(gateway.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it still takes connections");
}

async fn an_open_stream_runs_to_its_end_and_is_settled(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start_process().await;
    let gate = Gate::closed();
    let events = message_events(MODEL, &["Hello", " there"], 1_000, 200);
    let whole: String = events.concat();
    let mut steps: Vec<Step> = events.into_iter().map(Step::from).collect();
    steps.insert(4, gate.step());
    gateway.upstream().answer(Answer::stream(steps));
    let mut answer = gateway.as_user("alice").stream(streamed()).await.unwrap();
    let first = answer.next().await.unwrap().unwrap();

    gateway.process().signal("TERM");
    gateway.process().line("SIGTERM received").await;
    refuses_connections(&gateway).await;
    gate.open();
    let rest = answer.rest().await.unwrap();
    assert_eq!([first, rest].concat(), whole.as_bytes());
    let status = gateway.process().exit().await;
    assert_eq!(status.code(), Some(0), "{}", gateway.process().log());
    gateway.process().line("every open request finished, none was cut").await;

    let event = gateway.audit().next("inference").await;
    assert_eq!((event["outcome"].as_str(), event["cost_usd"].to_string().as_str()), (Some("complete"), "0.006"));
    let books = gateway.books().await;
    assert_eq!((books.usage.len(), books.charged(), books.settled, books.reserved), (1, 6_000_000, 6_000_000, 0));
}

async fn a_stream_that_outlives_the_drain_is_cut_told_and_settled(database: Database) {
    let setup = TestGateway::setup().on(database).environment("CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS", "100");
    let mut gateway = setup.start_process().await;
    gateway.cap("alice", 1_000).await;
    let gate = Gate::closed();
    let events = message_events(MODEL, &["x".repeat(400).as_str()], 1_000, 200);
    let steps = events.into_iter().take(4).map(Step::from).chain([gate.step()]);
    gateway.upstream().answer(Answer::stream(steps));
    let mut answer = gateway.as_user("alice").stream(streamed()).await.unwrap();
    let mut seen = 0;
    while seen < 400 {
        seen += answer.next().await.unwrap().unwrap().len();
    }
    gateway.process().signal("TERM");
    let rest = answer.rest().await.expect("the end of a cut stream is told, not torn");
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    let last = rest.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: error\ndata: ") && last.contains("\"overloaded_error\""), "{rest}");

    let status = gateway.process().exit().await;
    assert_eq!(status.code(), Some(0));
    gateway.process().line("cut 1 request(s) still open").await;
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["outcome"].as_str(), event["output_tokens"].as_u64()), (Some("cut"), Some(100)));
    let books = gateway.books().await;
    let [usage] = books.usage.as_slice() else { panic!("{books:?}") };
    assert_eq!((usage.charge, usage.estimated), (4_500_000, true));
    assert_eq!((books.settled, books.reserved), (4_500_000, 0));
}

async fn a_signal_among_two_hundred_requests_loses_no_settlement(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start_process().await;
    // Half of the people have a cap, half of the answers are streamed, and half of them are held until the signal came.
    for number in (0..20).step_by(2) {
        gateway.cap(&format!("user-{number}"), 100_000).await;
    }
    let gate = Gate::closed();
    let held = gate.clone();
    gateway.upstream().answer_otherwise(move |request| {
        let body = request.json();
        let wait = if body["held"] == true { held.clone() } else { Gate::opened() };
        if body["stream"] == true {
            let mut steps: Vec<Step> =
                message_events(MODEL, &["Hello"], 1_000, 200).into_iter().map(Step::from).collect();
            steps.insert(3, wait.step());
            return Answer::stream(steps);
        }
        Answer::message(MODEL, "Hello", 1_000, 200).after(&wait)
    });
    let asking: Vec<_> = (0..200)
        .map(|number| {
            let caller = gateway.as_user(&format!("user-{}", number % 20));
            let body = json!({ "model": MODEL, "max_tokens": 200, "stream": number % 3 == 0, "held": number % 4 < 2 });
            tokio::spawn(async move {
                match caller.stream(body.to_string()).await {
                    Ok(answer) => (answer.status == 200 && answer.rest().await.is_ok()).then_some(()),
                    // It came too late.
                    Err(_) => None,
                }
            })
        })
        .collect();
    gateway.upstream().request(99).await;
    gateway.process().signal("TERM");
    gateway.process().line("SIGTERM received").await;
    gate.open();
    let mut answered = 0;
    for asking in asking {
        answered += usize::from(asking.await.unwrap().is_some());
    }
    assert_eq!(gateway.process().exit().await.code(), Some(0));
    assert!(answered >= 100, "{answered}");
    assert_eq!(gateway.upstream().requests().len(), answered, "an upstream worked for nobody");
    let books = gateway.books().await;
    let charged = i64::try_from(answered).unwrap() * 6_000_000;
    assert_eq!((books.usage.len(), books.charged()), (answered, charged));
    assert_eq!((books.settled, books.reserved), (charged, 0));
    assert_eq!(gateway.audit().take("inference", answered).await.len(), answered);
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once_on_either_signal() {
    for name in ["TERM", "INT"] {
        let mut gateway = TestGateway::setup().start_process().await;
        assert_eq!(gateway.anyone().get("/healthz").await.status, 200);
        gateway.process().signal(name);
        let ended = timeout(Duration::from_secs(3), gateway.process().exit()).await;
        assert_eq!(ended.expect("an idle connection held it up").code(), Some(0));
        gateway.process().line(&format!("SIG{name} received")).await;
    }
}

//! Upstreams that answer what nobody should. Whatever it is, the client gets one answer or one end, the request is settled
//! once, and the log names the upstream and the cause.

mod cloud;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::clouds::bedrock;
use crate::support::gateway::{Caller, TestGateway};
use crate::support::raw::{Raw, chunk};

const PROMPT: &str = r#"{"model":"claude-haiku-4-5","max_tokens":16,"stream":true,"messages":[]}"#;
const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// What an upstream sends before it closes the connection, and what comes of that.
struct Fault {
    sent: Vec<u8>,
    /// The client's status.
    status: u16,
    ending: Ending,
    /// The audit's word for it.
    outcome: &'static str,
    /// Stands in a line of the log that also names request and upstream; empty: there is nothing to say.
    log: &'static str,
}

enum Ending {
    /// Exactly this body.
    Body(Vec<u8>),
    /// An error of ours, of this type.
    Error(&'static str),
    /// The body breaks off.
    Cut,
    /// A stream whose last event, and no other, is an error of this type.
    ErrorEvent(&'static str),
}

use Ending::{Body, Cut, Error, ErrorEvent};

fn fault(sent: impl Into<Vec<u8>>, status: u16, ending: Ending, outcome: &'static str, log: &'static str) -> Fault {
    Fault { sent: sent.into(), status, ending, outcome, log }
}

/// A gateway process before an upstream of Anthropic's format, which has haiku, and Bedrock, which has sonnet.
async fn process() -> (TestGateway, Raw, Raw) {
    let (raw, cloud) = (Raw::start().await, Raw::start().await);
    let never = json!({ "enabled": false });
    let first = json!({ "name": "raw", "base_url": raw.url(), "breaker": never, "models": ["claude-haiku-4-5"] });
    let second = json!({ "base_url": cloud.url(), "breaker": never, "models": ["claude-sonnet-4-6"] });
    let gateway = TestGateway::setup().upstream(first).upstream(bedrock(&second)).start_process().await;
    (gateway, raw, cloud)
}

/// Lets the upstream do that and checks what comes of it.
async fn check(gateway: &mut TestGateway, (upstream, name): (&Raw, &str), prompt: &str, id: &str, fault: &Fault) {
    let caller = gateway.as_user("alice").header("x-client-request-id", id);
    let (answer, ()) = tokio::join!(caller.stream(prompt.to_owned()), upstream.answer(&fault.sent));
    let answer = answer.unwrap();
    assert_eq!(answer.status, fault.status, "{id}");
    assert!(!["location", "set-cookie", "x-odd"].iter().any(|name| answer.headers.contains_key(*name)), "{id}");
    match (answer.rest().await, &fault.ending) {
        (Ok(came), Body(body)) => assert_eq!(came, body, "{id}"),
        (Ok(came), Error(kind)) => {
            let told: Value = serde_json::from_slice(&came).unwrap();
            assert_eq!((&told["error"]["type"], &told["request_id"]), (&json!(kind), &json!(id)), "{id}: {told}");
        }
        (Ok(came), ErrorEvent(kind)) => {
            let text = String::from_utf8(came.to_vec()).unwrap();
            let (before, last) = text.rsplit_once("event: error\ndata: ").unwrap();
            assert!(!before.contains("event: error") && last.contains(kind) && last.ends_with("}\n\n"), "{id}: {text}");
        }
        (Err(_), Cut) => {}
        (came, _) => panic!("{id}: {came:?}"),
    }
    let event = gateway.audit().next("inference").await;
    let told = (event["request_id"].as_str(), event["status"].as_u64(), event["outcome"].as_str());
    assert_eq!(told, (Some(id), Some(fault.status.into()), Some(fault.outcome)), "{event}");
    // Operational lines come before the audit's.
    let log = gateway.process().log();
    let named = [format!("request_id={id}"), format!("upstream={name}"), fault.log.to_owned()];
    let is_told = log.lines().any(|line| named.iter().all(|part| line.contains(part)));
    assert!(is_told || fault.log.is_empty(), "{id}: {} in\n{log}", fault.log);
}

fn faults() -> Vec<Fault> {
    let page = "<html>maintenance</html>";
    let html =
        |status: &str| format!("HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: 24\r\n\r\n{page}");
    let half = r#"{"type":"message","usage":{"input_tok"#;
    let start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3}}}\n\n";
    let whole = format!("{start}data: {{\"type\":\"message_stop\"}}\n\n");
    let chunks = [chunk(&whole), b"0\r\n\r\n".to_vec()].concat();
    let headers: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    vec![
        // Pages.
        fault(html("200 OK"), 200, Body(page.into()), "complete", "answered with text/html"),
        fault(html("422 No"), 422, Body(page.into()), "error", ""),
        fault(html("500 No"), 502, Error("api_error"), "error", "answered 500"),
        fault(html("503 No"), 529, Error("overloaded_error"), "error", "answered 503"),
        fault(html("401 No"), 502, Error("api_error"), "error", "refused our credential"),
        fault(html("999 No"), 502, Error("api_error"), "error", "answered 999"),
        // Half a document: as long as announced, shorter, and without a length.
        fault(
            format!("{JSON}content-length: {}\r\n\r\n{half}", half.len()),
            200,
            Body(half.into()),
            "complete",
            "no whole JSON document",
        ),
        fault(format!("{JSON}content-length: 4000\r\n\r\n{half}"), 200, Cut, "upstream_aborted", "broken off"),
        fault(format!("{JSON}{CHUNKED}ff\r\n{half}"), 200, Cut, "upstream_aborted", "broken off"),
        fault(format!("{JSON}\r\n{half}"), 200, Body(half.into()), "complete", ""),
        // A 400 whose words decide whether another upstream is asked, and that breaks off.
        fault(
            "HTTP/1.1 400 No\r\ncontent-length: 99\r\n\r\n{\"error\":",
            502,
            Error("api_error"),
            "error",
            "no answer",
        ),
        // Streams without a length, whole and not.
        fault(format!("{EVENTS}\r\n{whole}"), 200, Body(whole.clone().into()), "complete", ""),
        fault(format!("{EVENTS}\r\n{start}"), 200, Body(start.into()), "upstream_aborted", "before its last event"),
        // Framing.
        fault(format!("{EVENTS}{CHUNKED}zz\r\n{start}"), 200, Cut, "upstream_aborted", "broken off"),
        fault(
            format!("{JSON}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
            502,
            Error("api_error"),
            "error",
            "no answer",
        ),
        fault("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}", 502, Error("api_error"), "error", "no answer"),
        fault("this is not HTTP\r\n\r\n", 502, Error("api_error"), "error", "no answer"),
        fault("", 502, Error("api_error"), "error", "no answer"),
        fault(format!("HTTP/1.1 200 OK\r\n{headers}\r\n"), 502, Error("api_error"), "error", "no answer"),
        fault(
            format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)),
            502,
            Error("api_error"),
            "error",
            "no answer",
        ),
        // Redirects, trailers, interim answers.
        fault(
            "HTTP/1.1 307 No\r\nlocation: http://127.0.0.1:1/\r\nset-cookie: a=b\r\ncontent-length: 5\r\n\r\nmoved",
            307,
            Body("moved".into()),
            "error",
            "check its base_url",
        ),
        fault("HTTP/1.1 304 No\r\n\r\n", 304, Body(Vec::new()), "error", "check its base_url"),
        fault(
            [hints, EVENTS, CHUNKED, std::str::from_utf8(&chunks).unwrap()].concat(),
            200,
            Body(whole.clone().into()),
            "complete",
            "",
        ),
        fault(format!("{hints}HTTP/1.1 500 No\r\n\r\n"), 502, Error("api_error"), "error", "answered 500"),
        fault(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            502,
            Error("api_error"),
            "error",
            "101",
        ),
        fault(
            format!(
                "{EVENTS}trailer: x-odd\r\n{CHUNKED}{}0\r\nx-odd: 1\r\nset-cookie: a=b\r\n\r\n",
                String::from_utf8(chunk(&whole)).unwrap()
            ),
            200,
            Body(whole.into()),
            "complete",
            "",
        ),
    ]
}

#[tokio::test]
async fn whatever_an_upstream_answers_the_client_gets_one_end_the_ledger_one_row_and_the_log_the_cause() {
    let (mut gateway, raw, cloud) = process().await;
    let (own, clouds) = (faults(), cloud::faults());
    for (number, fault) in own.iter().enumerate() {
        check(&mut gateway, (&raw, "raw"), PROMPT, &format!("raw-{number}"), fault).await;
    }
    for (number, (prompt, fault)) in clouds.iter().enumerate() {
        check(&mut gateway, (&cloud, "cloud"), prompt, &format!("cloud-{number}"), fault).await;
    }
    ends_with(gateway, own.len() + clouds.len()).await;
}

/// Its books, after it has ended as told, have so many rows and nothing that is still set aside.
async fn ends_with(mut gateway: TestGateway, rows: usize) {
    gateway.process().signal("TERM");
    assert!(gateway.process().exit().await.success());
    assert!(gateway.audit().waiting("inference").is_empty(), "{}", gateway.audit().text());
    let books = gateway.books().await;
    assert_eq!((books.usage.len(), books.reserved, books.settled), (rows, 0, books.charged()));
}

#[tokio::test]
async fn a_hundred_megabytes_of_error_are_neither_read_for_a_verdict_nor_kept() {
    const MOST: usize = 100 << 20;
    let head = |status: u16| format!("HTTP/1.1 {status} No\r\ncontent-length: {MOST}\r\n\r\n");
    let (ours, clients) = (head(500), head(400));
    let (mut gateway, raw, cloud) = process().await;
    let alice = gateway.as_user("alice");
    let answered = async |caller: Caller, prompt: &'static str| {
        let mut answer = caller.stream(prompt).await.unwrap();
        let mut came = 0;
        while let Some(piece) = answer.next().await {
            came += piece.unwrap().len();
        }
        (answer.status.as_u16(), came)
    };
    let before = gateway.process().peak_kib();
    // What goes to the next upstream, or to nobody, is not read.
    let (told, sent) = tokio::join!(answered(alice.clone(), PROMPT), raw.flood(&ours, MOST));
    assert!(told.0 == 502 && told.1 < 1000 && sent < 20 << 20, "{told:?} of {sent}");
    let (told, sent) = tokio::join!(answered(alice.clone(), cloud::WHOLE), cloud.flood(&clients, MOST));
    assert!(told.0 == 400 && told.1 < 1000 && sent < 20 << 20, "{told:?} of {sent}");
    // What is the client's passes through.
    let (told, sent) = tokio::join!(answered(alice, PROMPT), raw.flood(&clients, MOST));
    assert_eq!((told, sent), ((400, MOST), MOST));
    let grown = gateway.process().peak_kib() - before;
    assert!(grown < 32 << 10, "it has grown by {grown} KiB");
    gateway.audit().take("inference", 3).await;
    ends_with(gateway, 3).await;
}

#[tokio::test]
async fn a_stream_of_amazons_that_closes_at_any_byte_has_one_end_and_one_settlement() {
    let raw = Raw::start().await;
    let upstream = bedrock(&json!({ "base_url": raw.url(), "breaker": { "enabled": false } }));
    let mut gateway = TestGateway::setup().upstream(upstream).start().await;
    let alice = gateway.as_user("alice");
    let (head, frames) = cloud::stream();
    let whole = frames.concat();
    let first = head.len() + frames[0].len();
    let script = [head.as_bytes(), &whole].concat();
    for at in 0..=script.len() {
        let (answer, ()) = tokio::join!(alice.stream(cloud::STREAMED), raw.answer(&script[..at]));
        let answer = answer.unwrap_or_else(|error| panic!("at {at}: {error:?}"));
        let status = answer.status.as_u16();
        let text = String::from_utf8(answer.rest().await.unwrap().to_vec()).unwrap();
        let event = gateway.audit().next("inference").await;
        let (ends, outcome) = match at {
            // Nothing was told yet, so that another upstream could have been asked.
            _ if at < first => ((502, 0), "error"),
            _ if at < script.len() => ((200, 1), "upstream_aborted"),
            _ => ((200, 0), "complete"),
        };
        assert_eq!((status, text.matches("event: error\n").count()), ends, "at {at}: {text}");
        assert!(status == 502 || text.ends_with("}\n\n"), "at {at}: {text}");
        assert_eq!((&event["status"], &event["outcome"]), (&json!(status), &json!(outcome)), "at {at}");
    }
    gateway.stop().await;
    let books = gateway.books().await;
    assert_eq!((books.usage.len(), books.reserved), (script.len() + 1, 0));
    assert_eq!(books.usage.iter().filter(|usage| usage.charge > 0).count(), script.len() + 1 - first);
}

#[tokio::test]
async fn a_kept_connection_that_the_only_upstream_has_closed_costs_no_request() {
    let raw = Raw::start().await;
    let gateway = TestGateway::setup().upstream(json!({ "name": "first", "base_url": raw.url() })).start().await;
    let alice = gateway.as_user("alice");
    let ok = format!("{JSON}content-length: 2\r\n\r\n{{}}");
    let mut kept = None;
    for _ in 0..3 {
        // The connection of the request before ends when nobody expects it to.
        drop(kept.take());
        let (reply, stream) = tokio::join!(alice.messages(PROMPT), async {
            let mut stream = raw.accept().await;
            stream.write_all(ok.as_bytes()).await.unwrap();
            stream
        });
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "{}"));
        kept = Some(stream);
        let event = gateway.audit().next("inference").await;
        assert_eq!((&event["attempts"], &event["outcome"]), (&json!(1), &json!("complete")));
    }
}

#[tokio::test]
async fn an_upstream_whose_connection_is_reset_before_it_answers_is_passed_over_without_being_asked_again() {
    let (first, second) = (Raw::start().await, Raw::start().await);
    let upstream = |name: &str, raw: &Raw| json!({ "name": name, "base_url": raw.url() });
    let setup = TestGateway::setup().upstream(upstream("first", &first)).upstream(upstream("second", &second));
    let gateway = setup.start().await;
    let alice = gateway.as_user("alice");
    let ok = format!("{JSON}content-length: 2\r\n\r\n{{}}");
    let (reply, ..) = tokio::join!(
        alice.messages(PROMPT),
        async {
            let stream = first.accept().await;
            // Unread data or this: either way the other side sees a reset.
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(stream);
        },
        async { second.accept().await.write_all(ok.as_bytes()).await.unwrap() }
    );
    assert_eq!(reply.text(), "{}");
    let event = gateway.audit().next("inference").await;
    assert_eq!((&event["tried"][0]["ended"], &event["attempts"]), (&json!("broken"), &json!(2)));
}

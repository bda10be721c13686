//! Telemetry that clients post for collectors (contract A11): relayed as it is, where it is wanted.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::gateway::TestGateway;
use crate::support::upstream::{Answer, Gate, Upstream};

/// A collector that takes everything.
async fn collector() -> Upstream {
    let collector = Upstream::start().await;
    collector.answer_otherwise(|_| Answer::new(200, "application/x-protobuf", ""));
    collector
}

fn forward_to(destinations: &[Value]) -> Value {
    json!({ "telemetry": { "forward_to": destinations } })
}

#[tokio::test]
async fn each_collector_gets_the_signals_it_asked_for_byte_for_byte() {
    let (metrics, everything) = (collector().await, collector().await);
    let mut gateway = TestGateway::setup()
        .config(forward_to(&[
            json!({ "url": metrics.url() }),
            json!({ "url": format!("{}/otlp/", everything.url()), "metrics": false, "logs": true, "traces": true, "headers": { "authorization": "Bearer for-the-collector" } }),
        ]))
        .start()
        .await;
    let alice = gateway
        .as_user("alice")
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "gzip")
        .header("cookie", "a=b")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("user-agent", "otel");
    let body = Bytes::from_static(b"\x1f\x8b\xff\x00 not a protobuf");
    for path in ["/v1/metrics", "/v1/logs", "/v1/traces"] {
        let reply = alice.post(path, body.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.body.len(), reply.header("content-type")), (200, 0, None));
    }
    assert_eq!(metrics.request(0).await.uri, "/v1/metrics");
    everything.request(1).await;
    let mut received = everything.requests();
    received.sort_by_key(|request| request.uri.to_string());
    assert_eq!((received[0].uri.path(), received[1].uri.path()), ("/otlp/v1/logs", "/otlp/v1/traces"));
    for request in &received {
        assert_eq!(request.body, body);
        let mut headers: Vec<String> =
            request.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.retain(|line| !line.starts_with("host: "));
        headers.sort();
        insta::allow_duplicates! {
            insta::assert_snapshot!(headers.join("\n"), @r"
            authorization: Bearer for-the-collector
            content-encoding: gzip
            content-length: 19
            content-type: application/x-protobuf
            user-agent: tollgate/0.1.0
            ");
        }
    }
    gateway.stop().await;
    assert_eq!(metrics.requests().len(), 1, "logs or traces went where nobody asked for them");
}

#[tokio::test]
async fn a_client_never_waits_for_a_collector() {
    let slow = collector().await;
    let gate = Gate::closed();
    slow.answer(Answer::new(200, "text/plain", "").after(&gate));
    let gateway = TestGateway::setup().config(forward_to(&[json!({ "url": slow.url() })])).start().await;
    assert_eq!(gateway.as_user("alice").post("/v1/metrics", "m").await.status, 200);
    gate.reached().await;
    assert_eq!(gateway.as_user("alice").post("/v1/metrics", "").await.status, 200);
    gate.open();
}

#[tokio::test]
async fn telemetry_that_nobody_wants_is_taken_and_dropped() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.as_user("alice").post("/v1/traces", "t").await.status, 200);
    assert_eq!(gateway.as_user("alice").post("/v1/profiles", "p").await.status, 404);
}

#[tokio::test]
async fn the_last_posts_are_sent_before_the_gateway_ends() {
    let collector = collector().await;
    let mut gateway = TestGateway::setup().config(forward_to(&[json!({ "url": collector.url() })])).start().await;
    for _ in 0..20 {
        assert_eq!(gateway.as_user("alice").post("/v1/metrics", "m").await.status, 200);
    }
    gateway.stop().await;
    assert_eq!(collector.requests().len(), 20);
}

#[tokio::test]
async fn clients_are_told_where_to_post_by_their_settings() {
    let collector = collector().await;
    let telemetry = json!({ "telemetry": {
        "forward_to": [{ "url": collector.url(), "logs": true }], "resource_attributes": { "team": "xy-z" },
    } });
    let public = json!({ "listen": { "public_url": "http://127.0.0.1:9" } });
    let gateway = TestGateway::setup().config(telemetry).config(public).start().await;
    let settings = gateway.as_user("alice").get("/managed/settings").await;
    insta::assert_json_snapshot!(settings.json()["settings"], @r#"
    {
      "env": {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_RESOURCE_ATTRIBUTES": "team=xy-z",
        "OTEL_TRACES_EXPORTER": "none"
      }
    }
    "#);
}

//! What every answer carries and every request passes, whoever asks and whatever for (contract A2, A12, A14).

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::{Uuid, Version};

use crate::support::gateway::{Caller, TestGateway};
use crate::support::http::Reply;

mod raw;
mod tls;

const PROMPT: &str = r#"{"model":"claude-haiku-4-5","max_tokens":16,"messages":[]}"#;

fn is_dressed(reply: &Reply) {
    let expected = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ];
    for (name, value) in expected {
        assert_eq!(reply.header(name), Some(value), "{reply:?}");
    }
    let id = Uuid::parse_str(reply.header("x-request-id").unwrap()).unwrap();
    assert_eq!(id.get_version(), Some(Version::Random));
    let unwanted = |name: &str| name == "server" || name == "content-encoding" || name.starts_with("access-control-");
    assert!(!reply.headers.keys().any(|name| unwanted(name.as_str())), "{reply:?}");
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_a_name() {
    let limits = json!({ "limits": { "max_request_bytes": 1000, "max_url_length": 200 } });
    let gateway = TestGateway::setup().config(limits).start().await;
    let curious =
        |caller: Caller| caller.header("origin", "https://evil.example").header("accept-encoding", "gzip, br");
    let (nobody, alice) = (curious(gateway.anyone()), curious(gateway.as_user("alice")));
    let replies = [
        (200, nobody.get("/healthz").await),
        (200, nobody.get("/readyz").await),
        (200, nobody.get("/").await),
        (200, nobody.get("/protocol").await),
        (200, nobody.get("/device").await),
        (200, nobody.get("/.well-known/oauth-authorization-server").await),
        (400, nobody.post("/oauth/token", "").await),
        (401, nobody.get("/nowhere").await),
        (401, nobody.get("/v1/organizations/spend_limits").await),
        (413, nobody.messages("x".repeat(1001)).await),
        (414, nobody.get(&format!("/{}", "x".repeat(200))).await),
        (404, alice.get("/nowhere").await),
        (405, alice.get("/v1/messages").await),
        (400, alice.messages("{").await),
        (200, alice.messages(PROMPT).await),
        (200, alice.get("/v1/models").await),
        (404, alice.get("/managed/settings").await),
        (200, alice.post("/v1/traces", "t").await),
        (200, curious(gateway.admin()).get("/v1/organizations/spend_limits").await),
        (403, curious(gateway.auditor()).post("/v1/organizations/spend_limits", "{}").await),
    ];
    for (status, reply) in &replies {
        assert_eq!(reply.status, *status, "{reply:?}");
        is_dressed(reply);
    }
    let allowed = replies.iter().find(|(status, _)| *status == 405).unwrap().1.header("allow");
    assert_eq!(allowed, Some("POST"));
}

#[tokio::test]
async fn a_client_may_name_its_request_when_the_name_is_short_and_plain() {
    let gateway = TestGateway::start().await;
    let named = async |header: &str, id: &str| {
        let reply = gateway.as_user("alice").header(header, id).messages(PROMPT).await;
        assert_eq!(reply.header("request-id"), reply.header("x-request-id"));
        let given = reply.header("x-request-id").unwrap().to_owned();
        assert_eq!(gateway.audit().next("inference").await["request_id"], given.as_str());
        given
    };
    assert_eq!(named("x-client-request-id", "abc-123").await, "abc-123");
    for (header, id) in
        [("x-client-request-id", "with blank"), ("x-client-request-id", "\"quoted\""), ("x-request-id", "abc-123")]
    {
        let given = named(header, id).await;
        assert!(Uuid::parse_str(&given).is_ok(), "{given}");
    }
    assert!(Uuid::parse_str(&named("x-client-request-id", &"x".repeat(200)).await).is_ok());
}

fn proxied(access: Value) -> Value {
    json!({ "listen": { "trusted_proxies": ["127.0.0.1", "10.0.0.0/8"] }, "access_control": access })
}

#[tokio::test]
async fn addresses_are_let_in_by_what_trusted_proxies_say_of_them() {
    let access = json!({ "deny_cidrs": ["203.0.113.66/32"], "allow_cidrs": ["203.0.113.0/24", "2001:db8::/32"] });
    let gateway = TestGateway::setup().config(proxied(access)).start().await;
    let status = async |forwarded: &str, path: &str| {
        let reply = gateway.as_user("alice").header("x-forwarded-for", forwarded).get(path).await;
        is_dressed(&reply);
        if reply.status == 403 {
            assert_eq!(reply.json()["error"], json!({ "type": "permission_error", "message": "forbidden" }));
        }
        reply.status.as_u16()
    };
    assert_eq!(status("203.0.113.9", "/v1/models").await, 200);
    assert_eq!(status("6.6.6.6, 203.0.113.9:4711, 10.1.2.3", "/v1/models").await, 200);
    assert_eq!(status("[2001:db8::1]:443", "/v1/models").await, 200);
    assert_eq!(status("::ffff:203.0.113.9", "/v1/models").await, 200);
    let refused = [
        ("203.0.113.66", "/v1/models", "ip_denylist", "203.0.113.66"),
        ("203.0.113.66", "/healthz", "ip_denylist", "203.0.113.66"),
        ("203.0.113.9, 198.51.100.1", "/v1/models", "ip_not_allowlisted", "198.51.100.1"),
        ("203.0.113.9, unknown", "/v1/models", "xff_unparseable", "127.0.0.1"),
        ("203.0.113.9, unknown", "/healthz", "xff_unparseable", "127.0.0.1"),
    ];
    for (forwarded, path, reason, client_ip) in refused {
        assert_eq!(status(forwarded, path).await, 403, "{forwarded}");
        let event = gateway.audit().next("access.denied").await;
        assert_eq!((event["reason"].as_str(), event["client_ip"].as_str()), (Some(reason), Some(client_ip)));
        assert_eq!(event["xff_hop"].as_str(), (reason == "xff_unparseable").then_some("unknown"));
    }
    assert_eq!(status("198.51.100.1", "/healthz").await, 200, "load balancers ask from addresses that nobody lists");
    assert_eq!(gateway.anyone().get("/v1/models").await.status, 403, "the proxy itself is not on the list");
}

#[tokio::test]
async fn what_a_client_says_of_its_own_address_counts_for_nothing() {
    let deny = json!({ "access_control": { "deny_cidrs": ["203.0.113.0/24"] } });
    let gateway = TestGateway::setup().config(deny).start().await;
    for header in ["x-forwarded-for", "x-real-ip"] {
        assert_eq!(gateway.anyone().header(header, "203.0.113.9").get("/v1/models").await.status, 401);
        assert_eq!(gateway.audit().next("auth.denied").await["client_ip"], "127.0.0.1");
    }
    let only_others = json!({ "access_control": { "allow_cidrs": ["203.0.113.0/24"] } });
    let gateway = TestGateway::setup().config(only_others).start().await;
    assert_eq!(gateway.as_user("alice").header("x-forwarded-for", "203.0.113.9").get("/v1/models").await.status, 403);
    assert_eq!(gateway.anyone().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn whoever_comes_by_is_told_what_this_is_and_how_to_speak_to_it() {
    let gateway = TestGateway::start().await;
    let page = gateway.anyone().header("host", "evil.example").get("/").await;
    assert_eq!(
        (page.header("content-type"), page.header("cache-control")),
        (Some("text/html; charset=utf-8"), Some("no-store"))
    );
    assert_eq!(
        page.header("content-security-policy"),
        Some(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
        )
    );
    for shown in
        [gateway.url(), "<dd>127.0.0.1</dd>", env!("CARGO_PKG_VERSION"), "href=\"/protocol\"", "href=\"/device\""]
    {
        assert!(page.text().contains(shown), "{shown} in {}", page.text());
    }
    assert!(!page.text().contains("<script") && !page.text().contains("src=") && !page.text().contains("url("));
    assert_eq!(page.header("set-cookie"), None);

    let protocol = gateway.anyone().get("/protocol").await;
    assert_eq!(protocol.header("content-type"), Some("text/markdown; charset=utf-8"));
    assert!(protocol.text().starts_with("# "), "{}", protocol.text());
}

#[tokio::test]
async fn health_is_told_to_anyone_in_one_word() {
    let gateway = TestGateway::start().await;
    let told = async |path: &str| {
        let reply = gateway.anyone().get(path).await;
        (reply.status.as_u16(), reply.body)
    };
    assert_eq!(told("/healthz").await, (200, Bytes::from_static(b"ok")));
    assert_eq!(told("/readyz").await, (200, Bytes::from_static(b"ready")));
    assert!(gateway.audit().waiting("auth.denied").is_empty());
}

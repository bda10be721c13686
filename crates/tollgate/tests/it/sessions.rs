//! Sessions after their sign-in, through a real OpenID provider: refreshed, revoked, signed out and forgotten.

use std::sync::Arc;
use std::time::Duration;

use control::audit::AuditLog;
use control::clock::{Clock, SystemClock, TestClock};
use control::identity::{Lasting, Sessions};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::database::{Database, PostgresServer, Store, fresh_database, on_both_databases};
use crate::support::gateway::{Audit, Caller, Device, Setup, TestGateway};
use crate::support::http::{Reply, Visitor};
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::{Answer, Gate, Step, message_events};

on_both_databases!(
    two_terminals_refresh_at_once_and_a_token_used_later_ends_the_session,
    administrators_see_sessions_and_end_them,
    a_client_signs_out,
    who_signs_out_at_the_provider_is_signed_out_here,
    sessions_leave_no_rows_after_expiry_and_retention,
);

const DAY: Duration = Duration::from_secs(86_400);
const MODEL: &str = "claude-sonnet-4-6";
const MODELS: &str = "/v1/models";
const SESSIONS: &str = "/v1/organizations/sessions";

fn people() -> Setup {
    let alice = Account::new("alice").email("alice@example.com");
    TestGateway::setup().people(RefreshTokens::Rotated, &[alice, Account::new("bob").email("bob@example.com")])
}

fn refused() -> (u16, Value) {
    (401, json!({ "error": "invalid_grant" }))
}

async fn status(caller: Caller) -> u16 {
    caller.get(MODELS).await.status.as_u16()
}

fn said(reply: Reply) -> (u16, Value) {
    (reply.status.as_u16(), reply.json())
}

async fn two_terminals_refresh_at_once_and_a_token_used_later_ends_the_session(database: Database) {
    let clock = Arc::new(TestClock::at(SystemClock.now()));
    let gateway = people().on(database).clock(Arc::clone(&clock) as _).start().await;
    let first = gateway.sign_in("alice").await;
    let issued = gateway.idp().issued().await.len();
    let refreshes = join_all((0..4).map(|_| gateway.refresh(&first))).await;
    let second = refreshes[0].1.clone();
    for (status, tokens) in refreshes {
        assert_eq!((status, &tokens["refresh_token"]), (200, &second["refresh_token"]), "{tokens}");
    }
    assert_eq!(gateway.idp().issued().await.len(), issued + 3, "the provider was asked once");
    clock.advance(Duration::from_secs(61));
    let (status_now, third) = gateway.refresh(&second).await;
    assert_eq!(status_now, 200, "{third}");

    assert_eq!(gateway.refresh(&first).await, refused());
    let reuse = gateway.audit().next("session.reuse").await;
    let end = gateway.audit().next("session.end").await;
    assert_eq!((&reuse["sub"], &end["reason"]), (&json!("alice"), &json!("reuse")));
    assert_eq!(reuse["session"], end["session"]);
    assert_eq!(gateway.refresh(&third).await, refused());
    assert_eq!(status(gateway.with_tokens(&third)).await, 401);
    assert_eq!(gateway.audit().next("auth.denied").await["cause"], "revoked");
}

async fn administrators_see_sessions_and_end_them(database: Database) {
    let gateway = people().on(database).start().await;
    let (one, two) = (gateway.sign_in("alice").await, gateway.sign_in("alice").await);
    let bob = gateway.sign_in("bob").await;
    let list = async |query: &str| said(gateway.auditor().get(&format!("{SESSIONS}{query}")).await).1;
    let all = list("?limit=2").await;
    assert_eq!((all["data"].as_array().unwrap().len(), &all["has_more"]), (2, &json!(true)));
    let rest = list(&format!("?after_id={}", all["last_id"].as_str().unwrap())).await;
    assert_eq!((&rest["data"][0]["user_id"], &rest["has_more"]), (&json!("bob"), &json!(false)));
    let shown = &all["data"][0];
    assert_eq!(
        (&shown["type"], &shown["email_address"], &shown["surface"], &shown["client_ip"], &shown["ended_at"]),
        (&json!("session"), &json!("alice@example.com"), &json!("claude-code"), &json!("127.0.0.1"), &json!(null))
    );

    let path = format!("{SESSIONS}/{}", shown["id"].as_str().unwrap());
    assert_eq!(gateway.auditor().delete(&path).await.status, 403);
    assert_eq!(said(gateway.admin().delete(&path).await), (200, json!({"type": "session_ended", "id": shown["id"]})));
    assert_eq!(gateway.admin().delete(&format!("{SESSIONS}/unknown")).await.status, 404);
    assert_eq!((status(gateway.with_tokens(&one)).await, status(gateway.with_tokens(&two)).await), (401, 200));
    assert_eq!(gateway.refresh(&one).await, refused());
    let end = gateway.audit().next("session.end").await;
    assert_eq!((&end["reason"], &end["actor"]), (&json!("admin"), &json!("admin-key:writer")));
    let active = list("?user_id=alice&active=true").await;
    assert_eq!((active["data"].as_array().unwrap().len(), &active["data"][0]["id"]), (1, &all["data"][1]["id"]));
    assert_eq!(list("?active=false").await["data"][0]["end_reason"], "admin");

    let revoke = async |body: Value| said(gateway.admin().post(&format!("{SESSIONS}/revoke"), body.to_string()).await);
    let (answer, body) = revoke(json!({"user_id": "alice"})).await;
    assert_eq!((answer, &body["ended"]), (200, &json!(1)));
    assert_eq!((status(gateway.with_tokens(&two)).await, status(gateway.with_tokens(&bob)).await), (401, 200));
    assert_eq!(revoke(json!({})).await.0, 400);
    assert_eq!(revoke(json!({"all": true})).await.1["ended"], 1);
    assert_eq!(status(gateway.with_tokens(&bob)).await, 401);
    assert_eq!(gateway.refresh(&bob).await, refused());
    assert_eq!(gateway.auditor().get(&format!("{SESSIONS}?active=perhaps")).await.status, 400);
    assert_eq!(gateway.auditor().get(&format!("{SESSIONS}?before_id=unknown")).await.status, 400);
}

async fn a_client_signs_out(database: Database) {
    let gateway = people().on(database).start().await;
    let document = gateway.anyone().get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(document["revocation_endpoint"], format!("{}/oauth/revoke", gateway.url()));
    let revoke = async |fields: &[(&str, &str)]| gateway.anyone().form("/oauth/revoke", fields).await.status.as_u16();
    assert_eq!(revoke(&[("token", "garbage"), ("token_type_hint", "refresh_token")]).await, 200);
    assert_eq!(revoke(&[("token_type_hint", "refresh_token")]).await, 400);
    for kind in ["access_token", "refresh_token"] {
        let tokens = gateway.sign_in("alice").await;
        assert_eq!(status(gateway.with_tokens(&tokens)).await, 200);
        assert_eq!(revoke(&[("token", tokens[kind].as_str().unwrap())]).await, 200);
        assert_eq!(status(gateway.with_tokens(&tokens)).await, 401, "{kind}");
        assert_eq!(gateway.refresh(&tokens).await, refused(), "{kind}");
        assert_eq!(gateway.audit().next("session.end").await["reason"], "signed_out");
    }
}

async fn who_signs_out_at_the_provider_is_signed_out_here(database: Database) {
    let gateway = people().on(database).start().await;
    let other = gateway.sign_in("alice").await;
    let device = Device::begin(&gateway).await;
    let mut browser = Visitor::new();
    browser.sign_in(device.link(), "alice").await;
    let tokens = device.poll().await.1;
    assert_eq!(status(gateway.with_tokens(&tokens)).await, 200);

    let question = browser.open(&format!("{}/session/end", gateway.idp().issuer())).await;
    let mut yes = question.form();
    yes.fields.push(("logout".to_owned(), "yes".to_owned()));
    browser.submit(&question, yes).await;
    let end = gateway.audit().next("session.end").await;
    assert_eq!((&end["reason"], &end["sub"]), (&json!("idp_logout"), &json!("alice")));
    assert_eq!(status(gateway.with_tokens(&tokens)).await, 401);
    assert_eq!(gateway.refresh(&tokens).await, refused());
    assert_eq!(status(gateway.with_tokens(&other)).await, 200, "another browser's session at the provider");

    let logout =
        async |token: &str| said(gateway.anyone().form("/oauth/backchannel_logout", &[("logout_token", token)]).await);
    for token in ["garbage", other["access_token"].as_str().unwrap()] {
        let (answer, body) = logout(token).await;
        assert_eq!((answer, &body["error"]), (400, &json!("invalid_request")), "{body}");
    }
    assert_eq!(status(gateway.with_tokens(&other)).await, 200);
}

async fn sessions_leave_no_rows_after_expiry_and_retention(database: Database) {
    let clock = Arc::new(TestClock::at(SystemClock.now()));
    let mut gateway = people().on(database).clock(Arc::clone(&clock) as _).start().await;
    for account in ["bob", "alice", "alice"] {
        let tokens = gateway.sign_in(account).await;
        assert_eq!(gateway.refresh(&tokens).await.0, 200);
    }
    let revoked = gateway.admin().post(&format!("{SESSIONS}/revoke"), r#"{"user_id": "alice"}"#).await;
    assert_eq!(revoked.json()["ended"], 2);
    gateway.stop().await;

    let store = gateway.database().await;
    let lasting = Lasting { idle: 30 * DAY, max: 90 * DAY };
    let audit = Audit::default();
    let log = AuditLog::to(audit.clone(), Arc::clone(&clock) as _).unwrap();
    let sessions = Sessions::open(store.clone(), Arc::clone(&clock) as _, log, lasting).await.unwrap();
    sessions.sweep().await.unwrap();
    assert_eq!(rows(&store).await, [3, 3, 1], "sessions, their successors, marks");
    clock.advance(30 * DAY);
    sessions.sweep().await.unwrap();
    let end = audit.next("session.end").await;
    assert_eq!((&end["sub"], &end["reason"]), (&json!("bob"), &json!("idle")));
    assert_eq!(rows(&store).await, [3, 0, 1]);
    clock.advance(31 * DAY);
    sessions.sweep().await.unwrap();
    assert_eq!(rows(&store).await, [0, 0, 0]);
}

async fn rows(store: &control::store::Store) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in ["session", "session_successor", "not_before"] {
        let count = store.fetch_optional(&format!("SELECT COUNT(*) FROM {table}"), &[]).await.unwrap();
        rows.push(count.unwrap().int(0).unwrap());
    }
    rows
}

#[tokio::test]
async fn a_revocation_reaches_every_replica() {
    let url = fresh_database().await;
    let one = people().store(Store::Postgres(url.clone())).start().await;
    let same = json!({ "listen": { "public_url": one.url() }, "oidc": { "issuer": one.idp().issuer() } });
    let other = TestGateway::setup().store(Store::Postgres(url)).config(same).start().await;
    let tokens = one.sign_in("alice").await;
    assert_eq!((status(one.with_tokens(&tokens)).await, status(other.with_tokens(&tokens)).await), (200, 200));
    let (refreshed, tokens) = other.refresh(&tokens).await;
    assert_eq!(refreshed, 200, "{tokens}");
    let revoked = one.admin().post(&format!("{SESSIONS}/revoke"), r#"{"user_id": "alice"}"#).await;
    assert_eq!(revoked.status, 200);
    assert_eq!(status(one.with_tokens(&tokens)).await, 401, "at once where it was revoked");
    let everywhere = async { while status(other.with_tokens(&tokens)).await == 200 {} };
    tokio::time::timeout(Duration::from_secs(5), everywhere).await.unwrap();
    assert_eq!(other.audit().next("auth.denied").await["cause"], "revoked");
    assert_eq!(other.refresh(&tokens).await, refused());
    assert_eq!(status(other.with_tokens(&one.sign_in("alice").await)).await, 200, "who signs in again");
}

#[tokio::test]
async fn a_stream_of_an_ended_session_runs_to_its_end_unless_streams_are_cut() {
    for cuts in [false, true] {
        let cut_streams = json!({ "session": { "cut_streams": cuts } });
        let gateway = people().config(cut_streams).start().await;
        let gate = Gate::closed();
        let events = message_events(MODEL, &["x".repeat(400).as_str()], 1_000, 200);
        let whole: usize = events.iter().map(|event| event.len()).sum();
        let mut steps: Vec<Step> = events.into_iter().map(Step::from).collect();
        steps.insert(4, gate.step());
        gateway.upstream().answer(Answer::stream(steps));
        let tokens = gateway.sign_in("alice").await;
        let request = json!({ "model": MODEL, "max_tokens": 200, "stream": true, "messages": [] });
        let mut answer = gateway.with_tokens(&tokens).stream(request.to_string()).await.unwrap();
        let mut seen = 0;
        while seen < 400 {
            seen += answer.next().await.unwrap().unwrap().len();
        }
        let revoked = gateway.admin().post(&format!("{SESSIONS}/revoke"), r#"{"user_id": "alice"}"#).await;
        assert_eq!(revoked.json()["ended"], 1);
        if cuts {
            let rest = answer.rest().await.expect("the end of a cut stream is told, not torn");
            let rest = String::from_utf8(rest.to_vec()).unwrap();
            let last = rest.trim_end().rsplit("\n\n").next().unwrap();
            assert!(last.contains("authentication_error") && last.contains("the session has ended"), "{last}");
        } else {
            gate.open();
            assert_eq!(seen + answer.rest().await.unwrap().len(), whole);
        }
        let event = gateway.audit().next("inference").await;
        assert_eq!(event["outcome"], if cuts { "cut" } else { "complete" });
    }
}

#[tokio::test]
async fn without_its_database_sessions_go_on_and_what_was_revoked_stays_so() {
    let server = PostgresServer::start();
    let clock = Arc::new(TestClock::at(SystemClock.now()));
    let store = Store::Postgres(server.fresh_database().await);
    let gateway = people().store(store).clock(Arc::clone(&clock) as _).start().await;
    let (first, bob) = (gateway.sign_in("alice").await, gateway.sign_in("bob").await);
    gateway.admin().post(&format!("{SESSIONS}/revoke"), r#"{"user_id": "bob"}"#).await;
    server.stop();
    assert_eq!((status(gateway.with_tokens(&first)).await, status(gateway.with_tokens(&bob)).await), (200, 401));
    let (refreshed, second) = gateway.refresh(&first).await;
    assert_eq!(refreshed, 200, "{second}");
    assert_eq!(gateway.refresh(&bob).await, refused());
    let token = second["refresh_token"].as_str().unwrap();
    assert_eq!(gateway.anyone().form("/oauth/revoke", &[("token", token)]).await.status, 503);
    server.start_again();
    assert_eq!(gateway.refresh(&second).await.0, 200);
    clock.advance(Duration::from_secs(61));
    assert_eq!(gateway.refresh(&first).await, refused(), "the reuse is noticed");
    assert_eq!(gateway.audit().next("session.reuse").await["sub"], "alice");
}

#[tokio::test]
async fn refreshes_of_a_session_and_wrong_admin_credentials_are_limited() {
    let limits = json!({ "rate_limits": { "refresh": { "max": 3 }, "admin_auth": { "max": 3 } } });
    let gateway = people().config(limits).start().await;
    let mut tokens = gateway.sign_in("alice").await;
    for _ in 0..3 {
        let (refreshed, next) = gateway.refresh(&tokens).await;
        assert_eq!(refreshed, 200, "{next}");
        tokens = next;
    }
    let issued = gateway.idp().issued().await.len();
    assert_eq!(gateway.refresh(&tokens).await, (429, json!({ "error": "slow_down" })));
    assert_eq!(gateway.idp().issued().await.len(), issued);
    assert_eq!(gateway.refresh(&gateway.sign_in("alice").await).await.0, 200, "each session has its own");

    assert_eq!(gateway.anyone().get(SESSIONS).await.status, 401, "no credentials are no wrong ones");
    let wrong = gateway.anyone().header("x-api-key", "not-the-key-of-anybody-0123456789abcdef");
    for _ in 0..3 {
        assert_eq!(wrong.get(SESSIONS).await.status, 401);
    }
    for caller in [wrong, gateway.admin()] {
        let reply = caller.get(SESSIONS).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["type"]), (429, &json!("rate_limit_error")));
        assert!(reply.header("retry-after").is_some());
    }
    let denied = gateway.audit().take("admin.denied", 6).await;
    assert_eq!((&denied[3]["reason"], &denied[5]["reason"]), (&json!("invalid_key"), &json!("rate_limited")));
}

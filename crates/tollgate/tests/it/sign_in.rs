//! The sign-in from the device's first request to its refreshed tokens, through a real OpenID provider.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::clock::{Clock, SystemClock, TestClock};
use serde_json::{Value, json};

use crate::support::database::{Database, PostgresServer, Store, on_both_databases};
use crate::support::gateway::{Device, Setup, TestGateway};
use crate::support::http::Visitor;
use crate::support::idp::{Account, RefreshTokens};

mod many;
mod pages;

on_both_databases!(
    somebody_signs_in_works_and_refreshes,
    ten_racing_polls_give_one_set_of_tokens,
    what_the_provider_issues_stays_with_the_gateway,
    a_cap_finds_everyone_of_its_group_however_many_groups_they_are_in,
);

const PROMPT: &str = r#"{"model":"claude-haiku-4-5","max_tokens":16,"messages":[]}"#;

fn alice() -> Account {
    Account::new("alice").email("Alice@example.com").groups(&["eng"]).claim("name", "Alice")
}

fn people() -> Setup {
    TestGateway::setup().people(RefreshTokens::Rotated, &[alice(), Account::new("bob").email("bob@example.com")])
}

fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn error(name: &str) -> Value {
    json!({ "error": name })
}

async fn somebody_signs_in_works_and_refreshes(database: Database) {
    let clock = Arc::new(TestClock::at(SystemClock.now()));
    let gateway = people().on(database).clock(Arc::clone(&clock) as _).start().await;
    let url = gateway.url();
    let document = gateway.anyone().get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(document["issuer"], url);
    assert_eq!(document["token_endpoint"], format!("{url}/oauth/token"));

    let device = Device::begin(&gateway).await;
    let code = device.user_code();
    assert!(code.len() == 9 && code.bytes().all(|byte| b"BCDFGHJKMNPQRSTVWXYZ-".contains(&byte)), "{code}");
    assert_eq!(device.begun["verification_uri"], format!("{url}/device"));
    assert_eq!(device.link(), format!("{url}/device?user_code={code}"));
    assert_eq!((&device.begun["expires_in"], &device.begun["interval"]), (&json!(600), &json!(5)));

    assert_eq!(device.poll().await, (400, error("authorization_pending")));
    assert_eq!(device.poll().await, (429, error("slow_down")));
    clock.advance(Duration::from_secs(5));
    assert_eq!(device.poll().await, (400, error("authorization_pending")));
    let page = device.approve("alice").await;
    assert_eq!(page.reply.status, 200);
    assert!(page.reply.text().contains("You are signed in") && page.reply.text().contains("Alice@example.com"));
    clock.advance(Duration::from_secs(5));
    let (status, tokens) = device.poll().await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"], &tokens["email"]),
        (&json!("Bearer"), &json!(3600), &json!("Alice@example.com"))
    );
    let bearer = claims(&tokens["access_token"]);
    assert_eq!(
        (&bearer["sub"], &bearer["email"], &bearer["name"], &bearer["groups"]),
        (&json!("alice"), &json!("Alice@example.com"), &json!("Alice"), &json!(["eng"]))
    );
    assert_eq!((&bearer["iss"], &bearer["aud"]), (&json!(url), &json!("claude-gateway")));
    assert_eq!(device.poll().await, (400, error("expired_token")), "a code is redeemed once");

    assert_eq!(gateway.with_tokens(&tokens).messages(PROMPT).await.status, 200);
    let event = gateway.audit().next("inference").await;
    assert_eq!((&event["sub"], &event["email"]), (&json!("alice"), &json!("Alice@example.com")));

    let authorize = gateway.audit().next("device.authorize").await;
    let verify = gateway.audit().next("device.verify").await;
    let mint = gateway.audit().next("session.mint").await;
    assert_eq!(
        (&authorize["result"], &verify["result"], &mint["result"]),
        (&json!("success"), &json!("redirect"), &json!("success"))
    );
    assert!(authorize["flow"].is_string() && authorize["flow"] == verify["flow"] && verify["flow"] == mint["flow"]);
    assert_eq!(
        (&mint["sub"], &mint["surface"], &mint["ttl_hours"]),
        (&json!("alice"), &json!("claude-code"), &json!(1))
    );

    // Who is in which groups is asked again.
    gateway.idp().set_account(&alice().groups(&["eng", "ml"])).await;
    let (status, refreshed) = gateway.refresh(&tokens).await;
    assert_eq!(status, 200, "{refreshed}");
    assert_eq!(claims(&refreshed["access_token"])["groups"], json!(["eng", "ml"]));
    assert_ne!(refreshed["refresh_token"], tokens["refresh_token"]);
    assert_eq!(gateway.with_tokens(&refreshed).messages(PROMPT).await.status, 200);
    assert_eq!(gateway.with_tokens(&tokens).messages(PROMPT).await.status, 200, "until it expires");
    clock.advance(Duration::from_secs(3601));
    assert_eq!(gateway.with_tokens(&tokens).messages(PROMPT).await.status, 401);
    let refresh = gateway.audit().next("session.refresh").await;
    assert_eq!((&refresh["result"], &refresh["session"]), (&json!("success"), &mint["session"]));
}

async fn ten_racing_polls_give_one_set_of_tokens(database: Database) {
    let gateway = people().on(database).start().await;
    let device = Device::begin(&gateway).await;
    device.approve("alice").await;
    let answers = futures_util::future::join_all((0..10).map(|_| device.poll())).await;
    let (given, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 200);
    assert_eq!(given.len(), 1);
    for (status, answer) in refused {
        assert!(
            [(400, error("expired_token")), (429, error("slow_down"))].contains(&(status, answer.clone())),
            "{answer}"
        );
    }
}

async fn what_the_provider_issues_stays_with_the_gateway(database: Database) {
    let mut gateway = people().on(database).environment("CLAUDE_GATEWAY_LOG_LEVEL", "debug").start_process().await;
    let tokens = gateway.sign_in("alice").await;
    let (_, refreshed) = gateway.refresh(&tokens).await;
    // This one stays where it is: approved, and never collected.
    let device = Device::begin(&gateway).await;
    device.approve("bob").await;
    gateway.process().signal("TERM");
    assert_eq!(gateway.process().exit().await.code(), Some(0));

    let issued = gateway.idp().issued().await;
    assert_eq!(issued.len(), 9, "three sign-ins and refreshes with three tokens each");
    let books = gateway.books().await;
    assert!(books.sign_in.contains(&device.user_code().replace('-', "")), "{}", books.sign_in);
    let log = gateway.process().log();
    assert!(log.contains("claim names"), "the log was to be at its most talkative:\n{log}");
    let places = [tokens.to_string(), refreshed.to_string(), books.sign_in, log, gateway.audit().text()];
    for (token, place) in issued.iter().flat_map(|token| places.iter().map(move |place| (token, place))) {
        assert!(!place.contains(token), "a token of the provider is in {place}");
    }
    // Ours are in nobody's log either, and no part of a refresh token can be read.
    for token in [&tokens, &refreshed].map(|tokens| tokens["refresh_token"].as_str().unwrap()) {
        assert!(places[2..].iter().all(|place| !place.contains(token)));
        let readable: Vec<Vec<u8>> = token.split('.').filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok()).collect();
        for claim in ["alice", "example.com", "refresh"] {
            assert!(
                readable.iter().all(|bytes| !bytes.windows(claim.len()).any(|window| window == claim.as_bytes())),
                "{claim}"
            );
        }
    }
}

async fn a_cap_finds_everyone_of_its_group_however_many_groups_they_are_in(database: Database) {
    let groups: Vec<String> = (0..10_000).map(|number| format!("group-{number:04}-of-the-directory")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let gateway = TestGateway::setup().people(RefreshTokens::Rotated, &[alice().groups(&groups)]).on(database);
    let gateway = gateway.start().await;
    let tokens = gateway.sign_in("alice").await;
    let (status, refreshed) = gateway.refresh(&tokens).await;
    assert_eq!(status, 200, "{refreshed}");
    for tokens in [&tokens, &refreshed] {
        let sizes = ["access_token", "refresh_token"].map(|name| tokens[name].as_str().unwrap().len());
        assert!(sizes.iter().all(|size| *size < 6000), "{sizes:?}");
        assert_eq!(gateway.with_tokens(tokens).messages(PROMPT).await.status, 200);
    }
    let scope = json!({ "type": "rbac_group", "rbac_group_id": groups[7_000] });
    let cap = json!({ "scope": scope, "amount": "0", "period": "daily" });
    assert_eq!(gateway.admin().post("/v1/organizations/spend_limits", cap.to_string()).await.status, 200);
    for tokens in [&tokens, &refreshed] {
        assert_eq!(gateway.with_tokens(tokens).messages(PROMPT).await.status, 429);
    }
}

#[tokio::test]
async fn a_disabled_account_is_signed_out_and_a_provider_in_trouble_signs_nobody_out() {
    let gateway = people().start().await;
    let tokens = gateway.sign_in("alice").await;
    for (status, body) in
        [(500, json!({})), (503, error("temporarily_unavailable")), (429, json!({})), (400, error("invalid_client"))]
    {
        gateway.idp().refuse_tokens(status, &body).await;
        assert_eq!(gateway.refresh(&tokens).await, (503, error("temporarily_unavailable")), "{status}");
    }
    gateway.idp().hang_tokens().await;
    let began = Instant::now();
    assert_eq!(gateway.refresh(&tokens).await, (503, error("temporarily_unavailable")));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    gateway.idp().recover().await;
    let (status, tokens) = gateway.refresh(&tokens).await;
    assert_eq!(status, 200, "trouble used the token up");
    let events = gateway.audit().take("session.refresh", 6).await;
    for event in &events[..5] {
        assert_eq!((&event["result"], &event["answer"]), (&json!("fail"), &json!("temporarily_unavailable")));
    }

    gateway.idp().disable("alice").await;
    assert_eq!(gateway.refresh(&tokens).await, (401, error("invalid_grant")));
    let event = gateway.audit().next("session.refresh").await;
    assert_eq!(
        (&event["result"], &event["answer"], &event["step"]),
        (&json!("fail"), &json!("invalid_grant"), &json!("token_endpoint"))
    );
    assert_eq!(gateway.with_tokens(&tokens).messages(PROMPT).await.status, 200, "the bearer lives until it expires");
    let garbage = json!({ "refresh_token": "garbage" });
    assert_eq!(gateway.refresh(&garbage).await, (401, error("invalid_grant")));
}

#[tokio::test]
async fn the_rules_for_who_may_come_in_are_asked_at_every_refresh_too() {
    let rules = json!({ "oidc": { "allowed_email_domains": ["example.com"], "allowed_groups": ["eng"] } });
    let accounts = [
        alice(),
        Account::new("carl").email("carl@example.com").groups(&["sales"]),
        Account::new("dora").email("dora@elsewhere.com").groups(&["eng"]),
        Account::new("emil").claim("email", "emil@example.com").claim("email_verified", false).groups(&["eng"]),
        Account::new("fred").groups(&["eng"]),
    ];
    let gateway = TestGateway::setup().people(RefreshTokens::Kept, &accounts).config(rules).start().await;
    let mut told = String::new();
    for sub in ["carl", "dora", "emil", "fred"] {
        let device = Device::begin(&gateway).await;
        let page = device.approve(sub).await;
        assert_eq!(page.reply.status, 403, "{sub}");
        assert_eq!(device.poll().await, (400, error("access_denied")), "{sub}");
        let event = gateway.audit().next("session.mint").await;
        assert_eq!((&event["result"], &event["sub"]), (&json!("fail"), &json!(sub)), "{event}");
        let [reason, err] = ["reason", "err"].map(|name| event[name].as_str().unwrap().to_owned());
        let html = page.reply.text();
        let sentence = html.split("<p>").nth(1).unwrap().split("</p>").next().unwrap();
        told.push_str(&format!("{sub}: {reason}: {err}\n  {sentence}\n"));
    }
    insta::assert_snapshot!(told, @r"
    carl: group: user is not a member of an allowed group
      Your account is in none of the groups that may sign in here. Ask your administrator to be added to one.
    dora: email_domain: email domain not allowed
      Your e-mail address is not of a domain that may sign in here. Sign in with your company account.
    emil: email_unverified: id_token email is not verified
      Your identity provider says that your e-mail address is not verified. Verify it there, then start again on your device.
    fred: email_missing: id_token missing email claim (email), which oidc.allowed_email_domains needs
      Your identity provider did not tell your e-mail address, which is needed here. Ask your administrator.
    ");
    let tokens = gateway.sign_in("alice").await;
    gateway.idp().set_account(&alice().groups(&["sales"])).await;
    assert_eq!(gateway.refresh(&tokens).await, (401, error("invalid_grant")));
    let event = gateway.audit().next("session.refresh").await;
    assert_eq!((&event["step"], &event["answer"]), (&json!("claims"), &json!("invalid_grant")));
}

#[tokio::test]
async fn a_new_signing_key_of_the_provider_is_found_at_once() {
    let gateway = people().start().await;
    gateway.sign_in("alice").await;
    gateway.idp().rotate_keys().await;
    gateway.sign_in("bob").await;
}

#[tokio::test]
async fn a_provider_without_refresh_tokens_gives_sessions_without() {
    let gateway = TestGateway::setup().people(RefreshTokens::None, &[alice()]).start().await;
    assert_eq!(gateway.sign_in("alice").await.get("refresh_token"), None);
}

#[tokio::test]
async fn two_sign_ins_in_one_browser_both_finish() {
    let gateway = people().start().await;
    let (one, other) = (Device::begin(&gateway).await, Device::begin(&gateway).await);
    let mut browser = Visitor::new();
    let mut logins = Vec::new();
    for device in [&one, &other] {
        let approval = browser.open(device.link()).await;
        logins.push(browser.submit(&approval, approval.form()).await);
    }
    for login in logins {
        let done = browser.submit(&login, login.form().fill("login", "alice")).await;
        assert_eq!(done.reply.status, 200, "{}", done.reply.text());
    }
    assert_eq!((one.poll().await.0, other.poll().await.0), (200, 200));
}

#[tokio::test]
async fn when_the_database_is_away_every_step_says_so_and_goes_on_afterwards() {
    let server = PostgresServer::start();
    let gateway = people().store(Store::Postgres(server.fresh_database().await)).start().await;
    let tokens = gateway.sign_in("alice").await;
    let device = Device::begin(&gateway).await;
    let unavailable = error("temporarily_unavailable");
    let begin = async || {
        let reply = gateway.anyone().form("/oauth/device_authorization", &[]).await;
        (reply.status.as_u16(), reply.json())
    };
    server.stop();
    assert_eq!(begin().await, (503, unavailable.clone()));
    assert_eq!(device.poll().await, (503, unavailable.clone()));
    let page = Visitor::new().open(device.link()).await;
    assert_eq!(
        (page.reply.status.as_u16(), page.reply.header("content-type")),
        (503, Some("text/html; charset=utf-8"))
    );
    let (status, tokens) = gateway.refresh(&tokens).await;
    assert_eq!(status, 200, "a refresh needs no database");
    assert_eq!(gateway.with_tokens(&tokens).get("/v1/models").await.status, 200);
    server.start_again();

    server.pause();
    let began = Instant::now();
    assert_eq!(begin().await.0, 503);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    server.resume();
    assert_eq!(device.approve("alice").await.reply.status, 200, "what was begun before is still there");
    assert_eq!(device.poll().await.0, 200);
}

//! Many sign-ins, each way that one can end, and what they leave behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::clock::{Clock, SystemClock, TestClock};
use control::store::Store as Tables;
use futures_util::StreamExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::error;
use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{Device, Setup, TestGateway};
use crate::support::http::Reply;
use crate::support::idp::Idp;
use crate::support::upstream::{Answer, Received, Upstream};

on_both_databases!(a_thousand_sign_ins_leave_no_rows_after_expiry_and_retention);

const DAY: Duration = Duration::from_secs(86_400);
/// As many devices sign in at once.
const AT_ONCE: usize = 4;

async fn a_thousand_sign_ins_leave_no_rows_after_expiry_and_retention(database: Database) {
    sign_ins_leave_no_rows(database, 1000).await;
}

/// `cargo test -p tollgate --test it -- --ignored ten_thousand`
#[tokio::test]
#[ignore = "takes minutes"]
async fn ten_thousand_sign_ins_leave_no_rows_on_sqlite() {
    sign_ins_leave_no_rows(Database::Sqlite, 10_000).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn ten_thousand_sign_ins_leave_no_rows_on_postgres() {
    sign_ins_leave_no_rows(Database::Postgres, 10_000).await;
}

async fn sign_ins_leave_no_rows(database: Database, count: usize) {
    let clock = Arc::new(TestClock::at(SystemClock.now()));
    let idp = provider(Arc::clone(&clock)).await;
    let setup = |store| setup(&idp, &clock).store(store);
    let mut gateway = setup(database.fresh().await).start().await;
    gateway.stop().await;
    let before = rows(&gateway.database().await).await;

    gateway = setup(gateway.into_store()).start().await;
    let sign_ins = (0..count).map(|number| sign_in(&gateway, number));
    futures_util::stream::iter(sign_ins).buffer_unordered(AT_ONCE).collect::<()>().await;
    gateway.stop().await;
    let after = rows(&gateway.database().await).await;
    let eighth = i64::try_from(count / 8).unwrap();
    // What nobody collected, and the sessions.
    assert_eq!((after["device_grants"], after["session"]), (5 * eighth, 2 * eighth));
    assert!(after["rate_limits"] > 0 && after["session_successor"] > 0, "{after:?}");

    // Sessions end when they are idle, and are forgotten a month later; every start sweeps.
    for days in [30, 31] {
        clock.advance(days * DAY);
        gateway = setup(gateway.into_store()).start().await;
        gateway.stop().await;
    }
    assert_eq!(rows(&gateway.database().await).await, before);
}

fn setup(idp: &Upstream, clock: &Arc<TestClock>) -> Setup {
    let unlimited = json!({ "max": 1_000_000 });
    let limits = json!({ "device_authorization": unlimited, "device_verify": unlimited });
    let config = json!({ "oidc": { "issuer": idp.url() }, "rate_limits": limits });
    TestGateway::setup().config(config).clock(Arc::clone(clock) as _)
}

/// One of the eight ways.
async fn sign_in(gateway: &TestGateway, number: usize) {
    let device = Device::begin(gateway).await;
    let own = gateway.anyone().header("origin", gateway.url());
    let code = [("user_code", device.user_code())];
    match number % 8 {
        // Nobody ever looks at it.
        0 => return,
        1 => return assert_eq!(own.form("/device/deny", &code).await.status, 200),
        _ => {}
    }
    let departure = own.form("/device", &code).await;
    assert_eq!(departure.status, 302, "{}", departure.text());
    let sub = format!("person-{}", number % 1000);
    let come_back = async |answer: String| come_back(gateway, &departure, &answer).await.status.as_u16();
    let code = format!("code={sub}.{}", parameter(&departure, "nonce"));
    match number % 8 {
        // The person closes the browser.
        2 => {}
        3 => assert_eq!(come_back("error=access_denied".to_owned()).await, 403),
        4 => {
            assert_eq!(come_back(format!("code={sub}.of-another-sign-in")).await, 403);
            assert_eq!(device.poll().await, (400, error("access_denied")));
        }
        // The device does not come back.
        5 => assert_eq!(come_back(code).await, 200),
        way => {
            assert_eq!(come_back(code).await, 200);
            let (status, tokens) = device.poll().await;
            assert_eq!(status, 200, "{tokens}");
            let (status, tokens) = gateway.refresh(&tokens).await;
            assert_eq!(status, 200, "{tokens}");
            if way == 6 {
                let token = [("token", tokens["refresh_token"].as_str().unwrap())];
                assert_eq!(gateway.anyone().form("/oauth/revoke", &token).await.status, 200);
            }
        }
    }
}

async fn come_back(gateway: &TestGateway, departure: &Reply, answer: &str) -> Reply {
    let cookie = departure.header("set-cookie").unwrap().split(';').next().unwrap();
    let path = format!("/oauth/callback?{answer}&state={}", parameter(departure, "state"));
    gateway.anyone().header("cookie", cookie).get(&path).await
}

fn parameter(departure: &Reply, name: &str) -> String {
    let url = Url::parse(departure.header("location").unwrap()).unwrap();
    url.query_pairs().find(|(found, _)| found == name).unwrap().1.into_owned()
}

/// Rows by table, whatever tables there are; less what counts instead of growing.
async fn rows(tables: &Tables) -> BTreeMap<String, i64> {
    const COUNTS: [&str; 1] = ["revision"];
    let catalogue = match tables.fetch("SELECT name FROM sqlite_master WHERE type = 'table'", &[]).await {
        Ok(names) => names,
        Err(_) => tables
            .fetch("SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'tollgate'", &[])
            .await
            .unwrap(),
    };
    let mut rows = BTreeMap::new();
    let names = catalogue.iter().map(|row| row.text(0).unwrap().to_owned());
    for name in names.filter(|name| !name.starts_with("sqlite_") && !COUNTS.contains(&name.as_str())) {
        let count = tables.fetch_optional(&format!("SELECT COUNT(*) FROM {name}"), &[]).await.unwrap();
        rows.insert(name, count.unwrap().int(0).unwrap());
    }
    rows
}

/// A provider whose codes are `sub.nonce` and whose refresh tokens are the `sub`, quick enough for thousands.
async fn provider(clock: Arc<TestClock>) -> Upstream {
    let (idp, key) = (Upstream::start().await, KeyPair::generate().unwrap());
    let url = idp.url();
    let signing = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&key.der_bytes()[range]);
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": coordinate(1..33), "y": coordinate(33..65) });
    idp.answer_otherwise(move |request| {
        let at = |path: &str| format!("{url}/{path}");
        let answer = match request.uri.path() {
            "/token" => json!({
                "access_token": "a", "token_type": "Bearer", "refresh_token": who(request).0,
                "id_token": id_token(&url, &clock, &signing, who(request)),
            }),
            "/jwks" => json!({ "keys": [jwk] }),
            _ => json!({
                "issuer": url, "authorization_endpoint": at("auth"), "token_endpoint": at("token"),
                "jwks_uri": at("jwks"), "id_token_signing_alg_values_supported": ["ES256"],
            }),
        };
        Answer::json(200, &answer)
    });
    idp
}

/// `sub`, and the nonce of a code.
fn who(request: &Received) -> (String, Option<String>) {
    let form: BTreeMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
    match form.get("code").map(|code| code.split_once('.').unwrap()) {
        Some((sub, nonce)) => (sub.to_owned(), Some(nonce.to_owned())),
        None => (form["refresh_token"].clone(), None),
    }
}

fn id_token(issuer: &str, clock: &TestClock, key: &EncodingKey, (sub, nonce): (String, Option<String>)) -> String {
    let now = clock.now().as_second();
    let mut claims = json!({ "iss": issuer, "aud": Idp::CLIENT_ID, "sub": sub, "iat": now, "exp": now + 600 });
    claims["nonce"] = nonce.map_or(Value::Null, Value::from);
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key).unwrap()
}

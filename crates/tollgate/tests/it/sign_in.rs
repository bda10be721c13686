//! Sign-in with a certified provider, on both databases: what the stock client and a person's browser go through.

use std::collections::BTreeMap;
use std::io::sink;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::audit::AuditLog;
use control::clock::{Clock, SystemClock};
use control::connect::{self, Egress};
use control::identity::{Lasting, OidcConfig, Principal, SessionConfig, SignIn, sign_in};
use control::limit::{Counters, RateLimit};
use control::store::{Config as StoreConfig, PostgresConfig, Store};
use futures_util::future::join_all;
use hyper::Request;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate::http::oauth;
use url::form_urlencoded;

use crate::support::database::{self, Database, on_both_databases};
use crate::support::http::{Http, Visitor};
use crate::support::idp::{Account, Idp, RefreshTokens};

on_both_databases!(
    a_person_signs_a_device_in_and_racing_polls_get_its_tokens_once,
    two_sign_ins_in_one_browser_both_finish,
    a_session_lives_through_trouble_and_key_rotation_and_ends_with_the_account,
    racing_hits_share_one_limit,
);

const LIMIT: RateLimit = RateLimit { max: 20, window: Duration::from_secs(600) };

struct Gateway {
    origin: String,
    idp: Idp,
    http: Http,
    sign_in: Arc<SignIn>,
    counters: Counters,
    database: database::Store,
}

impl Gateway {
    async fn start(database: Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let ann = Account::new("ann").email("Ann@Example.com").groups(&["eng"]);
        let idp = Idp::start(&format!("{origin}/oauth/callback"), RefreshTokens::Rotated, &[ann]);
        let database = database.fresh().await;
        let store = Store::open(&store_config(&database)).await.unwrap();
        let (sign_in, router) = replica(&origin, &idp, store.clone()).await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { origin, idp, http: Http::new(), sign_in, counters: Counters::new(store), database }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::post(format!("{}{path}", self.origin))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .unwrap();
        let reply = self.http.send(request).await;
        (reply.status.as_u16(), reply.json())
    }

    async fn begin(&self) -> Value {
        let (status, begun) = self.post("/oauth/device_authorization", &[("surface", "cli")]).await;
        assert_eq!(status, 200, "{begun}");
        begun
    }

    async fn poll(&self, begun: &Value) -> (u16, Value) {
        let code = begun["device_code"].as_str().unwrap();
        let grant = "urn:ietf:params:oauth:grant-type:device_code";
        self.post("/oauth/token", &[("grant_type", grant), ("device_code", code)]).await
    }

    async fn refresh(&self, tokens: &Value) -> (u16, Value) {
        let token = tokens["refresh_token"].as_str().unwrap();
        self.post("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn signed_in(&self) -> Value {
        let begun = self.begin().await;
        let link = begun["verification_uri_complete"].as_str().unwrap();
        let end = Visitor::new().sign_in(link, "ann").await;
        assert_eq!(end.reply.status, 200, "{}", end.reply.text());
        let (status, tokens) = self.poll(&begun).await;
        assert_eq!(status, 200, "{tokens}");
        tokens
    }

    fn principal(&self, tokens: &Value) -> Principal {
        let token = tokens["access_token"].as_str().unwrap();
        self.sign_in.bearers().verify(token, SystemClock.now()).unwrap()
    }
}

async fn replica(origin: &str, idp: &Idp, store: Store) -> (Arc<SignIn>, axum::Router) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let audit = AuditLog::to(sink(), Arc::clone(&clock)).unwrap();
    let egress = Egress::new(&connect::Config { allow_loopback: true, proxy: None }).unwrap();
    let config = sign_in::Config { oidc: oidc(idp), session: session(origin), named_groups: Vec::new() };
    let opened = SignIn::open(config, store.clone(), egress, audit.clone(), Arc::clone(&clock)).await.unwrap();
    let sign_in = Arc::new(opened);
    let config = oauth::Config {
        public_origin: origin.to_owned(),
        login_notice: None,
        form_action_origins: Vec::new(),
        device_authorization: LIMIT,
        device_verify: LIMIT,
        refresh: LIMIT,
    };
    let router = oauth::routes(Arc::clone(&sign_in), Counters::new(store), audit, clock, config);
    (sign_in, router)
}

fn oidc(idp: &Idp) -> OidcConfig {
    OidcConfig {
        issuer: idp.issuer().parse().unwrap(),
        client_id: Idp::CLIENT_ID.to_owned(),
        client_secret: Idp::CLIENT_SECRET.into(),
        scopes: ["openid", "profile", "email", "groups", "offline_access"].map(str::to_owned).to_vec(),
        extra_auth_params: BTreeMap::new(),
        use_pkce: true,
        userinfo_fallback: true,
        allowed_email_domains: vec!["example.com".to_owned()],
        allowed_groups: vec!["eng".to_owned()],
        groups_claim: "groups".to_owned(),
        email_claim: vec!["email".to_owned()],
    }
}

fn session(origin: &str) -> SessionConfig {
    SessionConfig {
        secrets: vec!["a-secret-0123456789abcdefghijklmnop".into()],
        ttl: Duration::from_secs(3600),
        issuer: origin.to_owned(),
        billing_group_tag: None,
        lasting: Lasting { idle: Duration::from_secs(30 * 86_400), max: Duration::from_secs(90 * 86_400) },
    }
}

fn store_config(database: &database::Store) -> StoreConfig {
    match database {
        database::Store::Sqlite(_) => StoreConfig::Sqlite { path: database.sqlite_path().unwrap() },
        database::Store::Postgres(url) => StoreConfig::Postgres(PostgresConfig {
            url: url.to_owned().into(),
            username: None,
            password: None,
            max_connections: 5,
            connect_timeout: Duration::from_secs(5),
        }),
    }
}

async fn a_person_signs_a_device_in_and_racing_polls_get_its_tokens_once(database: Database) {
    let gateway = Gateway::start(database).await;
    let begun = gateway.begin().await;
    assert_eq!(gateway.poll(&begun).await, (400, json!({"error": "authorization_pending"})));
    assert_eq!(gateway.poll(&begun).await, (429, json!({"error": "slow_down"})));
    let link = begun["verification_uri_complete"].as_str().unwrap();
    let end = Visitor::new().sign_in(link, "ann").await;
    assert!(end.reply.text().contains("You are signed in"), "{}", end.reply.text());
    let polls = join_all((0..10).map(|_| gateway.poll(&begun))).await;
    let tokens: Vec<&Value> = polls.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert_eq!(tokens.len(), 1, "{polls:?}");
    assert!(polls.iter().all(|(status, body)| *status == 200 || body["error"] == "expired_token"), "{polls:?}");
    let principal = gateway.principal(tokens[0]);
    assert_eq!((principal.sub.as_str(), principal.email.as_deref()), ("ann", Some("Ann@Example.com")));
    assert_eq!(principal.groups, ["eng"]);
}

#[tokio::test]
async fn a_sign_in_that_began_at_one_replica_ends_at_another() {
    let gateway = Gateway::start(Database::Postgres).await;
    let begun = gateway.begin().await;
    let link = begun["verification_uri_complete"].as_str().unwrap();
    Visitor::new().sign_in(link, "ann").await;
    let store = Store::open(&store_config(&gateway.database)).await.unwrap();
    let (other, _) = replica(&gateway.origin, &gateway.idp, store).await;
    let code = begun["device_code"].as_str().unwrap();
    let redeemed = other.redeem(code).await.unwrap();
    assert!(matches!(redeemed, sign_in::Redemption::Tokens(_)), "{redeemed:?}");
    assert_eq!(gateway.poll(&begun).await, (400, json!({"error": "expired_token"})));
}

async fn two_sign_ins_in_one_browser_both_finish(database: Database) {
    let gateway = Gateway::start(database).await;
    let (one, other) = (gateway.begin().await, gateway.begin().await);
    let mut browser = Visitor::new();
    let link = |begun: &Value| begun["verification_uri_complete"].as_str().unwrap().to_owned();
    let approval_one = browser.open(&link(&one)).await;
    let approval_other = browser.open(&link(&other)).await;
    let login_one = browser.submit(&approval_one, approval_one.form()).await;
    let login_other = browser.submit(&approval_other, approval_other.form()).await;
    for login in [login_one, login_other] {
        let end = browser.submit(&login, login.form().fill("login", "ann")).await;
        assert_eq!(end.reply.status, 200, "{}", end.reply.text());
    }
    for begun in [one, other] {
        assert_eq!(gateway.poll(&begun).await.0, 200);
    }
}

async fn a_session_lives_through_trouble_and_key_rotation_and_ends_with_the_account(database: Database) {
    let gateway = Gateway::start(database).await;
    let tokens = gateway.signed_in().await;
    gateway.idp.refuse_tokens(500, &json!({"error": "server_error"})).await;
    assert_eq!(gateway.refresh(&tokens).await, (503, json!({"error": "temporarily_unavailable"})));
    gateway.idp.recover().await;
    gateway.idp.rotate_keys().await;
    gateway.idp.set_account(&Account::new("ann").email("Ann@Example.com").groups(&["eng", "ops"])).await;
    let (status, tokens) = gateway.refresh(&tokens).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(gateway.principal(&tokens).groups, ["eng", "ops"]);
    gateway.idp.disable("ann").await;
    assert_eq!(gateway.refresh(&tokens).await, (401, json!({"error": "invalid_grant"})));
}

async fn racing_hits_share_one_limit(database: Database) {
    let gateway = Gateway::start(database).await;
    let limit = RateLimit { max: 7, ..LIMIT };
    let now = SystemClock.now();
    let hits = join_all((0..30).map(|_| gateway.counters.hit("bucket", limit, now))).await;
    let within = hits.into_iter().filter(|hit| matches!(hit, Ok(control::limit::Hit::Within))).count();
    assert_eq!(within, 7);
    assert_eq!(gateway.counters.sweep(now + jiff::SignedDuration::from_secs(600)).await.unwrap(), 1);
}

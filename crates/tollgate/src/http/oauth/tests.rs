#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod provider;

use std::io::sink;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::response::Response;
use control::clock::TestClock;
use control::connect::{self, Egress};
use control::identity::{ClientCredential, Lasting, OidcConfig, SessionConfig, sign_in};
use control::store::{self, Store};
use http::{Method, Request, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use self::provider::Provider;
use super::*;

const LIMIT: RateLimit = RateLimit { max: 3, window: Duration::from_secs(600) };
const ORIGIN: &str = "http://gw.example:8080";

struct Gateway {
    router: Router,
    provider: Provider,
    clock: Arc<TestClock>,
    store: Store,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: String,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_at(ORIGIN).await
    }

    async fn start_at(origin: &str) -> Self {
        let provider = Provider::start().await;
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&store::Config::Sqlite { path: directory.path().join("t.db") }).await.unwrap();
        let clock = Arc::new(TestClock::at(Timestamp::from_second(provider::NOW).unwrap()));
        let ours: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let audit = AuditLog::to(sink(), Arc::clone(&ours)).unwrap();
        let egress = Egress::new(&connect::Config { allow_loopback: true, proxy: None }).unwrap();
        let config = sign_in::Config { oidc: oidc(&provider.url), session: session(origin), named_groups: Vec::new() };
        let opened = SignIn::open(config, store.clone(), egress, audit.clone(), Arc::clone(&ours)).await.unwrap();
        let config = Config {
            form_action_origins: Vec::new(),
            public_origin: origin.to_owned(),
            login_notice: Some("Work <only>".to_owned()),
            device_authorization: LIMIT,
            device_verify: LIMIT,
            refresh: LIMIT,
        };
        let router = routes(Arc::new(opened), Counters::new(store.clone()), audit, ours, config);
        Self { router, provider, clock, store, _directory: directory }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, target: &str) -> Answer {
        self.send(request(Method::GET, target, "")).await
    }

    async fn post(&self, target: &str, form: &str) -> Answer {
        let mut request = request(Method::POST, target, form);
        request.headers_mut().insert("sec-fetch-site", "same-origin".parse().unwrap());
        self.send(request).await
    }

    async fn begin(&self, form: &str) -> Value {
        serde_json::from_str(&self.post("/oauth/device_authorization", form).await.body).unwrap()
    }

    async fn poll(&self, device_code: &Value) -> (u16, Value) {
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        let form = format!("grant_type={grant}&device_code={}", device_code.as_str().unwrap());
        let answer = self.post("/oauth/token", &form).await;
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), ("no-store", "no-cache"));
        (answer.status.as_u16(), answer.json())
    }

    /// Back from the provider with the cookie that the departure set.
    async fn come_back(&self, departure: &Answer, parameters: &str, cookie: bool) -> Answer {
        let location = url::Url::parse(departure.header("location")).unwrap();
        let found = |wanted: &str| location.query_pairs().find(|(name, _)| name == wanted).unwrap().1.into_owned();
        self.provider.expect_nonce(&found("nonce"));
        let target = format!("/oauth/callback?state={}&{parameters}", found("state"));
        let mut request = request(Method::GET, &target, "");
        if cookie {
            let pair = departure.header("set-cookie").split(';').next().unwrap();
            request.headers_mut().insert(header::COOKIE, pair.parse().unwrap());
        }
        self.send(request).await
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn oidc(issuer: &str) -> OidcConfig {
    OidcConfig {
        issuer: issuer.parse().unwrap(),
        client_id: "gateway".to_owned(),
        client: ClientCredential::Secret { secret: "secret".into(), method: None },
        discovery_url: None,
        id_token_algorithm: None,
        clock_skew_seconds: 30,
        additional_authorized_parties: Vec::new(),
        authorities: Vec::new(),
        use_proxy: None,
        google_groups: None,
        scope_on_refresh: false,
        scopes: vec!["openid".to_owned()],
        extra_auth_params: std::collections::BTreeMap::new(),
        use_pkce: true,
        userinfo_fallback: false,
        allowed_email_domains: Vec::new(),
        allowed_groups: Vec::new(),
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
        lasting: Lasting { idle: Duration::from_secs(86_400), max: Duration::from_secs(86_400) },
    }
}

fn request(method: Method, target: &str, form: &str) -> Request<Body> {
    let facts = RequestFacts { request_id: Arc::from("r-1"), client_ip: ip("203.0.113.7"), received: Instant::now() };
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .extension(facts)
        .body(Body::from(form.to_owned()))
        .unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_metadata_is_served_under_the_public_origin() {
    let answer = Gateway::start().await.get("/.well-known/oauth-authorization-server").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json;charset=utf-8"));
    assert_eq!(answer.json()["token_endpoint"], "http://gw.example:8080/oauth/token");
}

#[tokio::test]
async fn a_device_gets_its_codes_whatever_it_sends() {
    let gateway = Gateway::start().await;
    for (kind, body) in [("text/plain", ""), ("application/json", "{}"), ("multipart/form-data", "junk\0")] {
        let mut request = request(Method::POST, "/oauth/device_authorization", body);
        request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let answer = gateway.send(request).await;
        assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"), "{kind}");
        let body = answer.json();
        let code = body["user_code"].as_str().unwrap();
        assert_eq!(body["device_code"].as_str().unwrap().len(), 43);
        assert_eq!((&body["expires_in"], &body["interval"]), (&json!(600), &json!(5)));
        assert_eq!(body["verification_uri"], "http://gw.example:8080/device");
        assert_eq!(body["verification_uri_complete"], format!("http://gw.example:8080/device?user_code={code}"));
        assert_eq!(body["login_notice"], "Work <only>");
    }
    let answer = gateway.post("/oauth/device_authorization", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, ""));
    assert_eq!(answer.json()["error"], "slow_down");
}

#[tokio::test]
async fn the_approval_page_shows_who_asked_and_escapes_it() {
    let gateway = Gateway::start().await;
    let begun = gateway.begin("surface=cli+%3Cb%3E%E2%80%AE'x'").await;
    gateway.clock.advance(Duration::from_secs(125));
    let code = begun["user_code"].as_str().unwrap();
    let page = gateway.get(&format!("/device?user_code={}", code.to_lowercase().replace('-', ""))).await;
    assert_eq!(page.status, StatusCode::OK);
    for shown in [code, "cli b&#39;x&#39;", "203.0.113.7", "2 minutes ago", "Work &#60;only&#62;"] {
        assert!(page.body.contains(shown), "{shown} in {}", page.body);
    }
    assert!(!page.body.contains("another address"), "{}", page.body);
    assert!(page.body.contains("formaction=\"/device/deny\"") && !page.body.contains("<script"));
    let mut elsewhere = request(Method::GET, &format!("/device?user_code={code}"), "");
    elsewhere.extensions_mut().get_mut::<RequestFacts>().unwrap().client_ip = ip("198.51.100.9");
    let page = gateway.send(elsewhere).await;
    assert!(page.body.contains("another address than yours") && page.body.contains("198.51.100.9"), "{}", page.body);
}

#[tokio::test]
async fn pages_carry_their_policy_and_may_not_be_kept() {
    let gateway = Gateway::start().await;
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; font-src data:; frame-ancestors 'none'; form-action 'self' {}; base-uri 'none'",
        gateway.provider.url
    );
    for target in ["/device", "/device?user_code=x", "/oauth/callback"] {
        let page = gateway.get(target).await;
        assert_eq!(page.header("content-security-policy"), policy, "{target}");
        assert_eq!((page.header("cache-control"), page.header("pragma")), ("no-store", "no-cache"), "{target}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{target}");
        assert!(!page.body.contains("src=") && !page.body.contains("url("), "{target} loads something");
    }
}

#[tokio::test]
async fn a_wrong_code_is_answered_alike_everywhere_and_escaped() {
    let gateway = Gateway::start().await;
    let asked = gateway.get("/device?user_code=%22%3E%3Ci%3E").await;
    assert_eq!(asked.status, StatusCode::NOT_FOUND);
    assert!(asked.body.contains("&#34;&#62;&#60;i&#62;") && !asked.body.contains("\"><i>"), "{}", asked.body);
    for (path, form, status) in [
        ("/device", "user_code=BCDF-GHJK", StatusCode::NOT_FOUND),
        ("/device/deny", "user_code=BCDF-GHJK", StatusCode::NOT_FOUND),
        ("/device", "user_code=", StatusCode::BAD_REQUEST),
    ] {
        let answer = gateway.post(path, form).await;
        assert_eq!(answer.status, status, "{path} {form}");
        assert!(answer.body.contains("Enter the code"), "{path} {form}");
    }
}

#[tokio::test]
async fn decisions_share_one_limit_that_other_sites_cannot_use_up() {
    let gateway = Gateway::start().await;
    for _ in 0..5 {
        let mut request = request(Method::POST, "/device", "user_code=BCDF-GHJK");
        request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
        assert_eq!(gateway.send(request).await.status, StatusCode::FORBIDDEN);
        assert_eq!(gateway.get("/device?user_code=BCDF-GHJK").await.status, StatusCode::NOT_FOUND);
    }
    for path in ["/device", "/device/deny", "/device"] {
        assert_eq!(gateway.post(path, "user_code=BCDF-GHJK").await.status, StatusCode::NOT_FOUND);
    }
    gateway.clock.advance(Duration::from_millis(1500));
    let answer = gateway.post("/device", "user_code=BCDF-GHJK").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "599"));
}

#[tokio::test]
async fn looking_at_codes_is_bounded_too_and_typing_one_wrong_is_no_look() {
    let gateway = Gateway::start().await;
    for _ in 0..60 {
        assert_eq!(gateway.get("/device?user_code=BCDF-GHJK").await.status, StatusCode::NOT_FOUND);
    }
    let answer = gateway.get("/device?user_code=BCDF-GHJK").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "600"));
    assert_eq!(gateway.get("/device").await.status, StatusCode::OK);
    assert_eq!(gateway.get("/device?user_code=AEIO").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_person_approves_and_the_device_collects_its_tokens_once() {
    let gateway = Gateway::start().await;
    let begun = gateway.begin("").await;
    let device_code = &begun["device_code"];
    assert_eq!(gateway.poll(device_code).await, (400, json!({"error": "authorization_pending"})));
    assert_eq!(gateway.poll(device_code).await, (429, json!({"error": "slow_down"})));
    let departure = gateway.post("/device", &format!("user_code={}", begun["user_code"].as_str().unwrap())).await;
    assert_eq!(departure.status, StatusCode::FOUND);
    assert!(
        departure.header("location").starts_with(&format!("{}/authorize?client_id=gateway&", gateway.provider.url))
    );
    let cookie = departure.header("set-cookie");
    assert!(
        cookie.starts_with("gw_dev_") && cookie.ends_with("; Max-Age=600; HttpOnly; SameSite=Lax; Path=/"),
        "{cookie}"
    );
    let page = gateway.come_back(&departure, "code=c", true).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("You are signed in") && page.body.contains("ann@example.com"), "{}", page.body);
    assert!(page.header("set-cookie").contains("=; Max-Age=0"), "{}", page.header("set-cookie"));
    let (status, tokens) = gateway.poll(device_code).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"], &tokens["email"]),
        (&json!("Bearer"), &json!(3600), &json!("ann@example.com"))
    );
    assert_eq!(gateway.poll(device_code).await, (400, json!({"error": "expired_token"})));
    let refresh = format!("grant_type=refresh_token&refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    let refreshed = gateway.post("/oauth/token", &refresh).await;
    assert_eq!(refreshed.status, StatusCode::OK, "{}", refreshed.body);
    assert_ne!(refreshed.json()["refresh_token"], tokens["refresh_token"]);
}

#[tokio::test]
async fn a_callback_that_does_not_belong_here_is_refused_with_an_honest_status() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/oauth/callback").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(gateway.get("/oauth/callback?state=junk&code=c").await.status, StatusCode::BAD_REQUEST);
    let begun = gateway.begin("").await;
    let form = format!("user_code={}", begun["user_code"].as_str().unwrap());
    let departure = gateway.post("/device", &form).await;
    let page = gateway.come_back(&departure, "code=c", false).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("different browser") && page.header("set-cookie").contains("=; Max-Age=0"));
    let page = gateway.come_back(&departure, "error=access_denied&error_description=%3Cb%3Eno", true).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("access_denied: &#60;b&#62;no"), "{}", page.body);
    assert_eq!(gateway.poll(&begun["device_code"]).await, (400, json!({"error": "access_denied"})));
    let page = gateway.come_back(&departure, "code=c", true).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(page.body.contains("already used or has expired"));
}

#[tokio::test]
async fn a_code_that_is_refused_and_a_provider_in_trouble_are_told_apart() {
    let gateway = Gateway::start().await;
    for (trouble, status, words) in [
        ((400, json!({"error": "invalid_grant"})), StatusCode::FORBIDDEN, "did not confirm this sign-in"),
        ((503, json!({})), StatusCode::SERVICE_UNAVAILABLE, "did not answer as it should"),
        ((200, json!({"id_token": "a.b.c"})), StatusCode::FORBIDDEN, "could not be verified"),
    ] {
        let begun = gateway.begin("").await;
        let departure = gateway.post("/device", &format!("user_code={}", begun["user_code"].as_str().unwrap())).await;
        gateway.provider.refuse_tokens(trouble.0, trouble.1);
        let page = gateway.come_back(&departure, "code=c", true).await;
        assert_eq!(page.status, status, "{}", page.body);
        assert!(page.body.contains(words) && page.body.contains("r-1"), "{}", page.body);
        assert_eq!(gateway.poll(&begun["device_code"]).await, (400, json!({"error": "access_denied"})));
    }
}

#[tokio::test]
async fn a_denial_is_confirmed_and_the_device_hears_of_it_once() {
    let gateway = Gateway::start().await;
    let begun = gateway.begin("").await;
    let form = format!("user_code={}", begun["user_code"].as_str().unwrap());
    let page = gateway.post("/device/deny", &form).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("Sign-in denied"));
    assert_eq!(gateway.poll(&begun["device_code"]).await, (400, json!({"error": "access_denied"})));
    assert_eq!(gateway.poll(&begun["device_code"]).await, (400, json!({"error": "expired_token"})));
}

#[tokio::test]
async fn the_token_endpoint_says_what_is_wrong_with_a_request() {
    let gateway = Gateway::start().await;
    for (form, status, error) in [
        ("", 400, "invalid_request"),
        ("grant_type=refresh_token", 400, "invalid_request"),
        ("grant_type=password&username=x", 400, "unsupported_grant_type"),
        ("grant_type=refresh_token&refresh_token=junk", 401, "invalid_grant"),
    ] {
        let answer = gateway.post("/oauth/token", form).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (status, json!({"error": error})), "{form}");
    }
    let mut json_body = request(Method::POST, "/oauth/token", r#"{"grant_type":"refresh_token"}"#);
    json_body.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    assert_eq!(gateway.send(json_body).await.json(), json!({"error": "invalid_request"}));
}

#[tokio::test]
async fn a_provider_in_trouble_does_not_end_a_session() {
    let gateway = Gateway::start().await;
    let begun = gateway.begin("").await;
    let departure = gateway.post("/device", &format!("user_code={}", begun["user_code"].as_str().unwrap())).await;
    gateway.come_back(&departure, "code=c", true).await;
    let (_, tokens) = gateway.poll(&begun["device_code"]).await;
    gateway.provider.refuse_tokens(503, json!({}));
    let refresh = format!("grant_type=refresh_token&refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    let answer = gateway.post("/oauth/token", &refresh).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (503, json!({"error": "temporarily_unavailable"})));
}

#[tokio::test]
async fn over_https_the_cookie_is_bound_to_the_host() {
    let gateway = Gateway::start_at("https://gw.example").await;
    let begun = gateway.begin("").await;
    let departure = gateway.post("/device", &format!("user_code={}", begun["user_code"].as_str().unwrap())).await;
    let cookie = departure.header("set-cookie");
    assert!(cookie.starts_with("__Host-gw_dev_") && cookie.ends_with("; Path=/; Secure"), "{cookie}");
    assert_eq!(gateway.come_back(&departure, "code=c", true).await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_methods_are_left_to_the_fallback() {
    let gateway = Gateway::start().await;
    let router = gateway.router.clone().method_not_allowed_fallback(async || StatusCode::IM_A_TEAPOT);
    for (method, path) in [(Method::GET, "/device/deny"), (Method::GET, "/oauth/token"), (Method::PUT, "/device")] {
        let response = router.clone().oneshot(request(method, path, "")).await.unwrap();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT, "{path}");
    }
}

#[tokio::test]
async fn when_the_store_fails_every_answer_says_so_in_its_own_shape_and_documents_are_still_served() {
    let gateway = Gateway::start().await;
    for table in ["device_grants", "rate_limits"] {
        gateway.store.execute(&format!("DROP TABLE {table}"), &[]).await.unwrap();
    }
    let unavailable = json!({"error": "temporarily_unavailable"});
    let answer = gateway.post("/oauth/device_authorization", "").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (503, unavailable.clone()));
    assert_eq!(gateway.poll(&json!("code")).await, (503, unavailable));
    for page in [
        gateway.get("/device?user_code=BCDF-GHJK").await,
        gateway.post("/device", "user_code=BCDF-GHJK").await,
        gateway.post("/device/deny", "user_code=BCDF-GHJK").await,
    ] {
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(page.body.contains("not available right now") && page.body.contains("r-1"), "{}", page.body);
    }
    assert_eq!(gateway.get("/device").await.status, StatusCode::OK);
    assert_eq!(gateway.get("/.well-known/oauth-authorization-server").await.status, StatusCode::OK);
}

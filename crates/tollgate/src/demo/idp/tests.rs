#![expect(clippy::unwrap_used, reason = "tests")]

use axum::body::Body;
use control::clock::TestClock;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tower::ServiceExt as _;

use super::*;

const BACK: &str = "http://127.0.0.1:1/oauth/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// Of the verifier above: RFC 7636, appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Idp {
    app: Router,
    clock: Arc<TestClock>,
}

impl Idp {
    fn start() -> Self {
        let clock = Arc::new(TestClock::at(Timestamp::from_second(1_800_000_000).unwrap()));
        let client = Client { id: "gateway".to_owned(), secret: "se cret".to_owned() };
        let provider = Provider::new("http://127.0.0.1:2".to_owned(), client, clock.clone()).unwrap();
        provider.register(BACK.to_owned());
        Self { app: provider.routes(), clock }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form)).unwrap()).await
    }

    /// Where the browser is sent after the form, as pairs of its query.
    async fn picks(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let (status, headers, body) = self.post("/authorize", &asked(changes)).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
        let location = Url::parse(headers[LOCATION].to_str().unwrap()).unwrap();
        assert!(location.as_str().starts_with(BACK));
        location.query_pairs().into_owned().collect()
    }

    async fn code(&self) -> String {
        let pairs = self.picks(&[]).await;
        assert_eq!(pairs[1], ("state".to_owned(), "s&t".to_owned()));
        assert_eq!(pairs[0].0, "code");
        pairs[0].1.clone()
    }

    async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> (StatusCode, Value) {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", BACK),
            ("code_verifier", VERIFIER),
            ("client_id", "gateway"),
            ("client_secret", "se cret"),
        ];
        let (status, _, body) = self.post("/token", &changed(&fields, changes)).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn asked<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let fields = [
        ("client_id", "gateway"),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", "openid profile email offline_access"),
        ("state", "s&t"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("login", "ada"),
    ];
    changed(&fields, changes)
}

fn changed<'a>(fields: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let new = |name| changes.iter().find(|(changed, _)| *changed == name).map(|(_, value)| *value);
    fields.iter().map(|&(name, value)| (name, new(name).unwrap_or(value))).collect()
}

#[tokio::test]
async fn a_code_becomes_an_id_token_that_the_published_key_verifies() {
    let idp = Idp::start();
    let (status, tokens) = idp.exchange(&idp.code().await, &[]).await;
    assert_eq!(status, StatusCode::OK);
    let (_, _, jwks) = idp.send(Request::get("/jwks").body(Body::empty()).unwrap()).await;
    let jwks: Value = serde_json::from_str(&jwks).unwrap();
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwks["keys"][0].clone()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["gateway"]);
    validation.set_issuer(&["http://127.0.0.1:2"]);
    // The test's clock is not the machine's.
    validation.validate_exp = false;
    let token = tokens["id_token"].as_str().unwrap();
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims;
    assert_eq!(claims["nonce"], "n-1");
    assert_eq!(claims["sub"], "ada");
    assert_eq!(claims["groups"], json!(["engineering"]));
    assert_eq!(claims["exp"], 1_800_000_300);
}

#[tokio::test]
async fn a_wrong_verifier_is_refused_and_costs_the_code() {
    let idp = Idp::start();
    let code = idp.code().await;
    for verifier in ["wrong", VERIFIER] {
        let (status, body) = idp.exchange(&code, &[("code_verifier", verifier)]).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")), "{verifier}");
    }
}

#[tokio::test]
async fn a_code_is_used_once() {
    let idp = Idp::start();
    let code = idp.code().await;
    assert_eq!(idp.exchange(&code, &[]).await.0, StatusCode::OK);
    let (status, body) = idp.exchange(&code, &[]).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
}

#[tokio::test]
async fn a_code_ends_after_a_minute() {
    let idp = Idp::start();
    let code = idp.code().await;
    idp.clock.advance(CODE_LIFE);
    assert_eq!(idp.exchange(&code, &[]).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn only_the_client_exchanges_codes_and_only_for_its_own_address() {
    let idp = Idp::start();
    let code = idp.code().await;
    let (status, body) = idp.exchange(&code, &[("client_secret", "wrong")]).await;
    assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")));
    let (_, body) = idp.exchange(&code, &[("redirect_uri", "http://127.0.0.1:1/other")]).await;
    assert_eq!(body["error"], "invalid_grant");
}

#[tokio::test]
async fn the_client_may_name_itself_in_the_header() {
    let idp = Idp::start();
    let code = idp.code().await;
    let form =
        [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", BACK), ("code_verifier", VERIFIER)];
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = Request::post("/token")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode("gateway:se+cret")));
    assert_eq!(idp.send(request.body(Body::from(form)).unwrap()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_token_is_used_once_and_replaced() {
    let idp = Idp::start();
    let (_, tokens) = idp.exchange(&idp.code().await, &[]).await;
    let first = tokens["refresh_token"].as_str().unwrap();
    let refresh = async |token: &str| {
        let client = [("client_id", "gateway"), ("client_secret", "se cret")];
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let (status, _, body) = idp.post("/token", &[&fields[..], &client].concat()).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, second) = refresh(first).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(refresh(first).await.1["error"], "invalid_grant");
    assert_eq!(refresh(second["refresh_token"].as_str().unwrap()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_to_the_client_at_its_own_address() {
    let idp = Idp::start();
    for (changes, error) in [
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("scope", "profile"), "invalid_scope"),
        (("login", ""), "access_denied"),
        (("login", "mallory"), "access_denied"),
    ] {
        assert_eq!(idp.picks(&[changes]).await[0], ("error".to_owned(), error.to_owned()), "{changes:?}");
    }
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered() {
    let idp = Idp::start();
    for change in [("redirect_uri", "http://evil.example/"), ("client_id", "other")] {
        let (status, headers, _) = idp.post("/authorize", &asked(&[change])).await;
        assert_eq!((status, headers.get(LOCATION)), (StatusCode::BAD_REQUEST, None), "{change:?}");
    }
}

#[tokio::test]
async fn the_page_offers_every_person_and_carries_the_request() {
    let idp = Idp::start();
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(asked(&[])).finish();
    let request = Request::get(format!("/authorize?{query}")).body(Body::empty()).unwrap();
    let (status, _, page) = idp.send(request).await;
    assert_eq!(status, StatusCode::OK);
    for person in PEOPLE {
        assert!(page.contains(&format!("value=\"{}\"", person.login)), "{page}");
    }
    assert!(page.contains("name=\"state\" value=\"s&#38;t\""), "{page}");
}

#[tokio::test]
async fn userinfo_knows_the_bearer_of_an_access_token() {
    let idp = Idp::start();
    let (_, tokens) = idp.exchange(&idp.code().await, &[]).await;
    let ask = async |token: &str| {
        let request = Request::get("/userinfo").header(AUTHORIZATION, format!("Bearer {token}"));
        idp.send(request.body(Body::empty()).unwrap()).await
    };
    let (status, _, body) = ask(tokens["access_token"].as_str().unwrap()).await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body).unwrap()["email"].clone()),
        (StatusCode::OK, json!("ada@demo.example"))
    );
    assert_eq!(ask("other").await.0, StatusCode::UNAUTHORIZED);
}

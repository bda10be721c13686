//! A provider for unit tests, on loopback: it signs what a test tells it to sign, and breaks on demand.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::OidcConfig;
use crate::connect::{Config, Egress};

/// What the provider does, changed by tests as they go.
pub(super) struct Script {
    /// Claims of the next id_token; `null` for an answer without one.
    pub(super) claims: Value,
    /// Merged over the token answer.
    pub(super) answer: Value,
    /// Status and body of the token endpoint instead of an answer.
    pub(super) refusal: Option<(u16, Value)>,
    /// The token endpoint never answers.
    pub(super) hangs: bool,
    /// Status and body of the userinfo endpoint.
    pub(super) userinfo: (u16, Value),
    /// Merged over the discovery document.
    pub(super) discovery: Value,
    key: KeyPair,
    key_id: String,
    published: Vec<Value>,
}

type Heard = Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>;

/// A running provider.
pub(super) struct FakeProvider {
    pub(super) url: String,
    pub(super) script: Arc<Mutex<Script>>,
    /// Paths asked for, with the form that was posted.
    pub(super) heard: Heard,
}

impl FakeProvider {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key = KeyPair::generate().unwrap();
        let script = Script {
            claims: json!({}),
            answer: json!({"refresh_token": "idp-refresh-1"}),
            refusal: None,
            hangs: false,
            userinfo: (404, json!({})),
            discovery: json!({}),
            published: vec![jwk(&key, "key-1")],
            key,
            key_id: "key-1".to_owned(),
        };
        let provider = Self { url, script: Arc::new(Mutex::new(script)), heard: Arc::default() };
        let (url, script, heard) = (provider.url.clone(), Arc::clone(&provider.script), Arc::clone(&provider.heard));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (url, script, heard) = (url.clone(), Arc::clone(&script), Arc::clone(&heard));
                let answer = hyper::service::service_fn(move |request| {
                    answer(url.clone(), Arc::clone(&script), Arc::clone(&heard), request)
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        provider
    }

    /// Signs with a fresh key from now on, and publishes it or not.
    pub(super) fn rotate_key(&self, id: &str, published: bool) {
        let mut script = self.script.lock().unwrap();
        script.key = KeyPair::generate().unwrap();
        script.key_id = id.to_owned();
        let jwk = jwk(&script.key, id);
        script.published = if published { vec![jwk] } else { Vec::new() };
    }

    /// Changes claims of the next id_tokens; `null` takes one away.
    pub(super) fn claim(&self, changes: Value) {
        merge(&mut self.script.lock().unwrap().claims, &changes);
    }

    pub(super) fn asked_for(&self, path: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|(heard, _)| heard == path).count()
    }

    pub(super) fn config(&self) -> OidcConfig {
        OidcConfig {
            issuer: self.url.parse().unwrap(),
            client_id: "gateway".to_owned(),
            client_secret: "client secret&".into(),
            scopes: ["openid", "profile", "email", "offline_access"].map(str::to_owned).to_vec(),
            extra_auth_params: BTreeMap::from([("prompt".to_owned(), "consent".to_owned())]),
            use_pkce: true,
            userinfo_fallback: false,
            allowed_email_domains: Vec::new(),
            allowed_groups: Vec::new(),
            groups_claim: "groups".to_owned(),
            email_claim: vec!["email".to_owned()],
        }
    }
}

pub(super) fn loopback_egress() -> Egress {
    Egress::new(&Config { allow_loopback: true, proxy: None }).unwrap()
}

async fn answer(
    url: String,
    script: Arc<Mutex<Script>>,
    heard: Heard,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let basic = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    form.extend(basic.map(|header| ("authorization".to_owned(), header)));
    heard.lock().unwrap().push((path.clone(), form));
    if path == "/token" && script.lock().unwrap().hangs {
        std::future::pending::<()>().await;
    }
    let (status, body) = script.lock().unwrap().answer_for(&url, &path);
    Ok(Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
}

impl Script {
    fn answer_for(&self, url: &str, path: &str) -> (u16, Value) {
        match path {
            "/.well-known/openid-configuration" => {
                let mut document = json!({
                    "issuer": url, "authorization_endpoint": format!("{url}/authorize?tenant=1"),
                    "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
                    "userinfo_endpoint": format!("{url}/userinfo"),
                    "id_token_signing_alg_values_supported": ["none", "HS256", "ES256"],
                    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"]
                });
                merge(&mut document, &self.discovery);
                (200, document)
            }
            "/jwks" => (200, json!({"keys": self.published})),
            "/userinfo" => self.userinfo.clone(),
            "/token" => self.refusal.clone().unwrap_or_else(|| (200, self.token_answer(url))),
            _ => (404, json!({})),
        }
    }

    fn token_answer(&self, url: &str) -> Value {
        let mut answer = json!({"access_token": "access", "token_type": "Bearer"});
        if !self.claims.is_null() {
            let now = jiff::Timestamp::from_second(NOW).unwrap().as_second();
            let mut claims = json!({"iss": url, "aud": "gateway", "sub": "u-1", "iat": now, "exp": now + 60});
            merge(&mut claims, &self.claims);
            answer["id_token"] = json!(self.sign(&claims));
        }
        merge(&mut answer, &self.answer);
        answer
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// The tests' clocks stand here.
pub(super) const NOW: i64 = 1_800_000_000;

fn jwk(key: &KeyPair, id: &str) -> Value {
    let point = key.der_bytes();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": coordinate(1..33), "y": coordinate(33..65)})
}

fn merge(into: &mut Value, changes: &Value) {
    let Value::Object(changes) = changes else {
        *into = changes.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in changes {
        into[name] = value.clone();
    }
}

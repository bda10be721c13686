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
use rcgen::{CertifiedKey, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{ClientCredential, OidcConfig};
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
    /// Status and body of any other path, by path; the query is heard as a form is.
    pub(super) more: BTreeMap<&'static str, (u16, Value)>,
    /// The JWKS cannot be had.
    pub(super) keys_are_down: bool,
    /// It says that it is Google's metadata server.
    pub(super) is_google: bool,
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
            more: BTreeMap::new(),
            keys_are_down: false,
            is_google: true,
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

    /// Publishes these keys and no other.
    pub(super) fn publish(&self, keys: Vec<Value>) {
        self.script.lock().unwrap().published = keys;
    }

    /// What was sent to that path, the last time.
    pub(super) fn last_sent_to(&self, path: &str) -> BTreeMap<String, String> {
        self.heard.lock().unwrap().iter().rev().find(|(heard, _)| heard == path).unwrap().1.clone()
    }

    pub(super) fn asked_for(&self, path: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|(heard, _)| heard == path).count()
    }

    pub(super) fn config(&self) -> OidcConfig {
        config(&self.url)
    }
}

pub(super) fn config(issuer: &str) -> OidcConfig {
    OidcConfig {
        issuer: issuer.parse().unwrap(),
        client_id: "gateway".to_owned(),
        client: ClientCredential::Secret { secret: "client secret&".into(), method: None },
        discovery_url: None,
        id_token_algorithm: None,
        clock_skew_seconds: 30,
        additional_authorized_parties: Vec::new(),
        authorities: Vec::new(),
        use_proxy: None,
        google_groups: None,
        scope_on_refresh: false,
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

/// A server that answers `{}` over TLS, and the authority that nobody but the test trusts.
pub(super) async fn tls_server() -> (String, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = signing_key.serialize_der().try_into().unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let tls = tls.with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
            let answer = hyper::service::service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("{}"))))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
        }
    });
    (url, cert.der().clone())
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
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let kept = ["authorization", "metadata-flavor"].map(|name| (name.to_owned(), header(name)));
    let kept = kept.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let is_json = header("content-type").is_some_and(|kind| kind == "application/json");
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    form.extend(url::form_urlencoded::parse(query.as_bytes()).into_owned());
    form.extend(kept);
    form.extend(is_json.then(|| ("body".to_owned(), String::from_utf8(body.to_vec()).unwrap())));
    heard.lock().unwrap().push((path.clone(), form));
    if path == "/token" && script.lock().unwrap().hangs {
        std::future::pending::<()>().await;
    }
    let (status, body) = script.lock().unwrap().answer_for(&url, &path);
    // A text stands for whatever is not JSON.
    let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    let flavor = if script.lock().unwrap().is_google { "Google" } else { "none" };
    Ok(Response::builder().status(status).header("metadata-flavor", flavor).body(Full::from(body)).unwrap())
}

impl Script {
    fn answer_for(&self, url: &str, path: &str) -> (u16, Value) {
        match path {
            "/.well-known/openid-configuration" => (200, self.discovery_document(url)),
            "/jwks" if self.keys_are_down => (503, json!({})),
            "/jwks" => (200, json!({"keys": self.published})),
            "/userinfo" => self.userinfo.clone(),
            "/token" => self.refusal.clone().unwrap_or_else(|| (200, self.token_answer(url))),
            _ => self.more.get(path).cloned().unwrap_or((404, json!({}))),
        }
    }

    pub(super) fn discovery_document(&self, url: &str) -> Value {
        let mut document = json!({
            "issuer": url, "authorization_endpoint": format!("{url}/authorize?tenant=1"),
            "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
            "userinfo_endpoint": format!("{url}/userinfo"),
            "id_token_signing_alg_values_supported": ["none", "HS256", "ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"]
        });
        merge(&mut document, &self.discovery);
        document
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

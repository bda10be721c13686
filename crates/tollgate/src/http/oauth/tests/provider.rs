//! The least provider that a sign-in can be finished with.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The tests' clocks stand here.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) struct Provider {
    pub(super) url: String,
    script: Arc<Mutex<Script>>,
}

struct Script {
    key: KeyPair,
    nonce: String,
    refusal: Option<(u16, Value)>,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script { key: KeyPair::generate().unwrap(), nonce: String::new(), refusal: None };
        let provider = Self { url: url.clone(), script: Arc::new(Mutex::new(script)) };
        let script = Arc::clone(&provider.script);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (url, script) = (url.clone(), Arc::clone(&script));
                let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (status, body) = script.lock().unwrap().answer(&url, request.uri().path());
                    let response = Response::builder().status(status).body(Body::from(body.to_string())).unwrap();
                    async { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        provider
    }

    pub(super) fn expect_nonce(&self, nonce: &str) {
        self.script.lock().unwrap().nonce = nonce.to_owned();
    }

    pub(super) fn refuse_tokens(&self, status: u16, body: Value) {
        self.script.lock().unwrap().refusal = Some((status, body));
    }
}

impl Script {
    fn answer(&self, url: &str, path: &str) -> (u16, Value) {
        let point = self.key.der_bytes();
        let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        match (path, &self.refusal) {
            ("/.well-known/openid-configuration", _) => {
                let document = json!({
                    "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
                    "jwks_uri": format!("{url}/jwks"), "id_token_signing_alg_values_supported": ["ES256"]
                });
                (200, document)
            }
            ("/jwks", _) => {
                let key = json!({"kty": "EC", "crv": "P-256", "x": coordinate(1..33), "y": coordinate(33..65)});
                (200, json!({"keys": [key]}))
            }
            ("/token", Some(refusal)) => refusal.clone(),
            ("/token", None) => {
                let claims = json!({
                    "iss": url, "aud": "gateway", "sub": "u-1", "email": "ann@example.com", "nonce": self.nonce, "iat": NOW,
                    "exp": NOW + 600
                });
                let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
                let id_token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap();
                (200, json!({"id_token": id_token, "access_token": "a", "refresh_token": "idp-refresh"}))
            }
            _ => (404, json!({})),
        }
    }
}

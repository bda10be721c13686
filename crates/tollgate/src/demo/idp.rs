//! The demo's identity provider: a small OpenID provider whose sign-in page asks for no password.
//!
//! Speaks OpenID Connect Core 1.0 (code flow), Discovery 1.0 and RFC 7636 to its one client, the demo's gateway. Listens
//! on loopback only; knows nothing of the gateway's rooms.

mod key;
mod page;
mod tokens;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::anyhow;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control::clock::Clock;
use http::header::{AUTHORIZATION, CACHE_CONTROL, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use self::key::Key;
use self::tokens::Tokens;
use super::chance;
use super::people::{PEOPLE, Person};

/// How long a code may wait for its exchange.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long an id_token and an access token are good.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// Longer than anybody watches a demo.
const REFRESH_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The gateway as an OAuth client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
}

/// The provider; its state is gone with the demo.
#[derive(Debug)]
pub(super) struct Provider {
    issuer: String,
    client: Client,
    redirect_uri: OnceLock<String>,
    key: Key,
    clock: Arc<dyn Clock>,
    codes: Tokens<Code>,
    access: Tokens<&'static Person>,
    refresh: Tokens<&'static Person>,
}

/// What a code was given for.
#[derive(Debug, Clone)]
struct Code {
    person: &'static Person,
    nonce: Option<String>,
    challenge: String,
    offline: bool,
}

/// An authorization request (OpenID Connect Core 1.0, section 3.1.2.1; RFC 7636, section 4.3), and who was picked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Authorize {
    client_id: String,
    redirect_uri: String,
    response_type: String,
    scope: String,
    state: String,
    nonce: Option<String>,
    code_challenge: String,
    code_challenge_method: String,
    login: Option<String>,
}

/// A token request (RFC 6749, sections 4.1.3 and 6).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenRequest {
    grant_type: String,
    code: String,
    redirect_uri: String,
    code_verifier: String,
    refresh_token: String,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// An error of RFC 6749, section 5.2 or 4.1.2.1.
#[derive(Debug)]
struct Refused(StatusCode, &'static str, &'static str);

impl Provider {
    /// A provider at `issuer` with a fresh key and one client.
    pub(super) fn new(issuer: String, client: Client, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            issuer,
            client,
            redirect_uri: OnceLock::new(),
            key: Key::generate()?,
            codes: Tokens::new(CODE_LIFE, Arc::clone(&clock)),
            access: Tokens::new(TOKEN_LIFE, Arc::clone(&clock)),
            refresh: Tokens::new(REFRESH_LIFE, Arc::clone(&clock)),
            clock,
        }))
    }

    /// Where the client's users come back to; nobody signs in before this is known.
    pub(super) fn register(&self, redirect_uri: String) {
        // A second one is ignored: there is one client, with one address.
        let _ = self.redirect_uri.set(redirect_uri);
    }

    /// Whether this is a refresh token that it has given out.
    pub(super) fn has_given(&self, refresh_token: &str) -> bool {
        self.refresh.find(refresh_token).is_some()
    }

    pub(super) fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(async |State(idp): State<Arc<Self>>| Json(json!({"keys": [idp.key.jwk()]}))))
            .route("/authorize", get(ask).post(answer))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(self)
    }

    /// The request's client and address must be known before anything is sent there (RFC 6749, section 4.1.2.1).
    fn check_client(&self, request: &Authorize) -> Result<(), &'static str> {
        if request.client_id != self.client.id {
            return Err("No such client.");
        }
        if self.redirect_uri.get() != Some(&request.redirect_uri) {
            return Err("The client has not registered this redirect URI.");
        }
        Ok(())
    }

    fn tokens_for(&self, person: &'static Person, nonce: Option<&str>, offline: bool) -> anyhow::Result<Value> {
        let now = self.clock.now().as_second();
        let life = TOKEN_LIFE.as_secs();
        let mut claims = claims(person);
        claims["iss"] = json!(self.issuer);
        claims["aud"] = json!(self.client.id);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now.saturating_add_unsigned(life));
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let mut tokens = json!({
            "access_token": self.access.keep(person)?,
            "token_type": "Bearer",
            "expires_in": life,
            "id_token": self.key.sign(&claims)?,
        });
        if offline {
            tokens["refresh_token"] = json!(self.refresh.keep(person)?);
        }
        Ok(tokens)
    }
}

impl Authorize {
    fn check(&self) -> Result<(), &'static str> {
        if self.response_type != "code" {
            return Err("unsupported_response_type");
        }
        if !self.asks_for("openid") {
            return Err("invalid_scope");
        }
        // RFC 9700, section 2.1.1: a code without a challenge can be injected.
        if self.code_challenge.is_empty() || self.code_challenge_method != "S256" {
            return Err("invalid_request");
        }
        Ok(())
    }

    fn asks_for(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|one| one == scope)
    }

    /// Back to the client with the code or the error.
    fn back(&self, name: &str, value: &str) -> Response {
        let Ok(mut url) = Url::parse(&self.redirect_uri) else { return page::refusal("The redirect URI is no URL.") };
        url.query_pairs_mut().append_pair(name, value).append_pair("state", &self.state);
        (StatusCode::SEE_OTHER, [(LOCATION, url.as_str()), (CACHE_CONTROL, "no-store")]).into_response()
    }
}

/// OpenID Connect Discovery 1.0, section 3.
async fn discovery(State(idp): State<Arc<Provider>>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", idp.issuer);
    Json(json!({
        "issuer": idp.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "userinfo_endpoint": at("/userinfo"),
        "jwks_uri": at("/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "claims_supported": ["sub", "name", "email", "email_verified", "groups"],
    }))
}

async fn ask(State(idp): State<Arc<Provider>>, Query(request): Query<Authorize>) -> Response {
    if let Err(reason) = idp.check_client(&request) {
        return page::refusal(reason);
    }
    match request.check() {
        Ok(()) => page::choice(&request),
        Err(error) => request.back("error", error),
    }
}

async fn answer(State(idp): State<Arc<Provider>>, Form(request): Form<Authorize>) -> Response {
    if let Err(reason) = idp.check_client(&request) {
        return page::refusal(reason);
    }
    if let Err(error) = request.check() {
        return request.back("error", error);
    }
    let picked = PEOPLE.into_iter().find(|person| Some(person.login) == request.login.as_deref());
    let Some(person) = picked else { return request.back("error", "access_denied") };
    let code = Code {
        person,
        nonce: request.nonce.clone().filter(|nonce| !nonce.is_empty()),
        challenge: request.code_challenge.clone(),
        offline: request.asks_for("offline_access"),
    };
    match idp.codes.keep(code) {
        Ok(code) => request.back("code", &code),
        Err(_) => request.back("error", "server_error"),
    }
}

async fn token(
    State(idp): State<Arc<Provider>>,
    headers: HeaderMap,
    Form(request): Form<TokenRequest>,
) -> Result<Response, Refused> {
    if !knows_client(&idp.client, &headers, &request) {
        return Err(Refused(StatusCode::UNAUTHORIZED, "invalid_client", "wrong client id or secret"));
    }
    let invalid = |why| Refused(StatusCode::BAD_REQUEST, "invalid_grant", why);
    let tokens = match request.grant_type.as_str() {
        "authorization_code" => {
            // Taken, not read: whatever comes of it, it is not accepted again.
            let code = idp.codes.take(&request.code).ok_or_else(|| invalid("no such code"))?;
            if idp.redirect_uri.get() != Some(&request.redirect_uri) {
                return Err(invalid("the code was given for another redirect_uri"));
            }
            if challenge_of(&request.code_verifier) != code.challenge {
                return Err(invalid("the code_verifier does not fit the code_challenge"));
            }
            idp.tokens_for(code.person, code.nonce.as_deref(), code.offline)
        }
        "refresh_token" => {
            let person = idp.refresh.take(&request.refresh_token).ok_or_else(|| invalid("no such refresh token"))?;
            idp.tokens_for(person, None, true)
        }
        _ => return Err(Refused(StatusCode::BAD_REQUEST, "unsupported_grant_type", "code or refresh_token")),
    };
    let tokens = tokens.map_err(|_| Refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "no token"))?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(tokens)).into_response())
}

/// OpenID Connect Core 1.0, section 5.3.
async fn userinfo(State(idp): State<Arc<Provider>>, headers: HeaderMap) -> Response {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match token.and_then(|token| idp.access.find(token)) {
        Some(person) => Json(claims(person)).into_response(),
        None => (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer error=\"invalid_token\"")]).into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, error, description) = self;
        let body = json!({"error": error, "error_description": description});
        (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }
}

fn claims(person: &Person) -> Value {
    json!({
        "sub": person.login,
        "name": person.name,
        "email": person.email,
        "email_verified": true,
        "groups": [person.group],
    })
}

/// RFC 7636, section 4.2.
fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}

/// RFC 6749, section 2.3.1: in the header or in the form.
fn knows_client(client: &Client, headers: &HeaderMap, request: &TokenRequest) -> bool {
    let basic = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    let (id, secret) = match basic {
        Some(encoded) => match basic_pair(encoded) {
            Ok(pair) => pair,
            Err(_) => return false,
        },
        None => (request.client_id.clone().unwrap_or_default(), request.client_secret.clone().unwrap_or_default()),
    };
    id == client.id && secret == client.secret
}

fn basic_pair(encoded: &str) -> anyhow::Result<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded)?)?;
    let (id, secret) = text.split_once(':').ok_or_else(|| anyhow!("no colon"))?;
    // Each half is form-encoded: as the name of a pair without a value it decodes itself.
    let plain = |half: &str| {
        form_urlencoded::parse(half.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
    };
    Ok((plain(id), plain(secret)))
}

#[cfg(test)]
mod tests;

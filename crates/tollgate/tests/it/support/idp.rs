//! A real OpenID provider for the tests: the certified npm `oidc-provider`, run by `tests/idp/idp.mjs`.

use bytes::Bytes;
use hyper::Request;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::http::Http;

/// Where the Node programs and what `scripts/test` installed for them are.
pub(crate) fn node_directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idp");
    assert!(directory.join("node_modules").exists(), "the Node packages are missing; scripts/test installs them");
    directory
}

/// Somebody who can sign in, by `sub`.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    claims: Map<String, Value>,
}

impl Account {
    /// An account with nothing but its `sub`, which is also what its owner types to sign in.
    pub(crate) fn new(sub: &str) -> Self {
        Self { claims: Map::from_iter([("sub".to_owned(), sub.into())]) }
    }

    /// A verified address.
    pub(crate) fn email(self, email: &str) -> Self {
        self.claim("email", email).claim("email_verified", true)
    }

    pub(crate) fn groups(self, groups: &[&str]) -> Self {
        self.claim("groups", groups)
    }

    /// Any claim of the scopes profile, email and groups: `name`, `email`, `email_verified`, `groups`.
    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    fn sub(&self) -> &str {
        self.claims["sub"].as_str().unwrap()
    }
}

/// What the provider does with refresh tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshTokens {
    /// A new one at each use; the old one is dead.
    Rotated,
    /// The same one for the whole session.
    Kept,
    /// None is given.
    None,
}

/// A running provider with one confidential client. It ends when this value is dropped or the test process ends.
pub(crate) struct Idp {
    issuer: String,
    control: String,
    http: Http,
    process: Child,
    /// The program ends when this closes.
    _stdin: ChildStdin,
}

impl Idp {
    pub(crate) const CLIENT_ID: &'static str = "tollgate";
    pub(crate) const CLIENT_SECRET: &'static str = "the-client-secret-of-the-test-provider";

    /// Starts a provider that sends people back to `redirect_uri` only.
    pub(crate) fn start(redirect_uri: &str, refresh_tokens: RefreshTokens, accounts: &[Account]) -> Self {
        let mut process = Command::new("node")
            .arg("idp.mjs")
            .current_dir(node_directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is missing; scripts/test installs it");
        let mut stdin = process.stdin.take().unwrap();
        let settings = json!({
            "client_id": Self::CLIENT_ID,
            "client_secret": Self::CLIENT_SECRET,
            "redirect_uris": [redirect_uri],
            "refresh_tokens": match refresh_tokens {
                RefreshTokens::Rotated => "rotated",
                RefreshTokens::Kept => "kept",
                RefreshTokens::None => "none",
            },
            "accounts": accounts.iter().map(|account| &account.claims).collect::<Vec<_>>(),
        });
        writeln!(stdin, "{settings}").unwrap();
        let mut hello = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut hello).unwrap();
        let hello: Value = serde_json::from_str(&hello).expect("the provider did not start");
        let address = |name: &str| hello[name].as_str().unwrap().to_owned();
        Self { issuer: address("issuer"), control: address("control"), http: Http::new(), process, _stdin: stdin }
    }

    /// The issuer, `http://127.0.0.1:PORT`.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Adds an account or changes its claims, for sign-ins and refreshes from now on.
    pub(crate) async fn set_account(&self, account: &Account) {
        let claims = Value::Object(account.claims.clone());
        self.control("PUT", &format!("accounts/{}", account.sub()), &claims).await;
    }

    /// Every token that it has given out so far.
    pub(crate) async fn issued(&self) -> Vec<String> {
        let tokens = self.http.get(&format!("{}/issued", self.control)).await.json();
        tokens.as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned()).collect()
    }

    /// The account cannot sign in any more, and its refresh tokens give `invalid_grant`.
    pub(crate) async fn disable(&self, sub: &str) {
        self.control("DELETE", &format!("accounts/{sub}"), &Value::Null).await;
    }

    /// Signs with a new key, under a new key id, from now on; the old key is gone from the JWKS.
    pub(crate) async fn rotate_keys(&self) {
        self.control("POST", "keys", &Value::Null).await;
    }

    /// The token endpoint answers this to everything, until [`Idp::recover`].
    pub(crate) async fn refuse_tokens(&self, status: u16, body: &Value) {
        self.control("PUT", "trouble", &json!({ "status": status, "body": body })).await;
    }

    /// The token endpoint takes requests and never answers, until [`Idp::recover`].
    pub(crate) async fn hang_tokens(&self) {
        self.control("PUT", "trouble", &json!("hang")).await;
    }

    /// The token endpoint works again.
    pub(crate) async fn recover(&self) {
        self.control("PUT", "trouble", &Value::Null).await;
    }

    async fn control(&self, method: &str, path: &str, body: &Value) {
        let url = format!("{}/{path}", self.control);
        let request = Request::builder().method(method).uri(url).body(Bytes::from(body.to_string())).unwrap();
        assert_eq!(self.http.send(request).await.status, 204);
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! Google's token endpoint, its security token service, its IAM credentials and the metadata service of its machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::clock::{Clock, SystemClock};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::signer::Signer;
use super::{Fields, form, must_be, query, require, token};
use crate::support::upstream::{Answer, Received, Upstream};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// All that is needed to act as somebody else.
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";
const ACCOUNT: &str = "gateway@project.iam.gserviceaccount.com";
const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/p";
const SUBJECT: &str = "the-token-of-another-provider";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const METADATA: &str = "/computeMetadata/v1";

/// Everything of Google that issues tokens, at one address.
pub(crate) struct Google {
    server: Upstream,
    signer: Arc<Signer>,
}

impl Google {
    pub(crate) async fn start() -> Self {
        let (server, signer) = (Upstream::start().await, Arc::new(Signer::new()));
        let (url, key) = (server.url(), Arc::clone(&signer));
        server.answer_otherwise(move |request| answer(request, &url, &key));
        Self { server, signer }
    }

    /// Whoever was asked for a token, and how.
    pub(crate) fn server(&self) -> &Upstream {
        &self.server
    }

    /// As `GCE_METADATA_HOST` wants it.
    pub(crate) fn metadata_host(&self) -> String {
        self.server.url().strip_prefix("http://").unwrap().to_owned()
    }

    /// The key of a service account, whose token is `ya29.service-account`.
    pub(crate) fn key_file(&self, folder: &Path) -> PathBuf {
        write(folder, "service-account.json", &self.service_account())
    }

    /// A person's credentials, whose token is `ya29.person`.
    pub(crate) fn person_file(&self, folder: &Path) -> PathBuf {
        let document = json!({
            "type": "authorized_user", "client_id": "client", "client_secret": "client-secret",
            "refresh_token": "refresh", "quota_project_id": "quota-project", "token_uri": self.url("/token"),
        });
        write(folder, "person.json", &document)
    }

    /// An external account that acts as the service account: its token is `ya29.impersonated`.
    pub(crate) fn external_file(&self, folder: &Path) -> PathBuf {
        let subject = folder.join("subject");
        std::fs::write(&subject, SUBJECT).unwrap();
        write(folder, "external.json", &self.external(&json!({ "file": subject })))
    }

    /// The same with a program that gives the token, and looks at what it is told.
    pub(crate) fn executable_file(&self, folder: &Path) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let program = folder.join("give-token");
        let answer = json!({ "version": 1, "success": true, "token_type": JWT, "id_token": SUBJECT });
        let told = [("AUDIENCE", AUDIENCE), ("TOKEN_TYPE", JWT), ("INTERACTIVE", "0"), ("IMPERSONATED_EMAIL", ACCOUNT)];
        // Google's own library for Python leaves the last one out.
        let is = |(name, value)| format!("[ \"${{GOOGLE_EXTERNAL_ACCOUNT_{name}-{value}}}\" = '{value}' ]");
        let told = told.map(is).join(" && ");
        std::fs::write(&program, format!("#!/bin/sh\n{told} || exit 1\necho '{answer}'\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let source = json!({ "executable": { "command": program, "timeout_millis": 5000 } });
        write(folder, "executable.json", &self.external(&source))
    }

    fn external(&self, source: &Value) -> Value {
        json!({
            "type": "external_account", "audience": AUDIENCE, "token_url": self.url("/v1/token"),
            "subject_token_type": JWT, "credential_source": source,
            "service_account_impersonation_url": self.url(&impersonation()),
        })
    }

    /// The service account as itself again, by way of its own key: the token is `ya29.impersonated`.
    pub(crate) fn impersonating_file(&self, folder: &Path) -> PathBuf {
        let document = json!({
            "type": "impersonated_service_account", "source_credentials": self.service_account(),
            "service_account_impersonation_url": self.url(&impersonation()), "delegates": [],
        });
        write(folder, "impersonating.json", &document)
    }

    fn service_account(&self) -> Value {
        json!({
            "type": "service_account", "project_id": "project", "private_key_id": "key-1",
            "private_key": self.signer.key, "client_email": ACCOUNT, "client_id": "1", "token_uri": self.url("/token"),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }
}

fn impersonation() -> String {
    format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken")
}

fn write(folder: &Path, name: &str, document: &Value) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

fn answer(request: &Received, url: &str, signer: &Signer) -> Answer {
    let path = request.uri.path();
    if path == "/token" {
        return token(form(request).and_then(|form| of_form(&form, url, signer)), 3599);
    }
    if path == "/v1/token" {
        return token(form(request).and_then(|form| exchanged(&form)), 3599);
    }
    if path == impersonation() {
        return impersonated(request);
    }
    metadata(request).header("metadata-flavor", "Google")
}

/// RFC 7523, section 3, or RFC 6749, section 6.
fn of_form(form: &Fields, url: &str, signer: &Signer) -> Result<&'static str, String> {
    if form.get("grant_type").is_some_and(|grant| grant == "refresh_token") {
        let wanted = [("client_id", "client"), ("client_secret", "client-secret"), ("refresh_token", "refresh")];
        return wanted.iter().try_for_each(|(name, value)| must_be(form, name, value)).map(|()| "ya29.person");
    }
    must_be(form, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")?;
    let assertion = form.get("assertion").ok_or("no assertion")?;
    // Google's own library for Python writes its usual address, wherever it asks; those for Go and Java write where they ask.
    let verify = |audience: &str| signer.verify(assertion, &[Algorithm::RS256], audience, 3600);
    let verified = verify(&format!("{url}/token")).or_else(|_| verify("https://oauth2.googleapis.com/token"))?;
    require(verified.header.kid.as_deref() == Some("key-1"), "another key")?;
    require(verified.claims["iss"] == ACCOUNT, "another account")?;
    match verified.claims["scope"].as_str() {
        Some(SCOPE) => Ok("ya29.service-account"),
        Some(IAM_SCOPE) => Ok("ya29.for-impersonation"),
        _ => Err("another scope".to_owned()),
    }
}

/// RFC 8693, section 2.1.
fn exchanged(form: &Fields) -> Result<&'static str, String> {
    for (name, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", AUDIENCE),
        ("subject_token_type", JWT),
        ("subject_token", SUBJECT),
    ] {
        must_be(form, name, value)?;
    }
    let scope = form.get("scope").map(String::as_str);
    require(matches!(scope, Some(SCOPE | IAM_SCOPE)), "another scope")?;
    Ok("ya29.federated")
}

fn impersonated(request: &Received) -> Answer {
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if !matches!(bearer, Some("ya29.federated" | "ya29.service-account" | "ya29.for-impersonation")) {
        let error = json!({ "code": 401, "message": "invalid credentials", "status": "UNAUTHENTICATED" });
        return Answer::json(401, &json!({ "error": error }));
    }
    let body = request.json();
    if body["scope"] != json!([SCOPE]) || body["lifetime"] != "3600s" {
        let error = json!({ "code": 400, "message": "another scope or lifetime", "status": "INVALID_ARGUMENT" });
        return Answer::json(400, &json!({ "error": error }));
    }
    let ends = SystemClock.now().as_second() + 3600;
    let ends = jiff::Timestamp::from_second(ends).unwrap();
    Answer::json(200, &json!({ "accessToken": "ya29.impersonated", "expireTime": ends.to_string() }))
}

/// <https://cloud.google.com/compute/docs/metadata/querying-metadata>
fn metadata(request: &Received) -> Answer {
    let Some(path) = request.uri.path().strip_prefix(METADATA) else { return Answer::new(200, "text/html", "hello") };
    if request.header("metadata-flavor") != Some("Google") {
        return Answer::new(403, "text/html", "Missing Metadata-Flavor:Google header.");
    }
    match path {
        "/instance/service-accounts/default/token" => {
            let scopes = query(request).map(|query| query.get("scopes").cloned());
            match scopes {
                Ok(None) => token(Ok("ya29.machine"), 3599),
                Ok(Some(scopes)) if scopes == SCOPE => token(Ok("ya29.machine"), 3599),
                _ => Answer::new(400, "text/plain", "invalid scopes"),
            }
        }
        "/instance/service-accounts/default/" => Answer::json(
            200,
            &json!({ "aliases": ["default"], "email": "machine@project.iam.gserviceaccount.com", "scopes": [SCOPE] }),
        ),
        "/universe/universe-domain" => Answer::new(200, "text/plain", "googleapis.com"),
        "/project/project-id" => Answer::new(200, "text/plain", "project"),
        _ => Answer::new(404, "text/html", "not found"),
    }
}

//! Microsoft Entra's token endpoint, and what Azure gives to machines: the instance metadata service and the endpoint of
//! App Service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::clock::{Clock, SystemClock};
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::signer::Signer;
use super::{Fields, form, must_be, query, require, token};
use crate::support::upstream::{Answer, Received, Upstream};

pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const CLIENT: &str = "66666666-7777-8888-9999-000000000000";
pub(crate) const SECRET: &str = "the~secret.of-the_application";
pub(crate) const IDENTITY_HEADER: &str = "the-header-of-app-service";
const FEDERATED: &str = "the-token-of-the-cluster";
const RESOURCE: &str = "https://cognitiveservices.azure.com";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Everything of Azure that issues tokens, at one address.
pub(crate) struct Azure {
    server: Upstream,
    signer: Arc<Signer>,
}

impl Azure {
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

    /// As `AZURE_AUTHORITY_HOST` and `AZURE_POD_IDENTITY_AUTHORITY_HOST` want it.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// As `AZURE_CLIENT_CERTIFICATE_PATH` wants it; the token is `entra-certificate`.
    pub(crate) fn certificate_file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("application.pem");
        std::fs::write(&path, format!("{}{}", self.signer.key, self.signer.certificate)).unwrap();
        path
    }

    /// As `AZURE_FEDERATED_TOKEN_FILE` wants it; the token is `entra-federated`.
    pub(crate) fn federated_file(folder: &Path) -> PathBuf {
        let path = folder.join("federated");
        std::fs::write(&path, FEDERATED).unwrap();
        path
    }
}

fn answer(request: &Received, url: &str, signer: &Signer) -> Answer {
    let path = request.uri.path();
    if path == format!("/{TENANT}/oauth2/v2.0/token") {
        return token(form(request).and_then(|form| application(&form, url, signer)), 3599);
    }
    match path {
        "/metadata/identity/oauth2/token" => token(query(request).and_then(|query| instance(request, &query)), 3599),
        "/msi/token" => match query(request).and_then(|query| app_service(request, &query)) {
            Ok(()) => {
                // As text, and as an instant: <https://learn.microsoft.com/azure/app-service/overview-managed-identity>
                let ends = SystemClock.now().as_second() + 3600;
                let answer = json!({ "access_token": "entra-app-service", "expires_on": ends.to_string(),
                    "resource": RESOURCE, "token_type": "Bearer", "client_id": CLIENT });
                Answer::json(200, &answer)
            }
            Err(why) => Answer::json(400, &json!({ "statusCode": 400, "message": why })),
        },
        // What Microsoft's own libraries look at first.
        _ if path == format!("/{TENANT}/v2.0/.well-known/openid-configuration") => {
            let at = |path: &str| format!("{}/{TENANT}{path}", url.replace("http://", "https://"));
            Answer::json(
                200,
                &json!({ "issuer": at("/v2.0"), "authorization_endpoint": at("/oauth2/v2.0/authorize"),
                    "token_endpoint": at("/oauth2/v2.0/token") }),
            )
        }
        _ => Answer::json(404, &json!({ "error": "not_found" })),
    }
}

/// <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>
fn application(form: &Fields, url: &str, signer: &Signer) -> Result<&'static str, String> {
    must_be(form, "grant_type", "client_credentials")?;
    must_be(form, "client_id", CLIENT)?;
    must_be(form, "scope", &format!("{RESOURCE}/.default"))?;
    let Some(assertion) = form.get("client_assertion") else {
        return must_be(form, "client_secret", SECRET).map(|()| "entra-secret");
    };
    must_be(form, "client_assertion_type", ASSERTION)?;
    require(!form.contains_key("client_secret"), "a secret and an assertion")?;
    if assertion == FEDERATED {
        return Ok("entra-federated");
    }
    let path = format!("{TENANT}/oauth2/v2.0/token");
    // Its own libraries speak TLS to it.
    let audiences = [format!("{url}/{path}"), format!("{}/{path}", url.replace("http://", "https://"))];
    let algorithms = [Algorithm::PS256, Algorithm::RS256];
    let verify = |audience: &String| signer.verify(assertion, &algorithms, audience, 3600);
    let verified = verify(&audiences[0]).or_else(|_| verify(&audiences[1]))?;
    require(signer.is_named_by(&verified.header), "another certificate")?;
    require(verified.claims["iss"] == CLIENT && verified.claims["sub"] == CLIENT, "another client")?;
    require(verified.claims["jti"].is_string(), "no jti")?;
    Ok("entra-certificate")
}

fn instance(request: &Received, query: &Fields) -> Result<&'static str, String> {
    require(request.header("metadata") == Some("true"), "Required metadata header not specified")?;
    must_be(query, "api-version", "2018-02-01")?;
    must_be(query, "resource", RESOURCE).map(|()| "entra-instance")
}

fn app_service(request: &Received, query: &Fields) -> Result<(), String> {
    require(request.header("x-identity-header") == Some(IDENTITY_HEADER), "wrong X-IDENTITY-HEADER")?;
    must_be(query, "api-version", "2019-08-01")?;
    must_be(query, "resource", RESOURCE)
}

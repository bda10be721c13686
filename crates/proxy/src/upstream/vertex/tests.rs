//! Tokens of Google and of Entra, as requests show them; the requests themselves are in [`super::super::golden`].
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::upstream::FoundryCredential;
use crate::upstream::credential::azure::{Azure, AzureEnvironment};
use crate::upstream::credential::testing::{Bench, rsa};
use crate::upstream::messages_api::Foundry;

#[tokio::test]
async fn foundry_takes_a_token_of_entra() {
    let bench = Bench::new().await;
    let environment = AzureEnvironment { metadata_host: Some(bench.server.url()), ..Default::default() };
    let entra = FoundryCredential::Entra(Azure::from_environment(&environment).unwrap());
    let foundry = Foundry::new("a", entra, &bench.egress, &bench.clock()).unwrap();
    let uri = http::Uri::from_static("https://r.services.ai.azure.com/anthropic/v1/messages");
    let mut request = Unsigned { uri, headers: HeaderMap::new(), body: Vec::new() };
    let caller = Caller { sub: "u-1", email: None };
    let token = serde_json::json!({ "access_token": "t", "expires_in": "3600" });
    let (authorized, _) = tokio::join!(foundry.authorize(&mut request, &caller), bench.answer(200, &token));
    authorized.unwrap();
    assert_eq!((request.headers.len(), &request.headers[AUTHORIZATION]), (1, &HeaderValue::from_static("Bearer t")));
}

#[test]
fn every_kind_of_region_has_its_host() {
    for (region, url) in [
        ("europe-west1", "https://europe-west1-aiplatform.googleapis.com/v1"),
        ("global", "https://aiplatform.googleapis.com/v1"),
        ("us", "https://aiplatform.us.rep.googleapis.com/v1"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/v1"),
    ] {
        assert_eq!(VertexConfig::base_url(region), url);
    }
}

#[tokio::test]
async fn a_credential_that_is_refused_names_its_cause() {
    let bench = Bench::new().await;
    let (pem, _) = rsa();
    let key = serde_json::json!({
        "type": "service_account", "private_key": pem, "client_email": "e", "token_uri": bench.server.url(),
    });
    let google = Google::from_file(&bench.file("key.json", key.to_string()), &Default::default()).unwrap();
    let authority = GoogleAuthority::new(google, &bench.egress, &bench.clock());
    let refusal = serde_json::json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." });
    let mut headers = HeaderMap::new();
    let (refused, _) = tokio::join!(authority.authorize(&mut headers), bench.answer(400, &refusal));
    let said = refused.unwrap_err().to_string();
    assert!(said.ends_with("refused a token with 400: invalid_grant: Invalid JWT Signature."), "{said}");
}

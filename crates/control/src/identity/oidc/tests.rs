#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

mod accepted;
mod groups;

use super::*;
use crate::clock::TestClock;
use crate::identity::fake_provider::{FakeProvider, NOW, loopback_egress};

async fn party(config: OidcConfig) -> Result<(RelyingParty, Arc<TestClock>), DiscoveryError> {
    let clock = Arc::new(TestClock::at(Timestamp::from_second(NOW).unwrap()));
    let ours: Arc<dyn Clock> = Arc::clone(&clock) as _;
    Ok((RelyingParty::discover(config, "https://gw.example", loopback_egress(), ours).await?, clock))
}

async fn ready(provider: &FakeProvider) -> RelyingParty {
    provider.claim(json!({"nonce": "n", "email": "Ann@Example.com", "groups": ["eng"], "name": "Ann"}));
    party(provider.config()).await.unwrap().0
}

async fn exchanged(party: &RelyingParty) -> Result<SignedIn, Failure> {
    party.exchange("the-code", Some("the-verifier"), "n").await
}

fn ann() -> Person {
    Person {
        sub: "u-1".to_owned(),
        email: Some("Ann@Example.com".to_owned()),
        name: Some("Ann".to_owned()),
        groups: vec!["eng".to_owned()],
        all_groups: None,
    }
}

async fn refreshed(party: &RelyingParty) -> Result<SignedIn, Failure> {
    party.refresh(&"idp-refresh-1".into(), &ann()).await
}

#[tokio::test]
async fn the_authorization_request_is_the_contracts() {
    let provider = FakeProvider::start().await;
    let party = ready(&provider).await;
    let url = party.authorization_url("the state", "n", Some("c"));
    let expected = format!(
        "{}/authorize?tenant=1&client_id=gateway&scope=openid+profile+email+offline_access&response_type=code\
         &redirect_uri=https%3A%2F%2Fgw.example%2Foauth%2Fcallback&state=the+state&nonce=n&code_challenge=c\
         &code_challenge_method=S256&response_mode=query&prompt=consent",
        provider.url
    );
    assert_eq!(url.as_str(), expected);
    assert!(!party.authorization_url("s", "n", None).as_str().contains("code_challenge"));
}

#[tokio::test]
async fn a_code_is_exchanged_for_a_person_with_the_secret_in_the_form() {
    let provider = FakeProvider::start().await;
    let party = ready(&provider).await;
    let signed_in = exchanged(&party).await.unwrap();
    assert_eq!(signed_in.person, ann());
    assert_eq!(signed_in.refresh_token.unwrap().expose_secret(), "idp-refresh-1");
    let heard = provider.heard.lock().unwrap();
    let (_, form) = heard.iter().find(|(path, _)| path == "/token").unwrap();
    let sent = |name: &str| form.get(name).map(String::as_str);
    assert_eq!(sent("grant_type"), Some("authorization_code"));
    assert_eq!((sent("code"), sent("code_verifier")), (Some("the-code"), Some("the-verifier")));
    assert_eq!(sent("redirect_uri"), Some("https://gw.example/oauth/callback"));
    assert_eq!((sent("client_id"), sent("client_secret")), (Some("gateway"), Some("client secret&")));
    assert_eq!(sent("authorization"), None);
}

#[tokio::test]
async fn a_provider_that_does_not_list_post_gets_the_secret_as_basic_credentials() {
    let provider = FakeProvider::start().await;
    provider.script.lock().unwrap().discovery = json!({"token_endpoint_auth_methods_supported": null});
    let party = ready(&provider).await;
    exchanged(&party).await.unwrap();
    let heard = provider.heard.lock().unwrap();
    let (_, form) = heard.iter().find(|(path, _)| path == "/token").unwrap();
    // "gateway:client+secret%26", each part form-encoded first (RFC 6749, section 2.3.1).
    assert_eq!(form["authorization"], "Basic Z2F0ZXdheTpjbGllbnQrc2VjcmV0JTI2");
    assert!(!form.contains_key("client_secret"));
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_stops_the_boot_and_small_differences_do_not() {
    let provider = FakeProvider::start().await;
    let issue = |issuer: String| provider.script.lock().unwrap().discovery = json!({"issuer": issuer});
    issue(format!("{}/", provider.url));
    assert_eq!(party(provider.config()).await.unwrap().0.issuer(), format!("{}/", provider.url));
    issue(provider.url.replace("127.0.0.1", "localhost"));
    assert!(party(provider.config()).await.is_ok());
    for other in ["https://evil.example".to_owned(), format!("{}/tenant", provider.url)] {
        issue(other);
        let refusal = party(provider.config()).await.err().map(|error| error.to_string()).unwrap();
        assert!(refusal.starts_with(&format!("oidc.issuer is {}", provider.url)), "{refusal}");
    }
}

#[tokio::test]
async fn a_provider_without_an_asymmetric_algorithm_or_with_broken_endpoints_stops_the_boot() {
    let provider = FakeProvider::start().await;
    for (document, wanted) in [
        (json!({"id_token_signing_alg_values_supported": ["HS256", "none"]}), "no asymmetric algorithm"),
        (json!({"token_endpoint": "ftp://idp.example/token"}), "token_endpoint is not an https URL"),
        (json!({"jwks_uri": "/jwks"}), "jwks_uri is not an https URL"),
        (json!({"issuer": null}), "unreadable document"),
    ] {
        provider.script.lock().unwrap().discovery = document;
        let refusal = party(provider.config()).await.err().map(|error| error.to_string()).unwrap();
        assert!(refusal.contains(wanted), "{refusal}");
    }
}

#[tokio::test]
async fn an_id_token_that_the_provider_did_not_sign_is_refused() {
    let provider = FakeProvider::start().await;
    let party = ready(&provider).await;
    let good = provider.script.lock().unwrap().sign(&json!({"sub": "u-1"}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let mallory = FakeProvider::start().await;
    let forged = mallory.script.lock().unwrap().sign(&json!({"sub": "u-1"}));
    let none = "eyJhbGciOiJub25lIn0";
    let hs256 = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtleS0xIn0";
    for (token, detail) in [
        (forged, "id_token signature is wrong"),
        (format!("{header}.e30.{signature}"), "id_token signature is wrong"),
        (format!("{none}.{payload}."), "id_token is signed with none"),
        (format!("{hs256}.{payload}.{signature}"), "id_token is signed with HS256"),
        (format!("{header}.{payload}"), "id_token is malformed"),
        ("junk".to_owned(), "id_token is malformed"),
    ] {
        provider.script.lock().unwrap().answer = json!({"id_token": token});
        let failure = exchanged(&party).await.unwrap_err();
        assert!(failure.detail.starts_with(detail), "{token}: {}", failure.detail);
        assert_eq!((failure.fault, failure.who), (Fault::Claims, None));
    }
}

#[tokio::test]
async fn a_rotated_key_is_fetched_at_once_and_garbage_is_fetched_for_once_in_a_while() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n"}));
    let (party, clock) = party(provider.config()).await.unwrap();
    for id in ["key-1", "key-2", "key-3"] {
        provider.rotate_key(id, true);
        exchanged(&party).await.unwrap();
    }
    assert_eq!(provider.asked_for("/jwks"), 3);
    provider.rotate_key("unpublished", false);
    for _ in 0..3 {
        let failure = exchanged(&party).await.unwrap_err();
        assert!(failure.detail.contains("no valid key found in issuer's jwks_uri"), "{}", failure.detail);
        assert_eq!(failure.fault, Fault::Unavailable);
    }
    assert_eq!(provider.asked_for("/jwks"), 4);
    provider.rotate_key("key-5", true);
    clock.advance(Duration::from_secs(5));
    exchanged(&party).await.unwrap();
    assert_eq!(provider.asked_for("/jwks"), 5);
}

#[tokio::test]
async fn a_withdrawn_key_is_not_trusted_for_long() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "exp": NOW + 100_000}));
    let (party, clock) = party(provider.config()).await.unwrap();
    let held = provider.script.lock().unwrap().sign(
        &json!({"iss": provider.url, "aud": "gateway", "sub": "u-1", "nonce": "n", "iat": NOW, "exp": NOW + 100_000}),
    );
    provider.script.lock().unwrap().answer = json!({"id_token": held});
    exchanged(&party).await.unwrap();
    provider.rotate_key("key-2", true);
    exchanged(&party).await.unwrap();
    clock.advance(Duration::from_secs(3600));
    assert!(exchanged(&party).await.unwrap_err().detail.contains("no valid key found"));
}

#[tokio::test]
async fn userinfo_fills_what_is_missing_and_overrides_nothing() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "groups": ["eng"]}));
    let config = OidcConfig { userinfo_fallback: true, ..provider.config() };
    let party = party(config).await.unwrap().0;
    let userinfo = json!({"sub": "u-1", "email": "ann@example.com", "groups": ["admins"], "name": "Ann"});
    provider.script.lock().unwrap().userinfo = (200, userinfo);
    let person = exchanged(&party).await.unwrap().person;
    assert_eq!(
        (person.email.as_deref(), person.groups, person.name.as_deref()),
        (Some("ann@example.com"), vec!["eng".to_owned()], Some("Ann"))
    );
    // A groups claim that says "none" is an answer too.
    provider.claim(json!({"groups": []}));
    assert!(exchanged(&party).await.unwrap().person.groups.is_empty());
    provider.script.lock().unwrap().userinfo =
        (200, json!({"sub": "u-1", "email": "ann@example.com", "email_verified": "false"}));
    let failure = exchanged(&party).await.unwrap_err();
    assert_eq!(failure.detail, "id_token email is not verified");
    provider.script.lock().unwrap().userinfo = (200, json!({"sub": "u-2", "email": "bob@example.com"}));
    assert_eq!(exchanged(&party).await.unwrap_err().detail, "userinfo sub is not the id_token's");
    provider.script.lock().unwrap().userinfo = (401, json!({}));
    let failure = exchanged(&party).await.unwrap_err();
    assert_eq!(failure.detail, "userinfo endpoint: answered 401 Unauthorized");
    assert_eq!(failure.who.unwrap().sub, "u-1");
}

#[tokio::test]
async fn a_rule_that_says_no_names_the_person() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "email": "ann@other.example"}));
    let config = OidcConfig { allowed_email_domains: vec!["example.com".to_owned()], ..provider.config() };
    let failure = exchanged(&party(config).await.unwrap().0).await.unwrap_err();
    assert_eq!(failure.detail, "email domain not allowed");
    assert_eq!(failure.who.unwrap().email.as_deref(), Some("ann@other.example"));
}

#[tokio::test]
async fn only_invalid_grant_ends_a_session_and_every_other_trouble_is_the_providers() {
    let provider = FakeProvider::start().await;
    let party = ready(&provider).await;
    for (status, body, fault) in [
        (400, json!({"error": "invalid_grant", "error_description": "revoked"}), Fault::Grant),
        (401, json!({"error": "invalid_client"}), Fault::Unavailable),
        (400, json!({"error": "temporarily_unavailable"}), Fault::Unavailable),
        (429, json!({}), Fault::Unavailable),
        (500, json!("oops"), Fault::Unavailable),
        (302, json!({}), Fault::Unavailable),
    ] {
        provider.script.lock().unwrap().refusal = Some((status, body.clone()));
        assert_eq!(refreshed(&party).await.unwrap_err().fault, fault, "{status} {body}");
    }
}

#[tokio::test]
async fn a_provider_that_is_down_does_not_end_a_session() {
    let provider = FakeProvider::start().await;
    provider.script.lock().unwrap().discovery = json!({"token_endpoint": "http://127.0.0.1:1/token"});
    let party = ready(&provider).await;
    assert_eq!(refreshed(&party).await.unwrap_err().fault, Fault::Unavailable);
}

#[tokio::test]
async fn a_provider_that_is_slow_is_given_up_after_its_budget_and_does_not_end_a_session() {
    let provider = FakeProvider::start().await;
    let mut party = ready(&provider).await;
    party.line.budget = Duration::from_millis(20);
    provider.script.lock().unwrap().hangs = true;
    let failure = refreshed(&party).await.unwrap_err();
    assert_eq!((failure.fault, failure.detail.as_str()), (Fault::Unavailable, "outgoing request timed out after 20ms"));
}

#[tokio::test]
async fn a_refresh_reads_everything_again_and_refuses_another_person() {
    let provider = FakeProvider::start().await;
    let party = ready(&provider).await;
    provider.claim(json!({"nonce": null, "email": "ann@new.example", "groups": ["ops"]}));
    let person = refreshed(&party).await.unwrap().person;
    assert_eq!((person.email.as_deref(), person.groups), (Some("ann@new.example"), vec!["ops".to_owned()]));
    provider.claim(json!({"sub": "u-2"}));
    let failure = refreshed(&party).await.unwrap_err();
    assert_eq!((failure.fault, failure.detail.as_str()), (Fault::OtherPerson, "id_token sub is another person's"));
}

#[tokio::test]
async fn a_refresh_without_id_token_asks_userinfo_and_else_keeps_what_was_known() {
    let provider = FakeProvider::start().await;
    let party = ready(&provider).await;
    provider.script.lock().unwrap().claims = json!(null);
    assert_eq!(refreshed(&party).await.unwrap().person, ann());
    provider.script.lock().unwrap().userinfo = (200, json!({"sub": "u-1", "groups": ["ops"]}));
    let person = refreshed(&party).await.unwrap().person;
    assert_eq!(person, Person { groups: vec!["ops".to_owned()], ..ann() });
    provider.script.lock().unwrap().userinfo = (200, json!({"sub": "u-2"}));
    assert_eq!(refreshed(&party).await.unwrap_err().fault, Fault::Claims);
}

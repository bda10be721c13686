//! Groups that are not in the id_token: Google's directory, and Entra's overage.

use std::sync::LazyLock;

use rcgen::PKCS_RSA_SHA256;
use serde_json::Value;

use super::*;

/// Making an RSA key is slow.
static ACCOUNT_KEY: LazyLock<String> =
    LazyLock::new(|| rcgen::KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());

fn google(provider: &FakeProvider) -> OidcConfig {
    let file = json!({
        "client_email": "gateway@test.iam", "private_key": *ACCOUNT_KEY, "private_key_id": "k-1",
        "token_uri": format!("{}/google/token", provider.url),
    });
    let groups = GoogleGroups::from_key_file(&file.to_string(), "admin@example.com".to_owned()).unwrap();
    with_directory(provider, groups)
}

fn with_directory(provider: &FakeProvider, groups: GoogleGroups) -> OidcConfig {
    let mut script = provider.script.lock().unwrap();
    script.more.insert("/google/token", (200, json!({"access_token": "directory-token", "expires_in": 3599})));
    script
        .more
        .insert(DIRECTORY, (200, json!({"groups": [{"email": "eng@example.com"}, {"email": "ops@example.com"}]})));
    OidcConfig { google_groups: Some(groups.at(&provider.url)), ..provider.config() }
}

/// Without a key file, on a machine whose identity is `gateway@test.iam`.
fn on_google_cloud(provider: &FakeProvider) -> OidcConfig {
    let host = provider.url.strip_prefix("http://");
    let groups = GoogleGroups::from_metadata_server(host, "admin@example.com".to_owned()).unwrap();
    let mut script = provider.script.lock().unwrap();
    script.more.insert(EMAIL, (200, json!("gateway@test.iam\n")));
    script
        .more
        .insert(TOKEN, (200, json!({"access_token": "machine-token", "expires_in": 300, "token_type": "Bearer"})));
    script.more.insert(SIGN, (200, json!({"keyId": "k-2", "signedJwt": "signed.by.iam"})));
    drop(script);
    with_directory(provider, groups)
}

const EMAIL: &str = "/computeMetadata/v1/instance/service-accounts/default/email";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const SIGN: &str = "/v1/projects/-/serviceAccounts/gateway@test.iam:signJwt";

const DIRECTORY: &str = "/admin/directory/v1/groups";
const GRAPH: &str = "/v1.0/me/getMemberObjects";

fn claims_of(jwt: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn groups_come_from_googles_directory_in_an_administrators_name() {
    let provider = FakeProvider::start().await;
    let (party, clock) = party(google(&provider)).await.unwrap();
    provider.claim(json!({"nonce": "n", "email": "ann@example.com", "groups": ["forged"]}));
    let person = exchanged(&party).await.unwrap().person;
    assert_eq!(person.groups, ["eng@example.com", "ops@example.com"]);
    let asked = provider.last_sent_to("/google/token");
    assert_eq!(asked["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let uri = format!("{}/google/token", provider.url);
    let scope = "https://www.googleapis.com/auth/admin.directory.group.readonly";
    assert_eq!(
        claims_of(&asked["assertion"]),
        json!({"iss": "gateway@test.iam", "sub": "admin@example.com", "scope": scope, "aud": uri, "iat": NOW, "exp": NOW + 3600})
    );
    let asked = provider.last_sent_to(DIRECTORY);
    assert_eq!(
        (asked["userKey"].as_str(), asked["authorization"].as_str()),
        ("ann@example.com", "Bearer directory-token")
    );
    exchanged(&party).await.unwrap();
    assert_eq!(provider.asked_for("/google/token"), 1, "the token is kept");
    provider.claim(json!({"exp": NOW + 100_000}));
    clock.advance(Duration::from_secs(3599 - 120));
    exchanged(&party).await.unwrap();
    assert_eq!(provider.asked_for("/google/token"), 2, "until shortly before its end");
}

#[tokio::test]
async fn a_machine_of_google_cloud_needs_no_key_because_iam_signs_for_it() {
    let provider = FakeProvider::start().await;
    let party = party(on_google_cloud(&provider)).await.unwrap().0;
    provider.claim(json!({"nonce": "n", "email": "ann@example.com"}));
    assert_eq!(exchanged(&party).await.unwrap().person.groups, ["eng@example.com", "ops@example.com"]);
    for path in [EMAIL, TOKEN] {
        assert_eq!(provider.last_sent_to(path)["metadata-flavor"], "Google", "{path}");
    }
    let asked = provider.last_sent_to(SIGN);
    assert_eq!(asked["authorization"], "Bearer machine-token");
    let body: Value = serde_json::from_str(&asked["body"]).unwrap();
    let payload: Value = serde_json::from_str(body["payload"].as_str().unwrap()).unwrap();
    let expected = json!({
        "iss": "gateway@test.iam", "sub": "admin@example.com", "iat": NOW, "exp": NOW + 3600,
        "scope": "https://www.googleapis.com/auth/admin.directory.group.readonly",
        "aud": format!("{}/google/token", provider.url),
    });
    assert_eq!(payload, expected);
    assert_eq!(provider.last_sent_to("/google/token")["assertion"], "signed.by.iam");
    assert_eq!(provider.last_sent_to(DIRECTORY)["authorization"], "Bearer directory-token");
    exchanged(&party).await.unwrap();
    assert_eq!((provider.asked_for(TOKEN), provider.asked_for(SIGN)), (1, 1), "the directory's token is kept");
}

#[tokio::test]
async fn a_machine_that_nobody_vouches_for_stops_a_sign_in_and_not_a_session() {
    for (path, answer, detail) in [
        (EMAIL, (404, json!({})), "the metadata server: answered 404 Not Found"),
        (EMAIL, (200, json!("default/../../admin")), "the metadata server: answered with an unreadable document"),
        (TOKEN, (200, json!("<html>")), "the metadata server: answered with an unreadable document"),
        (
            SIGN,
            (403, json!({"error": {"status": "PERMISSION_DENIED"}})),
            "IAM, asked to sign (signJwt): answered 403 Forbidden",
        ),
    ] {
        let provider = FakeProvider::start().await;
        let party = party(on_google_cloud(&provider)).await.unwrap().0;
        provider.claim(json!({"nonce": "n"}));
        provider.script.lock().unwrap().more.insert(path, answer);
        let failure = exchanged(&party).await.unwrap_err();
        assert_eq!((failure.fault, failure.detail.as_str()), (Fault::Unavailable, detail));
        assert_eq!(refreshed(&party).await.unwrap().person.groups, ["eng"], "as last known");
    }
    let provider = FakeProvider::start().await;
    provider.script.lock().unwrap().is_google = false;
    let party = party(on_google_cloud(&provider)).await.unwrap().0;
    provider.claim(json!({"nonce": "n"}));
    let failure = exchanged(&party).await.unwrap_err();
    assert_eq!(failure.detail, "the metadata server: answered with an unreadable document", "no metadata server");
    assert_eq!(provider.asked_for(SIGN), 0);
}

#[tokio::test]
async fn every_page_of_the_directory_is_read_and_no_endless_ones() {
    let provider = FakeProvider::start().await;
    let party = party(google(&provider)).await.unwrap().0;
    provider.claim(json!({"nonce": "n"}));
    let page = json!({"groups": [{"email": "eng@example.com"}], "nextPageToken": "more"});
    provider.script.lock().unwrap().more.insert(DIRECTORY, (200, page));
    let failure = exchanged(&party).await.unwrap_err();
    assert_eq!(failure.detail, "Google directory: the person is in more than 10000 groups");
    assert_eq!((provider.asked_for(DIRECTORY), provider.last_sent_to(DIRECTORY)["pageToken"].as_str()), (50, "more"));
    assert_eq!(provider.last_sent_to(DIRECTORY)["userKey"], "u-1", "the id, when there is no address");
}

#[tokio::test]
async fn somebody_whom_the_directory_does_not_know_is_in_no_group() {
    let provider = FakeProvider::start().await;
    let party = party(google(&provider)).await.unwrap().0;
    provider.claim(json!({"nonce": "n", "groups": ["forged"]}));
    provider.script.lock().unwrap().more.insert(DIRECTORY, (404, json!({})));
    assert!(exchanged(&party).await.unwrap().person.groups.is_empty());
}

#[tokio::test]
async fn a_directory_in_trouble_stops_a_sign_in_and_not_a_session() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "email": "ann@example.com"}));
    for (path, detail) in [
        (DIRECTORY, "Google directory: answered 403 Forbidden"),
        ("/google/token", "the service account's token_uri: answered 403 Forbidden"),
    ] {
        let party = party(google(&provider)).await.unwrap().0;
        provider.script.lock().unwrap().more.insert(path, (403, json!({"error": "unauthorized_client"})));
        let failure = exchanged(&party).await.unwrap_err();
        assert_eq!((failure.fault, failure.detail.as_str()), (Fault::Unavailable, detail));
        assert_eq!(failure.who.unwrap().email.as_deref(), Some("ann@example.com"));
        assert_eq!(refreshed(&party).await.unwrap().person.groups, ["eng"], "as last known");
    }
}

#[tokio::test]
async fn a_token_that_the_directory_refuses_is_asked_for_again_next_time() {
    let provider = FakeProvider::start().await;
    let party = party(google(&provider)).await.unwrap().0;
    provider.claim(json!({"nonce": "n"}));
    let good = provider.script.lock().unwrap().more.insert(DIRECTORY, (401, json!({}))).unwrap();
    exchanged(&party).await.unwrap_err();
    provider.script.lock().unwrap().more.insert(DIRECTORY, good);
    exchanged(&party).await.unwrap();
    assert_eq!(provider.asked_for("/google/token"), 2);
}

#[test]
fn a_key_file_that_cannot_be_used_is_refused_and_never_shown() {
    let file = |changes: Value| {
        let mut file =
            json!({"client_email": "a", "private_key": *ACCOUNT_KEY, "token_uri": "https://oauth2.example/token"});
        for (name, value) in changes.as_object().unwrap() {
            file[name] = value.clone();
        }
        GoogleGroups::from_key_file(&file.to_string(), "admin@example.com".to_owned())
    };
    let good = format!("{:?}", file(json!({})).unwrap());
    assert!(good.contains("redacted") && !good.contains("PRIVATE"), "{good}");
    for (changes, problem) in [
        (json!({"private_key": "secret-key"}), "the key's private_key is not an RSA key in PEM form"),
        (
            json!({"private_key": null}),
            "is no service account key; write the path of the JSON file that Google gave you",
        ),
        (json!({"token_uri": "file:///etc/passwd"}), "the key's token_uri is not an https URL"),
    ] {
        assert_eq!(file(changes).unwrap_err(), problem);
    }
}

fn pointing(endpoint: &str) -> Value {
    json!({"nonce": "n", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": endpoint}}})
}

#[tokio::test]
async fn who_is_in_too_many_groups_for_entra_has_them_read_from_microsoft_graph() {
    let provider = FakeProvider::start().await;
    let party = party(provider.config()).await.unwrap().0;
    provider.claim(pointing(&format!("{}/tenant/users/oid/getMemberObjects", provider.url)));
    let ids: Vec<String> = (0..2000).map(|number| format!("00000000-0000-0000-0000-{number:012}")).collect();
    provider.script.lock().unwrap().more.insert(GRAPH, (200, json!({"value": ids})));
    assert_eq!(exchanged(&party).await.unwrap().person.groups, ids);
    let asked = provider.last_sent_to(GRAPH);
    assert_eq!(asked["authorization"], "Bearer access");
    assert!(asked.contains_key(r#"{"securityEnabledOnly":false}"#), "{asked:?}");
    provider.claim(json!({"nonce": null}));
    provider.script.lock().unwrap().more.insert(GRAPH, (200, json!({"value": ["one"]})));
    assert_eq!(refreshed(&party).await.unwrap().person.groups, ["one"]);
}

#[tokio::test]
async fn groups_that_graph_does_not_tell_stop_a_sign_in_and_not_a_session() {
    let provider = FakeProvider::start().await;
    let party = party(provider.config()).await.unwrap().0;
    for (endpoint, answer, detail) in [
        (provider.url.clone(), (403, json!({})), "Microsoft Graph: answered 403 Forbidden"),
        (provider.url.clone(), (200, json!({"value": "ids"})), "Microsoft Graph: answered with an unreadable document"),
        (
            "https://collector.example/".to_owned(),
            (200, json!({"value": ["x"]})),
            "the id_token points to its groups at collector.example, which is not Microsoft Graph",
        ),
    ] {
        provider.claim(pointing(&endpoint));
        provider.script.lock().unwrap().more.insert(GRAPH, answer);
        let failure = exchanged(&party).await.unwrap_err();
        assert_eq!((failure.fault, failure.detail.as_str()), (Fault::Unavailable, detail));
        assert_eq!(failure.who.unwrap().sub, "u-1");
        assert_eq!(refreshed(&party).await.unwrap().person.groups, ["eng"], "as last known");
    }
}

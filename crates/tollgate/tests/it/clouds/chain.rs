//! Where Amazon's default chain finds credentials, through the real chain.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;
use tempfile::TempDir;

use super::aws::{served, setup};
use super::bedrock;
use crate::support::cloud::aws::{
    KEYS, TEMPORARY, container, hex, instance_metadata, single_sign_on, sts, web_identity,
};
use crate::support::cloud::bedrock::signed;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::upstream::{Answer, Upstream};

const ROLE: &str = "arn:aws:iam::111122223333:role/tollgate";

/// Without `auth`.
fn chained() -> Setup {
    setup(bedrock(&json!({ "auth": { "api_key": null } })))
}

/// A home with these settings of Amazon's tools, where the profile `work` is chosen.
fn home(config: &str, credentials: &str) -> (TempDir, Setup) {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let setup = chained()
        .environment("HOME", home.path().to_str().unwrap())
        .environment("AWS_CONFIG_FILE", &file("config", config))
        .environment("AWS_SHARED_CREDENTIALS_FILE", &file("credentials", credentials))
        .environment("AWS_PROFILE", "work");
    (home, setup)
}

/// One developer is served by the cloud, which takes nothing but [`TEMPORARY`].
async fn serves_temporary(setup: Setup) -> TestGateway {
    let gateway = setup.start_process().await;
    gateway.upstream().answer_otherwise(signed(TEMPORARY, "us-east-1"));
    served(&gateway, "alice").await;
    assert_eq!(gateway.audit().next("inference").await["upstream"], "cloud");
    gateway
}

/// Another upstream serves instead, and the log says that the cloud had no credentials: that line.
async fn fails_with(setup: Setup) -> String {
    let mut gateway = setup.upstream(json!({ "name": "second" })).start_process().await;
    served(&gateway, "alice").await;
    assert_eq!(gateway.audit().next("inference").await["upstream"], "second");
    assert!(gateway.upstream().requests().is_empty());
    gateway.process().line("no credentials").await
}

#[tokio::test]
async fn the_default_chain_finds_keys_in_the_environment() {
    let setup = chained()
        .environment("AWS_ACCESS_KEY_ID", TEMPORARY.id)
        .environment("AWS_SECRET_ACCESS_KEY", TEMPORARY.secret)
        .environment("AWS_SESSION_TOKEN", TEMPORARY.token.unwrap());
    let gateway = setup.start_process().await;
    gateway.upstream().answer_otherwise(signed(TEMPORARY, "us-east-1"));
    served(&gateway, "alice").await;
}

#[tokio::test]
async fn the_default_chain_asks_the_instance_once_and_keeps_what_it_says() {
    let metadata = Upstream::start().await;
    metadata.answer_otherwise(instance_metadata);
    let setup = chained().environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url());
    let gateway = setup.start_process().await;
    gateway.upstream().answer_otherwise(signed(TEMPORARY, "us-east-1"));
    served(&gateway, "alice").await;
    let asked = metadata.requests().len();
    served(&gateway, "bob").await;
    assert_eq!(metadata.requests().len(), asked);
}

#[tokio::test]
async fn the_default_chain_asks_the_container() {
    let agent = Upstream::start().await;
    agent.answer_otherwise(container);
    let setup = chained()
        .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url()))
        .environment("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token");
    let gateway = setup.start_process().await;
    gateway.upstream().answer_otherwise(signed(TEMPORARY, "us-east-1"));
    served(&gateway, "alice").await;
}

/// The settings of a pod with a service account.
fn pod(token: &Path, tokens: &Upstream) -> Setup {
    chained()
        .environment("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())
        .environment("AWS_ROLE_ARN", ROLE)
        .environment("AWS_ROLE_SESSION_NAME", "pod-7")
        .environment("AWS_ENDPOINT_URL_STS", &tokens.url())
}

#[tokio::test]
async fn a_pod_shows_its_token_which_is_read_anew_each_time() {
    let (tokens, directory) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let token = directory.path().join("token");
    fs::write(&token, "header.first.signature").unwrap();
    // What the first answer gives has ended by the time it arrives.
    tokens.answer(web_identity("2020-01-01T00:00:00Z"));
    tokens.answer_otherwise(|_| web_identity("2099-01-01T00:00:00Z"));
    let gateway = serves_temporary(pod(&token, &tokens)).await;
    fs::write(&token, "header.second.signature").unwrap();
    for _ in 0..2 {
        served(&gateway, "bob").await;
    }
    let asked: Vec<String> =
        tokens.requests().iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for (asked, token) in asked.iter().zip(["first", "second"]) {
        assert!(asked.contains("Action=AssumeRoleWithWebIdentity&"), "{asked}");
        assert!(asked.contains("RoleSessionName=pod-7"), "{asked}");
        assert!(asked.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Ftollgate"), "{asked}");
        assert!(asked.contains(&format!("WebIdentityToken=header.{token}.signature")), "{asked}");
    }
}

#[tokio::test]
async fn a_renewal_that_is_refused_goes_to_the_next_upstream_and_the_log_names_the_cause() {
    let (tokens, directory) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let token = directory.path().join("token");
    fs::write(&token, "header.secret-claims.signature").unwrap();
    tokens.answer(web_identity("2020-01-01T00:00:00Z"));
    let expired = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code>\
                   <Message>Token expired: current date must be before the expiration date</Message></Error></ErrorResponse>";
    tokens.answer_otherwise(move |_| Answer::new(400, "text/xml", expired));
    let mut gateway = serves_temporary(pod(&token, &tokens).upstream(json!({ "name": "second" }))).await;
    served(&gateway, "alice").await;
    assert_eq!(gateway.audit().next("inference").await["upstream"], "second");
    let line = gateway.process().line("no credentials").await;
    assert!(line.contains("ExpiredTokenException") && line.contains("Token expired"), "{line}");
    assert!(!line.contains("secret-claims"), "{line}");
}

#[tokio::test]
async fn a_pod_whose_token_file_has_gone_is_told() {
    let (tokens, directory) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let token = directory.path().join("token");
    fs::write(&token, "header.first.signature").unwrap();
    tokens.answer(web_identity("2020-01-01T00:00:00Z"));
    let mut gateway = serves_temporary(pod(&token, &tokens).upstream(json!({ "name": "second" }))).await;
    fs::remove_file(&token).unwrap();
    served(&gateway, "alice").await;
    let line = gateway.process().line("no credentials").await;
    let named = format!("AWS_WEB_IDENTITY_TOKEN_FILE, {}, cannot be read: No such file", token.display());
    assert!(line.contains(&named) && line.contains("upstream=cloud"), "{line}");
}

#[tokio::test]
async fn a_profile_holds_keys_and_another_one_a_role() {
    let (token, credentials) = (TEMPORARY.token.unwrap(), |id: &str, secret: &str| {
        format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    });
    let keys = credentials(TEMPORARY.id, TEMPORARY.secret);
    let (_home, setup) = home("", &format!("[work]\n{keys}aws_session_token = {token}\n"));
    serves_temporary(setup).await;

    let tokens = Upstream::start().await;
    tokens.answer_otherwise(sts(KEYS, "us-east-1"));
    let role = format!("[profile work]\nrole_arn = {ROLE}\nrole_session_name = gate\nsource_profile = base\n");
    let (_home, setup) = home(&role, &format!("[base]\n{}", credentials(KEYS.id, KEYS.secret)));
    serves_temporary(setup.environment("AWS_ENDPOINT_URL_STS", &tokens.url())).await;
    let asked = String::from_utf8(tokens.request(0).await.body.to_vec()).unwrap();
    assert!(asked.contains("Action=AssumeRole&") && asked.contains("RoleSessionName=gate"), "{asked}");
}

#[tokio::test]
async fn a_profile_that_no_file_defines_stops_the_start() {
    let (home, setup) = home("[profile works]\nregion = us-east-1\n", "[default]\n");
    let (status, refused) = setup.refuse().await;
    assert_eq!(status.code(), Some(1));
    let config = home.path().join("config");
    assert!(
        refused.contains(&format!("AWS_PROFILE names the profile work, which is not in {}", config.display())),
        "{refused}"
    );
}

#[tokio::test]
async fn a_source_profile_that_no_file_defines_stops_the_start() {
    let role = format!(
        "[profile work]\nrole_arn = {ROLE}\nsource_profile = middle\n[profile middle]\nsource_profile = bsae\n"
    );
    let (home, setup) = home(&role, "[base]\naws_access_key_id = a\n");
    let (status, refused) = setup.refuse().await;
    assert_eq!(status.code(), Some(1));
    let wanted = "the profile middle has the source_profile bsae, which is not in ";
    assert!(refused.contains(&format!("{wanted}{}", home.path().join("config").display())), "{refused}");
}

#[tokio::test]
async fn the_log_says_what_to_do_where_no_source_has_credentials() {
    let nowhere = "http://127.0.0.1:1";
    let without_profile = chained().environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", nowhere);
    let (_empty, empty_profile) = home("[profile work]\nregion = us-east-1\n", "");
    let without_session = "[profile work]\nsso_session = gone\nsso_account_id = 1\nsso_role_name = d\n";
    let (_without_session, sso_profile) = home(without_session, "");
    let container = format!("{nowhere}/v1/credentials");
    for (setup, parts) in [
        (without_profile, ["cannot connect to 127.0.0.1", "set AWS_PROFILE, keys or a web identity"]),
        (
            empty_profile.environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", nowhere),
            ["cannot connect to 127.0.0.1", "the profile work gives none"],
        ),
        (
            chained().environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
            ["AWS_CONTAINER_CREDENTIALS_FULL_URI, http://127.0.0.1:1/v1/credentials, does not answer", "unset it"],
        ),
        (sso_profile, ["sso-session named `gone`", "profile `work`"]),
    ] {
        let line = fails_with(setup).await;
        assert!(parts.iter().all(|part| line.contains(part)) && line.contains("upstream=cloud"), "{line}");
    }
}

#[tokio::test]
async fn a_profile_names_a_process_that_prints_credentials() {
    let printed = json!({
        "Version": 1, "AccessKeyId": TEMPORARY.id, "SecretAccessKey": TEMPORARY.secret, "SessionToken": TEMPORARY.token,
        "Expiration": "2099-01-01T00:00:00Z",
    });
    let (directory, setup) = home("[profile work]\ncredential_process = cat \"$HOME/printed\"\n", "");
    fs::write(directory.path().join("printed"), printed.to_string()).unwrap();
    serves_temporary(setup).await;
    let (_home, setup) = home("[profile work]\ncredential_process = echo vault is sealed >&2; exit 3\n", "");
    let line = fails_with(setup).await;
    assert!(line.contains("vault is sealed"), "{line}");
}

/// A profile that signs in at `corp`, and what `aws sso login` has left in the cache.
fn signed_in_at_corp(ends: &str, more: &serde_json::Value) -> (TempDir, Setup) {
    let config = "[profile work]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = Developer\n\
                  [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n";
    let (home, setup) = home(config, "");
    let cache = home.path().join(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let mut token = more.clone();
    token["accessToken"] = "sso-token".into();
    token["expiresAt"] = ends.into();
    let name = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, b"corp").as_ref());
    fs::write(cache.join(format!("{name}.json")), token.to_string()).unwrap();
    (home, setup)
}

#[tokio::test]
async fn a_profile_with_single_sign_on_shows_the_token_of_the_cache_and_renews_it() {
    let portal = Upstream::start().await;
    portal.answer_otherwise(single_sign_on("sso-token"));
    let (_home, setup) = signed_in_at_corp("2099-01-01T00:00:00Z", &json!({}));
    serves_temporary(setup.environment("AWS_ENDPOINT_URL_SSO", &portal.url())).await;
    assert_eq!(portal.requests().len(), 1);

    let client = json!({
        "clientId": "c", "clientSecret": "s", "registrationExpiresAt": "2099-01-01T00:00:00Z", "refreshToken": "again",
        "region": "us-east-1", "startUrl": "https://corp.awsapps.com/start",
    });
    let (_home, setup) = signed_in_at_corp("2020-01-01T00:00:00Z", &client);
    portal.answer_otherwise(single_sign_on("renewed-token"));
    let setup = setup
        .environment("AWS_ENDPOINT_URL_SSO", &portal.url())
        .environment("AWS_ENDPOINT_URL_SSO_OIDC", &portal.url());
    serves_temporary(setup).await;
    assert_eq!(portal.request(1).await.json()["refreshToken"], "again");
}

#[tokio::test]
async fn a_sign_in_that_has_ended_is_said() {
    let (_home, setup) = signed_in_at_corp("2020-01-01T00:00:00Z", &json!({}));
    let line = fails_with(setup).await;
    assert!(line.contains("expired") && line.contains("run `aws sso login --profile work`"), "{line}");
    assert!(!line.contains("sso-token"), "{line}");
    let (home, setup) = signed_in_at_corp("2099-01-01T00:00:00Z", &json!({}));
    fs::remove_dir_all(home.path().join(".aws")).unwrap();
    let line = fails_with(setup).await;
    assert!(line.contains("cached SSO token") && line.contains("run `aws sso login --profile work`"), "{line}");
}

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use http::HeaderName;
use serde_json::Value;

use super::*;
use crate::upstream::credential::exchange::Way;
use crate::upstream::credential::testing::{Bench, NOW, field, form, message, rsa};
use crate::upstream::scripted::Exchange;

fn environment() -> GoogleEnvironment {
    GoogleEnvironment::default()
}

/// The identity of a credential file that says this.
fn read(bench: &Bench, document: &Value) -> Result<Google, String> {
    let path = bench.file("credentials.json", document.to_string());
    Google::from_file(&path, &environment()).map_err(|Unusable(why)| why.replace(&path.display().to_string(), "FILE"))
}

/// What is asked for a token, and the token.
async fn asked(bench: &Bench, google: &Google, answers: &[Value]) -> (Vec<Exchange>, Fetched) {
    let ways = bench.ways();
    let answering = async {
        let mut exchanges = Vec::new();
        for answer in answers {
            exchanges.push(bench.answer(200, answer).await);
        }
        exchanges
    };
    let (fetched, exchanges) = tokio::join!(google.fetch(&ways), answering);
    (exchanges, fetched.unwrap())
}

fn token(name: &str) -> Value {
    json!({ "access_token": name, "expires_in": 3599, "token_type": "Bearer" })
}

fn key_file(bench: &Bench, pem: &str) -> Value {
    json!({
        "type": "service_account", "project_id": "p", "private_key_id": "key-1", "private_key": pem,
        "client_email": "gateway@p.iam.gserviceaccount.com", "token_uri": format!("{}/token", bench.server.url()),
    })
}

#[tokio::test]
async fn a_service_account_signs_an_assertion_for_its_own_token_uri() {
    let bench = Bench::new().await;
    let (pem, public) = rsa();
    let google = read(&bench, &key_file(&bench, &pem)).unwrap();
    let (exchanges, fetched) = asked(&bench, &google, &[token("of-the-account")]).await;
    assert!(exchanges[0].head.starts_with("POST /token HTTP/1.1"), "{}", exchanges[0].head);
    assert!(exchanges[0].head.contains("content-type: application/x-www-form-urlencoded"), "{}", exchanges[0].head);
    let form = form(&exchanges[0]);
    assert_eq!(field(&form, "grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let mut rules = jsonwebtoken::Validation::new(Algorithm::RS256);
    let url = format!("{}/token", bench.server.url());
    rules.set_audience(&[&url]);
    rules.validate_exp = false;
    let decoded = jsonwebtoken::decode::<Value>(field(&form, "assertion"), &public, &rules).unwrap();
    assert_eq!(decoded.header.kid.as_deref(), Some("key-1"));
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    let wanted = json!({
        "iss": "gateway@p.iam.gserviceaccount.com", "scope": scope, "aud": url, "iat": NOW, "exp": NOW + 3600,
    });
    assert_eq!(decoded.claims, wanted);
    assert_eq!((fetched.token.expose_secret(), fetched.ends), ("of-the-account", NOW + 3599));
}

#[tokio::test]
async fn a_persons_credentials_are_a_refresh_token() {
    let bench = Bench::new().await;
    let document = json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "s3cret", "refresh_token": "r",
        "quota_project_id": "quota", "token_uri": bench.server.url(),
    });
    let google = read(&bench, &document).unwrap();
    assert_eq!(google.quota_project().unwrap(), "quota");
    let (exchanges, _) = asked(&bench, &google, &[token("t")]).await;
    assert_eq!(exchanges[0].body, "grant_type=refresh_token&refresh_token=r&client_id=id&client_secret=s3cret");
    let workforce = json!({
        "type": "external_account_authorized_user", "client_id": "id", "client_secret": "s3cret", "refresh_token": "r",
        "token_url": format!("{}/v1/oauthtoken", bench.server.url()),
    });
    let (exchanges, _) = asked(&bench, &read(&bench, &workforce).unwrap(), &[token("t")]).await;
    assert_eq!(exchanges[0].body, "grant_type=refresh_token&refresh_token=r");
    assert!(exchanges[0].head.contains("authorization: Basic aWQ6czNjcmV0"), "{}", exchanges[0].head);
}

#[tokio::test]
async fn the_machines_identity_is_asked_of_the_metadata_service() {
    let bench = Bench::new().await;
    let environment = GoogleEnvironment { metadata_host: Some(bench.host()), ..environment() };
    let google = Google::from_environment(&environment).unwrap();
    let (exchanges, _) = asked(&bench, &google, &[token("t")]).await;
    let line = "GET /computeMetadata/v1/instance/service-accounts/default/token\
                ?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform HTTP/1.1\r\n";
    assert!(exchanges[0].head.starts_with(line), "{}", exchanges[0].head);
    assert!(exchanges[0].head.contains("metadata-flavor: Google"));
}

#[test]
fn without_a_variable_the_metadata_service_is_googles() {
    let google = Google::from_environment(&environment()).unwrap();
    let Source::Metadata(url) = google.source else { unreachable!() };
    assert_eq!(url.host_str(), Some("metadata.google.internal"));
}

fn external(bench: &Bench, source: &Value) -> Value {
    json!({
        "type": "external_account", "audience": "//iam.googleapis.com/pool", "credential_source": source,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/v1/token", bench.server.url()),
    })
}

#[tokio::test]
async fn an_external_account_exchanges_what_stands_in_a_file_each_time_anew() {
    let bench = Bench::new().await;
    let path = bench.file("subject", "first\n");
    let google = read(&bench, &external(&bench, &json!({ "file": path }))).unwrap();
    let (exchanges, _) = asked(&bench, &google, &[token("t")]).await;
    let first = form(&exchanges[0]).into_iter().collect::<HashMap<_, _>>();
    let wanted = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", "//iam.googleapis.com/pool"),
        ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token", "first"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    assert_eq!(first, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect());
    bench.file("subject", r#"{"id_token":"second"}"#);
    let format = json!({ "type": "json", "subject_token_field_name": "id_token" });
    let mut document = external(&bench, &json!({ "file": path, "format": format }));
    document["workforce_pool_user_project"] = "123".into();
    let google = read(&bench, &document).unwrap();
    let (exchanges, _) = asked(&bench, &google, &[token("t")]).await;
    let second = form(&exchanges[0]);
    assert_eq!((field(&second, "subject_token"), field(&second, "options")), ("second", r#"{"userProject":"123"}"#));
    std::fs::remove_file(&path).unwrap();
    let said = message(google.fetch(&bench.ways()).await);
    assert!(said.contains("subject: it cannot be read: No such file"), "{said}");
}

#[tokio::test]
async fn an_external_account_asks_a_url_and_then_acts_as_a_service_account() {
    let bench = Bench::new().await;
    let source = json!({
        "url": format!("{}/identity", bench.server.url()), "headers": { "Metadata": "true" },
        "format": { "type": "json", "subject_token_field_name": "access_token" },
    });
    let mut document = external(&bench, &source);
    document["service_account_impersonation_url"] = format!("{}/sa:generateAccessToken", bench.server.url()).into();
    document["service_account_impersonation"] = json!({ "token_lifetime_seconds": 1200 });
    document["client_id"] = "id".into();
    document["client_secret"] = "s3cret".into();
    let google = read(&bench, &document).unwrap();
    let impersonated = json!({ "accessToken": "of-the-account", "expireTime": "2026-11-22T12:20:00Z" });
    let answers = [json!({ "access_token": "azure" }), token("federated"), impersonated];
    let (exchanges, fetched) = asked(&bench, &google, &answers).await;
    assert!(exchanges[0].head.starts_with("GET /identity ") && exchanges[0].head.contains("metadata: true"));
    assert_eq!(field(&form(&exchanges[1]), "subject_token"), "azure");
    assert!(exchanges[1].head.contains("authorization: Basic aWQ6czNjcmV0"));
    assert!(exchanges[2].head.starts_with("POST /sa:generateAccessToken "));
    assert!(exchanges[2].head.contains("authorization: Bearer federated"));
    let scope = r#"{"lifetime":"1200s","scope":["https://www.googleapis.com/auth/cloud-platform"]}"#;
    assert_eq!(exchanges[2].body, scope);
    assert_eq!((fetched.token.expose_secret(), fetched.ends), ("of-the-account", NOW + 1200));
}

#[tokio::test]
async fn a_service_account_may_act_as_another_through_delegates() {
    let bench = Bench::new().await;
    let (pem, _) = rsa();
    let document = json!({
        "type": "impersonated_service_account", "source_credentials": key_file(&bench, &pem), "delegates": ["d@p"],
        "service_account_impersonation_url": format!("{}/sa:generateAccessToken", bench.server.url()),
    });
    let answers = [token("base"), json!({ "accessToken": "t", "expireTime": "2026-11-22T13:00:00.5Z" })];
    let (exchanges, _) = asked(&bench, &read(&bench, &document).unwrap(), &answers).await;
    assert!(exchanges[1].head.contains("authorization: Bearer base"));
    let body: Value = serde_json::from_slice(&exchanges[1].body).unwrap();
    assert_eq!((&body["delegates"], &body["lifetime"]), (&json!(["d@p"]), &json!("3600s")));
}

/// The request inside a subject token of AWS.
fn aws_request(subject: &str) -> Value {
    let decoded = url::form_urlencoded::parse(format!("t={subject}").as_bytes()).into_owned().next().unwrap().1;
    assert!(!subject.contains(['+', ' ', '{']), "{subject}");
    serde_json::from_str(&decoded).unwrap()
}

#[tokio::test]
async fn an_identity_of_aws_is_a_signed_request_that_is_never_sent() {
    let bench = Bench::new().await;
    let source = json!({
        "environment_id": "aws1",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    });
    let path = bench.file("aws.json", external(&bench, &source).to_string());
    let aws = AwsEnvironment {
        region: Some("eu-west-1".to_owned()),
        key: Some(("AKIDEXAMPLE".to_owned(), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into())),
        session_token: Some("session".into()),
    };
    let google = Google::from_file(&path, &GoogleEnvironment { aws, ..environment() }).unwrap();
    let (exchanges, _) = asked(&bench, &google, &[token("t")]).await;
    insta::assert_json_snapshot!(aws_request(field(&form(&exchanges[0]), "subject_token")));
}

#[tokio::test]
async fn on_a_machine_of_aws_region_and_keys_come_from_its_metadata_service() {
    let bench = Bench::new().await;
    let at = |path: &str| format!("{}{path}", bench.server.url());
    let source = json!({
        "environment_id": "aws1", "region_url": at("/zone"), "url": at("/role"), "imdsv2_session_token_url": at("/session"),
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    });
    let google = read(&bench, &external(&bench, &source)).unwrap();
    let ways = bench.ways();
    let answering = async {
        let keys = json!({ "AccessKeyId": "AKID", "SecretAccessKey": "s3cret", "Token": "session" }).to_string();
        let mut heads = Vec::new();
        for body in ["imds-session", "us-east-1b", "the-role", &keys] {
            heads.push(bench.server.answer(crate::upstream::scripted::http(200, "", body)).await.head);
        }
        (heads, bench.answer(200, &token("t")).await)
    };
    let (fetched, (heads, exchange)) = tokio::join!(google.fetch(&ways), answering);
    fetched.unwrap();
    assert!(heads[0].starts_with("PUT /session ") && heads[0].contains("token-ttl-seconds: 300"), "{}", heads[0]);
    for (head, path) in heads[1..].iter().zip(["/zone", "/role", "/role/the-role"]) {
        assert!(head.starts_with(&format!("GET {path} ")), "{head}");
        assert!(head.contains("x-aws-ec2-metadata-token: imds-session"), "{head}");
    }
    let request = aws_request(field(&form(&exchange), "subject_token"));
    assert_eq!(request["url"], "https://sts.us-east-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15");
}

#[test]
fn only_the_addresses_of_metadata_services_are_reached_unchecked() {
    let way = |url: &str| external::way(&Url::parse(url).unwrap());
    for url in ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/x", "http://metadata.google.internal/y"] {
        assert_eq!(way(url), Way::Near, "{url}");
    }
    for url in ["http://169.254.170.2/", "http://127.0.0.1/", "http://10.0.0.1/", "https://example.com/"] {
        assert_eq!(way(url), Way::Far, "{url}");
    }
    let _: HeaderName = HeaderName::from_static("metadata");
}

#[tokio::test]
async fn a_file_that_cannot_work_is_refused_with_what_is_wrong_and_none_of_its_secrets() {
    let bench = Bench::new().await;
    let (pem, _) = rsa();
    let good = key_file(&bench, &pem);
    let changed = |field: &str, value: Value| {
        let mut document = good.clone();
        document[field] = value;
        document
    };
    let source = |source: Value| external(&bench, &source);
    for (document, why) in [
        (json!("s3cret"), "type is missing"),
        (
            changed("type", json!("gdch_service_account")),
            "credentials of the type gdch_service_account are not supported; use service_account, authorized_user, \
             external_account, external_account_authorized_user or impersonated_service_account",
        ),
        (changed("private_key", json!("s3cret")), "private_key is not an RSA key in PEM form"),
        (changed("private_key", Value::Null), "private_key is missing"),
        (changed("client_email", json!(5)), "client_email must be a text that is not empty"),
        (changed("token_uri", json!("http://s3cret.example/")), "token_uri must begin with https://"),
        (changed("quota_project_id", json!("a\nb")), "the quota project is not a project id"),
        (source(json!({})), "credential_source: it must name a file, a url, an executable or environment_id aws1"),
        (
            source(json!({ "file": "/nowhere/s" })),
            "credential_source: the file /nowhere/s cannot be read: No such file or directory (os error 2)",
        ),
        (
            source(json!({ "executable": { "command": "/bin/s3cret" } })),
            "credential_source: it runs a program, which only GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 allows",
        ),
        (
            source(json!({ "certificate": { "use_default_certificate_config": true } })),
            "credential_source: X.509 certificates are not supported; use a file, a url or an executable",
        ),
        (source(json!({ "url": "http://example.com/" })), "credential_source: url must begin with https://"),
        (source(json!({ "environment_id": "aws2" })), "credential_source: environment_id must be aws1"),
        (
            json!({ "type": "impersonated_service_account", "source_credentials": { "type": "authorized_user" } }),
            "source_credentials: client_id is missing",
        ),
    ] {
        assert_eq!(read(&bench, &document).unwrap_err(), format!("FILE: {why}"));
    }
    let path = bench.file("broken.json", r#"{"private_key": s3cret}"#);
    let refused = Google::from_file(&path, &environment()).unwrap_err().to_string();
    assert!(refused.ends_with("broken.json: it is not JSON (line 1, column 17)"), "{refused}");
}

#[tokio::test]
async fn where_nothing_says_who_we_are_every_way_to_say_it_is_named() {
    let bench = Bench::new().await;
    let environment = GoogleEnvironment { metadata_host: Some("127.0.0.1:1".to_owned()), ..environment() };
    let google = Google::from_environment(&environment).unwrap();
    let said = message(google.fetch(&bench.ways()).await);
    for part in ["GOOGLE_APPLICATION_CREDENTIALS is not set", "gcloud auth application-default login", "127.0.0.1:1/"] {
        assert!(said.contains(part), "{said}");
    }
}

/// An external account whose token a shell script gives.
#[cfg(unix)]
fn executable(bench: &Bench, script: &str, more: Value) -> Result<Google, String> {
    use std::os::unix::fs::PermissionsExt;
    let program = bench.file("give-token", format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut source = json!({ "command": format!("{} of  the-pool", program.display()) });
    for (name, value) in more.as_object().into_iter().flatten() {
        source[name] = value.clone();
    }
    let path = bench.file("credentials.json", external(bench, &json!({ "executable": source })).to_string());
    let of_programs = vec![("PATH", "/usr/bin:/bin".to_owned())];
    let environment = GoogleEnvironment { allow_executables: true, of_programs, ..environment() };
    Google::from_file(&path, &environment).map_err(|Unusable(why)| why.replace(&path.display().to_string(), "FILE"))
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_gives_the_token_of_another_provider_and_is_told_what_for() {
    let bench = Bench::new().await;
    let script = r#"[ "$*" = "of the-pool" ] && [ -z "$CARGO_PKG_NAME" ] && [ "$GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE" = 0 ] || exit 2
echo "{\"version\": 1, \"success\": true, \"token_type\": \"$GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE\", \"id_token\": \"for $GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE\"}""#;
    let google = executable(&bench, script, json!({})).unwrap();
    let (exchanges, fetched) = asked(&bench, &google, &[token("of-the-pool")]).await;
    assert_eq!(fetched.token.expose_secret(), "of-the-pool");
    let form = form(&exchanges[0]);
    assert_eq!(field(&form, "subject_token"), format!("for {}", field(&form, "audience")));
}

#[cfg(unix)]
#[tokio::test]
async fn a_token_in_the_output_file_is_used_to_its_end_before_the_program_is_run_again() {
    let bench = Bench::new().await;
    let said = |token: &str, ends: i64| {
        let jwt = "urn:ietf:params:oauth:token-type:jwt";
        json!({ "version": 1, "success": true, "token_type": jwt, "id_token": token, "expiration_time": ends })
            .to_string()
    };
    let output = bench.file("output", said("kept", NOW + 60));
    let script = format!(
        "[ \"$GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE\" = {} ] || exit 2\necho '{}'",
        output.display(),
        said("new", NOW + 60)
    );
    let google = executable(&bench, &script, json!({ "output_file": output })).unwrap();
    for (content, subject) in [
        (said("kept", NOW + 60), "kept"),
        (said("old", NOW), "new"),
        (json!({ "version": 1, "success": false, "code": "1", "message": "m" }).to_string(), "new"),
        ("half a".to_owned(), "new"),
    ] {
        bench.file("output", content);
        let (exchanges, _) = asked(&bench, &google, &[token("t")]).await;
        assert_eq!(field(&form(&exchanges[0]), "subject_token"), subject);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_that_gives_no_token_is_named_with_what_it_says_and_nothing_else_of_it() {
    let bench = Bench::new().await;
    for (script, why) in [
        (
            r#"echo '{"version":1,"success":false,"code":"401","message":"Caller not authorized."}'"#,
            "401: Caller not authorized.",
        ),
        (r#"echo '{"version":2,"success":true}'"#, "it speaks another version of the protocol than 1"),
        (
            r#"echo '{"version":1,"success":true,"token_type":"s3cret","id_token":"s3cret"}'"#,
            "it gives a token of an unknown token_type",
        ),
        (
            r#"echo '{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:saml2","id_token":"s3cret"}'"#,
            "it gives no saml_response",
        ),
        (
            r#"echo '{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:id_token","id_token":"s3cret","expiration_time":1}'"#,
            "its token has ended",
        ),
        ("echo s3cret", "it printed no JSON object"),
        ("echo s3cret; echo 'the vault is sealed' >&2; exit 3", "the vault is sealed"),
    ] {
        let google = executable(&bench, script, json!({})).unwrap();
        let said = message(google.fetch(&bench.ways()).await);
        assert!(said.contains("give-token gave no token: ") && said.ends_with(why), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    let google = executable(&bench, "exec sleep 60", json!({ "timeout_millis": 5000 })).unwrap();
    tokio::time::pause();
    let said = message(google.fetch(&bench.ways()).await);
    assert!(said.ends_with("it did not end within 5 s"), "{said}");
    for (more, why) in [
        (json!({ "timeout_millis": 10 }), "executable.timeout_millis must be a number from 5000 to 120000"),
        (json!({ "command": "give-token" }), "executable.command must begin with an absolute path"),
        (
            json!({ "command": "/nowhere/give" }),
            "the file /nowhere/give cannot be read: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(executable(&bench, "", more).unwrap_err(), format!("FILE: credential_source: {why}"));
    }
}

#[tokio::test]
async fn the_environment_is_asked_in_the_order_of_googles_own_libraries() {
    let bench = Bench::new().await;
    let (pem, _) = rsa();
    let named = bench.file("named.json", key_file(&bench, &pem).to_string());
    let person = json!({ "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r" });
    let well_known = bench.file("adc.json", person.to_string());
    let both = GoogleEnvironment {
        credentials_file: Some(named),
        well_known_file: Some(well_known.clone()),
        quota_project: Some("of-the-environment".to_owned()),
        ..environment()
    };
    let google = Google::from_environment(&both).unwrap();
    assert!(matches!(google.source, Source::ServiceAccount(_)));
    assert_eq!(google.quota_project().unwrap(), "of-the-environment");
    let person = GoogleEnvironment { credentials_file: None, ..both.clone() };
    assert!(matches!(Google::from_environment(&person).unwrap().source, Source::User(_)));
    let neither = GoogleEnvironment { well_known_file: Some("/nowhere".into()), ..environment() };
    assert!(matches!(Google::from_environment(&neither).unwrap().source, Source::Metadata(_)));
    let missing = GoogleEnvironment { credentials_file: Some("/nowhere/key.json".into()), ..both };
    assert_eq!(
        Google::from_environment(&missing).unwrap_err().to_string(),
        "GOOGLE_APPLICATION_CREDENTIALS: /nowhere/key.json: it cannot be read: No such file or directory (os error 2)"
    );
    let odd = GoogleEnvironment { metadata_host: Some("a b/".to_owned()), ..environment() };
    assert!(Google::from_environment(&odd).is_err());
}

#[tokio::test]
async fn nothing_secret_is_in_the_debug_text() {
    let bench = Bench::new().await;
    let (pem, _) = rsa();
    let google = read(&bench, &key_file(&bench, &pem)).unwrap();
    let shown = format!("{google:?}");
    assert!(shown.contains("gateway@p.iam") && !shown.contains("MII") && !shown.contains("[48"), "{shown}");
}

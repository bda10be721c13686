#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::upstream::credential::testing::{Bench, NOW, field, form, message, rsa};
use crate::upstream::scripted::Exchange;

fn environment() -> AzureEnvironment {
    AzureEnvironment::default()
}

/// An application at the test's own authority.
fn application(bench: &Bench) -> AzureEnvironment {
    AzureEnvironment {
        authority_host: Some(bench.server.url()),
        tenant_id: Some("tenant".to_owned()),
        client_id: Some("client".to_owned()),
        ..environment()
    }
}

async fn asked(bench: &Bench, environment: &AzureEnvironment, answer: &Value) -> (Exchange, Fetched) {
    let azure = Azure::from_environment(environment).unwrap();
    let ways = bench.ways();
    let (fetched, exchange) = tokio::join!(azure.fetch(&ways), bench.answer(200, answer));
    (exchange, fetched.unwrap())
}

fn token() -> Value {
    json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "entra" })
}

#[tokio::test]
async fn an_application_shows_its_secret() {
    let bench = Bench::new().await;
    let environment = AzureEnvironment { client_secret: Some("s3cret&".into()), ..application(&bench) };
    let (exchange, fetched) = asked(&bench, &environment, &token()).await;
    assert!(exchange.head.starts_with("POST /tenant/oauth2/v2.0/token HTTP/1.1"), "{}", exchange.head);
    let body = "grant_type=client_credentials&client_id=client\
                &scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default&client_secret=s3cret%26";
    assert_eq!(exchange.body, body);
    assert_eq!((fetched.token.expose_secret(), fetched.ends), ("entra", NOW + 3599));
}

#[tokio::test]
async fn an_application_signs_with_its_certificate() {
    let bench = Bench::new().await;
    let (pem, public) = rsa();
    // Nobody but Entra looks into the certificate: its name is its digest.
    let certificate = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
    let path = bench.file("app.pem", format!("{certificate}{pem}"));
    let environment =
        AzureEnvironment { client_certificate_path: Some(path), send_certificate_chain: true, ..application(&bench) };
    let (exchange, _) = asked(&bench, &environment, &token()).await;
    let form = form(&exchange);
    assert_eq!(field(&form, "client_assertion_type"), ASSERTION_TYPE);
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::PS256);
    let audience = format!("{}/tenant/oauth2/v2.0/token", bench.server.url());
    rules.set_audience(&[&audience]);
    rules.validate_exp = false;
    let decoded = jsonwebtoken::decode::<Value>(field(&form, "client_assertion"), &public, &rules).unwrap();
    assert_eq!(decoded.header.x5t_s256.as_deref(), Some("A5BYxvLAy0ksUzsKTRTvd8wPeKvMztUofYShogEc-4E"));
    assert_eq!(decoded.header.x5c, Some(vec!["AQID".to_owned()]));
    let claims = &decoded.claims;
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client"), &json!("client")));
    assert_eq!((&claims["nbf"], &claims["exp"]), (&json!(NOW), &json!(NOW + 600)));
}

#[tokio::test]
async fn a_workload_shows_the_token_of_its_own_provider_as_it_stands_in_the_file_now() {
    let bench = Bench::new().await;
    let path = bench.file("federated", "first");
    let environment = AzureEnvironment { federated_token_file: Some(path.clone()), ..application(&bench) };
    let azure = Azure::from_environment(&environment).unwrap();
    bench.file("federated", "second\n");
    let ways = bench.ways();
    let answer = token();
    let (fetched, exchange) = tokio::join!(azure.fetch(&ways), bench.answer(200, &answer));
    fetched.unwrap();
    assert_eq!(field(&form(&exchange), "client_assertion"), "second");
}

#[tokio::test]
async fn an_app_service_is_asked_with_the_secret_of_the_environment() {
    let bench = Bench::new().await;
    let environment = AzureEnvironment {
        identity_endpoint: Some(format!("{}/msi/token", bench.server.url())),
        identity_header: Some("s3cret".into()),
        client_id: Some("user-assigned".to_owned()),
        ..environment()
    };
    let answer = json!({ "access_token": "managed", "expires_on": (NOW + 5000).to_string(), "resource": RESOURCE });
    let (exchange, fetched) = asked(&bench, &environment, &answer).await;
    let line = "GET /msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fcognitiveservices.azure.com\
                &client_id=user-assigned HTTP/1.1\r\n";
    assert!(exchange.head.starts_with(line), "{}", exchange.head);
    assert!(exchange.head.contains("x-identity-header: s3cret"));
    assert_eq!(fetched.ends, NOW + 5000);
}

#[tokio::test]
async fn an_instance_asks_its_metadata_service_and_takes_a_refusal_for_an_answer() {
    let bench = Bench::new().await;
    let environment = AzureEnvironment { metadata_host: Some(bench.server.url()), ..environment() };
    let (exchange, _) = asked(&bench, &environment, &token()).await;
    let line = "GET /metadata/identity/oauth2/token?api-version=2018-02-01\
                &resource=https%3A%2F%2Fcognitiveservices.azure.com HTTP/1.1\r\n";
    assert!(exchange.head.starts_with(line), "{}", exchange.head);
    assert!(exchange.head.contains("metadata: true"));
    let azure = Azure::from_environment(&environment).unwrap();
    let (ways, refusal) =
        (bench.ways(), json!({ "error": "invalid_request", "error_description": "Identity not found" }));
    let (refused, _) = tokio::join!(azure.fetch(&ways), bench.answer(400, &refusal));
    let said = message(refused);
    assert!(said.ends_with("refused a token with 400: invalid_request: Identity not found"), "{said}");
}

#[tokio::test]
async fn a_machine_of_azure_arc_must_not_lead_to_files_that_are_not_its_own() {
    let bench = Bench::new().await;
    let path = bench.file("secret.key", "s3cret");
    let environment = AzureEnvironment { identity_endpoint: Some(bench.server.url()), ..environment() };
    let azure = Azure::from_environment(&environment).unwrap();
    for (header, why) in [
        (format!("www-authenticate: Basic realm={}\r\n", path.display()), "names a file that is not Azure Arc's"),
        ("www-authenticate: Basic realm=/var/opt/azcmagent/tokens/../x.key\r\n".to_owned(), "is not Azure Arc's"),
        (String::new(), "refused a token with 401"),
    ] {
        let ways = bench.ways();
        let answer = crate::upstream::scripted::http(401, &header, "");
        let (refused, exchange) = tokio::join!(azure.fetch(&ways), bench.server.answer(answer));
        assert!(exchange.head.starts_with("GET /?api-version=2020-06-01&resource="), "{}", exchange.head);
        let said = message(refused);
        assert!(said.contains(why), "{said}");
    }
}

/// An Azure CLI that is a shell script.
#[cfg(unix)]
fn cli(bench: &Bench, script: &str) -> AzureEnvironment {
    use std::os::unix::fs::PermissionsExt;
    let path = bench.file("az", format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    AzureEnvironment {
        // Nobody listens there: no managed identity.
        metadata_host: Some("http://127.0.0.1:1".to_owned()),
        path: Some(format!("relative:{}:/usr/bin:/bin", bench.folder.path().display())),
        home: Some("/home/somebody".to_owned()),
        ..environment()
    }
}

#[cfg(unix)]
#[tokio::test]
async fn where_nothing_else_says_who_we_are_the_azure_cli_is_asked() {
    let bench = Bench::new().await;
    let script = r#"[ "$*" = "account get-access-token --output json --scope https://cognitiveservices.azure.com/.default" ] || exit 2
[ "$HOME" = /home/somebody ] && [ -z "$CARGO_PKG_NAME" ] || exit 3
echo '{"accessToken": "of-the-person", "expires_on": 1795350000, "expiresOn": "local time"}'"#;
    let azure = Azure::from_environment(&cli(&bench, script)).unwrap();
    let fetched = azure.fetch(&bench.ways()).await.unwrap();
    assert_eq!((fetched.token.expose_secret(), fetched.ends), ("of-the-person", 1_795_350_000));
    let script = "echo 'ERROR: Please run az login' >&2; exit 1";
    let azure = Azure::from_environment(&cli(&bench, script)).unwrap();
    let said = message(azure.fetch(&bench.ways()).await);
    assert_eq!(said, "the Azure CLI gave no token: ERROR: Please run az login");
    let environment = AzureEnvironment { path: Some("/nowhere".to_owned()), ..cli(&bench, "") };
    let said = message(Azure::from_environment(&environment).unwrap().fetch(&bench.ways()).await);
    assert!(said.starts_with("no credential was found: the environment names none, there is no managed identity (no token from http://127.0.0.1:1/"), "{said}");
}

#[tokio::test]
async fn what_is_configured_and_impossible_is_refused_by_its_variable() {
    let bench = Bench::new().await;
    let secret = || AzureEnvironment { client_secret: Some("s".into()), ..application(&bench) };
    let empty = bench.file("empty.pem", "");
    for (environment, why) in [
        (
            AzureEnvironment { client_id: None, ..secret() },
            "AZURE_CLIENT_SECRET needs AZURE_TENANT_ID and AZURE_CLIENT_ID beside it",
        ),
        (
            AzureEnvironment { tenant_id: Some("a/b".to_owned()), ..secret() },
            "AZURE_TENANT_ID must be an id or a domain name",
        ),
        (
            AzureEnvironment { authority_host: Some("http://x.example".to_owned()), ..secret() },
            "AZURE_AUTHORITY_HOST must begin with https://",
        ),
        (
            AzureEnvironment { federated_token_file: Some("/nowhere/t".into()), ..application(&bench) },
            "AZURE_FEDERATED_TOKEN_FILE: the file /nowhere/t cannot be read: No such file or directory (os error 2)",
        ),
        (
            AzureEnvironment { client_certificate_path: Some("/nowhere/c".into()), ..application(&bench) },
            "AZURE_CLIENT_CERTIFICATE_PATH: /nowhere/c: it cannot be read: No such file or directory (os error 2)",
        ),
        (
            AzureEnvironment { identity_endpoint: Some("x".to_owned()), ..environment() },
            "IDENTITY_ENDPOINT is not a URL",
        ),
    ] {
        assert_eq!(Azure::from_environment(&environment).unwrap_err().to_string(), why);
    }
    let environment = AzureEnvironment { client_certificate_path: Some(empty), ..application(&bench) };
    let refused = Azure::from_environment(&environment).unwrap_err().to_string();
    assert!(refused.ends_with("empty.pem: it holds no certificate in PEM form"), "{refused}");
}

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::upstream::credential::testing::{Bench, NOW, message};

async fn answered(bench: &Bench, answer: String) -> Result<Fetched, CredentialError> {
    let url = Url::parse(&format!("{}/token?secret=1", bench.server.url())).unwrap();
    let ways = bench.ways();
    tokio::join!(ways.token(Way::Far, Question::get(&url)), bench.server.answer(answer)).0
}

fn http(status: u16, body: &str) -> String {
    crate::upstream::scripted::http(status, "", body)
}

#[tokio::test]
async fn the_end_of_a_token_is_understood_in_every_spelling() {
    let bench = Bench::new().await;
    for (fields, ends) in [
        (json!({ "expires_in": 60 }), NOW + 60),
        (json!({ "expires_in": "60" }), NOW + 60),
        (json!({ "expires_in": "60", "expires_on": "1795348999" }), 1_795_348_999),
        (json!({ "expires_on": 1_795_348_999_u64 }), 1_795_348_999),
        (json!({}), NOW + 300),
    ] {
        let mut body = fields;
        body["access_token"] = "one".into();
        let fetched = answered(&bench, http(200, &body.to_string())).await.unwrap();
        assert_eq!((fetched.token.expose_secret(), fetched.ends), ("one", ends), "{body}");
    }
}

#[tokio::test]
async fn what_an_endpoint_says_of_a_refusal_is_shown_and_nothing_else_of_it() {
    let bench = Bench::new().await;
    let endpoint = format!("{}/token", bench.server.url());
    for (body, said) in [
        (
            r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
            ": invalid_grant: Invalid JWT Signature.",
        ),
        (
            r#"{"error":{"type":"invalid_request_error","message":"unknown rule"}}"#,
            ": invalid_request_error: unknown rule",
        ),
        (r#"{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}"#, ": PERMISSION_DENIED: denied"),
        (r#"{"assertion":"s3cret"}"#, ""),
        ("<html>s3cret</html>", ""),
    ] {
        let refused = message(answered(&bench, http(403, body)).await);
        assert_eq!(refused, format!("{endpoint} refused a token with 403{said}"));
    }
}

#[tokio::test]
async fn an_answer_without_a_token_is_told_from_no_answer() {
    let bench = Bench::new().await;
    let endpoint = format!("{}/token", bench.server.url());
    for (answer, said) in [
        (http(200, "{}"), "answered without a usable token: it has no access_token"),
        (http(200, r#"{"access_token":""}"#), "answered without a usable token: it has no access_token"),
        (http(200, "<html>"), "answered without a usable token: it is not a JSON object"),
        (http(302, ""), "refused a token with 302"),
    ] {
        assert_eq!(message(answered(&bench, answer).await), format!("{endpoint} {said}"));
    }
    let said = message(answered(&bench, "nonsense\r\n\r\n".to_owned()).await);
    assert!(said.starts_with(&format!("no token from {endpoint}: the connection broke")), "{said}");
}

#[test]
fn secrets_are_sent_over_tls_or_to_this_machine_only() {
    for url in ["https://sts.example/x", "http://localhost:5000/", "http://127.0.0.1/", "http://[::1]:8/"] {
        assert!(endpoint(url).is_ok(), "{url}");
    }
    for url in ["http://sts.example/", "http://169.254.169.254/", "ftp://x/", "x", "https://"] {
        assert!(endpoint(url).is_err(), "{url}");
    }
}

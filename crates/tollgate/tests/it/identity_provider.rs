//! The provider's side of a sign-in, with a certified provider set up as different ones are: how the client proves itself,
//! what id_tokens are signed with, and the way there.

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::gateway::TestGateway;
use crate::support::idp::{Account, RefreshTokens};

fn ann() -> Account {
    Account::new("ann").email("ann@example.com").groups(&["eng"])
}

/// Ann signs in and refreshes; the answer of the refresh.
async fn signed_in_and_refreshed(gateway: &TestGateway) -> Value {
    let tokens = gateway.sign_in("ann").await;
    gateway.refresh(&tokens).await.1
}

#[track_caller]
fn is_signed_in(answer: &Value) {
    assert_eq!((&answer["token_type"], &answer["email"]), (&json!("Bearer"), &json!("ann@example.com")), "{answer}");
}

#[tokio::test]
async fn id_tokens_of_every_algorithm_are_accepted() {
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"] {
        let setup = TestGateway::setup().people(RefreshTokens::Rotated, &[ann()]);
        let setup = setup.provider(json!({"algorithm": algorithm}));
        let gateway = setup.config(json!({"oidc": {"id_token_signed_response_alg": algorithm}})).start().await;
        is_signed_in(&signed_in_and_refreshed(&gateway).await);
    }
}

#[tokio::test]
async fn a_secret_in_the_header_and_one_in_the_form_are_both_understood() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let setup = TestGateway::setup().people(RefreshTokens::Rotated, &[ann()]);
        // The provider takes the one way only.
        let setup = setup.provider(json!({"client_metadata": {"token_endpoint_auth_method": method}}));
        let gateway = setup.config(json!({"oidc": {"token_endpoint_auth_method": method}})).start().await;
        is_signed_in(&signed_in_and_refreshed(&gateway).await);
    }
}

#[tokio::test]
async fn a_key_whose_certificate_the_provider_knows_is_as_good_as_a_secret() {
    for pair in [KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), KeyPair::generate().unwrap()] {
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap().pem();
        let setup = TestGateway::setup().people(RefreshTokens::Rotated, &[ann()]);
        let setup = setup.provider(json!({
            "client_metadata": {"token_endpoint_auth_method": "private_key_jwt"}, "client_certificate": certificate,
        }));
        let gateway = setup.config(json!({"oidc": {
            "client_secret": null,
            "token_endpoint_auth_method": "private_key_jwt",
            "client_assertion": {"private_key_pem": pair.serialize_pem(), "certificate_pem": certificate},
        }}));
        is_signed_in(&signed_in_and_refreshed(&gateway.start().await).await);
    }
}

#[tokio::test]
async fn scopes_that_were_granted_can_be_sent_again_on_refresh() {
    let setup = TestGateway::setup().people(RefreshTokens::Rotated, &[ann()]);
    // The provider grants no offline_access without a consent page, and refuses what it did not grant.
    let scopes = json!(["openid", "profile", "email"]);
    let gateway = setup.config(json!({"oidc": {"scopes": scopes, "scope_on_refresh": true}})).start().await;
    is_signed_in(&signed_in_and_refreshed(&gateway).await);
}

/// A forward proxy that says which targets it was asked for.
async fn forward_proxy() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, heard) = mpsc::channel(100);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut client = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    client.read_line(&mut head).await.unwrap();
                }
                let target = head.split(' ').nth(1).unwrap().to_owned();
                asked.send(format!("{} {target}", head.split(' ').next().unwrap())).await.unwrap();
                let mut server = TcpStream::connect(target).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (url, heard)
}

#[tokio::test]
async fn the_provider_is_reached_through_the_forward_proxy_only_where_it_is_asked_for() {
    for use_proxy in [true, false] {
        let (proxy, mut heard) = forward_proxy().await;
        let setup = TestGateway::setup().people(RefreshTokens::Rotated, &[ann()]);
        let setup = setup.environment("HTTP_PROXY", &proxy).config(json!({"oidc": {"use_proxy": use_proxy}}));
        let gateway = setup.start().await;
        is_signed_in(&signed_in_and_refreshed(&gateway).await);
        let address = gateway.idp().issuer().trim_start_matches("http://").to_owned();
        let asked = heard.try_recv().ok();
        assert_eq!(asked, use_proxy.then(|| format!("CONNECT {address}")));
    }
}

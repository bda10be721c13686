//! What is accepted of whom: algorithms, keys, clients and documents.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use rcgen::{CertificateParams, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use serde_json::Value;

use super::*;
use crate::identity::fake_provider::{self, tls_server};

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key that signs with one algorithm, and its JWK.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Sign,
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ec(algorithm: &'static str, curve: &str, kind: &'static EcdsaSigningAlgorithm) -> Signer {
    let pair = EcdsaKeyPair::generate(kind).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y), "alg": algorithm, "kid": algorithm});
    let sign = Box::new(move |signed: &[u8]| pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec());
    Signer { algorithm, jwk, sign }
}

fn rsa(pair: &Arc<RsaKeyPair>, algorithm: &'static str, encoding: &'static dyn RsaEncoding) -> Signer {
    let pair = Arc::clone(pair);
    let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
    let (n, e) = (base64(n.big_endian_without_leading_zero()), base64(e.big_endian_without_leading_zero()));
    let jwk = json!({"kty": "RSA", "n": n, "e": e, "use": "sig", "kid": algorithm});
    let sign = Box::new(move |signed: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
        signature
    });
    Signer { algorithm, jwk, sign }
}

fn ed() -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key().as_ref()), "kid": "EdDSA"});
    Signer { algorithm: "EdDSA", jwk, sign: Box::new(move |signed| pair.sign(signed).as_ref().to_vec()) }
}

fn signers() -> Vec<Signer> {
    // One for all: making an RSA key is slow.
    let pair = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    vec![
        rsa(&pair, "RS256", &signature::RSA_PKCS1_SHA256),
        rsa(&pair, "RS384", &signature::RSA_PKCS1_SHA384),
        rsa(&pair, "RS512", &signature::RSA_PKCS1_SHA512),
        rsa(&pair, "PS256", &signature::RSA_PSS_SHA256),
        rsa(&pair, "PS384", &signature::RSA_PSS_SHA384),
        rsa(&pair, "PS512", &signature::RSA_PSS_SHA512),
        ec("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ec("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ec("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
        ed(),
    ]
}

impl Signer {
    fn id_token(&self, issuer: &str) -> String {
        self.id_token_under(&json!({"alg": self.algorithm, "kid": self.algorithm}), issuer)
    }

    fn id_token_under(&self, header: &Value, issuer: &str) -> String {
        let claims = json!({"iss": issuer, "aud": "gateway", "sub": "u-1", "nonce": "n", "iat": NOW, "exp": NOW + 60});
        let signed = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = base64(&(self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

#[tokio::test]
async fn every_algorithm_that_can_be_configured_is_verified_and_each_is_only_itself() {
    let provider = FakeProvider::start().await;
    let signers = signers();
    assert_eq!(signers.iter().map(|signer| signer.algorithm).collect::<Vec<_>>(), ID_TOKEN_ALGORITHMS);
    provider.publish(signers.iter().map(|signer| signer.jwk.clone()).collect());
    for name in ID_TOKEN_ALGORITHMS {
        let config = OidcConfig { id_token_algorithm: Some(name), ..provider.config() };
        let party = party(config).await.unwrap().0;
        for signer in &signers {
            provider.script.lock().unwrap().answer = json!({"id_token": signer.id_token(&provider.url)});
            match exchanged(&party).await {
                Ok(_) => assert_eq!(signer.algorithm, name),
                Err(failure) => {
                    assert_ne!(signer.algorithm, name, "{}", failure.detail);
                    assert!(failure.detail.starts_with("id_token is signed with"), "{}", failure.detail);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_signature_with_one_bit_changed_is_refused_under_every_algorithm() {
    let provider = FakeProvider::start().await;
    let signers = signers();
    provider.publish(signers.iter().map(|signer| signer.jwk.clone()).collect());
    provider.script.lock().unwrap().discovery = json!({"id_token_signing_alg_values_supported": ID_TOKEN_ALGORITHMS});
    let party = party(provider.config()).await.unwrap().0;
    for signer in &signers {
        let token = signer.id_token(&provider.url);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        signature[20] ^= 1;
        for token in [format!("{signed}.{}", base64(&signature)), format!("{signed}."), format!("{signed}.!")] {
            provider.script.lock().unwrap().answer = json!({"id_token": token});
            assert_eq!(
                exchanged(&party).await.unwrap_err().detail,
                "id_token signature is wrong",
                "{}",
                signer.algorithm
            );
        }
    }
}

#[tokio::test]
async fn a_key_signs_only_what_it_is_published_for_and_only_tokens_that_are_understood() {
    let provider = FakeProvider::start().await;
    let pair = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let signer = rsa(&pair, "RS256", &signature::RSA_PKCS1_SHA256);
    let config = OidcConfig { id_token_algorithm: Some("RS256"), ..provider.config() };
    let (header, no_key) = (json!({"alg": "RS256", "kid": "RS256"}), "no valid key found in issuer's jwks_uri");
    for (published, header, refusal) in [
        (json!({}), header.clone(), None),
        (json!({}), json!({"alg": "RS256"}), None),
        (json!({"use": "enc"}), header.clone(), Some(no_key)),
        (json!({"alg": "RS512"}), header.clone(), Some(no_key)),
        (json!({"kid": "another"}), header.clone(), Some(no_key)),
        (json!({}), json!({"alg": "RS256", "kid": "RS256", "crit": ["x"], "x": 1}), Some("id_token is malformed")),
    ] {
        let mut jwk = signer.jwk.clone();
        jwk.as_object_mut().unwrap().extend(published.as_object().unwrap().clone());
        provider.publish(vec![jwk]);
        let party = party(config.clone()).await.unwrap().0;
        let token = signer.id_token_under(&header, &provider.url);
        provider.script.lock().unwrap().answer = json!({"id_token": token});
        match (exchanged(&party).await, refusal) {
            (Ok(_), None) => {}
            (Err(failure), Some(detail)) => assert!(failure.detail.starts_with(detail), "{}", failure.detail),
            (outcome, _) => unreachable!("{published} {header}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn the_keys_at_hand_are_used_while_new_ones_cannot_be_had_but_not_for_ever() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "exp": NOW + 1_000_000}));
    let (party, clock) = party(provider.config()).await.unwrap();
    exchanged(&party).await.unwrap();
    provider.script.lock().unwrap().keys_are_down = true;
    clock.advance(Duration::from_secs(3600));
    exchanged(&party).await.unwrap();
    exchanged(&party).await.unwrap();
    assert_eq!(provider.asked_for("/jwks"), 2, "no second fetch within the floor");
    clock.advance(Duration::from_secs(24 * 3600));
    let failure = exchanged(&party).await.unwrap_err();
    assert_eq!(
        (failure.fault, failure.detail.as_str()),
        (Fault::Unavailable, "issuer's jwks_uri: answered 503 Service Unavailable")
    );
}

#[tokio::test]
async fn the_discovery_document_is_read_again_after_a_day_and_kept_while_it_cannot_be() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "exp": NOW + 1_000_000}));
    let (party, clock) = party(provider.config()).await.unwrap();
    let document = "/.well-known/openid-configuration";
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    party.keep_current().await;
    assert_eq!(provider.asked_for(document), 1);
    provider.script.lock().unwrap().discovery = json!({"issuer": "https://evil.example"});
    clock.advance(Duration::from_secs(1));
    party.keep_current().await;
    party.keep_current().await;
    assert_eq!((provider.asked_for(document), party.issuer()), (2, provider.url.as_str()));
    exchanged(&party).await.unwrap();
    let moved = json!({"authorization_endpoint": "https://login.example/authorize"});
    provider.script.lock().unwrap().discovery = moved;
    clock.advance(Duration::from_secs(600));
    party.keep_current().await;
    assert_eq!(party.authorization_origin(), "https://login.example");
    exchanged(&party).await.unwrap();
    assert_eq!(provider.asked_for("/jwks"), 1, "the keys are still the same");
}

#[tokio::test]
async fn a_discovery_document_at_another_place_must_still_be_the_issuers() {
    let provider = FakeProvider::start().await;
    let document = provider.script.lock().unwrap().discovery_document(&provider.url);
    provider.script.lock().unwrap().more.insert("/x/.well-known/doc", (200, document));
    let at = |issuer: &str| OidcConfig {
        issuer: issuer.parse().unwrap(),
        discovery_url: Some(format!("{}/x/.well-known/doc", provider.url).parse().unwrap()),
        ..provider.config()
    };
    assert!(party(at(&provider.url)).await.is_ok());
    let refusal = party(at("http://127.0.0.1:1/tenant")).await.unwrap_err().to_string();
    assert!(refusal.starts_with("oidc.issuer is http://127.0.0.1:1/tenant, but"), "{refusal}");
}

#[tokio::test]
async fn a_redirect_is_followed_nowhere() {
    let provider = FakeProvider::start().await;
    provider.script.lock().unwrap().more.insert("/r/.well-known/doc", (302, json!({})));
    let url = format!("{}/r/.well-known/doc", provider.url);
    let config = OidcConfig { discovery_url: Some(url.parse().unwrap()), ..provider.config() };
    let refusal = party(config).await.unwrap_err().to_string();
    assert_eq!(refusal, format!("oidc.issuer: {url}: answered 302 Found"));
}

#[tokio::test]
async fn the_secret_is_sent_the_way_that_is_configured_whatever_the_provider_lists() {
    let provider = FakeProvider::start().await;
    for (method, in_form) in [(SecretMethod::Basic, false), (SecretMethod::Post, true)] {
        let listed = if in_form { "client_secret_basic" } else { "client_secret_post" };
        provider.script.lock().unwrap().discovery = json!({"token_endpoint_auth_methods_supported": [listed]});
        provider.claim(json!({"nonce": "n"}));
        let client = ClientCredential::Secret { secret: "s".into(), method: Some(method) };
        let party = party(OidcConfig { client, ..provider.config() }).await.unwrap().0;
        exchanged(&party).await.unwrap();
        let sent = provider.last_sent_to("/token");
        assert_eq!((sent.contains_key("client_secret"), sent.contains_key("authorization")), (in_form, !in_form));
    }
}

fn assertion(pair: &rcgen::KeyPair) -> (ClientCredential, Vec<u8>) {
    let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(pair).unwrap();
    let assertion = ClientAssertion::from_pem(&pair.serialize_pem().into(), &certificate.pem()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    (ClientCredential::Assertion(assertion), digest.as_ref().to_vec())
}

fn part(jwt: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_with_a_key_signs_who_it_is_and_names_its_certificate() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n"}));
    let rsa = rcgen::KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let p256 = rcgen::KeyPair::generate().unwrap();
    let p384 = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    for (pair, listed, algorithm) in [
        (&rsa, json!(null), "PS256"),
        (&rsa, json!(["RS256", "ES256"]), "RS256"),
        (&rsa, json!(["PS256", "RS256"]), "PS256"),
        (&p256, json!(["RS256", "ES256"]), "ES256"),
        (&p384, json!(null), "ES384"),
    ] {
        provider.script.lock().unwrap().discovery = json!({"token_endpoint_auth_signing_alg_values_supported": listed});
        let (client, thumbprint) = assertion(pair);
        let party = party(OidcConfig { client, ..provider.config() }).await.unwrap().0;
        exchanged(&party).await.unwrap();
        let first = provider.last_sent_to("/token");
        assert_eq!(first["client_id"], "gateway");
        assert_eq!(first["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert!(!first.contains_key("client_secret") && !first.contains_key("authorization"));
        let jwt = &first["client_assertion"];
        assert_eq!(part(jwt, 0), json!({"typ": "JWT", "alg": algorithm, "x5t#S256": base64(&thumbprint)}));
        let mut claims = part(jwt, 1);
        let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
        let endpoint = format!("{}/token", provider.url);
        assert_eq!(
            claims,
            json!({"iss": "gateway", "sub": "gateway", "aud": endpoint, "iat": NOW, "nbf": NOW, "exp": NOW + 300})
        );
        exchanged(&party).await.unwrap();
        assert_ne!(part(&provider.last_sent_to("/token")["client_assertion"], 1)["jti"], id);
    }
}

#[test]
fn a_key_without_its_certificate_or_of_no_use_is_refused_and_not_shown() {
    let (pair, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let certificate = |pair| CertificateParams::new(Vec::new()).unwrap().self_signed(pair).unwrap().pem();
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (key, certificate, problem) in [
        (pair.serialize_pem(), certificate(&other), "certificate_pem is not the certificate of private_key_pem"),
        (ed.serialize_pem(), certificate(&ed), "private_key_pem must be an RSA, P-256 or P-384 key"),
        ("key".to_owned(), certificate(&pair), "private_key_pem holds no private key in PEM form"),
        (pair.serialize_pem(), String::new(), "certificate_pem holds no certificate in PEM form"),
    ] {
        assert_eq!(ClientAssertion::from_pem(&key.into(), &certificate).unwrap_err(), problem);
    }
    let shown = format!("{:?}", assertion(&pair).0);
    assert!(shown.contains("redacted") && !shown.contains("PRIVATE"), "{shown}");
}

#[tokio::test]
async fn scopes_are_sent_again_on_refresh_only_where_they_are_wanted() {
    let provider = FakeProvider::start().await;
    for (wanted, sent) in [(true, Some("openid profile email offline_access")), (false, None)] {
        let config = OidcConfig { scope_on_refresh: wanted, ..provider.config() };
        refreshed(&party(config).await.unwrap().0).await.unwrap();
        assert_eq!(provider.last_sent_to("/token").get("scope").map(String::as_str), sent);
    }
}

#[tokio::test]
async fn another_authorized_party_and_another_clock_are_accepted_as_configured() {
    let provider = FakeProvider::start().await;
    provider.claim(json!({"nonce": "n", "azp": "portal", "iat": NOW - 100, "exp": NOW - 60}));
    let lenient = OidcConfig {
        additional_authorized_parties: vec!["portal".to_owned()],
        clock_skew_seconds: 61,
        ..provider.config()
    };
    assert!(exchanged(&party(lenient.clone()).await.unwrap().0).await.is_ok());
    for (config, detail) in [
        (OidcConfig { clock_skew_seconds: 60, ..lenient.clone() }, "id_token has expired"),
        (OidcConfig { additional_authorized_parties: Vec::new(), ..lenient }, "id_token azp is another client"),
    ] {
        let failure = exchanged(&party(config).await.unwrap().0).await.unwrap_err();
        assert_eq!(failure.detail, detail);
        assert_eq!(failure.who.unwrap().sub, "u-1", "the provider's signature was good");
    }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_for_the_provider_and_only_when_it_is_named() {
    let (url, authority) = tls_server().await;
    let with = |authorities| OidcConfig { issuer: url.parse().unwrap(), authorities, ..fake_provider::config(&url) };
    let refusal = party(with(Vec::new())).await.unwrap_err().to_string();
    assert!(refusal.contains("TLS with localhost failed"), "{refusal}");
    let refusal = party(with(vec![authority])).await.unwrap_err().to_string();
    assert!(refusal.ends_with("answered with an unreadable document"), "{refusal}");
}

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::identity::Lasting;

const OLD: &str = "old-secret-0123456789abcdefghijklmnop";
const NEW: &str = "new-secret-0123456789abcdefghijklmnop";
const NOW: i64 = 1_800_000_000;

fn config(secrets: &[&str]) -> SessionConfig {
    SessionConfig {
        secrets: secrets.iter().map(|secret| SecretString::from(*secret)).collect(),
        ttl: Duration::from_secs(3600),
        issuer: "https://gw.example".to_owned(),
        billing_group_tag: Some("team".to_owned()),
        lasting: Lasting { idle: Duration::from_secs(86_400), max: Duration::from_secs(86_400) },
    }
}

fn bearers(secrets: &[&str]) -> Bearers {
    Bearers::new(config(secrets))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn alice() -> Principal {
    Principal {
        sub: "alice".to_owned(),
        email: Some("Alice@Example.com".to_owned()),
        name: Some("Alice \u{00c9}".to_owned()),
        groups: vec!["eng".to_owned(), "a \"quoted\" one".to_owned()],
        session: Some("s-1".to_owned()),
        groups_unread: false,
        billing_group_tag: None,
    }
}

fn forged(secret: &str, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn with_claims(changes: Value) -> String {
    let mut claims =
        json!({"sub": "alice", "aud": "claude-gateway", "iss": "https://gw.example", "iat": NOW, "exp": NOW + 10});
    for (name, value) in changes.as_object().unwrap() {
        if value == "absent" {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    forged(NEW, r#"{"alg":"HS256"}"#, &claims.to_string())
}

#[test]
fn what_is_issued_verifies_and_has_the_contracts_shape() {
    let issued = bearers(&[NEW]).issue(&alice(), at(NOW));
    assert_eq!(issued.expires_in, 3600);
    let token = issued.token.expose_secret();
    let parts: Vec<_> = token.split('.').collect();
    let kid = kid_of(NEW.as_bytes());
    let header = URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
    assert_eq!(String::from_utf8(header).unwrap(), format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{kid}"}}"#));
    assert_eq!(kid.len(), 16);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let expected = json!({
        "sub": "alice", "email": "Alice@Example.com", "name": "Alice \u{00c9}", "groups": ["eng", "a \"quoted\" one"],
        "billing_group_tag": "team", "sid": "s-1", "aud": "claude-gateway", "iat": NOW, "exp": NOW + 3600,
        "iss": "https://gw.example"
    });
    assert_eq!(claims, expected);
    let verified = bearers(&[NEW]).authenticate(Some(&format!("Bearer {token}")), at(NOW + 3599)).unwrap();
    assert_eq!(verified.principal, Principal { billing_group_tag: Some("team".to_owned()), ..alice() });
}

#[test]
fn only_the_exact_header_form_is_read() {
    let bearers = bearers(&[NEW]);
    let issued = bearers.issue(&alice(), at(NOW));
    let token = issued.token.expose_secret();
    let read = |header: Option<&str>| bearers.authenticate(header, at(NOW)).err();
    assert_eq!(read(Some(&format!("Bearer {token}"))), None);
    for header in [format!("bearer {token}"), token.to_owned(), format!("Basic {token}"), "Bearer ".to_owned()] {
        assert_eq!(read(Some(&header)), Some(BearerError::Missing), "{header}");
    }
    assert_eq!(read(None), Some(BearerError::Missing));
    assert_eq!(read(Some(&format!("Bearer  {token}"))), Some(BearerError::Malformed));
    assert_eq!(read(Some(&format!("Bearer {token} "))), Some(BearerError::Malformed));
}

#[test]
fn a_rotated_secret_still_verifies_and_a_dropped_one_does_not() {
    let issued = bearers(&[OLD]).issue(&alice(), at(NOW));
    let token = issued.token.expose_secret();
    assert!(bearers(&[NEW, OLD]).verify(token, at(NOW)).is_ok());
    assert_eq!(bearers(&[NEW]).verify(token, at(NOW)), Err(BearerError::UnknownKey));
    let header = token.split('.').next().unwrap().to_owned();
    let fresh = bearers(&[NEW, OLD]).issue(&alice(), at(NOW));
    assert!(!fresh.token.expose_secret().starts_with(&header), "the first secret signs");
}

#[test]
fn every_attack_on_the_signature_is_refused_for_what_it_is() {
    let bearers = bearers(&[NEW, OLD]);
    let claims =
        json!({"sub": "alice", "aud": "claude-gateway", "iss": "https://gw.example", "exp": NOW + 10}).to_string();
    let new_kid = kid_of(NEW.as_bytes());
    let old_kid = kid_of(OLD.as_bytes());
    let good = forged(NEW, r#"{"alg":"HS256"}"#, &claims);
    let cut = &good[..good.len() - 1];
    let changed = good.replacen('.', ".e", 1);
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    let padded = format!("{good}=");
    let long = format!(r#"{{"pad":"{}",{}"#, "x".repeat(LONGEST_READ), &claims[1..]);
    let table = [
        (forged(NEW, r#"{"alg":"none"}"#, &claims), BearerError::WrongAlgorithm),
        (forged(NEW, r#"{"alg":"HS512"}"#, &claims), BearerError::WrongAlgorithm),
        (forged(NEW, r#"{"alg":"hs256"}"#, &claims), BearerError::WrongAlgorithm),
        (forged(NEW, r#"{"alg":"RS256"}"#, &claims), BearerError::WrongAlgorithm),
        (forged(NEW, r#"{"typ":"JWT"}"#, &claims), BearerError::Malformed),
        (forged(NEW, r#"{"alg":"HS256","crit":["x"]}"#, &claims), BearerError::Malformed),
        (forged(NEW, r#"{"alg":"HS256","kid":"0000000000000000"}"#, &claims), BearerError::UnknownKey),
        (forged(OLD, r#"{"alg":"HS256"}"#, &claims), BearerError::BadSignature),
        (forged(OLD, &format!(r#"{{"alg":"HS256","kid":"{new_kid}"}}"#), &claims), BearerError::BadSignature),
        (forged("another secret of somebody else..", r#"{"alg":"HS256"}"#, &claims), BearerError::BadSignature),
        (changed, BearerError::BadSignature),
        (unsigned, BearerError::BadSignature),
        (cut.to_owned(), BearerError::Malformed),
        (padded, BearerError::Malformed),
        (forged(NEW, r#"{"alg":"HS256"}"#, &long), BearerError::Malformed),
        ("a.b".to_owned(), BearerError::Malformed),
        (String::new(), BearerError::Malformed),
        ("..".to_owned(), BearerError::Malformed),
    ];
    for (token, error) in table {
        assert_eq!(bearers.verify(&token, at(NOW)), Err(error), "{token}");
    }
    assert!(bearers.verify(&good, at(NOW)).is_ok());
    assert!(bearers.verify(&forged(OLD, &format!(r#"{{"kid":"{old_kid}","alg":"HS256"}}"#), &claims), at(NOW)).is_ok());
}

#[test]
fn every_wrong_claim_is_refused_for_what_it_is() {
    let table = [
        (json!({"aud": "absent"}), BearerError::WrongAudience),
        (json!({"aud": "other"}), BearerError::WrongAudience),
        (json!({"aud": ["other", "claude"]}), BearerError::WrongAudience),
        (json!({"aud": 1}), BearerError::Malformed),
        (json!({"iss": "absent"}), BearerError::WrongIssuer),
        (json!({"iss": "https://gw.example/"}), BearerError::WrongIssuer),
        (json!({"sub": "absent"}), BearerError::NoSubject),
        (json!({"sub": ""}), BearerError::NoSubject),
        (json!({"sub": 7}), BearerError::Malformed),
        (json!({"exp": "absent"}), BearerError::NoExpiry),
        (json!({"exp": NOW}), BearerError::Expired),
        (json!({"exp": NOW - 5}), BearerError::Expired),
        (json!({"exp": "soon"}), BearerError::Malformed),
        (json!({"nbf": NOW + 1}), BearerError::NotYetValid),
        (json!({"iat": NOW + CLOCK_TOLERANCE_SECONDS + 1}), BearerError::NotYetValid),
        (json!({"groups": "eng"}), BearerError::Malformed),
        (json!({"email": 1}), BearerError::Malformed),
    ];
    for (changes, error) in table {
        assert_eq!(bearers(&[NEW]).verify(&with_claims(changes.clone()), at(NOW)), Err(error), "{changes}");
    }
}

#[test]
fn a_bearer_of_the_reference_without_session_is_accepted() {
    for changes in [
        json!({}),
        json!({"aud": ["x", "claude-gateway"]}),
        json!({"exp": 1_800_000_003.6}),
        json!({"iat": "absent"}),
        json!({"iat": NOW + CLOCK_TOLERANCE_SECONDS}),
    ] {
        let principal = bearers(&[NEW]).verify(&with_claims(changes.clone()), at(NOW)).unwrap();
        assert_eq!(
            (principal.sub.as_str(), principal.session, principal.groups.len()),
            ("alice", None, 0),
            "{changes}"
        );
    }
}

#[test]
fn a_bearer_stays_under_its_size_and_keeps_the_groups_that_the_configuration_names() {
    let mut crowd = alice();
    crowd.groups = (0..500).map(|n| format!("group-with-a-long-name-{n}")).collect();
    let bearers = bearers(&[NEW]).keeping_groups(vec!["group-with-a-long-name-499".to_owned(), "absent".to_owned()]);
    let issued = bearers.issue(&crowd, at(NOW));
    assert!(issued.token.expose_secret().len() < LONGEST_BEARER);
    let kept = bearers.verify(issued.token.expose_secret(), at(NOW)).unwrap().groups;
    assert_eq!(kept, ["group-with-a-long-name-499"]);
    let all_named = bearers.keeping_groups(crowd.groups.clone());
    let issued = all_named.issue(&crowd, at(NOW));
    assert!(issued.token.expose_secret().len() < LONGEST_BEARER);
    let kept = all_named.verify(issued.token.expose_secret(), at(NOW)).unwrap().groups;
    assert!(kept.len() > 50 && crowd.groups.starts_with(&kept), "{} kept", kept.len());
}

#[test]
fn a_fraction_of_a_second_is_cut_and_a_bearer_lives_at_least_one() {
    let mut config = config(&[NEW]);
    config.ttl = Duration::from_millis(3600);
    assert_eq!(Bearers::new(config.clone()).issue(&alice(), at(NOW)).expires_in, 3);
    config.ttl = Duration::from_millis(10);
    assert_eq!(Bearers::new(config).issue(&alice(), at(NOW)).expires_in, 1);
}

#[test]
fn no_secret_and_no_token_shows_in_debug() {
    let bearers = bearers(&[NEW]);
    let text = format!("{bearers:?} {:?}", bearers.issue(&alice(), at(NOW)));
    assert!(!text.contains("secret-0") && !text.contains("eyJ"), "{text}");
}

#[test]
fn a_revoked_bearer_is_refused_with_its_cause() {
    let revoked = Arc::new(Revoked::default());
    let bearers = bearers(&[NEW]).heeding(Arc::clone(&revoked));
    let token = bearers.issue(&alice(), at(NOW)).token;
    let verified = |now| bearers.verify(token.expose_secret(), at(now));
    assert!(verified(NOW).is_ok());
    revoked.learn(&[], &[("someone else".to_owned(), (NOW + 5) * 1000)], None);
    assert!(verified(NOW).is_ok());
    revoked.learn(&[], &[(String::new(), (NOW + 5) * 1000)], None);
    assert_eq!(verified(NOW).unwrap_err().cause(), "revoked");
    assert_eq!(verified(NOW + 3600), Err(BearerError::Expired), "what would be refused anyway keeps its cause");
    assert!(bearers.verify(bearers.issue(&alice(), at(NOW + 6)).token.expose_secret(), at(NOW + 6)).is_ok());
}

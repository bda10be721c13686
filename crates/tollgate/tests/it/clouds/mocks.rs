//! The mocks are right: what a signer that is not ours has signed passes them, and nothing else does.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::support::cloud::aws::{KEYS, Keys, check};
use crate::support::upstream::Received;

/// Written by scripts/prove-aws-mock.
const SIGNED_BY_BOTOCORE: &str = include_str!("botocore.json");

#[test]
fn the_check_of_signatures_agrees_with_botocore() {
    let written: Value = serde_json::from_str(SIGNED_BY_BOTOCORE).unwrap();
    for vector in written["vectors"].as_array().unwrap() {
        let mut headers = HeaderMap::new();
        for (name, value) in vector["headers"].as_object().unwrap() {
            let name = HeaderName::try_from(name).unwrap();
            headers.insert(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
        let token = vector["token"].as_str().map(|_| "token==");
        let keys = Keys { token, ..KEYS };
        let received = |body: &str, path: &str| Received::new(path, headers.clone(), body.to_owned());
        let (body, path) = (vector["body"].as_str().unwrap(), vector["path"].as_str().unwrap());
        let service = vector["service"].as_str().unwrap();
        assert_eq!(check(&received(body, path), &keys, "us-east-1", service), Ok(()), "{vector}");
        for (body, path, region, secret) in [
            ("{}", path, "us-east-1", KEYS.secret),
            (body, "/other", "us-east-1", KEYS.secret),
            (body, path, "us-east-2", KEYS.secret),
            (body, path, "us-east-1", "another"),
        ] {
            let keys = Keys { secret, ..keys.clone() };
            assert!(check(&received(body, path), &keys, region, service).is_err(), "{path} {region} {secret}");
        }
    }
}

//! What we read of an OpenID provider: its discovery document, its token answers and the claims of its users.
//!
//! Knows shapes and coercions; verifies no signature and decides nothing about who may sign in.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The discovery document (OpenID Connect Discovery 1.0, section 3), as far as we read it. A field of an unexpected type
/// counts as absent; the required ones must be strings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Discovery {
    /// Must equal the configured issuer; the caller compares.
    pub issuer: String,
    /// Where the browser is sent.
    pub authorization_endpoint: String,
    /// Where codes and refresh tokens are exchanged.
    pub token_endpoint: String,
    /// Where the signing keys are.
    pub jwks_uri: String,
    /// Where missing claims can be asked for.
    #[serde(default, deserialize_with = "string_or_none")]
    pub userinfo_endpoint: Option<String>,
    /// Where a browser signs out.
    #[serde(default, deserialize_with = "string_or_none")]
    pub end_session_endpoint: Option<String>,
    /// Empty when not stated; the standard's default is then `client_secret_basic`.
    #[serde(default, deserialize_with = "strings_or_none")]
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// For signed assertions of clients. Empty when not stated.
    #[serde(default, deserialize_with = "strings_or_none")]
    pub token_endpoint_auth_signing_alg_values_supported: Vec<String>,
    /// Empty when not stated.
    #[serde(default, deserialize_with = "strings_or_none")]
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// Empty when not stated.
    #[serde(default, deserialize_with = "strings_or_none")]
    pub code_challenge_methods_supported: Vec<String>,
    /// Empty when not stated.
    #[serde(default, deserialize_with = "strings_or_none")]
    pub scopes_supported: Vec<String>,
}

/// A successful answer of the provider's token endpoint (RFC 6749, section 5.1; OpenID Connect Core, section 3.1.3.3).
/// Holds credentials: no `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TokenAnswer {
    /// For the userinfo endpoint.
    #[serde(default, deserialize_with = "string_or_none")]
    pub access_token: Option<String>,
    /// Who signed in; may be missing from a refresh.
    #[serde(default, deserialize_with = "string_or_none")]
    pub id_token: Option<String>,
    /// The new one where the provider rotates; may be missing.
    #[serde(default, deserialize_with = "string_or_none")]
    pub refresh_token: Option<String>,
}

/// An error answer of the provider's token endpoint (RFC 6749, section 5.2). The code is free text: providers invent some.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenError {
    /// The code, such as `invalid_grant`.
    pub error: String,
    /// The provider's own words: for the log.
    #[serde(default, deserialize_with = "string_or_none")]
    pub error_description: Option<String>,
}

/// The claims of an ID token or of a userinfo answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Claims(pub Map<String, Value>);

impl Claims {
    /// The value under a flat key (`https://acme.example/groups` is one), else under a JSON Pointer (RFC 6901). `null` counts
    /// as absent.
    #[must_use]
    pub fn lookup(&self, path: &str) -> Option<&Value> {
        self.0.get(path).or_else(|| self.pointer(path)).filter(|value| !value.is_null())
    }

    /// A string that is not empty.
    #[must_use]
    pub fn string(&self, path: &str) -> Option<&str> {
        self.lookup(path)?.as_str().filter(|text| !text.is_empty())
    }

    /// The first of several paths that holds a string.
    #[must_use]
    pub fn first_string<P: AsRef<str>>(&self, paths: &[P]) -> Option<&str> {
        paths.iter().find_map(|path| self.string(path.as_ref()))
    }

    /// A list of strings. A single string is a list of one and is not split; other types and empty strings are dropped.
    #[must_use]
    pub fn strings(&self, path: &str) -> Vec<String> {
        let values = match self.lookup(path) {
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        values.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
    }

    /// `email_verified`: `None` when absent. Some providers send the words "true" and "false"; whatever is not true is
    /// false.
    #[must_use]
    pub fn email_verified(&self) -> Option<bool> {
        Some(match self.lookup("email_verified")? {
            Value::Bool(verified) => *verified,
            Value::String(word) => word.eq_ignore_ascii_case("true"),
            _ => false,
        })
    }

    /// The names of the claims, for a debug line that must not hold values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn pointer(&self, path: &str) -> Option<&Value> {
        let (first, rest) = match path.strip_prefix('/')?.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (&path[1..], None),
        };
        let top = self.0.get(&first.replace("~1", "/").replace("~0", "~"))?;
        match rest {
            Some(rest) => top.pointer(&format!("/{rest}")),
            None => Some(top),
        }
    }
}

fn string_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    })
}

fn strings_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let Value::Array(values) = Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    let text = |value| {
        if let Value::String(text) = value { Some(text) } else { None }
    };
    Ok(values.into_iter().filter_map(text).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_discovery_document_with_odd_optional_fields_is_still_read() {
        let document = json!({
            "issuer": "https://idp.example", "authorization_endpoint": "a", "token_endpoint": "t", "jwks_uri": "j",
            "userinfo_endpoint": 7, "token_endpoint_auth_methods_supported": ["client_secret_basic", 3],
            "scopes_supported": "openid", "unknown": {"x": 1}
        });
        let discovery: Discovery = serde_json::from_value(document).unwrap();
        assert_eq!(discovery.userinfo_endpoint, None);
        assert_eq!(discovery.token_endpoint_auth_methods_supported, ["client_secret_basic"]);
        assert!(discovery.scopes_supported.is_empty());
        assert!(serde_json::from_value::<Discovery>(json!({"issuer": "x"})).is_err());
    }

    #[test]
    fn a_token_answer_may_lack_anything() {
        let answer: TokenAnswer = serde_json::from_value(json!({"id_token": "i", "expires_in": "3600"})).unwrap();
        assert_eq!(answer.id_token.as_deref(), Some("i"));
        assert!(answer.refresh_token.is_none());
        let error: TokenError = serde_json::from_value(json!({"error": "invalid_grant"})).unwrap();
        assert_eq!(error.error, "invalid_grant");
        assert!(serde_json::from_value::<TokenError>(json!({"error": null})).is_err());
    }

    #[test]
    fn a_flat_key_wins_over_a_pointer_of_the_same_text() {
        let claims = claims(json!({
            "/a/b": "flat", "a": {"b": "deep", "c~/d": ["x", "y"]}, "https://acme.example/groups": ["eng"], "n": null
        }));
        assert_eq!(claims.string("/a/b"), Some("flat"));
        assert_eq!(claims.strings("/a/c~0~1d"), ["x", "y"]);
        assert_eq!(claims.string("/a/c~0~1d/1"), Some("y"));
        assert_eq!(claims.strings("https://acme.example/groups"), ["eng"]);
        assert_eq!(claims.lookup("n"), None);
        assert_eq!(claims.lookup("a/b"), None);
        assert!(claims.lookup("/a").is_some());
        assert_eq!(claims.lookup("/"), None);
    }

    #[test]
    fn groups_are_coerced_as_the_contract_says() {
        let claims = claims(json!({"one": "a,b", "many": ["x", "", 3, null, "y"], "object": {"a": 1}, "none": ""}));
        assert_eq!(claims.strings("one"), ["a,b"]);
        assert_eq!(claims.strings("many"), ["x", "y"]);
        for path in ["object", "none", "absent"] {
            assert!(claims.strings(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn the_first_path_that_holds_an_email_is_taken() {
        let claims = claims(json!({"email": "", "upn": 3, "preferred_username": "Ann@Example.com"}));
        assert_eq!(claims.first_string(&["email", "upn", "preferred_username"]), Some("Ann@Example.com"));
        assert_eq!(claims.first_string(&["email"]), None);
    }

    #[test]
    fn an_email_counts_as_verified_only_when_it_says_so() {
        for (value, expected) in [
            (json!(true), Some(true)),
            (json!("True"), Some(true)),
            (json!(false), Some(false)),
            (json!("false"), Some(false)),
            (json!(1), Some(false)),
            (json!(null), None),
        ] {
            assert_eq!(claims(json!({"email_verified": value.clone()})).email_verified(), expected, "{value}");
        }
        assert_eq!(claims(json!({})).email_verified(), None);
    }
}

//! From verified claims to a person, and whether that person may sign in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;
use wire::oidc::Claims;

use crate::identity::OidcConfig;

/// OpenID Connect Core 1.0, section 2.
const LONGEST_SUBJECT: usize = 255;
/// RFC 5321, section 4.5.3.1: 64 octets, an @, 255 octets. A longer one is none.
const LONGEST_EMAIL: usize = 320;
/// A longer name is cut: it is for show, and the bearer has no room for more.
const LONGEST_NAME: usize = 200;

/// Who signed in, as the provider says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::identity) struct Person {
    pub(in crate::identity) sub: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::identity) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::identity) name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(in crate::identity) groups: Vec<String>,
    /// Names the list in the session's row of which `groups` is a part; `None`: these are all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::identity) all_groups: Option<String>,
}

/// What an ID token must say to be accepted (OpenID Connect Core 1.0, section 3.1.3.7).
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// Values of `azp` beside it.
    pub(super) other_parties: &'a [String],
    /// Absent in a refresh.
    pub(super) nonce: Option<&'a str>,
    /// How far the provider's clock may be from ours, in seconds.
    pub(super) clock_skew: u64,
}

impl Expected<'_> {
    fn is_authorized(&self, party: &Value) -> bool {
        party == self.client_id || self.other_parties.iter().any(|other| party == other.as_str())
    }
}

/// Checks everything of a verified ID token but its rules.
///
/// # Errors
/// What is wrong, in words for the audit.
pub(super) fn accept(claims: &Claims, expected: &Expected<'_>, now: Timestamp) -> Result<(), String> {
    if claims.string("iss") != Some(expected.issuer) {
        return Err("id_token iss is not the configured issuer".to_owned());
    }
    let audiences = claims.strings("aud");
    if !audiences.iter().any(|audience| audience == expected.client_id) {
        return Err("id_token aud does not hold the client id".to_owned());
    }
    match claims.lookup("azp") {
        Some(party) if !expected.is_authorized(party) => return Err("id_token azp is another client".to_owned()),
        None if audiences.len() > 1 => return Err("id_token has several aud and no azp".to_owned()),
        _ => {}
    }
    let now = now.as_second();
    let skew = i64::try_from(expected.clock_skew).unwrap_or(i64::MAX);
    if seconds(claims, "exp")?.ok_or("id_token missing exp")? <= now.saturating_sub(skew) {
        return Err("id_token has expired".to_owned());
    }
    if seconds(claims, "iat")?.ok_or("id_token missing iat")? > now.saturating_add(skew) {
        return Err("id_token iat is in the future".to_owned());
    }
    if seconds(claims, "nbf")?.is_some_and(|begin| begin > now.saturating_add(skew)) {
        return Err("id_token is not valid yet".to_owned());
    }
    if let Some(nonce) = expected.nonce {
        let sent = claims.string("nonce").unwrap_or_default();
        if !bool::from(sent.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err("id_token nonce does not match".to_owned());
        }
    }
    match claims.string("sub") {
        None => Err("id_token missing sub".to_owned()),
        Some(sub) if sub.len() > LONGEST_SUBJECT => Err("id_token sub is too long".to_owned()),
        Some(_) => Ok(()),
    }
}

pub(super) fn seconds(claims: &Claims, name: &str) -> Result<Option<i64>, String> {
    match claims.lookup(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64));
            whole.map(Some).ok_or_else(|| format!("id_token {name} is not a time"))
        }
        Some(_) => Err(format!("id_token {name} is not a time")),
    }
}

/// Reads the person out of claims that were signed.
pub(super) fn person(claims: &Claims, config: &OidcConfig) -> Person {
    Person {
        sub: claims.string("sub").unwrap_or_default().to_owned(),
        email: claims.first_string(&config.email_claim).filter(|email| email.len() <= LONGEST_EMAIL).map(str::to_owned),
        name: claims.string("name").map(|name| name.chars().take(LONGEST_NAME).collect()),
        groups: claims.strings(&config.groups_claim),
        all_groups: None,
    }
}

/// A rule of who may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::identity) enum Rule {
    /// The provider says that the e-mail address is not verified.
    EmailVerified,
    /// `oidc.allowed_email_domains`, and there is no e-mail address.
    EmailPresent,
    /// `oidc.allowed_email_domains`.
    EmailDomain,
    /// `oidc.allowed_groups`.
    Group,
}

impl Rule {
    /// That it says no, in words for the audit.
    pub(super) fn says_no(self, config: &OidcConfig) -> String {
        match self {
            Self::EmailVerified => "id_token email is not verified".to_owned(),
            Self::EmailPresent => {
                let claim = config.email_claim.join(", ");
                format!("id_token missing email claim ({claim}), which oidc.allowed_email_domains needs")
            }
            Self::EmailDomain => "email domain not allowed".to_owned(),
            Self::Group => "user is not a member of an allowed group".to_owned(),
        }
    }
}

/// The sign-in rules.
///
/// # Errors
/// Which one says no.
pub(super) fn admit(person: &Person, email_verified: Option<bool>, config: &OidcConfig) -> Result<(), Rule> {
    if email_verified == Some(false) {
        return Err(Rule::EmailVerified);
    }
    if !config.allowed_email_domains.is_empty() {
        let email = person.email.as_ref().ok_or(Rule::EmailPresent)?;
        let domain = email.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        if !domain.is_some_and(|domain| config.allowed_email_domains.contains(&domain)) {
            return Err(Rule::EmailDomain);
        }
    }
    let in_group = |group: &String| config.allowed_groups.contains(group);
    if !config.allowed_groups.is_empty() && !person.groups.iter().any(in_group) {
        return Err(Rule::Group);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const EXPECTED: Expected<'_> = Expected {
        issuer: "https://idp.example",
        client_id: "gateway",
        other_parties: &[],
        nonce: Some("n-1"),
        clock_skew: 30,
    };

    fn config() -> OidcConfig {
        crate::identity::fake_provider::config("https://idp.example")
    }

    fn claims(changes: Value) -> Claims {
        let mut claims = json!({"iss": "https://idp.example", "aud": "gateway", "sub": "u-1", "nonce": "n-1", "iat": NOW, "exp": NOW + 60});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        serde_json::from_value(claims).unwrap()
    }

    fn accepted(changes: Value) -> Result<(), String> {
        accept(&claims(changes), &EXPECTED, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn an_id_token_for_us_is_accepted() {
        for changes in [
            json!({}),
            json!({"aud": ["gateway"]}),
            json!({"aud": ["gateway", "other"], "azp": "gateway"}),
            json!({"exp": NOW - 29}),
            json!({"iat": NOW + 30}),
            json!({"exp": 1_800_000_060.5}),
        ] {
            assert_eq!(accepted(changes.clone()), Ok(()), "{changes}");
        }
    }

    #[test]
    fn an_id_token_that_is_not_for_us_is_refused_by_name() {
        for (changes, error) in [
            (json!({"iss": "https://idp.example/"}), "id_token iss is not the configured issuer"),
            (json!({"iss": null}), "id_token iss is not the configured issuer"),
            (json!({"aud": "other"}), "id_token aud does not hold the client id"),
            (json!({"aud": []}), "id_token aud does not hold the client id"),
            (json!({"aud": ["gateway", "other"]}), "id_token has several aud and no azp"),
            (json!({"azp": "other"}), "id_token azp is another client"),
            (json!({"azp": 1}), "id_token azp is another client"),
            (json!({"exp": null}), "id_token missing exp"),
            (json!({"exp": "1"}), "id_token exp is not a time"),
            (json!({"exp": NOW - 30}), "id_token has expired"),
            (json!({"iat": null}), "id_token missing iat"),
            (json!({"iat": NOW + 31}), "id_token iat is in the future"),
            (json!({"nbf": NOW + 31}), "id_token is not valid yet"),
            (json!({"nonce": "n-2"}), "id_token nonce does not match"),
            (json!({"nonce": null}), "id_token nonce does not match"),
            (json!({"sub": ""}), "id_token missing sub"),
            (json!({"sub": 7}), "id_token missing sub"),
            (json!({"sub": "x".repeat(256)}), "id_token sub is too long"),
        ] {
            assert_eq!(accepted(changes.clone()), Err(error.to_owned()), "{changes}");
        }
    }

    #[test]
    fn a_person_is_read_by_the_configured_claims() {
        let config = OidcConfig {
            groups_claim: "/realm/roles".to_owned(),
            email_claim: vec!["mail".to_owned(), "/contact/email".to_owned()],
            ..config()
        };
        let claims =
            claims(json!({"realm": {"roles": ["eng", 3, ""]}, "contact": {"email": "Ann@Example.com"}, "name": "Ann"}));
        let expected = Person {
            sub: "u-1".to_owned(),
            email: Some("Ann@Example.com".to_owned()),
            name: Some("Ann".to_owned()),
            groups: vec!["eng".to_owned()],
            all_groups: None,
        };
        assert_eq!(person(&claims, &config), expected);
    }

    #[test]
    fn each_rule_says_no_in_the_contracts_words() {
        let ann = |email: Option<&str>, groups: &[&str]| Person {
            sub: "u-1".to_owned(),
            email: email.map(str::to_owned),
            name: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            all_groups: None,
        };
        let domains = OidcConfig { allowed_email_domains: vec!["example.com".to_owned()], ..config() };
        let groups = OidcConfig { allowed_groups: vec!["eng".to_owned()], ..config() };
        let denied = |person: &Person, verified, config| admit(person, verified, config).unwrap_err().says_no(config);
        assert_eq!(admit(&ann(Some("Ann@EXAMPLE.com"), &[]), None, &domains), Ok(()));
        assert_eq!(admit(&ann(Some("\"ann@evil.org\"@example.com"), &[]), None, &domains), Ok(()), "after the last @");
        assert_eq!(admit(&ann(None, &["x", "eng"]), Some(true), &groups), Ok(()));
        assert_eq!(admit(&ann(None, &[]), None, &config()), Ok(()));
        for email in ["ann@sub.example.com", "ann@example.com.evil", "example.com", "ann@example.com@evil.org"] {
            assert_eq!(denied(&ann(Some(email), &[]), None, &domains), "email domain not allowed", "{email}");
        }
        assert_eq!(denied(&ann(Some("ann@example.com"), &[]), Some(false), &domains), "id_token email is not verified");
        assert!(denied(&ann(None, &[]), None, &domains).starts_with("id_token missing email claim"));
        assert_eq!(denied(&ann(None, &["engineering"]), None, &groups), "user is not a member of an allowed group");
        assert_eq!(denied(&ann(None, &[]), None, &groups), "user is not a member of an allowed group");
    }
}

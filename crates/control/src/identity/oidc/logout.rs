//! Logout tokens (OpenID Connect Back-Channel Logout 1.0): the provider says that somebody has signed out.

use std::time::Duration;

use aws_lc_rs::digest;
use wire::oidc::Claims;

use super::keys::KeyError;
use super::{RelyingParty, rules};
use crate::identity::session::hex;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How old a token may be, and how long its id is remembered (section 2.6: replays need not be known for ever).
const LONGEST_WAY: Duration = Duration::from_secs(300);

/// Who has signed out, as the provider's signature says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::identity) struct LoggedOut {
    pub(in crate::identity) sub: Option<String>,
    /// The provider's session.
    pub(in crate::identity) sid: Option<String>,
    /// Names the token: the same one is not obeyed twice.
    pub(in crate::identity) token: String,
    /// When a replay is refused by its age; Unix seconds.
    pub(in crate::identity) expires: i64,
}

/// The token is not to be obeyed.
#[derive(Debug, thiserror::Error)]
pub(in crate::identity) enum LogoutError {
    /// It is not one of the provider's, not for us, or not a logout token.
    #[error("{0}")]
    Invalid(String),
    /// The provider's keys cannot be had now.
    #[error("{0}")]
    Unavailable(String),
}

impl RelyingParty {
    /// Verifies a logout token (section 2.6).
    pub(in crate::identity) async fn logged_out(&self, token: &str) -> Result<LoggedOut, LogoutError> {
        let claims = self.keys().verified(token).await.map_err(|error| match error {
            KeyError::Fetch(_) | KeyError::NoKey(_) => LogoutError::Unavailable(error.to_string()),
            _ => LogoutError::Invalid(error.to_string().replace("id_token", "logout_token")),
        })?;
        self.read_logout(&claims, self.clock.now().as_second())
            .map_err(|what| LogoutError::Invalid(format!("logout_token {what}")))
    }

    fn read_logout(&self, claims: &Claims, now: i64) -> Result<LoggedOut, &'static str> {
        if claims.string("iss") != Some(self.issuer()) {
            return Err("iss is not the configured issuer");
        }
        if !claims.strings("aud").iter().any(|audience| audience == self.client_id()) {
            return Err("aud does not hold the client id");
        }
        // An id_token of the same provider must not pass for one.
        if !claims.0.get("events").is_some_and(|events| events.get(EVENT).is_some_and(serde_json::Value::is_object)) {
            return Err("events does not say back-channel logout");
        }
        if claims.0.contains_key("nonce") {
            return Err("has a nonce");
        }
        let skew = i64::try_from(self.config.clock_skew_seconds).unwrap_or(i64::MAX);
        let seconds = |name| rules::seconds(claims, name).map_err(|_| "has a time that is none");
        let issued = seconds("iat")?.ok_or("missing iat")?;
        let expires = issued.saturating_add_unsigned(LONGEST_WAY.as_secs()).saturating_add(skew);
        if issued > now.saturating_add(skew) || expires <= now {
            return Err("iat is not now");
        }
        if seconds("exp")?.is_some_and(|exp| exp <= now.saturating_sub(skew)) {
            return Err("has expired");
        }
        let id = claims.string("jti").ok_or("missing jti")?;
        let (sub, sid) = (claims.string("sub"), claims.string("sid"));
        if sub.is_none() && sid.is_none() {
            return Err("names neither sub nor sid");
        }
        Ok(LoggedOut {
            sub: sub.map(str::to_owned),
            sid: sid.map(str::to_owned),
            token: hex(digest::digest(&digest::SHA256, format!("{} {id}", self.issuer()).as_bytes()).as_ref()),
            expires,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::TestClock;
    use crate::identity::fake_provider::{FakeProvider, NOW, loopback_egress};

    async fn relying_party() -> (FakeProvider, RelyingParty) {
        let provider = FakeProvider::start().await;
        let clock = Arc::new(TestClock::at(Timestamp::from_second(NOW).unwrap()));
        let party = RelyingParty::discover(provider.config(), "https://gw.example", loopback_egress(), clock);
        let party = party.await.unwrap();
        (provider, party)
    }

    fn claims(provider: &FakeProvider) -> Value {
        json!({"iss": provider.url, "aud": ["gateway"], "iat": NOW, "jti": "1", "sub": "u-1", "sid": "s-1", "events": {EVENT: {}}})
    }

    #[tokio::test]
    async fn a_token_of_the_provider_says_who_has_signed_out() {
        let (provider, party) = relying_party().await;
        let token = provider.script.lock().unwrap().sign(&claims(&provider));
        let logout = party.logged_out(&token).await.unwrap();
        assert_eq!((logout.sub.as_deref(), logout.sid.as_deref()), (Some("u-1"), Some("s-1")));
        assert_eq!((logout.token.len(), logout.expires), (64, NOW + 330));
    }

    #[tokio::test]
    async fn whatever_is_not_a_fresh_logout_token_for_us_is_refused() {
        let (provider, party) = relying_party().await;
        for (changes, expected) in [
            (json!({"iss": "https://evil.example"}), "iss is not"),
            (json!({"aud": "another"}), "aud does not"),
            (json!({"events": null}), "events does not"),
            (json!({"events": {"http://schemas.openid.net/event/other": {}}}), "events does not"),
            (json!({"nonce": "n"}), "has a nonce"),
            (json!({"iat": null}), "missing iat"),
            (json!({"iat": NOW - 330}), "iat is not now"),
            (json!({"iat": NOW + 31}), "iat is not now"),
            (json!({"iat": "now"}), "has a time"),
            (json!({"exp": NOW - 30}), "has expired"),
            (json!({"jti": null}), "missing jti"),
            (json!({"sub": null, "sid": null}), "names neither"),
        ] {
            let mut claims = claims(&provider);
            for (name, value) in changes.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let token = provider.script.lock().unwrap().sign(&claims);
            match party.logged_out(&token).await {
                Err(LogoutError::Invalid(detail)) => assert!(detail.contains(expected), "{changes}: {detail}"),
                other => unreachable!("{changes}: {other:?}"),
            }
        }
        let good = provider.script.lock().unwrap().sign(&claims(&provider));
        provider.rotate_key("key-1", false);
        let forged = provider.script.lock().unwrap().sign(&claims(&provider));
        assert!(party.logged_out(&good).await.is_ok() || party.logged_out("junk").await.is_err());
        assert!(party.logged_out(&forged).await.is_err());
    }
}

//! `session`: the bearers that the gateway issues.

use std::collections::BTreeSet;
use std::time::Duration;

use secrecy::SecretString;

use super::read::{Field, Mapping, all};
use super::reference::{Section, key, later};

pub(super) const SECTION: Section = Section {
    path: "session",
    about: "The bearers that the gateway issues after sign-in.",
    keys: &[
        key(
            "jwt_secret",
            "text of at least 32 characters, 10 of them different, or a list of such",
            "required",
            "Signs bearers and seals refresh tokens. Of a list the first signs and all verify: to rotate, put the new one \
             first, wait `ttl_hours`, then drop the old one.",
        ),
        key("ttl_hours", "number above 0, at most 720", "1", "Life of a bearer; `0.5` is half an hour."),
    ],
    later: &[
        later("idle_days", "end of a session that is not refreshed"),
        later("max_days", "end of a session however it is used"),
        later("cut_streams", "streams cut when their session ends"),
    ],
};

/// What `session` says.
pub(super) struct Session {
    pub(super) secrets: Vec<SecretString>,
    pub(super) ttl: Duration,
}

const MIN_CHARACTERS: usize = 32;
const MIN_DIFFERENT: usize = 10;
/// 720 hours.
const MAX_TTL: Duration = Duration::from_secs(720 * 3600);

pub(super) fn read(session: &Mapping<'_>) -> Option<Session> {
    let secrets =
        session.required("jwt_secret", "write a reference to it, such as ${GATEWAY_JWT_SECRET}", read_secrets);
    let ttl = session.or("ttl_hours", Duration::from_secs(3600), read_ttl);
    Some(Session { secrets: secrets?, ttl: ttl? })
}

fn read_secrets(field: &Field<'_>) -> Option<Vec<SecretString>> {
    if field.is_list() {
        return all(field.some_items("secret")?.iter().map(read_secret));
    }
    read_secret(field).map(|secret| vec![secret])
}

fn read_secret(field: &Field<'_>) -> Option<SecretString> {
    let secret = field.text()?;
    let different: BTreeSet<char> = secret.chars().collect();
    if secret.chars().count() < MIN_CHARACTERS {
        field.refuse("must be at least 32 characters long; `openssl rand -base64 32` makes one");
        None
    } else if different.len() < MIN_DIFFERENT {
        field.refuse("must hold at least 10 different characters; `openssl rand -base64 32` makes such a secret");
        None
    } else {
        Some(SecretString::from(secret))
    }
}

fn read_ttl(field: &Field<'_>) -> Option<Duration> {
    // Whole seconds, because `expires_in` is an integer.
    let seconds = i128::from(field.nano()?) * 3600 / 1_000_000_000;
    let ttl = u64::try_from(seconds).map(Duration::from_secs).ok();
    let ttl = ttl.filter(|ttl| !ttl.is_zero() && *ttl <= MAX_TTL);
    if ttl.is_none() {
        field.refuse("must be at least one second and at most 720 hours");
    }
    ttl
}

//! `session`: the bearers that the gateway issues.

use std::collections::BTreeSet;
use std::time::Duration;

use control::identity::Lasting;
use secrecy::SecretString;

use super::read::{Field, Mapping, all};
use super::reference::{Section, key};

pub(super) const SECTION: Section = Section {
    path: "session",
    about: "The bearers that the gateway issues after sign-in, and how long they can be refreshed.",
    keys: &[
        key(
            "jwt_secret",
            "text of at least 32 characters, 10 of them different, or a list of such",
            "required",
            "Signs bearers and seals refresh tokens. Of a list the first signs and all verify: to rotate, put the new one \
             first - where there are several replicas, last on all of them before that - and drop the old one later: after \
             `ttl_hours` no bearer needs it, but who has not come back since signs in again.",
        ),
        key("ttl_hours", "number above 0, at most 720", "1", "Life of a bearer; `0.5` is half an hour."),
        key("idle_days", "whole number from 1 to 3650", "30", "A session that is not refreshed for so long ends."),
        key("max_days", "whole number from 1 to 3650", "90", "A session ends after this, however it is used."),
        key(
            "cut_streams",
            "boolean",
            "false",
            "Whether an answer that is still streaming is broken off when its session ends; it is charged as far as it came.",
        ),
    ],
    later: &[],
};

/// What `session` says.
pub(super) struct Session {
    pub(super) secrets: Vec<SecretString>,
    pub(super) ttl: Duration,
    pub(super) lasting: Lasting,
    pub(super) cut_streams: bool,
}

const MIN_CHARACTERS: usize = 32;
const MIN_DIFFERENT: usize = 10;
const DAY: u64 = 86_400;
/// 720 hours.
const MAX_TTL: Duration = Duration::from_secs(720 * 3600);

pub(super) fn read(session: &Mapping<'_>) -> Option<Session> {
    let secrets =
        session.required("jwt_secret", "write a reference to it, such as ${GATEWAY_JWT_SECRET}", read_secrets);
    let ttl = session.or("ttl_hours", Duration::from_secs(3600), read_ttl);
    let days = |key, default| {
        let read = |field: &Field<'_>| field.whole(1..=3650).map(|days| Duration::from_secs(days * DAY));
        session.or(key, Duration::from_secs(default * DAY), read)
    };
    let (idle, max) = (days("idle_days", 30), days("max_days", 90));
    let cut_streams = session.or("cut_streams", false, Field::flag);
    let lasting = Lasting { idle: idle?, max: max? };
    Some(Session { secrets: secrets?, ttl: ttl?, lasting, cut_streams: cut_streams? })
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

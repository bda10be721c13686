//! Device grants (RFC 8628): what a device asks for, a person decides in a browser, and the device collects once.
//!
//! A grant is pending, then approved or denied, then gone. Knows nothing of the identity provider; the content of an
//! approval is sealed in the row.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::chance::{self, NoChance};
use super::seal::{Purpose, SealError, Seals};
use super::session::hex;
use super::table::{self, NewGrant, PendingRow};
use crate::store::{Store, StoreError, Tx};

/// Life of both codes.
pub const GRANT_LIFE: Duration = Duration::from_secs(600);
/// Least time between two polls of a pending grant.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Twenty consonants: no vowels, so that no words come out, and no L, which looks like other letters (RFC 8628,
/// section 6.1).
const ALPHABET: &[u8; 20] = b"BCDFGHJKMNPQRSTVWXYZ";
const USER_CODE_LETTERS: usize = 8;
/// A user code of 20^8 is taken already about once in ten million tries.
const TRIES: usize = 4;

/// The grants in the store.
#[derive(Debug, Clone)]
pub(super) struct DeviceGrants {
    store: Store,
    seals: Arc<Seals>,
}

/// The letters that a person compares or types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCode([u8; USER_CODE_LETTERS]);

/// What a device is told.
#[derive(Debug, Clone)]
pub struct Begun {
    /// What the device polls with.
    pub device_code: SecretString,
    /// What the person compares or types.
    pub user_code: UserCode,
    /// Ties the audit events of one sign-in together.
    pub(super) flow: String,
}

/// A grant that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    id: String,
    /// Ties the audit events of one sign-in together.
    pub flow: String,
    /// The application that asked, as it names itself.
    pub surface: Option<String>,
    /// The address that asked.
    pub client_ip: String,
    /// When it asked.
    pub created_at: Timestamp,
}

/// What a poll finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poll {
    /// Nobody has decided yet.
    Pending,
    /// As pending, and polled too often.
    SlowDown,
    /// There is something to collect.
    Decided,
    /// Unknown, expired or collected before.
    Gone,
}

/// What was decided; the grant is gone.
#[derive(Debug)]
pub(super) enum Collected<T> {
    /// The content of the approval.
    Approved(T),
    /// The person or a rule said no.
    Denied,
    /// Somebody else collected it.
    Gone,
}

/// A grant could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrantError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoChance(#[from] NoChance),
    #[error("a grant's content does not open: the session secret that it was sealed under was dropped")]
    Unreadable(#[from] SealError),
    #[error("no user code is free")]
    NoFreeCode,
}

/// The grant is not pending any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the code was used or has expired")]
pub(super) struct NotPending;

impl DeviceGrants {
    pub(super) fn new(store: Store, seals: Arc<Seals>) -> Self {
        Self { store, seals }
    }

    /// Begins a pending grant.
    pub(super) async fn begin(
        &self,
        surface: Option<&str>,
        client_ip: IpAddr,
        now: Timestamp,
    ) -> Result<Begun, GrantError> {
        let device_code = chance::token()?;
        let flow = chance::uuid()?;
        let now = now.as_millisecond();
        for _ in 0..TRIES {
            let user_code = UserCode(chance::letters(ALPHABET)?);
            let grant = NewGrant {
                code_hash: &hash(&device_code),
                user_code: user_code.letters(),
                flow: &flow,
                surface,
                client_ip: &client_ip.to_string(),
                created_at: now,
                expires_at: now.saturating_add(ms(GRANT_LIFE)),
            };
            if table::insert(&self.store, &grant).await? {
                return Ok(Begun { device_code: device_code.into(), user_code, flow });
            }
        }
        Err(GrantError::NoFreeCode)
    }

    /// The pending grant of a user code.
    pub(super) async fn find_by_user_code(
        &self,
        code: &UserCode,
        now: Timestamp,
    ) -> Result<Option<Pending>, StoreError> {
        let row = table::find_by_user_code(&self.store, code.letters(), now.as_millisecond()).await?;
        row.map(Pending::from_row).transpose()
    }

    /// The pending grant of an id that [`Pending::id`] gave.
    pub(super) async fn find(&self, id: &str, now: Timestamp) -> Result<Option<Pending>, StoreError> {
        let row = table::find(&self.store, id, now.as_millisecond()).await?;
        row.map(Pending::from_row).transpose()
    }

    /// Pending becomes approved; `content` is what the device will collect.
    pub(super) async fn approve(
        &self,
        grant: Pending,
        content: &impl Serialize,
        now: Timestamp,
    ) -> Result<Result<(), NotPending>, GrantError> {
        let sealed = self.seals.seal(Purpose::DeviceGrant, &grant.id, content)?;
        let changed = table::approve(&self.store, &sealed, &grant.id, now.as_millisecond()).await?;
        Ok(if changed { Ok(()) } else { Err(NotPending) })
    }

    /// Pending becomes denied.
    pub(super) async fn deny(&self, grant: Pending, now: Timestamp) -> Result<Result<(), NotPending>, StoreError> {
        let changed = table::deny(&self.store, &grant.id, now.as_millisecond()).await?;
        Ok(if changed { Ok(()) } else { Err(NotPending) })
    }

    /// How the grant stands. A decision can be collected at once, however soon after the last poll; only waiting is paced
    /// (RFC 8628, section 3.5, calls `slow_down` a variant of `authorization_pending`).
    pub(super) async fn poll(&self, device_code: &str, now: Timestamp) -> Result<Poll, StoreError> {
        let id = hash(device_code);
        let now = now.as_millisecond();
        if table::poll(&self.store, now, &id, now.saturating_sub(ms(POLL_INTERVAL))).await? {
            return Ok(Poll::Pending);
        }
        Ok(match table::is_decided(&self.store, &id, now).await? {
            None => Poll::Gone,
            Some(false) => Poll::SlowDown,
            Some(true) => Poll::Decided,
        })
    }

    /// Takes what was decided, once; it is taken if and only if the transaction stands.
    pub(super) async fn collect<T: DeserializeOwned>(
        &self,
        tx: &mut Tx,
        device_code: &str,
        now: Timestamp,
    ) -> Result<Collected<T>, GrantError> {
        let id = hash(device_code);
        Ok(match table::redeem(tx, &id, now.as_millisecond()).await? {
            None => Collected::Gone,
            Some(None) => Collected::Denied,
            Some(Some(sealed)) => Collected::Approved(self.seals.open(Purpose::DeviceGrant, &id, &sealed)?),
        })
    }

    /// Removes expired grants.
    pub(super) async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        table::sweep(&self.store, now.as_millisecond()).await
    }
}

impl Pending {
    /// Names the grant without being any use to a thief.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn from_row(row: PendingRow) -> Result<Self, StoreError> {
        let created_at = Timestamp::from_millisecond(row.created_at)
            .map_err(|_| StoreError::inconsistent(format!("device_grants {}: created_at", row.code_hash)))?;
        Ok(Self { id: row.code_hash, flow: row.flow, surface: row.surface, client_ip: row.client_ip, created_at })
    }
}

impl UserCode {
    /// Reads what a person typed: letter case, spaces and dashes do not matter.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut typed = text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-');
        let mut letters = [0; USER_CODE_LETTERS];
        for letter in &mut letters {
            *letter = typed.next()?.to_ascii_uppercase();
            if !ALPHABET.contains(letter) {
                return None;
            }
        }
        typed.next().is_none().then_some(Self(letters))
    }

    fn letters(&self) -> &str {
        // Letters of the alphabet are ASCII; an empty code finds nothing.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, tail) = self.letters().split_at(USER_CODE_LETTERS / 2);
        write!(f, "{head}-{tail}")
    }
}

/// Device codes are kept as hashes: who reads the table cannot poll.
fn hash(device_code: &str) -> String {
    hex(digest::digest(&digest::SHA256, device_code.as_bytes()).as_ref())
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

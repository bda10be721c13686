//! Groups from the Google Workspace directory: Google's id_tokens have none.
//!
//! A service account with domain-wide delegation asks in an administrator's name (Admin SDK, Directory API, `groups.list`).
//! Knows nothing of sign-in rules.

mod account;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use url::Url;

use self::account::Account;
use super::call::{self, CallError, Line};
use super::client::Presented;
use crate::clock::Clock;

const SCOPE: &str = "https://www.googleapis.com/auth/admin.directory.group.readonly";
const DIRECTORY: &str = "https://admin.googleapis.com";
/// Where the machine's identity fetches tokens; a key file names the place itself.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// Google takes no longer ones.
const ASSERTION_LIFE: i64 = 3600;
/// A token is not used in its last minutes, so that it cannot end on the way.
const RESERVE: Duration = Duration::from_secs(120);
const GROUPS_PER_PAGE: &str = "200";
const MOST_PAGES: usize = 50;

/// `oidc.google_groups`.
#[derive(Debug, Clone)]
pub struct GoogleGroups {
    account: Account,
    token_uri: Url,
    admin: String,
    /// Where the Directory API is.
    directory: String,
}

/// The directory, with the token that is held for it.
pub(super) struct Directory {
    config: GoogleGroups,
    line: Line,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<Held>>,
}

struct Held {
    token: SecretString,
    until: Instant,
}

/// The groups are not known: the directory or its configuration is at fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error("the service account's assertion cannot be signed")]
    NotSigned,
    #[error("{0}: {1}")]
    Call(&'static str, CallError),
    #[error("Google directory: the person is in more than 10000 groups")]
    TooMany,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    groups: Vec<Group>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Group {
    email: String,
}

impl GoogleGroups {
    /// Reads the key file of a service account; `admin` is the administrator in whose name it asks.
    ///
    /// # Errors
    /// A sentence that shows nothing of the key.
    pub fn from_key_file(json: &str, admin: String) -> Result<Self, String> {
        let (account, token_uri) = Account::read(json)?;
        Ok(Self { account, token_uri, admin, directory: DIRECTORY.to_owned() })
    }

    /// With the identity of the machine instead of a key: Google Cloud's metadata server says who it is, and IAM signs for
    /// it. `metadata_host` is `GCE_METADATA_HOST`.
    ///
    /// # Errors
    /// A sentence, when `metadata_host` is none.
    pub fn from_metadata_server(metadata_host: Option<&str>, admin: String) -> Result<Self, String> {
        let account = Account::of_machine(metadata_host)?;
        let token_uri = Url::parse(TOKEN_URI).map_err(|error| error.to_string())?;
        Ok(Self { account, token_uri, admin, directory: DIRECTORY.to_owned() })
    }

    /// The same, with all of Google's APIs at another place.
    #[cfg(test)]
    pub(super) fn at(mut self, url: &str) -> Self {
        if let Account::Machine(machine) = &mut self.account {
            machine.iam = url.to_owned();
            self.token_uri = format!("{url}/google/token").parse().unwrap_or(self.token_uri);
        }
        Self { directory: url.to_owned(), ..self }
    }

    /// Where tokens for the directory are fetched.
    #[must_use]
    pub fn token_uri(&self) -> &Url {
        &self.token_uri
    }
}

impl Directory {
    pub(super) fn new(config: GoogleGroups, line: Line, clock: Arc<dyn Clock>) -> Self {
        Self { config, line, clock, held: Mutex::new(None) }
    }

    /// The e-mail addresses of the groups that a person is directly in, by the person's address or id. Nobody whom the
    /// directory does not know is in any.
    pub(super) async fn groups_of(&self, person: &str) -> Result<Vec<String>, DirectoryError> {
        let token = self.token().await?;
        let mut groups = Vec::new();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            let answer = self.line.get(&self.page(person, next.as_deref())?, Some(&token)).await;
            if matches!(&answer, Ok((StatusCode::NOT_FOUND, _))) {
                return Ok(Vec::new());
            }
            if matches!(&answer, Ok((StatusCode::UNAUTHORIZED, _))) {
                *self.held.lock().await = None;
            }
            let page: Page = call::json(answer).map_err(|error| DirectoryError::Call("Google directory", error))?;
            groups.extend(page.groups.into_iter().map(|group| group.email));
            next = page.next_page_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(groups);
            }
        }
        Err(DirectoryError::TooMany)
    }

    fn page(&self, person: &str, next: Option<&str>) -> Result<Url, DirectoryError> {
        let place = format!("{}/admin/directory/v1/groups", self.config.directory);
        let mut url = Url::parse(&place).map_err(|_| DirectoryError::NotSigned)?;
        url.query_pairs_mut().append_pair("userKey", person).append_pair("maxResults", GROUPS_PER_PAGE);
        if let Some(next) = next {
            url.query_pairs_mut().append_pair("pageToken", next);
        }
        Ok(url)
    }

    /// The token at hand, or a new one; one at a time asks for it.
    async fn token(&self) -> Result<SecretString, DirectoryError> {
        let mut held = self.held.lock().await;
        let now = self.clock.instant();
        if let Some(held) = held.as_ref().filter(|held| now < held.until) {
            return Ok(held.token.clone());
        }
        let assertion = self.assertion().await?;
        let fields = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
        let answer = self.line.post_form(&self.config.token_uri, &fields, &Presented::default()).await;
        let token: Token =
            call::json(answer).map_err(|error| DirectoryError::Call("the service account's token_uri", error))?;
        let life = Duration::from_secs(token.expires_in.min(3600)).saturating_sub(RESERVE);
        let token = SecretString::from(token.access_token);
        *held = Some(Held { token: token.clone(), until: now + life });
        Ok(token)
    }

    /// `sub` is the administrator, which is what domain-wide delegation allows.
    async fn assertion(&self) -> Result<String, DirectoryError> {
        let now = self.clock.now().as_second();
        let claims = json!({
            "sub": self.config.admin, "scope": SCOPE, "aud": self.config.token_uri.as_str(), "iat": now,
            "exp": now.saturating_add(ASSERTION_LIFE),
        });
        self.config.account.signed(claims, &self.line).await
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("config", &self.config).finish_non_exhaustive()
    }
}

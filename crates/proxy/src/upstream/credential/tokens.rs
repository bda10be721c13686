//! Tokens of one source, kept and renewed as every credential that expires.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use control::clock::Clock;
use control::connect::Egress;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::CredentialError;
use super::anthropic::Federation;
use super::azure::Azure;
use super::exchange::Ways;
use super::google::Google;
use crate::upstream::renewed::{Fresh, NoCredential, Renewed};

/// Where tokens come from.
#[derive(Debug, Clone)]
pub(in crate::upstream) enum Source {
    /// Google Cloud.
    Google(Google),
    /// Microsoft Entra.
    Azure(Azure),
    /// Anthropic's workload identity federation.
    Anthropic(Federation),
}

/// A token as it was fetched.
pub(super) struct Fetched {
    pub(super) token: SecretString,
    /// When it ends, in seconds since 1970.
    pub(super) ends: i64,
}

/// The tokens of one source.
pub(in crate::upstream) struct Tokens {
    source: Source,
    ways: Ways,
    renewed: Renewed<HeaderValue>,
}

impl Tokens {
    pub(in crate::upstream) fn new(source: Source, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        Self { source, ways: Ways::new(egress, Arc::clone(clock)), renewed: Renewed::new(Arc::clone(clock)) }
    }

    /// `Bearer` and the token, marked sensitive.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::upstream) async fn authorization(&self) -> Result<HeaderValue, NoCredential> {
        let renewing = Box::pin(async {
            let fetched = self.source.fetch(&self.ways).await;
            fetched.and_then(|fetched| self.fresh(&fetched)).map_err(|error| NoCredential(error.to_string()))
        });
        self.renewed.get(renewing).await.map(|value| HeaderValue::clone(&value))
    }

    /// The upstream refused what was `shown`: another one is fetched for the next request. Whether it will be.
    pub(in crate::upstream) fn refused(&self, shown: &HeaderValue) -> bool {
        self.renewed.refused(|current| current == shown)
    }

    fn fresh(&self, fetched: &Fetched) -> Result<Fresh<HeaderValue>, CredentialError> {
        let bearer = SecretString::from(format!("Bearer {}", fetched.token.expose_secret()));
        let mut value = HeaderValue::from_str(bearer.expose_secret()).map_err(|_| CredentialError::Unreadable {
            endpoint: "the token endpoint".to_owned(),
            why: "the token holds characters that no header can carry",
        })?;
        value.set_sensitive(true);
        let lasts = u64::try_from(fetched.ends.saturating_sub(self.ways.now())).unwrap_or_default();
        Ok(Fresh { value, lasts: Some(Duration::from_secs(lasts)) })
    }
}

impl Source {
    async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        match self {
            Self::Google(google) => google.fetch(ways).await,
            Self::Azure(azure) => azure.fetch(ways).await,
            Self::Anthropic(federation) => federation.fetch(ways).await,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

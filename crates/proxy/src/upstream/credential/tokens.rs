//! Tokens kept while they are good: fetched ahead of their end, by one caller at a time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Never used for less than this, in seconds: a request that is on its way must arrive with it.
const DEAD: i64 = 10;
/// Fetched anew when less than this is left, in seconds; Google's own metadata service hands out what has five minutes left,
/// so asking earlier would give the same one.
const FADING: i64 = 225;
/// What a fetch may take while the old token still serves.
const AHEAD_BUDGET: Duration = Duration::from_secs(3);
/// How long a failure ahead of the end rests, in seconds.
const REST: i64 = 15;

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
    kept: Mutex<Kept>,
    /// Held by whoever fetches.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    /// How many fetches have ended.
    fetches: u64,
    /// Why the last one failed, if it did.
    failure: Option<Arc<CredentialError>>,
    /// No fetch ahead of the end before this, in seconds since 1970.
    rest: i64,
}

struct Token {
    authorization: HeaderValue,
    /// In seconds since 1970.
    fades: i64,
    dies: i64,
}

enum Look {
    Good(HeaderValue),
    Fading(HeaderValue, u64),
    Nothing(u64),
}

impl Tokens {
    pub(in crate::upstream) fn new(source: Source, egress: &Egress, clock: Arc<dyn Clock>) -> Self {
        Self { source, ways: Ways::new(egress, clock), kept: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// `Bearer` and the token, marked sensitive.
    ///
    /// # Errors
    /// Why there is none. Callers that waited for one fetch share its failure.
    pub(in crate::upstream) async fn authorization(&self) -> Result<HeaderValue, Arc<CredentialError>> {
        let (old, fetches) = match self.look() {
            Look::Good(value) => return Ok(value),
            Look::Fading(value, fetches) => (Some(value), fetches),
            Look::Nothing(fetches) => (None, fetches),
        };
        let _turn = match old {
            // Somebody is at it, and this one still serves.
            Some(value) => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(value),
            },
            None => self.turn.lock().await,
        };
        if let Some(ended) = self.ended_since(fetches) {
            return ended;
        }
        self.fetch().await
    }

    /// An upstream refused this token although it has not ended: it is not used again.
    pub(in crate::upstream) fn forget(&self, refused: &HeaderValue) {
        let mut kept = self.kept();
        if kept.token.as_ref().is_some_and(|token| token.authorization == *refused) {
            kept.token = None;
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Look {
        let (now, kept) = (self.ways.now(), self.kept());
        match &kept.token {
            Some(token) if now < token.fades || (now < token.dies && now < kept.rest) => {
                Look::Good(token.authorization.clone())
            }
            Some(token) if now < token.dies => Look::Fading(token.authorization.clone(), kept.fetches),
            _ => Look::Nothing(kept.fetches),
        }
    }

    /// What came of a fetch that ended while we waited for our turn.
    fn ended_since(&self, fetches: u64) -> Option<Result<HeaderValue, Arc<CredentialError>>> {
        let (now, kept) = (self.ways.now(), self.kept());
        if kept.fetches == fetches {
            return None;
        }
        let good = kept.token.as_ref().filter(|token| now < token.dies).map(|token| Ok(token.authorization.clone()));
        good.or_else(|| kept.failure.clone().map(Err))
    }

    async fn fetch(&self) -> Result<HeaderValue, Arc<CredentialError>> {
        let old = match self.look() {
            Look::Good(value) => return Ok(value),
            Look::Fading(value, _) => Some(value),
            Look::Nothing(_) => None,
        };
        let fetched = match old {
            None => self.source.fetch(&self.ways).await,
            Some(_) => match tokio::time::timeout(AHEAD_BUDGET, self.source.fetch(&self.ways)).await {
                Ok(fetched) => fetched,
                Err(_) => Err(CredentialError::Unreachable {
                    endpoint: "the token endpoint".to_owned(),
                    cause: format!("no answer within {} s", AHEAD_BUDGET.as_secs()),
                }),
            },
        };
        self.keep(fetched, old)
    }

    fn keep(
        &self,
        fetched: Result<Fetched, CredentialError>,
        old: Option<HeaderValue>,
    ) -> Result<HeaderValue, Arc<CredentialError>> {
        let now = self.ways.now();
        let token = fetched.and_then(|fetched| Token::new(&fetched, now));
        let mut kept = self.kept();
        kept.fetches += 1;
        match token {
            Ok(token) => {
                let authorization = token.authorization.clone();
                *kept = Kept { token: Some(token), fetches: kept.fetches, failure: None, rest: 0 };
                Ok(authorization)
            }
            Err(error) => {
                let error = Arc::new(error);
                kept.failure = Some(Arc::clone(&error));
                kept.rest = now + REST;
                match old {
                    Some(value) => {
                        tracing::warn!("a token could not be renewed and serves for now: {error}");
                        Ok(value)
                    }
                    None => Err(error),
                }
            }
        }
    }
}

impl Token {
    fn new(fetched: &Fetched, now: i64) -> Result<Self, CredentialError> {
        let bearer = SecretString::from(format!("Bearer {}", fetched.token.expose_secret()));
        let authorization = HeaderValue::from_str(bearer.expose_secret());
        let mut authorization = authorization.map_err(|_| CredentialError::Unreadable {
            endpoint: "the token endpoint".to_owned(),
            why: "the token holds characters that no header can carry",
        })?;
        authorization.set_sensitive(true);
        let life = fetched.ends.saturating_sub(now).max(0);
        let (fading, dead) = (FADING.min(life / 4), DEAD.min(life / 8));
        Ok(Self { authorization, fades: fetched.ends - fading, dies: fetched.ends - dead })
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

//! Whose fault an attempt was, whether another upstream may be asked, and what is told when none is left.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;

use super::{Answer, Upstream};

/// An upstream did not serve the request. Nothing of it reached the client, so the next upstream may be asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection; nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// No request can be made of what the client sent.
    #[error("cannot be asked: {0}")]
    Unsendable(String),
    /// The connection broke before an answer, or what came was not HTTP.
    #[error("no answer: {0}")]
    Interrupted(String),
    /// No response headers in time.
    #[error("no response headers within {} ms (its ttfb_ms, or timeouts.upstream_ttfb_ms)", .0.as_millis())]
    Silent(Duration),
    /// There is no credential to show it.
    #[error("no credentials for it: {0}")]
    Uncredentialed(String),
    /// The answer began with an error in the place of its first event.
    #[error("the answer began with an error: {0}")]
    FirstFrame(String),
    /// It refused the credential of `auth`.
    #[error("refused our credential with {}; check its `auth`", .0.status())]
    Credential(Box<Answer>),
    /// Its account may spend no more.
    #[error("answered {}: its account has reached a usage limit or owes money", .0.status())]
    Spent(Box<Answer>),
    /// It does not have the model that it was asked for.
    #[error("answered {}: it does not serve that model id here; check `models` and its region", .0.status())]
    NoModel(Box<Answer>),
    /// It answered with another status that a different upstream may better.
    #[error("answered {}", .0.status())]
    Status(Box<Answer>),
}

/// The kinds of failure, as `failover_on`, the audit and the metrics call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// No connection.
    Connect,
    /// No response headers in time.
    Timeout,
    /// The connection broke before them, or what came was not HTTP.
    Broken,
    /// 401 or 403: it refused our credential; or there was none to show.
    Credential,
    /// 402, or Anthropic's 400 that says that the API usage limit is reached.
    UsageLimit,
    /// 404.
    NotFound,
    /// 429.
    RateLimit,
    /// 503 or 529.
    Overload,
    /// Any other 5xx, or a number that is no status.
    ServerError,
    /// A cloud's 400 that says that it does not have the model.
    Model,
    /// An error in the place of a stream's first event.
    FirstFrame,
    /// Another status, which `failover_on` lists.
    Status,
    /// The request cannot be sent there.
    Unsendable,
}

/// `upstreams[].failover_on`: which failures lead to the next upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailoverOn(Vec<Trigger>);

/// One entry of `failover_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Everything that leads on when nothing is listed.
    Default,
    /// A kind of failure.
    Class(Class),
    /// An answer of this status.
    Status(u16),
}

/// Which upstream failed, and how.
#[derive(Debug)]
pub struct Failed {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// What went wrong.
    pub failure: Failure,
}

/// What the client is told when every upstream failed (contract R28).
#[derive(Debug)]
pub enum Verdict {
    /// The upstream's own answer.
    Relay(Arc<Upstream>, Answer),
    /// Overload, as 529.
    Overloaded {
        /// The upstream's `retry-after`.
        retry_after: Option<HeaderValue>,
    },
    /// Nothing that the client could act on: 502.
    Exhausted,
}

/// Whether an answer of this status sends the request on to the next upstream (contract B2 and R29). Numbers that are no
/// status count as server errors (RFC 9110, section 15).
#[must_use]
pub(super) fn may_fail_over(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 402 | 403 | 404 | 429 | 500.. | 100..=199)
}

impl Class {
    /// All kinds that can be listed.
    pub const LISTED: [Self; 11] = [
        Self::Connect,
        Self::Timeout,
        Self::Broken,
        Self::Credential,
        Self::UsageLimit,
        Self::NotFound,
        Self::RateLimit,
        Self::Overload,
        Self::ServerError,
        Self::Model,
        Self::FirstFrame,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Credential => "credential",
            Self::UsageLimit => "usage_limit",
            Self::NotFound => "not_found",
            Self::RateLimit => "rate_limit",
            Self::Overload => "overload",
            Self::ServerError => "server_error",
            Self::Model => "model",
            Self::FirstFrame => "first_frame",
            Self::Status => "status",
            Self::Unsendable => "unsendable",
        }
    }

    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self::Credential,
            402 => Self::UsageLimit,
            404 => Self::NotFound,
            429 => Self::RateLimit,
            503 | 529 => Self::Overload,
            500.. => Self::ServerError,
            100..=199 => Self::Broken,
            _ => Self::Status,
        }
    }
}

impl Default for FailoverOn {
    fn default() -> Self {
        Self(vec![Trigger::Default])
    }
}

impl FailoverOn {
    /// Exactly these.
    #[must_use]
    pub fn new(triggers: Vec<Trigger>) -> Self {
        Self(triggers)
    }

    /// Whether the next upstream is asked after `failure`.
    #[must_use]
    pub fn includes(&self, failure: &Failure) -> bool {
        self.0.iter().any(|trigger| match *trigger {
            Trigger::Default => failure.class() != Class::Status,
            Trigger::Class(class) => failure.class() == class,
            Trigger::Status(status) => failure.status() == Some(status),
        })
    }

    fn lists(&self, status: StatusCode) -> bool {
        self.0.contains(&Trigger::Status(status.as_u16()))
    }
}

/// Whether an error message is Anthropic's way to say, with status 400, that the account has spent what it may (R29).
pub(super) fn is_usage_limit(message: &str) -> bool {
    message.contains("reached your specified API usage limits")
}

impl Failure {
    /// The failure that an answer is, or the answer where it is to be relayed. `on` may list more statuses.
    ///
    /// # Errors
    /// A status that another upstream may better.
    pub(super) fn judge(answer: Answer, on: &FailoverOn) -> Result<Answer, Self> {
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Self::Credential(Box::new(answer))),
            StatusCode::PAYMENT_REQUIRED => Err(Self::Spent(Box::new(answer))),
            status if may_fail_over(status) || on.lists(status) => Err(Self::Status(Box::new(answer))),
            _ => Ok(answer),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) => Class::Connect,
            Self::Unsendable(_) => Class::Unsendable,
            Self::Interrupted(_) => Class::Broken,
            Self::Silent(_) => Class::Timeout,
            Self::FirstFrame(_) => Class::FirstFrame,
            Self::Uncredentialed(_) | Self::Credential(_) => Class::Credential,
            Self::Spent(_) => Class::UsageLimit,
            Self::NoModel(_) => Class::Model,
            Self::Status(answer) => Class::of_status(answer.status()),
        }
    }

    /// The status of the answer, where there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.answer().map(|answer| answer.status().as_u16())
    }

    /// In how long the upstream said it is worth coming back: a number of seconds or a date (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let value = self.answer()?.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
        let until_date = || {
            let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            date.duration_since(now).try_into().ok()
        };
        value.parse().ok().map(Duration::from_secs).or_else(until_date)
    }

    /// Whether it says something of the upstream's health. What a single request may have brought about - a missing
    /// file, a right that its beta would need - must not take the upstream away from everyone. Where credentials come from
    /// can hang like the upstream itself.
    #[must_use]
    pub fn blames_upstream(&self) -> bool {
        match self.class() {
            Class::Credential => self.status() != Some(403),
            Class::ServerError => self.status() != Some(501),
            Class::Connect
            | Class::Timeout
            | Class::Broken
            | Class::UsageLimit
            | Class::RateLimit
            | Class::Overload
            | Class::FirstFrame => true,
            Class::NotFound | Class::Model | Class::Status | Class::Unsendable => false,
        }
    }

    fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Credential(answer) | Self::Spent(answer) | Self::NoModel(answer) | Self::Status(answer) => {
                Some(answer)
            }
            Self::Unreachable(_)
            | Self::Unsendable(_)
            | Self::Interrupted(_)
            | Self::Silent(_)
            | Self::Uncredentialed(_)
            | Self::FirstFrame(_) => None,
        }
    }
}

/// Chooses what to tell: the last 429, else overload, else the last 404, else the last 501, else the last answer that only
/// `failover_on` made a failure, else that all failed. A refused credential is ours, never the client's: as 401 or 403 it
/// would look as if the client's own sign-in had died.
#[must_use]
pub fn verdict(mut failures: Vec<Failed>) -> Verdict {
    let is = |status: u16| move |failure: &Failure| failure.status() == Some(status);
    if let Some(relay) = take_last(&mut failures, is(429)) {
        return relay;
    }
    let overloads = failures.iter().filter(|failed| failed.failure.class() == Class::Overload);
    let retry_after = overloads.map(|failed| failed.failure.answer()?.headers().get(RETRY_AFTER).cloned());
    if let Some(retry_after) = retry_after.reduce(|before, last| last.or(before)) {
        return Verdict::Overloaded { retry_after };
    }
    take_last(&mut failures, is(404))
        .or_else(|| take_last(&mut failures, is(501)))
        .or_else(|| take_last(&mut failures, |failure| matches!(failure.class(), Class::Status | Class::Model)))
        .unwrap_or(Verdict::Exhausted)
}

fn take_last(failures: &mut Vec<Failed>, is: impl Fn(&Failure) -> bool) -> Option<Verdict> {
    let last = failures.iter().rposition(|failed| is(&failed.failure))?;
    let Failed { upstream, failure } = failures.swap_remove(last);
    match failure {
        Failure::Status(answer) | Failure::NoModel(answer) => Some(Verdict::Relay(upstream, *answer)),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

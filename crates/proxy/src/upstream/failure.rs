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
mod tests {
    use super::super::tests::upstream;
    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Answer {
        let mut response = http::Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(RETRY_AFTER, value);
        }
        Answer::whole(response.body(bytes::Bytes::from(status.to_string())).unwrap())
    }

    /// What is told when upstreams a, b, c fail with these; 0 is a refused connection.
    fn told(statuses: &[(u16, Option<&'static str>)]) -> String {
        let failures = statuses.iter().zip(["a", "b", "c"]).map(|(&(status, retry_after), name)| Failed {
            upstream: upstream(name),
            failure: match status {
                0 => Failure::Unreachable("refused".to_owned()),
                _ => Failure::judge(answer(status, retry_after), &FailoverOn::default()).unwrap_err(),
            },
        });
        match verdict(failures.collect()) {
            Verdict::Relay(upstream, answer) => format!("{} of {}", answer.status().as_u16(), upstream.name()),
            Verdict::Overloaded { retry_after } => {
                format!("529 {}", retry_after.map_or("-".into(), |value| value.to_str().unwrap().to_owned()))
            }
            Verdict::Exhausted => "502".to_owned(),
        }
    }

    #[test]
    fn the_final_answer_prefers_what_the_client_can_act_on() {
        assert_eq!(told(&[(429, None), (429, None), (529, None)]), "429 of b");
        assert_eq!(told(&[(529, Some("7")), (503, None), (404, None)]), "529 7");
        assert_eq!(told(&[(503, None), (0, None), (500, None)]), "529 -");
        assert_eq!(told(&[(404, None), (501, None), (500, None)]), "404 of a");
        assert_eq!(told(&[(501, None), (402, None), (0, None)]), "501 of a");
        assert_eq!(told(&[(500, None), (502, None), (504, None)]), "502");
        assert_eq!(told(&[(0, None)]), "502");
    }

    #[test]
    fn a_refused_credential_never_reaches_the_client() {
        assert_eq!(told(&[(401, None), (403, None)]), "502");
        assert_eq!(told(&[(403, None), (404, None)]), "404 of b");
    }

    #[test]
    fn the_matrix_of_statuses_is_the_contracts() {
        let over = [401, 402, 403, 404, 429, 500, 501, 502, 503, 504, 505, 529, 599];
        let not = [
            200, 201, 204, 301, 302, 304, 307, 308, 400, 405, 406, 408, 409, 410, 413, 415, 418, 421, 422, 423, 424,
            425, 426, 428, 431, 451,
        ];
        for status in over.into_iter().chain([600, 999]) {
            assert!(may_fail_over(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in not {
            assert!(!may_fail_over(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }

    fn failing(status: u16) -> Failure {
        let everything = FailoverOn::new((100..600).map(Trigger::Status).collect());
        Failure::judge(answer(status, None), &everything).unwrap_err()
    }

    #[test]
    fn a_status_that_an_operator_lists_is_a_failure_and_relayed_when_none_is_left() {
        let on = FailoverOn::new(vec![Trigger::Default, Trigger::Status(408)]);
        let failure = Failure::judge(answer(408, None), &on).unwrap_err();
        assert!(on.includes(&failure) && on.includes(&failing(429)) && !FailoverOn::default().includes(&failure));
        assert!(Failure::judge(answer(409, None), &on).is_ok());
        let relayed = verdict(vec![Failed { upstream: upstream("a"), failure }]);
        assert!(matches!(relayed, Verdict::Relay(_, answer) if answer.status() == 408));
    }

    #[test]
    fn a_list_without_the_default_narrows() {
        let on = FailoverOn::new(vec![Trigger::Class(Class::Connect), Trigger::Status(529)]);
        let lead_on = |failure: &Failure| on.includes(failure);
        assert!(lead_on(&Failure::Unreachable(String::new())) && lead_on(&failing(529)));
        assert!(!lead_on(&failing(503)) && !lead_on(&failing(429)) && !lead_on(&Failure::Silent(Duration::ZERO)));
    }

    #[test]
    fn every_failure_has_its_class_and_only_some_speak_of_the_upstreams_health() {
        let mut told = String::new();
        let mut tell = |what: &str, failure: Failure| {
            told.push_str(&format!("{what} {} {}\n", failure.class().as_str(), failure.blames_upstream()));
        };
        for status in [401, 402, 403, 404, 408, 429, 500, 501, 503, 504, 529, 600] {
            tell(&status.to_string(), failing(status));
        }
        let why = String::new;
        tell("no connection", Failure::Unreachable(why()));
        tell("no credential", Failure::Uncredentialed(why()));
        tell("nothing sendable", Failure::Unsendable(why()));
        tell("no answer", Failure::Interrupted(why()));
        tell("silence", Failure::Silent(Duration::ZERO));
        tell("first frame", Failure::FirstFrame(why()));
        tell("no model", Failure::NoModel(Box::new(answer(400, None))));
        insta::assert_snapshot!(told, @r"
        401 credential true
        402 usage_limit true
        403 credential false
        404 not_found false
        408 status false
        429 rate_limit true
        500 server_error true
        501 server_error false
        503 overload true
        504 server_error true
        529 overload true
        600 server_error true
        no connection connect true
        no credential credential true
        nothing sendable unsendable false
        no answer broken true
        silence timeout true
        first frame first_frame true
        no model model false
        ");
    }
}

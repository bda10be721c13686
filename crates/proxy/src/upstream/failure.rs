//! Whose fault an attempt was, whether another upstream may be asked, and what is told when none is left.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

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
    #[error("no response headers within {} ms (timeouts.upstream_ttfb_ms)", .0.as_millis())]
    Silent(Duration),
    /// There is no credential to show it.
    #[error("no credentials for it: {0}")]
    Uncredentialed(String),
    /// The answer began with an error in the place of its first event.
    #[error("the answer began with an error: {0}")]
    FirstFrame(String),
    /// It does not have the model that it was asked for.
    #[error("answered {}: it does not serve that model id here; check `models` and its region", .0.status())]
    NoModel(Box<Answer>),
    /// It refused the credential of `auth`.
    #[error("refused our credential with {}; check its `auth`", .0.status())]
    Credential(Box<Answer>),
    /// It answered with another status that a different upstream may better.
    #[error("answered {}", .0.status())]
    Status(Box<Answer>),
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

/// Whether an answer of this status sends the request on to the next upstream (contract B2 and R29).
#[must_use]
pub(super) fn may_fail_over(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 402 | 403 | 404 | 429 | 500..=599 | 100..=199)
}

/// Whether an error message is Anthropic's way to say, with status 400, that the account has spent what it may (R29).
pub(super) fn is_usage_limit(message: &str) -> bool {
    message.contains("reached your specified API usage limits")
}

impl Failure {
    /// The failure that an answer is, or the answer where it is to be relayed.
    ///
    /// # Errors
    /// A status that another upstream may better.
    pub(super) fn judge(answer: Answer) -> Result<Answer, Self> {
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Self::Credential(Box::new(answer))),
            status if may_fail_over(status) => Err(Self::Status(Box::new(answer))),
            _ => Ok(answer),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Status(answer) => Some(answer.status().as_u16()),
            Self::Unreachable(_)
            | Self::Unsendable(_)
            | Self::Interrupted(_)
            | Self::Silent(_)
            | Self::Uncredentialed(_)
            | Self::FirstFrame(_)
            | Self::NoModel(_)
            | Self::Credential(_) => None,
        }
    }
}

/// Chooses what to tell: the last 429, else overload, else the last 404, else the last 501, else that all failed. A refused
/// credential is ours, never the client's: as 401 or 403 it would look as if the client's own sign-in had died.
#[must_use]
pub fn verdict(mut failures: Vec<Failed>) -> Verdict {
    if let Some(relay) = take_last(&mut failures, 429) {
        return relay;
    }
    let overloads = failures.iter().filter(|failed| matches!(failed.failure.status(), Some(503 | 529)));
    let retry_after = overloads.map(|failed| match &failed.failure {
        Failure::Status(answer) => answer.headers().get(RETRY_AFTER).cloned(),
        _ => None,
    });
    if let Some(retry_after) = retry_after.reduce(|before, last| last.or(before)) {
        return Verdict::Overloaded { retry_after };
    }
    take_last(&mut failures, 404)
        .or_else(|| take_last(&mut failures, 501))
        .or_else(|| take_lacking(failures))
        .unwrap_or(Verdict::Exhausted)
}

/// That the model is not there is worth telling when there is nothing else to tell.
fn take_lacking(failures: Vec<Failed>) -> Option<Verdict> {
    failures.into_iter().rev().find_map(|Failed { upstream, failure }| match failure {
        Failure::NoModel(answer) => Some(Verdict::Relay(upstream, *answer)),
        _ => None,
    })
}

fn take_last(failures: &mut Vec<Failed>, status: u16) -> Option<Verdict> {
    let last = failures.iter().rposition(|failed| failed.failure.status() == Some(status))?;
    let Failed { upstream, failure } = failures.swap_remove(last);
    match failure {
        Failure::Status(answer) => Some(Verdict::Relay(upstream, *answer)),
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
                _ => Failure::judge(answer(status, retry_after)).unwrap_err(),
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
        for status in over {
            assert!(may_fail_over(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in not {
            assert!(!may_fail_over(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }
}

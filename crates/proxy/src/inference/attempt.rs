//! The second phase: ask one upstream after the other, until one serves the request.

use std::sync::Arc;

use super::admit::Admitted;
use super::settle::Tab;
use super::{Failure, Inference, load_test};
use crate::upstream::{Answer, Call, Candidate, Failed, Failure as Attempt, Round, Sent, Trial};
use crate::upstream::{Upstream, Verdict, verdict};

/// An answer that goes to the client.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) upstream: Arc<Upstream>,
    pub(super) answer: Answer,
}

/// Nothing has reached the client while this runs, so every failure may be followed by the next upstream; each is asked
/// once. The request's bytes are let go of when an answer is there.
pub(super) async fn attempt(tab: &mut Tab, admitted: Admitted) -> Result<Answered, Failure> {
    let inference = Arc::clone(tab.inference());
    if let Some(load_test) = &inference.load_test {
        return load_test::answer(tab, load_test, &admitted);
    }
    let facts = tab.facts().clone();
    let call = admitted.call(&inference, &facts);
    let home = tab.find_home(admitted.model());
    let mut round = Round::new(admitted.candidates(), home.as_ref());
    let mut failures = Vec::new();
    while let Some((candidate, trial)) = round.next() {
        let sent = tab.try_upstream(candidate);
        let asked = tokio::select! {
            biased;
            asked = ask(&inference, candidate, &call, &sent, &trial, round.has_more()) => asked,
            () = inference.cut.cancelled() => return Err(Failure::Stopping),
        };
        let upstream = Arc::clone(&candidate.upstream);
        match asked {
            Ok(answer) => {
                trial.succeeded();
                tab.tried("served", Some(answer.status().as_u16()));
                tell_odd(&facts.request_id, &upstream, &answer);
                tab.move_in(candidate, admitted.candidates().first());
                return Ok(Answered { upstream, answer });
            }
            Err(failure) => {
                tracing::warn!(request_id = %facts.request_id, upstream = upstream.name(), "upstream failed: {failure}");
                tab.tried(failure.class().as_str(), failure.status());
                let leads_on = upstream.fails_over_on(&failure);
                trial.failed(&failure, leads_on);
                failures.push(Failed { upstream, failure });
                if !leads_on {
                    break;
                }
            }
        }
    }
    match verdict(failures) {
        Verdict::Relay(upstream, answer) => Ok(Answered { upstream, answer }),
        Verdict::Overloaded { retry_after } => Err(Failure::Overloaded { retry_after }),
        Verdict::Exhausted => Err(Failure::Exhausted { configured: inference.upstreams.count() }),
    }
}

/// Relayed all the same: whether an answer makes sense is the client's matter. An operator should know of it.
fn tell_odd(request_id: &str, upstream: &Upstream, answer: &Answer) {
    let (upstream, status) = (upstream.name(), answer.status());
    if status.is_redirection() {
        let status = status.as_u16();
        tracing::warn!(request_id, upstream, status, "upstream redirects, which is not followed: check its base_url");
    } else if status.is_success() && !answer.is_of_messages_api() {
        let media_type: String = answer.content_type().unwrap_or("nothing").chars().take(100).collect();
        tracing::warn!(request_id, upstream, "upstream answered with {media_type}, which is not of the Messages API");
    }
}

/// Who still waits for a connection when others have found the upstream failing goes on at once, if there is where to go.
async fn ask(
    inference: &Inference,
    candidate: &Candidate,
    call: &Call<'_>,
    sent: &Sent,
    trial: &Trial<'_>,
    may_leave: bool,
) -> Result<Answer, Attempt> {
    let mut asking = std::pin::pin!(inference.upstreams.ask(candidate, call, sent));
    if may_leave {
        tokio::select! {
            biased;
            asked = &mut asking => return asked,
            () = trial.opened() => {}
        }
        if !sent.get() {
            return Err(Attempt::Unreachable("given up, as it has just been found failing".to_owned()));
        }
    }
    asking.await
}

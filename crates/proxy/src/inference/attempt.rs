//! The second phase: ask one upstream after the other, until one serves the request.

use std::sync::Arc;

use super::Failure;
use super::admit::Admitted;
use super::settle::Tab;
use crate::upstream::{Answer, Failed, Sent, Upstream, Verdict, verdict};

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
    let facts = tab.facts().clone();
    let call = admitted.call(&inference, &facts);
    let mut failures = Vec::new();
    for candidate in admitted.candidates() {
        let sent: Sent = tab.try_upstream(candidate);
        let asked = tokio::select! {
            biased;
            asked = inference.upstreams.ask(candidate, &call, &sent) => asked,
            () = inference.cut.cancelled() => return Err(Failure::Stopping),
        };
        let upstream = Arc::clone(&candidate.upstream);
        match asked {
            Ok(answer) => return Ok(Answered { upstream, answer }),
            Err(failure) => {
                tracing::warn!(request_id = %facts.request_id, upstream = upstream.name(), "upstream failed: {failure}");
                failures.push(Failed { upstream, failure });
            }
        }
    }
    match verdict(failures) {
        Verdict::Relay(upstream, answer) => Ok(Answered { upstream, answer }),
        Verdict::Overloaded { retry_after } => Err(Failure::Overloaded { retry_after }),
        Verdict::Exhausted => Err(Failure::Exhausted { configured: inference.upstreams.count() }),
    }
}

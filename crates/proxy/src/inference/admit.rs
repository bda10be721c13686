//! The first phase: read the request, and prove that its caller may send it and can afford it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control::policy::permit::Permit;
use control::spend::ledger::Admission;
use control::spend::{Ledger, Origin, Quote, Refusal, Size};
use http::{HeaderMap, Request, request};
use http_body::Body;
use http_body_util::BodyExt;
use uuid::Uuid;
use wire::messages::{RequestHead, reach, read_head, tag_named};

use super::settle::Tab;
use super::{Facts, Failure, Inference};
use crate::upstream::{Call, Caller, Candidate, Endpoint, request_headers};

/// A request that may go out. Only this file builds one; its reservation is on the tab.
#[derive(Debug)]
pub(super) struct Admitted {
    permit: Permit,
    candidates: Vec<Candidate>,
    endpoint: Endpoint,
    query: Option<String>,
    headers: HeaderMap,
    fields: RequestHead,
    body: Bytes,
}

/// Asks in the order of contract B1: who is blocked hears that first, whatever else is wrong with the request.
pub(super) async fn admit<B>(tab: &mut Tab, request: Request<B>) -> Result<Admitted, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let inference = Arc::clone(tab.inference());
    // Before anything is read or asked: who finds no seat must cost nothing.
    tab.sit(inference.seats.take(&tab.facts().principal.sub)?);
    let ledger = inference.ledger.as_ref().filter(|_| tab.endpoint() == Endpoint::Messages);
    if let Some(ledger) = ledger {
        // Before the body is read: a blocked caller must not make us buffer 32 MB.
        ledger.check(&tab.facts().principal).await.map_err(|refusal| blocked(&inference, refusal))?;
    }
    let (head, body) = request.into_parts();
    let body = read(body, inference.config.max_request_bytes).await?;
    let admitted = match examine(tab, &inference, &head, body) {
        Ok(admitted) => admitted,
        Err(failure) => {
            if let Some(ledger) = ledger {
                ledger.check_now(&tab.facts().principal).await.map_err(|refusal| blocked(&inference, refusal))?;
            }
            return Err(failure);
        }
    };
    let (origin, tag_ignored) = origin(&inference, tab.facts(), &head.headers, &admitted);
    drop(head);
    tab.describe(origin, tag_ignored);
    if let Some(ledger) = ledger {
        reserve(tab, &inference, ledger, &admitted).await?;
    }
    Ok(admitted)
}

impl Admitted {
    /// The upstreams that may serve it, in order; never none.
    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whether it asks for a stream.
    pub(super) fn is_stream(&self) -> bool {
        self.fields.stream
    }

    /// The model's id in the catalogue.
    pub(super) fn model(&self) -> &str {
        &self.permit.model().id
    }

    /// The request as upstreams see it.
    pub(super) fn call<'a>(&'a self, inference: &Inference, facts: &'a Facts) -> Call<'a> {
        Call {
            request_id: &facts.request_id,
            endpoint: self.endpoint,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
            head: &self.fields,
            strip_tags: inference.config.billing_group_tag.is_some(),
            caller: Caller { sub: &facts.principal.sub, email: facts.principal.email.as_deref() },
        }
    }
}

/// What can be said without waiting: the body's fields, the caller's policy, the upstreams. What upstreams need of the head
/// is copied: it lies in the buffer of the client's connection, which is not used again while any of it is kept.
fn examine(tab: &Tab, inference: &Inference, head: &request::Parts, body: Bytes) -> Result<Admitted, Failure> {
    let fields = read_head(&body)?;
    let permit = inference.policies.permit(&tab.facts().principal, &fields.model)?;
    let groups = &tab.facts().principal.groups;
    let candidates = inference.upstreams.candidates(permit.model(), &fields.model, groups)?;
    let (query, headers) = (head.uri.query().map(str::to_owned), request_headers(&head.headers));
    Ok(Admitted { permit, candidates, endpoint: tab.endpoint(), query, headers, fields, body })
}

async fn reserve(tab: &mut Tab, inference: &Inference, ledger: &Ledger, admitted: &Admitted) -> Result<(), Failure> {
    let admission = Admission {
        id: fresh_id(inference),
        principal: Arc::clone(&tab.facts().principal),
        size: Size {
            body_bytes: admitted.body.len() as u64,
            max_tokens: admitted.fields.max_tokens,
            reach: ledger.is_strict().then(|| reach(&admitted.body)),
        },
        quotes: quotes(ledger, admitted),
        origin: tab.origin().clone(),
    };
    let reservation =
        ledger.reserve(&admitted.permit, admission).await.map_err(|refusal| blocked(inference, refusal))?;
    tab.hold(reservation);
    Ok(())
}

/// What each candidate costs.
fn quotes(ledger: &Ledger, admitted: &Admitted) -> Vec<Quote> {
    let quote = |candidate: &Candidate| {
        let Candidate { upstream, model_id } = candidate;
        ledger.quote(&admitted.permit, &admitted.fields.model, upstream.name(), model_id)
    };
    admitted.candidates.iter().map(quote).collect()
}

/// Ours alone: the request's own id may be the client's choice, and a repeated one must not settle another's reservation.
fn fresh_id(inference: &Inference) -> Uuid {
    let now = inference.clock.now();
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
}

fn blocked(inference: &Inference, refusal: Refusal) -> Failure {
    let retry_after = match &refusal {
        Refusal::Over(standing) | Refusal::TooDear { standing, .. } => {
            let left = standing.resets_at.duration_since(inference.clock.now());
            Some(left.try_into().unwrap_or_default())
        }
        Refusal::InFlight { retry_after } => Some(*retry_after),
        Refusal::Unbounded(_) | Refusal::Unavailable => None,
    };
    Failure::Blocked { refusal, retry_after }
}

/// A client may pause for so long while it sends its body. One that has vanished would keep its seat for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The whole body in one piece; without a copy when it came in one.
async fn read<B>(mut body: B, limit: u64) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(Failure::TooLarge);
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(LONGEST_PAUSE, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Failure::BodyStalled(LONGEST_PAUSE))? else { break };
        let Ok(data) = frame.map_err(|_| Failure::BodyCut)?.into_data() else { continue };
        if (first.len() + all.len() + data.len()) as u64 > limit {
            return Err(Failure::TooLarge);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(usize::try_from(announced).unwrap_or_default().max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Ids of clients longer than this are none.
const LONGEST_ID: usize = 256;

/// Where the request comes from, and whether its tag names none of the caller's groups. The session stands in its header,
/// else in `metadata.user_id`.
fn origin(inference: &Inference, facts: &Facts, headers: &HeaderMap, admitted: &Admitted) -> (Origin, bool) {
    let id = |header: &str| {
        let id = headers.get(header)?.to_str().ok()?;
        (!id.is_empty() && id.len() <= LONGEST_ID).then(|| id.to_owned())
    };
    let billing_group = billing_group(inference, facts, admitted);
    let origin = Origin {
        model_asked: admitted.fields.model.clone(),
        session_id: id("x-claude-code-session-id").or_else(|| admitted.fields.session_id.clone()),
        agent_id: id("x-claude-code-agent-id"),
        parent_agent_id: id("x-claude-code-parent-agent-id"),
        billing_group: billing_group.clone().flatten(),
    };
    (origin, billing_group == Some(None))
}

/// Which group the request's tag names, where the operator looks for one: `Some(None)` when it is none of the caller's.
#[expect(clippy::option_option, reason = "no tag, a tag that counts for nothing, and a group are three things")]
fn billing_group(inference: &Inference, facts: &Facts, admitted: &Admitted) -> Option<Option<String>> {
    let name = inference.config.billing_group_tag.as_deref()?;
    let value = admitted.fields.tags_value.as_ref()?;
    let tag = tag_named(&admitted.body, value, name);
    Some(tag.filter(|group| facts.principal.groups.contains(group)))
}

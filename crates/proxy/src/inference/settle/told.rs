//! What is told of a request: to the audit log, once, and to whoever reads the operational lines.

use control::audit::{AttemptEvent, Event, InferenceEvent};
use control::connect::chain;
use control::spend::{Money, Refusal, Scope};
use http::HeaderValue;
use wire::usage::Usage;

use super::{Outcome, Tab, Tried};
use crate::inference::Interrupted;

/// How a request ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) status: u16,
    pub(super) outcome: Outcome,
    pub(super) ms: u64,
    pub(super) ttfb_ms: Option<u64>,
    /// What it is charged for; `None`: nothing.
    pub(super) usage: Option<Usage>,
    pub(super) estimated: bool,
    /// `None` without a ledger.
    pub(super) cost: Option<Money>,
}

impl Tab {
    /// The answer broke off on its way.
    pub(in crate::inference) fn tell_broken_off(&self, why: &Interrupted) {
        let upstream = self.upstream.as_ref().map(|upstream| upstream.name());
        let status = self.served.as_ref().map(|served| served.status.as_u16());
        tracing::warn!(request_id = %self.facts.request_id, upstream, status, "answer broken off: {}", chain(why));
    }

    /// The answer came to an end, but what came is not whole.
    pub(in crate::inference) fn tell_half_document(&self) {
        let upstream = self.upstream.as_ref().map(|upstream| upstream.name());
        tracing::warn!(request_id = %self.facts.request_id, upstream, "no whole JSON document could be read from the answer");
    }

    /// The answer says nothing of its usage.
    pub(in crate::inference) fn tell_unmetered(&self) {
        if let Some(upstream) = &self.upstream {
            upstream.tell_unmetered();
        }
    }

    pub(super) fn tell_end(&self, end: &End) {
        let &End { status, outcome, ms, ttfb_ms, usage, estimated, cost } = end;
        let event = self.event(status, outcome);
        self.emit(&Event::Inference(Box::new(InferenceEvent {
            ms,
            ttfb_ms,
            input_tokens: usage.map(|usage| usage.input_tokens),
            output_tokens: usage.map(|usage| usage.output_tokens),
            cache_read_input_tokens: usage.map(|usage| usage.cache_read_input_tokens),
            cache_creation_input_tokens: usage
                .map(|usage| usage.cache_creation_5m_tokens.saturating_add(usage.cache_creation_1h_tokens)),
            cost_usd: cost.and_then(|cost| cost.dollars().parse().ok()),
            estimated,
            ..event
        })));
    }

    fn event(&self, status: u16, outcome: Outcome) -> InferenceEvent<'_> {
        fn text(value: &Option<HeaderValue>) -> Option<&str> {
            value.as_ref()?.to_str().ok()
        }
        let served = self.served.as_ref();
        InferenceEvent {
            sub: &self.facts.principal.sub,
            email: self.facts.principal.email.as_deref(),
            path: self.endpoint.path(),
            model: self.model.as_deref(),
            upstream: self.upstream.as_ref().map(|upstream| upstream.name()),
            upstream_request_id: served.and_then(|served| text(&served.request_id)),
            upstream_cloud_request_id: served.and_then(|served| text(&served.cloud_request_id)),
            status,
            outcome: outcome.as_str(),
            session_id: self.origin.session_id.as_deref(),
            attempts: u32::try_from(self.tried.len()).unwrap_or(u32::MAX),
            tried: self.tried.iter().map(Tried::event).collect(),
            load_test: self.inference.load_test.is_some(),
            billing_group: self.origin.billing_group.as_deref(),
            billing_group_ignored: self.billing_group_ignored,
            ..InferenceEvent::default()
        }
    }

    /// Written instead of an inference event (contract B2).
    pub(super) fn audit_block(&self, refusal: &Refusal) {
        let sub = &self.facts.principal.sub;
        let (cause, standing) = match refusal {
            Refusal::Over(standing) | Refusal::TooDear { standing, .. } => ("over_limit", Some(standing)),
            Refusal::InFlight { .. } => ("in_flight", None),
            Refusal::Unbounded(_) => ("unbounded", None),
            Refusal::Unavailable => ("store_error", None),
        };
        self.inference.meters.was_blocked(cause);
        let pool = standing.filter(|standing| standing.cap.shared).map(|standing| [standing.cap.source.id()]);
        let cents = standing.map(|standing| standing.cap.cents.to_string());
        self.emit(&Event::SpendBlocked {
            sub,
            cause,
            cap_cents: cents.as_deref(),
            source: standing.map(|standing| match standing.cap.source {
                _ if standing.cap.shared => "group_pool",
                Scope::User(_) => "user",
                Scope::Group(_) => "rbac_group",
                Scope::Organization => "organization",
            }),
            period: standing.map(|standing| standing.cap.period.as_str()),
            groups: pool.as_ref().map(|pool| &pool[..]),
        });
    }

    fn emit(&self, event: &Event<'_>) {
        self.inference.audit.emit(Some(&self.facts.request_id), event);
    }
}

impl Tried {
    fn event(&self) -> AttemptEvent<'_> {
        AttemptEvent { upstream: self.upstream.name(), ended: self.ended, status: self.status, ms: self.ms }
    }
}

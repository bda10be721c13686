//! Money set aside for one request, until it is known what the request cost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wire::usage::Usage;

use super::batch::{Entry, Granted, Outcome, Record, Settle};
use super::{Shared, Standing};
use crate::spend::{Money, Part, Quote, Split};

/// Bytes of body to a token of prompt, where nobody said how many tokens there were.
const BYTES_PER_TOKEN: u64 = 4;

/// Money set aside for one request. Ended by [`Reservation::settle`] or [`Reservation::release`]; one that is dropped
/// without is settled at its estimate.
#[must_use = "settle or release it"]
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    record: Arc<Record>,
    quotes: Vec<Quote>,
    amount: Money,
    standing: Option<Arc<Standing>>,
    /// The account of the pool that is charged too.
    pool: Option<Arc<str>>,
    ended: bool,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The upstream that answered.
    pub upstream: String,
    /// The model's id there.
    pub model_sent: Option<String>,
    /// What was used.
    pub usage: Usage,
    /// The usage rests on an estimate, not on the upstream's final word.
    pub estimated: bool,
    /// The status sent to the client.
    pub status: u16,
    /// Milliseconds from arrival to end.
    pub ms: u64,
    /// Milliseconds to the first byte of the body.
    pub ttfb_ms: Option<u64>,
}

impl Reservation {
    pub(super) fn new(
        shared: Arc<Shared>,
        record: Arc<Record>,
        quotes: Vec<Quote>,
        amount: Money,
        standing: Option<Arc<Standing>>,
    ) -> Self {
        shared.board.reservations.fetch_add(1, Ordering::Relaxed);
        Self { shared, record, quotes, amount, standing, pool: None, ended: false }
    }

    pub(super) fn granted(
        shared: Arc<Shared>,
        record: Arc<Record>,
        quotes: Vec<Quote>,
        amount: Money,
        granted: Granted,
    ) -> Self {
        let mut reservation = Self::new(shared, record, quotes, amount, granted.standing.map(Arc::new));
        reservation.pool = granted.pool;
        reservation
    }

    /// Where the principal stood against its fullest cap before this request; `None` without caps.
    #[must_use]
    pub fn standing(&self) -> Option<&Standing> {
        self.standing.as_deref()
    }

    /// The meter has seen this much: when it costs more than was set aside, more is set aside.
    pub fn grow(&mut self, upstream: &str, seen: &Usage) {
        let charge = self.charge(upstream, seen);
        // An estimate is no proof that more was used than can be.
        if charge <= self.amount || self.record.is_bounded {
            return;
        }
        // A quarter more than was seen, so that a long answer grows it now and then and not with every frame.
        self.amount = charge.plus(Money::from_nano(charge.nano() / 4));
        self.shared.enter(Entry::Grow { id: self.record.id, to: self.amount });
    }

    /// What `usage` costs on `upstream`.
    #[must_use]
    pub fn charge(&self, upstream: &str, usage: &Usage) -> Money {
        self.quote(upstream).map_or(Money::ZERO, |quote| quote.charge(usage))
    }

    /// What that upstream quoted. Only those that did are asked.
    fn quote(&self, upstream: &str) -> Option<&Quote> {
        self.quotes.iter().find(|quote| quote.upstream() == upstream)
    }

    /// The usage to assume when a request was sent and no word of its tokens ever came (R18): its prompt, by size.
    #[must_use]
    pub fn expected(&self) -> Usage {
        Usage { input_tokens: self.record.body_bytes.div_ceil(BYTES_PER_TOKEN), ..Usage::default() }
    }

    /// Swaps the reservation for the real charge and returns it. Takes effect exactly once, also when the process dies
    /// right after (then at the estimate).
    pub fn settle(mut self, settlement: Settlement) -> Money {
        let (record, usage) = (&self.record, &settlement.usage);
        let quote = self.quote(&settlement.upstream);
        let mut split = quote.map(|quote| quote.split(usage)).unwrap_or_default();
        let mut charge = split.sum();
        if settlement.estimated && self.record.is_bounded {
            charge = charge.min(self.amount);
        }
        if charge < split.sum() {
            split = Split::default();
        }
        if quote.is_some() && !settlement.estimated {
            let answer = split.of(Part::Output);
            self.shared.estimates().learn(&record.model.id, record.body_bytes, charge.minus(answer), answer);
        }
        let outcome = Outcome {
            upstream: Some(settlement.upstream),
            model_sent: settlement.model_sent,
            status: Some(settlement.status),
            usage: settlement.usage,
            charge,
            split,
            estimated: settlement.estimated,
            ms: Some(settlement.ms),
            ttfb_ms: settlement.ttfb_ms,
        };
        self.end(outcome);
        charge
    }

    /// Ends it without a charge: nothing was used.
    pub fn release(mut self, status: u16, ms: u64) {
        self.end(Outcome { status: Some(status), ms: Some(ms), ..Outcome::default() });
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        let (record, pool) = (Arc::clone(&self.record), self.pool.take());
        self.shared.enter(Entry::Settle(Settle { record, pool, outcome }));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.board.reservations.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            // Forgotten by its owner (a panic): what it may have cost is charged rather than given away.
            self.end(Outcome { charge: self.amount, estimated: true, ..Outcome::default() });
        }
    }
}

//! One batch after the other goes to the database, and whoever waits for it is answered.

use jiff::Timestamp;

use super::{HOLD, MOST, Writer};
use crate::spend::Overshoot;
use crate::spend::ledger::batch::{Ask, Batch, Decision, Promise, Settle, Verdict};
use crate::spend::ledger::work::{Decisions, Work};
use crate::store::StoreError;

impl Writer {
    pub(super) async fn commit(&mut self) {
        if self.down {
            self.backlog.join(std::mem::take(&mut self.batch));
            return self.answer_all_unavailable();
        }
        self.batch.draw(&mut self.backlog, MOST);
        let durable = self.must_be_durable();
        match self.try_commit(durable).await {
            Ok(decisions) => {
                self.find_database();
                let batch = std::mem::take(&mut self.batch);
                self.keep(batch.settles, durable);
                self.answer(decisions);
                self.write_principals().await;
                self.answer_flushes();
            }
            Err(error) if error.is_outage() => self.hold_back(&error),
            Err(error) => self.commit_one_by_one(&error).await,
        }
    }

    /// Remembers settlements until they are durable.
    fn keep(&mut self, settles: Vec<Settle>, durable: bool) {
        if durable {
            self.committed.clear();
        } else if self.committed.is_empty() {
            self.committed = settles;
        } else {
            self.committed.extend(settles);
            return;
        }
        self.durable_at = self.shared.instant();
    }

    fn answer_flushes(&mut self) {
        if !self.backlog.is_empty() {
            return;
        }
        for done in self.flushes.drain(..) {
            // Who no longer waits need not be told.
            let _ = done.send(());
        }
    }

    /// One entry that the database refuses must not keep the others from being recorded.
    async fn commit_one_by_one(&mut self, refusal: &StoreError) {
        tracing::warn!("ledger: {refusal}; each entry is tried by itself");
        let mut rest = std::mem::take(&mut self.batch).split();
        let asks = std::mem::take(&mut self.asks);
        while let Some(part) = rest.pop() {
            self.batch = part;
            match self.try_commit(true).await {
                Ok(_) => self.batch = Batch::default(),
                Err(error) if error.is_outage() => {
                    rest.into_iter().for_each(|part| self.batch.join(part));
                    self.asks = asks;
                    return self.hold_back(&error);
                }
                Err(error) => {
                    tracing::error!(entry = %self.batch.describe(), "ledger: the database refuses an entry: {error}");
                    self.batch = Batch::default();
                }
            }
        }
        let mut asks = asks.into_iter();
        while let Some(ask) = asks.next() {
            let waiting = std::mem::replace(&mut self.asks, vec![ask]);
            match self.try_commit(true).await {
                Ok(decisions) => self.answer(decisions),
                Err(error) if error.is_outage() => {
                    self.asks.extend(waiting.into_iter().chain(asks));
                    return self.hold_back(&error);
                }
                Err(error) => {
                    tracing::error!("ledger: a request could not be decided: {error}");
                    self.answer_all_unavailable();
                }
            }
            self.asks.extend(waiting);
        }
        self.find_database();
        self.answer_flushes();
    }

    pub(super) async fn try_commit(&mut self, durable: bool) -> Result<Decisions, StoreError> {
        if self.batch.is_empty() && self.asks.is_empty() && !self.leases.are_stale() && !durable {
            return Ok(Decisions::default());
        }
        let now = self.shared.clock.now();
        let work = Work {
            store: &self.shared.store,
            caps: &self.shared.caps,
            accounts: &self.shared.accounts,
            leases: &mut self.leases,
            overshoot: self.shared.overshoot,
            may_lease: !self.ending && self.shared.overshoot == Overshoot::Bounded,
            replica: &self.replica,
            now,
            keys: self.shared.keys(now),
            instant: self.shared.instant(),
            durable,
            expires_at: now.checked_add(HOLD).unwrap_or(Timestamp::MAX),
        };
        let done = work.commit(&self.batch, &self.asks).await;
        if done.is_err() {
            self.leases.doubt();
        }
        done
    }

    fn answer(&mut self, decisions: Decisions) {
        for (principal, snapshot) in decisions.snapshots {
            self.shared.accounts.remember(&principal, snapshot);
        }
        for (account, month, settled) in decisions.pools {
            self.shared.accounts.remember_pool(account, month, settled, self.shared.instant());
        }
        let asks = std::mem::take(&mut self.asks);
        let mut verdicts = decisions.verdicts.into_iter();
        for ask in asks {
            match verdicts.next().flatten() {
                None => self.asks.push(ask),
                Some(verdict) => self.tell(ask, verdict),
            }
        }
    }

    fn tell(&self, ask: Ask, decision: Decision) {
        let verdict = match decision {
            Decision::Granted(granted) => {
                Verdict::Granted(Promise::new(ask.record.id, granted, self.shared.entries.clone()))
            }
            Decision::Over(standing) => Verdict::Over(standing),
            Decision::TooDear(standing) => Verdict::TooDear(standing),
            Decision::InFlight => Verdict::InFlight,
        };
        // A grant that nobody receives gives itself back.
        drop(ask.reply.send(verdict));
    }

    pub(super) fn answer_all_unavailable(&mut self) {
        for ask in std::mem::take(&mut self.asks) {
            // It may have been granted by a transaction that was not heard of. Whoever does not go ahead takes that back.
            let doubt = Promise::new(ask.record.id, (), self.shared.entries.clone());
            drop(ask.reply.send(Verdict::Unavailable(doubt)));
        }
    }

    /// Keeps what must not be lost for the next attempt, and lets nobody wait for it.
    pub(super) fn hold_back(&mut self, error: &StoreError) {
        self.lose_database();
        self.answer_all_unavailable();
        self.backlog.join(std::mem::take(&mut self.batch));
        tracing::warn!(waiting = self.backlog.len(), "ledger: {error}; what was settled is kept and tried again");
    }
}

//! What this replica can say of a request by itself: from what it knows of caps and accounts, and how much it expects.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use wire::catalog::Model;

use super::batch::{Aside, Entry, Granted, Record};
use super::local::Wanted;
use super::{Admission, Refusal, Shared, Standing, Way};
use crate::identity::Principal;
use crate::spend::estimate::Estimates;
use crate::spend::period::Keys;
use crate::spend::{Money, Period, PoolInForce, table};
use crate::store::StoreError;

impl Shared {
    pub(super) fn enter(&self, entry: Entry) {
        // Fails only once the writer has ended, after everything was settled.
        let _ = self.entries.send(entry);
    }

    pub(super) fn estimates(&self) -> std::sync::MutexGuard<'_, Estimates> {
        self.estimates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a request is admitted, and the name of its account.
    pub(super) fn way(
        &self,
        principal: &Principal,
        is_limited: bool,
        keys: &Arc<Keys>,
        amount: Money,
    ) -> (Arc<str>, Way) {
        let now = self.instant();
        if !is_limited {
            return (self.accounts.name(principal, now), Way::Free);
        }
        let revision = self.caps.revision();
        match self.accounts.admit(&Wanted { principal, keys, revision, amount, now }) {
            (account, Some(standing)) => (account, Way::Leased(standing)),
            (account, None) => (account, Way::Ask),
        }
    }

    /// What is set aside for a request: the most it can cost when no cap may be passed, else what it is expected to cost.
    pub(super) fn amount(&self, model: &Model, admission: &Admission, is_bounded: bool) -> Result<Money, Refusal> {
        let size = &admission.size;
        if is_bounded {
            let most = size.most(model).map_err(Refusal::Unbounded)?;
            return Ok(most.on_the_dearest(&admission.quotes));
        }
        let bound = size.most_of_text().on_the_dearest(&admission.quotes);
        Ok(self.estimates().expected(&model.id, size.body_bytes, bound))
    }

    /// The exhausted cap or pool that resets last, as far as is known here, and when that was read.
    pub(super) fn known_over(&self, principal: &Principal, keys: &Arc<Keys>) -> Option<(Standing, Instant)> {
        let now = self.clock.now();
        let snapshot = self.accounts.snapshot(principal);
        let own = snapshot.and_then(|known| Some((known.over(&self.caps.in_force(principal), now)?, known.read_at)));
        let pools = self.caps.pools(principal);
        let spent = |pool: &PoolInForce| {
            let known = self.accounts.pool(&pool.account, keys.key(Period::Monthly));
            known.filter(|(settled, _)| *settled >= pool.limit())
        };
        let first = pools.iter().map(spent).collect::<Option<Vec<_>>>().and_then(|all| all.first().copied());
        let pooled = pools.first().zip(first);
        let pooled = pooled.map(|(pool, (settled, read_at))| (Standing::of_pool(pool, settled, now), read_at));
        own.into_iter().chain(pooled).max_by_key(|(standing, _)| standing.resets_at)
    }

    /// Reads how a principal and its pools stand; without the database gives what the request is to be told.
    pub(super) async fn read(&self, principal: &Principal, keys: &Arc<Keys>) -> Result<(), Result<(), Refusal>> {
        if self.board.down.load(Ordering::Relaxed) {
            return Err(self.without_database());
        }
        let read_at = self.instant();
        let account = self.accounts.name(principal, read_at);
        let pools: Vec<_> = self.caps.pools(principal).into_iter().map(|pool| pool.account).collect();
        let read = async {
            let own = table::read_account(&self.store, &account, keys, read_at).await?;
            let spent =
                if pools.is_empty() { HashMap::new() } else { table::settled(&self.store, &pools, keys).await? };
            Ok::<_, StoreError>((own, spent))
        };
        let (own, mut spent) = read.await.map_err(|error| {
            tracing::warn!("spend check: {error}");
            if error.is_outage() {
                self.enter(Entry::Lost);
            }
            self.without_database()
        })?;
        self.accounts.remember(principal, own);
        for account in pools {
            let key = (Arc::clone(keys.key(Period::Monthly)), account);
            let settled = spent.remove(&key).unwrap_or_default();
            self.accounts.remember_pool(key.1, key.0, settled, read_at);
        }
        Ok(())
    }

    /// Whose groups could not be read may be under caps that nobody here knows of.
    pub(super) fn know_groups(&self, principal: &Principal) -> Result<(), Refusal> {
        if principal.groups_unread && self.caps.name_groups() { self.without_database() } else { Ok(()) }
    }

    pub(super) fn counted<T>(&self, verdict: Result<T, Refusal>) -> Result<T, Refusal> {
        verdict.inspect_err(|refusal| self.board.count(refusal))
    }

    /// The names of the current periods, formatted once a day.
    pub(super) fn keys(&self, now: Timestamp) -> Arc<Keys> {
        if let Some(keys) = self.keys.load_full().filter(|keys| keys.hold_at(now)) {
            return keys;
        }
        let keys = Arc::new(Keys::at(now));
        self.keys.store(Some(Arc::clone(&keys)));
        keys
    }

    pub(super) fn without_database(&self) -> Result<(), Refusal> {
        if self.fail_closed { Err(Refusal::Unavailable) } else { Ok(()) }
    }

    /// For a request that nobody could decide about. When it goes ahead, it is counted when the database is back.
    pub(super) fn ungranted(&self, record: &Arc<Record>, amount: Money) -> Result<Granted, Refusal> {
        self.without_database()?;
        let pool = self.caps.pools(&record.principal).into_iter().next().map(|pool| pool.account);
        let aside = Aside { record: Arc::clone(record), amount, pool: pool.clone() };
        self.enter(Entry::Admit { aside, leased: false });
        Ok(Granted { standing: None, pool })
    }

    pub(super) fn instant(&self) -> Instant {
        self.clock.instant()
    }
}

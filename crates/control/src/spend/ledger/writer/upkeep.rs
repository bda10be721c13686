//! What the writer does now and then: it keeps alive what is in flight, settles what dead replicas left, and writes down who was
//! seen.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use jiff::Timestamp;

use super::{HOLD, RENEW_EVERY, USE, Writer};
use crate::identity::Principal;
use crate::spend::Period;
use crate::spend::ledger::batch::Record;
use crate::spend::table::{self, Swept};
use crate::store::StoreError;

impl Writer {
    pub(super) async fn upkeep(&mut self, ticks: u32) {
        // To sum up a long backlog takes a moment: now and then will do.
        self.tell_figures();
        if self.down {
            return;
        }
        match self.try_upkeep(ticks).await {
            Ok(()) => {}
            Err(error) if error.is_outage() => self.hold_back(&error),
            Err(error) => tracing::warn!("ledger upkeep: {error}"),
        }
    }

    async fn try_upkeep(&mut self, ticks: u32) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.caps.refresh_if_changed().await?;
        let instant = shared.instant();
        self.leases.give_back(&shared.accounts, &shared.keys(shared.clock.now()), instant, false);
        shared.accounts.forget(instant);
        if !ticks.is_multiple_of(RENEW_EVERY) && !self.sweeping {
            return Ok(());
        }
        let now = shared.clock.now();
        let until = now.checked_add(HOLD).unwrap_or(Timestamp::MAX);
        table::renew_reservations(&shared.store, &self.replica, until).await?;
        self.renew_leases(until).await?;
        let shared = &self.shared;
        // Nobody else can be alive on an embedded database: what is left there was left by a process that died.
        let before = if shared.store.is_embedded() { Timestamp::MAX } else { now };
        loop {
            let Swept { settled, released, more } = table::sweep_expired(&shared.store, before, &self.replica).await?;
            if settled + released > 0 {
                tracing::warn!(
                    settled,
                    released,
                    "ledger: requests of a process that died were charged at their estimates, and its leases given back"
                );
            }
            self.sweeping = more;
            // What a predecessor left belongs to the totals before anything is admitted; later nobody waits for the rest.
            if !more || (ticks > 0 && !self.inbox.is_empty()) {
                return Ok(());
            }
        }
    }

    async fn renew_leases(&mut self, until: Timestamp) -> Result<(), StoreError> {
        let use_until = self.shared.instant() + USE;
        let renewed = table::renew_leases(&self.shared.store, &self.replica, until).await?;
        if renewed != self.leases.rows() {
            // Swept, because this replica was silent for too long: what is held has to be written anew.
            self.leases.doubt();
        }
        self.shared.accounts.hold_leases_until(use_until);
        Ok(())
    }

    /// Whoever is seen is written once a day, and when something is new about the person.
    pub(super) fn meet(&mut self, record: &Record) {
        let (principal, day) = (&record.principal, record.keys.key(Period::Daily));
        if self.known_on.as_ref() != Some(day) {
            self.known.clear();
            self.known_on = Some(Arc::clone(day));
        }
        let print = fingerprint(principal);
        if self.known.get(&principal.sub) != Some(&print) {
            self.known.insert(principal.sub.clone(), print);
            self.unknown.insert(principal.sub.clone(), Arc::clone(principal));
        }
    }

    pub(super) async fn write_principals(&mut self) {
        if self.unknown.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        // Ordered by subject, so that two replicas never wait for each other.
        let mut principals: Vec<_> = self.unknown.values().collect();
        principals.sort_by(|a, b| a.sub.cmp(&b.sub));
        match table::put_principals(&self.shared.store, principals.into_iter(), now).await {
            Ok(()) => self.unknown.clear(),
            Err(error) => {
                tracing::warn!("ledger: who was seen is not recorded: {error}");
                if error.is_outage() {
                    self.lose_database();
                }
                for (sub, _) in self.unknown.drain() {
                    self.known.remove(&sub);
                }
            }
        }
    }
}

fn fingerprint(principal: &Principal) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&principal.email, &principal.name, &principal.groups).hash(&mut hasher);
    hasher.finish()
}

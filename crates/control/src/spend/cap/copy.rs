//! All caps in memory, as every request reads them: which are in force for whom.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Cap, InForce};
use crate::identity::Principal;
use crate::spend::{GroupMode, Period};

#[derive(Debug, Default)]
pub(super) struct Copy {
    pub(super) revision: i64,
    pub(super) organization: ByPeriod,
    pub(super) groups: HashMap<String, ByPeriod>,
    pub(super) users: HashMap<String, ByPeriod>,
}

/// A target's caps by period; the outer `None`: no cap is set.
pub(super) type ByPeriod = [Option<Arc<Cap>>; 3];

impl Copy {
    pub(super) fn has_pool(&self, principal: &Principal) -> bool {
        let monthly = |group: &String| self.groups.get(group)?[Period::Monthly as usize].as_ref();
        principal.groups.iter().filter_map(monthly).any(|cap| cap.pool.is_some_and(|pool| !pool.paused))
    }

    pub(super) fn in_force(&self, principal: &Principal, period: Period, mode: GroupMode) -> Option<InForce> {
        let cap = self.deciding(principal, period, mode)?;
        let cents = cap.cents?;
        Some(InForce { period, cents, source: cap.scope.clone(), shared: false, id: cap.id.clone() })
    }

    pub(super) fn deciding(&self, principal: &Principal, period: Period, mode: GroupMode) -> Option<Arc<Cap>> {
        let slot = period as usize;
        if let Some(own) = self.users.get(&principal.sub).and_then(|caps| caps[slot].as_ref()) {
            return Some(Arc::clone(own));
        }
        let of_groups = principal.groups.iter().filter_map(|group| self.groups.get(group)?[slot].as_ref());
        let unlimited = i64::MAX;
        let chosen = match mode {
            GroupMode::Min => of_groups.min_by_key(|cap| cap.cents.unwrap_or(unlimited)),
            GroupMode::Max => of_groups.max_by_key(|cap| cap.cents.unwrap_or(unlimited)),
        };
        chosen.or(self.organization[slot].as_ref()).map(Arc::clone)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::spend::Scope;

    fn cap(scope: Scope, cents: Option<i64>) -> Arc<Cap> {
        let id = format!("{}:{}", scope.kind(), scope.id());
        let at = Timestamp::UNIX_EPOCH;
        Arc::new(Cap { id, scope, period: Period::Daily, cents, pool: None, created_at: at, updated_at: at })
    }

    fn copy(caps: &[(Scope, Option<i64>)]) -> Copy {
        let mut copy = Copy::default();
        for (scope, cents) in caps {
            let target = match scope {
                Scope::Organization => &mut copy.organization,
                Scope::Group(group) => copy.groups.entry(group.clone()).or_default(),
                Scope::User(user) => copy.users.entry(user.clone()).or_default(),
            };
            target[0] = Some(cap(scope.clone(), *cents));
        }
        copy
    }

    fn alice(groups: &[&str]) -> Principal {
        Principal {
            sub: "alice".to_owned(),
            email: None,
            name: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            groups_unread: false,
            session: None,
            billing_group_tag: None,
        }
    }

    fn group(name: &str) -> Scope {
        Scope::Group(name.to_owned())
    }

    fn user(name: &str) -> Scope {
        Scope::User(name.to_owned())
    }

    #[test]
    fn a_cap_of_ones_own_beats_those_of_groups_and_they_beat_the_organisations() {
        let all = copy(&[(Scope::Organization, Some(1)), (group("eng"), Some(2)), (user("alice"), Some(3))]);
        let found = |who: &Principal| all.in_force(who, Period::Daily, GroupMode::Min).unwrap().cents;
        assert_eq!(found(&alice(&["eng"])), 3);
        let bob = Principal { sub: "bob".to_owned(), ..alice(&["eng"]) };
        assert_eq!(found(&bob), 2);
        assert_eq!(found(&Principal { groups: Vec::new(), ..bob }), 1);
    }

    #[test]
    fn an_unlimited_cap_of_ones_own_lifts_every_other() {
        let all = copy(&[(Scope::Organization, Some(1)), (user("alice"), None)]);
        assert_eq!(all.in_force(&alice(&[]), Period::Daily, GroupMode::Min), None);
    }

    #[test]
    fn of_several_groups_the_mode_decides_and_unlimited_wins_only_in_max_mode() {
        let all = copy(&[(group("a"), Some(5)), (group("b"), Some(9)), (group("c"), None)]);
        let found = |groups: &[&str], mode| all.in_force(&alice(groups), Period::Daily, mode).map(|cap| cap.cents);
        assert_eq!(found(&["a", "b"], GroupMode::Min), Some(5));
        assert_eq!(found(&["a", "b"], GroupMode::Max), Some(9));
        assert_eq!(found(&["a", "b", "c"], GroupMode::Min), Some(5));
        assert_eq!(found(&["a", "b", "c"], GroupMode::Max), None);
    }

    #[test]
    fn a_cap_counts_in_its_own_period_only() {
        let all = copy(&[(user("alice"), Some(3))]);
        assert_eq!(all.in_force(&alice(&[]), Period::Weekly, GroupMode::Min), None);
    }
}

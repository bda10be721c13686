//! Whom a policy is for. Knows groups and e-mail domains, and nothing of what the policy says.

use std::collections::HashSet;

use super::PolicyConfig;

/// The `match:` of one policy; a missing condition is met by everyone.
#[derive(Debug)]
pub(super) struct Matcher {
    groups: Option<HashSet<String>>,
    email_domains: Option<HashSet<String>>,
}

impl Matcher {
    pub(super) fn new(policy: &PolicyConfig) -> Self {
        let set = |names: &Option<Vec<String>>| names.as_ref().map(|names| names.iter().cloned().collect());
        Self { groups: set(&policy.groups), email_domains: set(&policy.email_domains) }
    }

    /// `match: {}`. A list without entries is a condition nobody meets, not a missing one.
    pub(super) fn matches_everyone(&self) -> bool {
        self.groups.is_none() && self.email_domains.is_none()
    }

    /// A list without entries.
    pub(super) fn matches_nobody(&self) -> bool {
        [&self.groups, &self.email_domains].into_iter().flatten().any(HashSet::is_empty)
    }

    /// Both conditions hold: one of the groups exactly, and the domain in lower case.
    pub(super) fn matches(&self, groups: &[String], email_domain: Option<&str>) -> bool {
        let in_group = |wanted: &HashSet<String>| groups.iter().any(|group| wanted.contains(group));
        let in_domain = |wanted: &HashSet<String>| email_domain.is_some_and(|domain| wanted.contains(domain));
        self.groups.as_ref().is_none_or(in_group) && self.email_domains.as_ref().is_none_or(in_domain)
    }

    /// Which of the conditions does not hold, in words.
    pub(super) fn why_not(&self, groups: &[String], email_domain: Option<&str>) -> Option<&'static str> {
        let alone = |groups, email_domains| Self { groups, email_domains }.matches(&[], email_domain);
        if self.matches(groups, email_domain) {
            None
        } else if alone(None, self.email_domains.clone()) {
            Some("none of its groups")
        } else {
            Some("another e-mail domain")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(groups: Option<&[&str]>, email_domains: Option<&[&str]>) -> Matcher {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let config = PolicyConfig {
            groups: groups.map(owned),
            email_domains: email_domains.map(owned),
            ..PolicyConfig::default()
        };
        Matcher::new(&config)
    }

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn one_group_in_common_is_enough() {
        let matcher = matcher(Some(&["eng", "ops"]), None);
        assert!(matcher.matches(&groups(&["sales", "ops"]), None));
        assert!(!matcher.matches(&groups(&["sales"]), None));
        assert!(!matcher.matches(&[], None));
    }

    #[test]
    fn group_names_are_compared_exactly() {
        let matcher = matcher(Some(&["eng"]), None);
        for other in ["Eng", "eng ", "engineering", "/eng"] {
            assert!(!matcher.matches(&groups(&[other]), None), "{other}");
        }
    }

    #[test]
    fn a_domain_is_compared_whole() {
        let matcher = matcher(None, Some(&["example.com"]));
        assert!(matcher.matches(&[], Some("example.com")));
        for other in [None, Some("sub.example.com"), Some("badexample.com"), Some("")] {
            assert!(!matcher.matches(&[], other), "{other:?}");
        }
    }

    #[test]
    fn both_conditions_must_hold() {
        let matcher = matcher(Some(&["eng"]), Some(&["example.com"]));
        assert!(matcher.matches(&groups(&["eng"]), Some("example.com")));
        assert!(!matcher.matches(&groups(&["eng"]), Some("other.com")));
        assert!(!matcher.matches(&groups(&["ops"]), Some("example.com")));
    }

    #[test]
    fn no_condition_matches_everyone_and_an_empty_list_matches_nobody() {
        assert!(matcher(None, None).matches_everyone());
        assert!(matcher(None, None).matches(&[], None));
        assert!(!matcher(Some(&[]), None).matches_everyone());
        assert!(!matcher(Some(&[]), None).matches(&groups(&["eng"]), Some("example.com")));
    }
}

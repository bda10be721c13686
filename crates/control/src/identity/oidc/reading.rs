//! What is known of a person so far, read from one place after another.

use wire::oidc::Claims;

use super::rules::{self, Person};
use crate::identity::OidcConfig;

/// What was read of a person so far, and where from.
pub(super) struct Read {
    pub(super) person: Person,
    /// The groups claim was there, if only to say that there are none.
    pub(super) groups_known: bool,
    pub(super) email_verified: Option<bool>,
    pub(super) idp_sid: Option<String>,
    pub(super) claim_names: String,
}

impl Read {
    pub(super) fn nothing_of(sub: &str) -> Self {
        let person = Person { sub: sub.to_owned(), email: None, name: None, groups: Vec::new(), all_groups: None };
        Self { person, groups_known: false, email_verified: None, idp_sid: None, claim_names: String::new() }
    }

    pub(super) fn of_id_token(claims: &Claims, config: &OidcConfig) -> Self {
        Self {
            person: rules::person(claims, config),
            // The directory has the last word on groups where there is one.
            groups_known: config.google_groups.is_none() && claims.lookup(&config.groups_claim).is_some(),
            email_verified: claims.email_verified(),
            idp_sid: claims.string("sid").map(str::to_owned),
            claim_names: claims.names().collect::<Vec<_>>().join(","),
        }
    }

    /// Fills what is missing; overrides nothing.
    pub(super) fn fill_from(&mut self, userinfo: &Claims, config: &OidcConfig) {
        let other = rules::person(userinfo, config);
        if self.person.email.is_none() && other.email.is_some() {
            self.person.email = other.email;
            // It speaks of this e-mail address.
            self.email_verified = userinfo.email_verified().or(self.email_verified);
        }
        if !self.groups_known && config.google_groups.is_none() {
            self.person.groups = other.groups;
            self.groups_known = userinfo.lookup(&config.groups_claim).is_some();
        }
        self.person.name = self.person.name.take().or(other.name);
        let names = userinfo.names().collect::<Vec<_>>().join(",");
        self.claim_names.push_str("; userinfo claim names: ");
        self.claim_names.push_str(&names);
    }

    /// The groups as another place than a claim says.
    pub(super) fn learn_groups(&mut self, groups: Vec<String>) {
        self.person.groups = groups;
        self.groups_known = true;
    }

    pub(super) fn keep_last_known(&mut self, known: &Person) {
        if self.person.email.is_none() {
            self.person.email.clone_from(&known.email);
        }
        if self.person.name.is_none() {
            self.person.name.clone_from(&known.name);
        }
        if !self.groups_known {
            self.person.groups.clone_from(&known.groups);
            self.person.all_groups.clone_from(&known.all_groups);
        }
    }
}

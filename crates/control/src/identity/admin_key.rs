//! Admin keys: the automation's way into the admin API.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::Principal;

/// The key lists of the `admin:` section.
#[derive(Debug, Clone, Default)]
pub struct AdminKeys {
    /// `admin.write_keys`: may do everything.
    pub write: Vec<AdminKey>,
    /// `admin.read_keys`: may read.
    pub read: Vec<AdminKey>,
}

/// One named key.
#[derive(Debug, Clone)]
pub struct AdminKey {
    /// `id`: what the audit calls it; unique across both lists.
    pub id: String,
    /// `key`: at least 32 characters.
    pub key: SecretString,
}

/// What an admin credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// An authenticated administrator.
#[derive(Debug, Clone)]
pub struct Admin {
    actor: String,
    access: Access,
}

/// The proof that an administrator may change things; what changes things asks for it.
#[derive(Debug, Clone)]
pub struct WriteAccess {
    actor: String,
}

impl Admin {
    /// The holder of a person's bearer whose groups meet `admin_groups`; `None` when they do not.
    #[must_use]
    pub fn person(principal: &Principal, admin_groups: &[String]) -> Option<Self> {
        let admitted = principal.groups.iter().any(|group| admin_groups.contains(group));
        admitted.then(|| Self { actor: format!("oidc:{}", principal.sub), access: Access::Write })
    }

    /// The yes to a change; `None` for a reader.
    #[must_use]
    pub fn write_access(&self) -> Option<WriteAccess> {
        (self.access == Access::Write).then(|| WriteAccess { actor: self.actor.clone() })
    }
}

impl WriteAccess {
    /// Who the audit says it was: `admin-key:<id>` or `oidc:<sub>`.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }
}

impl AdminKeys {
    /// The key's holder; `None` when no key equals `presented`. Every key is compared, in constant time each.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<Admin> {
        let lists = [(&self.write, Access::Write), (&self.read, Access::Read)];
        let mut found = None;
        for (keys, access) in lists {
            for key in keys {
                let same: bool = key.key.expose_secret().as_bytes().ct_eq(presented.as_bytes()).into();
                if same && found.is_none() {
                    found = Some(Admin { actor: format!("admin-key:{}", key.id), access });
                }
            }
        }
        found
    }
}

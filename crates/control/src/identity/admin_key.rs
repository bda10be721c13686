//! Admin keys: the automation's way into the admin API.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

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

impl AdminKeys {
    /// The key's id and access; `None` when no key equals `presented`. Every key is compared, in constant time each.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<(&str, Access)> {
        let lists = [(&self.write, Access::Write), (&self.read, Access::Read)];
        let mut found = None;
        for (keys, access) in lists {
            for key in keys {
                let same: bool = key.key.expose_secret().as_bytes().ct_eq(presented.as_bytes()).into();
                if same && found.is_none() {
                    found = Some((key.id.as_str(), access));
                }
            }
        }
        found
    }
}

//! The authenticated caller.

/// Who is calling, as the bearer or the identity provider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The identity provider's subject; never empty.
    pub sub: String,
    /// E-mail address in the provider's letter case.
    pub email: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// Group names, as the provider orders them.
    pub groups: Vec<String>,
    /// There are more of them than the bearer carries, and they could not be read: those that the configuration names are there.
    pub groups_unread: bool,
    /// The session that the bearer belongs to (`sid`); absent in bearers of the reference.
    pub session: Option<String>,
    /// `billing_group_tag` claim.
    pub billing_group_tag: Option<String>,
}

impl Principal {
    /// The domain after the last `@` of the e-mail address, lower case.
    #[must_use]
    pub fn email_domain(&self) -> Option<String> {
        let (_, domain) = self.email.as_deref()?.rsplit_once('@')?;
        Some(domain.to_ascii_lowercase())
    }
}

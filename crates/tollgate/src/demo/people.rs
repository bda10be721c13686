//! The demo's people: who can be signed in as. Invented; their group is all that policies and caps look at.

/// One person of the built-in identity provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Person {
    /// What the sign-in page sends; also the subject of id_tokens.
    pub(super) login: &'static str,
    pub(super) name: &'static str,
    pub(super) email: &'static str,
    pub(super) group: &'static str,
    /// For the sign-in page and the terminal.
    pub(super) role: &'static str,
}

pub(super) const ENGINEER: Person = Person {
    login: "ada",
    name: "Ada Engineer",
    email: "ada@demo.example",
    group: "engineering",
    role: "an engineer: every model, $2 a day",
};

pub(super) const CONTRACTOR: Person = Person {
    login: "cole",
    name: "Cole Contractor",
    email: "cole@demo.example",
    group: "contractors",
    role: "a contractor: one small model, 5 cents a day",
};

pub(super) const FINANCE: Person = Person {
    login: "fran",
    name: "Fran Finance",
    email: "fran@demo.example",
    group: "finance",
    role: "a finance admin: sees what everybody spends and sets the caps",
};

pub(super) const PEOPLE: [&Person; 3] = [&ENGINEER, &CONTRACTOR, &FINANCE];

//! Which upstreams may serve a request, and in which order they are asked.

use std::fmt;
use std::sync::Arc;

use wire::catalog::Model;

use super::Upstream;
use super::health::Trial;

/// An upstream that may serve a request.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The model's id there.
    pub model_id: String,
}

/// No upstream serves the model for this caller; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// The model as the client named it.
    pub model: String,
    /// Names of the upstreams.
    pub upstreams: Vec<String>,
}

impl std::error::Error for Unserved {}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}model {} is not available on {upstream}", self.model)?;
        }
        Ok(())
    }
}

/// The upstreams among `all` that serve `model` for a member of `groups`. `requested` is the client's word for the model.
///
/// # Errors
/// [`Unserved`] when there is none.
pub(super) fn candidates(
    all: &[Arc<Upstream>],
    model: &Model,
    requested: &str,
    groups: &[String],
) -> Result<Vec<Candidate>, Unserved> {
    let serving = all.iter().filter(|upstream| upstream.admits(model, groups));
    let found: Vec<_> = serving
        .filter_map(|upstream| {
            Some(Candidate { model_id: upstream.id_for(model)?.into_owned(), upstream: Arc::clone(upstream) })
        })
        .collect();
    if found.is_empty() {
        let upstreams = all.iter().map(|upstream| upstream.name().to_owned()).collect();
        return Err(Unserved { model: requested.to_owned(), upstreams });
    }
    Ok(found)
}

/// One request's way through its candidates: each is asked once at most. First the one that holds its session's cache, then
/// the configuration's order; those that rest are passed over, and the one whose rest ends soonest comes last of all, so
/// that nobody is refused for a guess.
#[derive(Debug)]
pub struct Round<'a> {
    candidates: &'a [Candidate],
    home: Option<usize>,
    asked: Vec<bool>,
    had_last_resort: bool,
}

impl<'a> Round<'a> {
    /// A way through `candidates`, beginning at `home` if that is one of them and well.
    #[must_use]
    pub fn new(candidates: &'a [Candidate], home: Option<&Arc<Upstream>>) -> Self {
        let is_home = |candidate: &Candidate| {
            let is_same = home.is_some_and(|home| Arc::ptr_eq(home, &candidate.upstream));
            is_same && candidate.upstream.health.is_closed(&candidate.model_id)
        };
        let home = candidates.iter().position(is_home);
        Self { candidates, home, asked: vec![false; candidates.len()], had_last_resort: false }
    }

    /// Whether there is one left that is not resting.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.left().any(|(_, candidate)| candidate.upstream.health.is_closed(&candidate.model_id))
    }

    fn left(&self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let order = self.home.into_iter().chain(0..self.candidates.len());
        order.filter(|&index| !self.asked[index]).map(|index| (index, &self.candidates[index]))
    }
}

impl<'a> Iterator for Round<'a> {
    type Item = (&'a Candidate, Trial<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let entered = self.left().find_map(|(index, candidate)| {
            Some((index, candidate, candidate.upstream.health.enter(&candidate.model_id)?))
        });
        let (index, candidate, trial) = match entered {
            Some(entered) => entered,
            None if self.had_last_resort => return None,
            None => {
                self.had_last_resort = true;
                let due = |candidate: &Candidate| candidate.upstream.health.due(&candidate.model_id);
                let (index, candidate) = self.left().min_by_key(|(_, candidate)| due(candidate))?;
                (index, candidate, candidate.upstream.health.enter_regardless(&candidate.model_id))
            }
        };
        self.asked[index] = true;
        Some((candidate, trial))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;

    use wire::catalog::{Catalog, CustomModel};

    use super::super::tests::{build, config};
    use super::*;

    fn catalog() -> Catalog {
        let upstream_model = HashMap::from([("b".to_owned(), "house-model".to_owned())]);
        let custom = CustomModel { id: "house".to_owned(), label: None, description: None, upstream_model };
        Catalog::new(vec![custom], true).unwrap()
    }

    /// Upstreams a (for sonnet only), b, and c (for the group eng).
    fn upstreams(catalog: &Catalog) -> Vec<Arc<Upstream>> {
        let mut configs = ["a", "b", "c"].map(|name| config(name, "http://127.0.0.1:1"));
        configs[0].models = Some(vec!["CLAUDE-sonnet-4-5".to_owned()]);
        configs[2].groups = Some(vec!["eng".to_owned()]);
        configs.into_iter().map(|config| build(config, catalog)).collect()
    }

    fn serving(model: &str, groups: &[&str]) -> Result<Vec<(String, String)>, String> {
        let catalog = catalog();
        let upstreams = upstreams(&catalog);
        let groups: Vec<_> = groups.iter().map(|&group| group.to_owned()).collect();
        let found = candidates(&upstreams, catalog.resolve(model).unwrap(), model, &groups);
        found
            .map(|found| found.iter().map(|one| (one.upstream.name().to_owned(), one.model_id.clone())).collect())
            .map_err(|unserved| unserved.to_string())
    }

    fn pairs(names: &[(&str, &str)]) -> Vec<(String, String)> {
        names.iter().map(|&(name, id)| (name.to_owned(), id.to_owned())).collect()
    }

    #[test]
    fn upstreams_come_in_order_with_their_own_model_id() {
        let id = "claude-sonnet-4-5-20250929";
        assert_eq!(serving("claude-sonnet-4-5", &["eng"]).unwrap(), pairs(&[("a", id), ("b", id), ("c", id)]));
    }

    #[test]
    fn models_and_groups_of_an_upstream_narrow_who_uses_it() {
        let id = "claude-haiku-4-5-20251001";
        assert_eq!(serving("claude-haiku-4-5", &["sales"]).unwrap(), pairs(&[("b", id)]));
    }

    #[test]
    fn a_custom_id_goes_only_where_it_is_mapped() {
        assert_eq!(serving("House", &["eng"]).unwrap(), pairs(&[("b", "house-model")]));
    }

    #[test]
    fn a_model_that_no_upstream_serves_is_refused_with_every_upstream_named() {
        let catalog = catalog();
        let upstreams = &upstreams(&catalog)[..1];
        let refused = candidates(upstreams, catalog.resolve("house").unwrap(), "House", &[]).unwrap_err();
        assert_eq!(refused.to_string(), "model House is not available on a");
        let both = Unserved { model: "m".to_owned(), upstreams: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(both.to_string(), "model m is not available on a; model m is not available on b");
    }
}

//! `models`: model ids of the operator's own, and what upstreams call them.

use std::collections::HashMap;

use control::spend::price::PriceOverride;
use proxy::upstream;
use wire::catalog::{Catalog, CustomModel};

use super::problem::did_you_mean;
use super::read::{Field, Mapping, all};
use super::reference::{Section, key};

pub(super) const SECTION: Section = Section {
    path: "models[]",
    about: "Model ids of your own, and what each upstream calls them. They come first in `/v1/models`.",
    keys: &[
        key("id", "text, unique in any letter case", "required", "What clients call it."),
        key("label", "text", "the id", "What clients show."),
        key("description", "text", "", "More for clients to show."),
        key(
            "upstream_model",
            "mapping of upstream names to ids, not empty",
            "required",
            "The id sent to each upstream. An id of the catalogue goes to the others under its own name.",
        ),
    ],
    later: &[],
};

/// The models; `upstreams` is what their maps may name, or `None` when that is not known.
pub(super) fn read(models: Option<Field<'_>>, upstreams: Option<&[upstream::Config]>) -> Option<Vec<CustomModel>> {
    let Some(models) = models else { return Some(Vec::new()) };
    let items = models.items()?;
    let read: Vec<Option<CustomModel>> = items.iter().map(|item| read_one(item, upstreams)).collect();
    for (index, model) in read.iter().enumerate() {
        let Some(model) = model else { continue };
        if read[..index].iter().flatten().any(|earlier| earlier.id.eq_ignore_ascii_case(&model.id)) {
            items[index].refuse(format!("{} is listed twice; keep one entry with both upstreams", model.id));
        }
    }
    all(read.into_iter())
}

fn read_one(item: &Field<'_>, upstreams: Option<&[upstream::Config]>) -> Option<CustomModel> {
    let model = item.mapping(&SECTION)?;
    let id = model.required("id", "write the id that clients send", Field::text);
    let label = model.maybe("label", Field::string);
    let description = model.maybe("description", Field::string);
    let upstream_model = model.required("upstream_model", "map the name of an upstream to the id it knows", |field| {
        read_map(field, upstreams)
    });
    Some(CustomModel {
        id: id?.trim().to_owned(),
        label: label?,
        description: description?,
        upstream_model: upstream_model?,
    })
}

fn read_map(field: &Field<'_>, upstreams: Option<&[upstream::Config]>) -> Option<HashMap<String, String>> {
    let entries = field.entries()?;
    if entries.is_empty() {
        field.refuse("maps to no upstream; map the name of at least one to the id it knows");
        return None;
    }
    all(entries.iter().map(|(name, id)| {
        if let Some(upstreams) = upstreams {
            check_upstream(id, name, upstreams);
        }
        Some(((*name).to_owned(), id.string()?))
    }))
}

/// Warns of ids that have neither a list price nor one of `overrides` on an upstream; where they are refused, they are no
/// longer mapped there.
pub(super) fn check_prices(
    field: Option<Field<'_>>,
    models: &mut Vec<CustomModel>,
    overrides: &[PriceOverride],
    refuse_unknown: bool,
) {
    let Some(items) = field.and_then(|field| field.items()) else { return };
    for (item, model) in items.iter().zip(models.iter_mut()) {
        let CustomModel { id, upstream_model, .. } = &*model;
        let covered = |upstream: &str, sent: &str| overrides.iter().any(|row| row.covers(id, upstream, sent));
        let unpriced = upstream_model.iter().filter(|(name, sent)| !model.is_listed_as(sent) && !covered(name, sent));
        let mut unpriced: Vec<String> = unpriced.map(|(name, _)| name.clone()).collect();
        unpriced.sort_unstable();
        for name in unpriced {
            let fate = if refuse_unknown {
                "it is not served there, as pricing.unknown_model says"
            } else {
                "it is metered at 5 and 25 USD per million tokens"
            };
            item.warn(format!("{} has no price on {name}; {fate}. Add a row to pricing.overrides", model.id));
            if refuse_unknown {
                model.upstream_model.remove(&name);
            }
        }
    }
    models.retain(|model| !model.upstream_model.is_empty());
}

/// Reports a name that no upstream has.
pub(super) fn check_upstream(field: &Field<'_>, name: &str, upstreams: &[upstream::Config]) {
    if upstreams.iter().any(|upstream| upstream.name == name) {
        return;
    }
    let names = || upstreams.iter().map(|upstream| upstream.name.as_str());
    match did_you_mean(name, names()) {
        Some(meant) => field.refuse(format!("no upstream has this name; did you mean {meant}?")),
        None => {
            field.refuse(format!("no upstream has this name; there are {}", names().collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Warns of ids that an upstream lists and that lead nowhere there, and of mappings to an upstream that does not list the id.
pub(super) fn warn_of_dead_ends(
    root: &Mapping<'_>,
    models: &[CustomModel],
    upstreams: &[upstream::Config],
    catalog: &Catalog,
) {
    let items = |key: &str| root.get(key).and_then(|field| field.is_list().then(|| field.items()).flatten());
    for (upstream, item) in upstreams.iter().zip(items("upstreams").unwrap_or_default()) {
        let listed = item.below("models").and_then(|field| field.items()).unwrap_or_default();
        for (id, place) in upstream.models.iter().flatten().zip(listed) {
            match catalog.resolve(id) {
                None => place.warn("no model is called so; write an id as clients send it, or map it in models"),
                Some(model) => {
                    let api = &upstream.api;
                    if model.id_for(&upstream.name, api.provider(), api.region()).is_none() {
                        place.warn(format!("has no id there; add {} to its upstream_model", upstream.name));
                    }
                }
            }
        }
    }
    for (custom, item) in models.iter().zip(items("models").unwrap_or_default()) {
        let Some(map) = item.below("upstream_model") else { continue };
        let id = |written: &str| catalog.resolve(written).map(|model| model.id.clone());
        for upstream in upstreams.iter().filter(|upstream| custom.upstream_model.contains_key(&upstream.name)) {
            let lists = |listed: &Vec<String>| listed.iter().any(|listed| id(listed) == id(&custom.id));
            if upstream.models.as_ref().is_some_and(|listed| !lists(listed)) {
                let place = map.below(&upstream.name).unwrap_or_else(|| map.clone());
                place.warn(format!("never applies, because {} is not in the models of that upstream", custom.id));
            }
        }
    }
}

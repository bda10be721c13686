//! `models`: model ids of the operator's own, and what upstreams call them.

use std::collections::HashMap;

use proxy::upstream;
use wire::catalog::CustomModel;

use super::problem::did_you_mean;
use super::read::{Field, all};
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

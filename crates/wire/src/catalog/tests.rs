#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn custom(id: &str, map: &[(&str, &str)]) -> CustomModel {
    CustomModel {
        id: id.to_owned(),
        label: None,
        description: None,
        upstream_model: map.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect(),
    }
}

fn builtin() -> Catalog {
    Catalog::new(Vec::new(), true).unwrap()
}

fn ids(catalog: &Catalog) -> Vec<(&str, Option<u64>)> {
    catalog.listed().map(|model| (model.id.as_str(), model.max_input_tokens)).collect()
}

#[test]
fn the_built_in_list_is_the_one_of_the_contract() {
    let million = Some(1_000_000);
    assert_eq!(
        ids(&builtin()),
        [
            ("claude-opus-4-6", None),
            ("claude-sonnet-4-5-20250929", None),
            ("claude-haiku-4-5-20251001", Some(200_000)),
            ("claude-fable-5-2", million),
            ("claude-fable-5-1", million),
            ("claude-fable-5", million),
            ("claude-opus-5-5", million),
            ("claude-opus-5", million),
            ("claude-opus-4-8", million),
            ("claude-opus-4-7", million),
            ("claude-opus-4-1-20250805", Some(200_000)),
            ("claude-sonnet-5-5", million),
            ("claude-sonnet-5", million),
            ("claude-sonnet-4-6", None),
            ("claude-haiku-5-5", million),
        ]
    );
    assert!(builtin().listed().all(|model| model.display_name == model.id && model.description.is_none()));
}

#[test]
fn every_accepted_spelling_resolves_in_any_letter_case() {
    let catalog = builtin();
    for spelling in [
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        "claude-sonnet-4-5@20250929",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "CLAUDE-Sonnet-4-5",
        "US.Anthropic.claude-sonnet-4-5-20250929-V1:0",
    ] {
        assert_eq!(catalog.resolve(spelling).unwrap().id, "claude-sonnet-4-5-20250929", "{spelling}");
    }
    for (spelling, canonical) in [
        ("us.anthropic.claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("us.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku"),
        ("claude-3-7-sonnet", "claude-3-7-sonnet"),
        ("claude-opus-4", "claude-opus-4"),
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
    ] {
        assert_eq!(catalog.resolve(spelling).unwrap().canonical.as_deref(), Some(canonical), "{spelling}");
    }
}

#[test]
fn other_spellings_are_refused() {
    let catalog = builtin();
    for spelling in [
        "",
        "sonnet",
        "opus",
        "haiku",
        "best",
        "opusplan",
        "default",
        "claude-sonnet-4-5[1m]",
        "claude-sonnet-4-5-20250930",
        "claude-opus-4-8-20260101",
        "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "apac.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "us.anthropic.claude-sonnet-4-5",
        "arn:aws:bedrock:us-east-1:111111111111:inference-profile/us.anthropic.claude-sonnet-4-6",
        "claude-sonnet-4-5-latest",
        "anthropic/claude-sonnet-4-5",
        " claude-sonnet-4-5",
        "claude-sonnet-4-5 ",
        "claude-3-haiku-20240307",
        "\u{212a}laude",
    ] {
        assert!(catalog.resolve(spelling).is_none(), "{spelling}");
    }
}

#[test]
fn each_provider_gets_its_own_id() {
    let catalog = builtin();
    let id = |requested: &str, provider, region| {
        catalog.resolve(requested).unwrap().id_for("any", provider, region).map(Cow::into_owned)
    };
    let sent = |requested, provider| id(requested, provider, Some("us-east-1"));
    assert_eq!(sent("claude-opus-4-5", Provider::Anthropic).unwrap(), "claude-opus-4-5-20251101");
    assert_eq!(sent("claude-opus-4-5", Provider::AnthropicAws).unwrap(), "claude-opus-4-5-20251101");
    assert_eq!(sent("claude-opus-4-5", Provider::AnthropicGoogleCloud).unwrap(), "claude-opus-4-5-20251101");
    assert_eq!(sent("claude-opus-4-5-20251101", Provider::Foundry).unwrap(), "claude-opus-4-5");
    assert_eq!(sent("claude-opus-4-5", Provider::Vertex).unwrap(), "claude-opus-4-5@20251101");
    assert_eq!(sent("claude-opus-4-6", Provider::Bedrock).unwrap(), "us.anthropic.claude-opus-4-6-v1");
    assert_eq!(sent("claude-opus-4-8", Provider::Bedrock).unwrap(), "us.anthropic.claude-opus-4-8");
    assert_eq!(sent("claude-haiku-4-5", Provider::Mantle).unwrap(), "anthropic.claude-haiku-4-5");
    assert_eq!(sent("claude-sonnet-4-6", Provider::Mantle), None);
    assert_eq!(sent("claude-opus-4-1", Provider::AnthropicGoogleCloud), None);
    assert_eq!(sent("claude-3-5-haiku", Provider::AnthropicGoogleCloud), None);
    for region in ["us-east-1", "us-west-2", "ca-central-1"] {
        assert_eq!(id("claude-opus-5", Provider::Bedrock, Some(region)).unwrap(), "us.anthropic.claude-opus-5");
    }
    for region in ["eu-west-1", "ap-northeast-1", "ap-southeast-2", "us-gov-west-1"] {
        assert_eq!(id("claude-opus-5", Provider::Bedrock, Some(region)).unwrap(), "anthropic.claude-opus-5");
    }
}

#[test]
fn a_curated_entry_comes_first_and_takes_the_place_of_the_built_in() {
    let catalog = Catalog::new(
        vec![custom("My-Model", &[("a", "some-target")]), custom("claude-sonnet-4-5", &[("a", "arn:mine")])],
        true,
    )
    .unwrap();
    let listed: Vec<_> = catalog.listed().map(|model| model.id.as_str()).collect();
    assert_eq!(listed[..3], ["My-Model", "claude-sonnet-4-5", "claude-opus-4-6"]);
    assert!(!listed.contains(&"claude-sonnet-4-5-20250929"));
    assert_eq!(listed.len(), 16);
    for spelling in ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "CLAUDE-SONNET-4-5@20250929"] {
        let model = catalog.resolve(spelling).unwrap();
        assert_eq!(model.id_for("a", Provider::Anthropic, None).unwrap(), "arn:mine", "{spelling}");
        assert_eq!(model.id_for("b", Provider::Anthropic, None).unwrap(), "claude-sonnet-4-5-20250929", "{spelling}");
    }
    let model = catalog.resolve("my-model").unwrap();
    assert_eq!(model.id_for("a", Provider::Anthropic, None).unwrap(), "some-target");
    assert_eq!(model.id_for("b", Provider::Anthropic, None), None);
}

#[test]
fn two_curated_spellings_of_one_built_in_keep_their_own_targets() {
    let entries =
        vec![custom("claude-sonnet-4-5", &[("a", "one")]), custom("claude-sonnet-4-5-20250929", &[("a", "two")])];
    let catalog = Catalog::new(entries, true).unwrap();
    let target = |id: &str| catalog.resolve(id).unwrap().id_for("a", Provider::Anthropic, None).unwrap().into_owned();
    assert_eq!(target("claude-sonnet-4-5"), "one");
    assert_eq!(target("claude-sonnet-4-5-20250929"), "two");
    assert_eq!(target("claude-sonnet-4-5@20250929"), "one");
    assert_eq!(catalog.listed().count(), 16);
}

#[test]
fn without_the_built_in_list_only_the_written_ids_exist() {
    let catalog = Catalog::new(vec![custom("claude-sonnet-4-5", &[("a", "claude-opus-5")])], false).unwrap();
    assert!(catalog.resolve("Claude-Sonnet-4-5").is_some());
    assert!(catalog.resolve("claude-sonnet-4-5-20250929").is_none());
    assert!(catalog.resolve("claude-opus-5").is_none());
    assert_eq!(catalog.listed().count(), 1);
}

#[test]
fn an_entry_that_cannot_stand_is_named() {
    let refused = |entries| Catalog::new(entries, true).unwrap_err();
    assert_eq!(refused(vec![custom(" ", &[("a", "x")])]), CatalogError::BlankId);
    assert_eq!(refused(vec![custom("m", &[])]), CatalogError::NoUpstream { id: "m".to_owned() });
    let twice = refused(vec![custom("m", &[("a", "x")]), custom("M", &[("b", "y")])]);
    assert_eq!(twice, CatalogError::DuplicateId { id: "M".to_owned() });
}

/// The published price table, in USD per million tokens: model, input, output, cache read, writes for five minutes and for
/// one hour, and the factor of fast speed.
const PRICES: &str = "
    | opus-4, opus-4-1                               | 15  | 75  | 1.5  | 18.75 | 30  | x1 |
    | opus-4-5                                       | 5   | 25  | 0.5  | 6.25  | 10  | x1 |
    | opus-4-6, opus-4-7                             | 5   | 25  | 0.5  | 6.25  | 10  | x6 |
    | opus-4-8, opus-5                               | 5   | 25  | 0.5  | 6.25  | 10  | x2 |
    | opus-5-5                                       | 4   | 20  | 0.2  | 5     | 8   | x2 |
    | sonnet-4, sonnet-4-5, sonnet-4-6               | 3   | 15  | 0.3  | 3.75  | 6   | x1 |
    | 3-5-sonnet, 3-7-sonnet                         | 3   | 15  | 0.3  | 3.75  | 6   | x1 |
    | sonnet-5                                       | 2   | 10  | 0.2  | 2.5   | 4   | x1 |
    | sonnet-5-5                                     | 2   | 10  | 0.1  | 2.5   | 4   | x1 |
    | haiku-4-5                                      | 1   | 5   | 0.1  | 1.25  | 2   | x1 |
    | haiku-5-5, prompt <= 100000                    | 0.1 | 0.5 | 0.01 | 0.125 | 0.2 | x1 |
    | haiku-5-5, prompt > 100000                     | 0.5 | 2.5 | 0.05 | 0.625 | 1   | x1 |
    | 3-5-haiku                                      | 0.8 | 4   | 0.08 | 1     | 1.6 | x1 |
    | fable-5                                        | 10  | 50  | 1    | 12.5  | 20  | x1 |
    | fable-5-1                                      | 10  | 50  | 0.25 | 12.5  | 20  | x1 |
    | fable-5-2                                      | 8   | 40  | 0.2  | 10    | 16  | x2 |
    | unknown                                        | 5   | 25  | 0.5  | 6.25  | 10  | x1 |";

#[test]
fn prices_are_those_of_the_table() {
    let catalog = builtin();
    let mut seen = Vec::new();
    for row in PRICES.trim().lines() {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
        let (models, rates, fast) = (cells[0], &cells[1..6], cells[6]);
        let nano = |usd: &&str| (usd.parse::<f64>().unwrap() * 1e9).round() as i64;
        let rates: Vec<i64> = rates.iter().map(nano).collect();
        let of = |rates: Rates| {
            let Rates { input, output, cache_read, cache_write_5m, cache_write_1h } = rates;
            vec![input, output, cache_read, cache_write_5m, cache_write_1h]
        };
        for name in models.split(", ").filter(|name| !name.starts_with("prompt")) {
            let id = format!("claude-{name}");
            let price = match name {
                "unknown" => Catalog::unknown_price(),
                _ => catalog.resolve(&id).unwrap().listed_as(&id).unwrap().price,
            };
            let is_long = models.contains("prompt >");
            let found = if is_long { price.long_prompt.unwrap().1 } else { price.base };
            assert_eq!(of(found), rates, "{name}");
            assert_eq!(format!("x{}", price.fast), fast, "{name}");
            assert_eq!(
                price.long_prompt.map(|(above, _)| above),
                models.contains("prompt").then_some(100_000),
                "{name}"
            );
            seen.push(id);
        }
    }
    let unseen: Vec<_> = catalog.models.iter().filter_map(|model| model.canonical.as_ref()).collect();
    assert!(unseen.iter().all(|id| seen.contains(id)), "the table lacks some of {unseen:?}");
    assert_eq!(Catalog::web_search_price(), 10_000_000);
}

#[test]
fn an_upstream_id_has_the_price_of_the_model_some_provider_calls_so() {
    let catalog = Catalog::new(vec![custom("house", &[("a", "x")])], true).unwrap();
    let other = catalog.resolve("house").unwrap();
    let input = |id: &str| other.listed_as(id).map(|listed| listed.price.base.input / 1_000_000);
    for id in [
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "claude-haiku-4-5@20251001",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
        "global.anthropic.claude-haiku-4-5-20251001-v1:0",
        "anthropic.claude-haiku-4-5",
        "Claude-Haiku-4-5",
    ] {
        assert_eq!(input(id), Some(1_000), "{id}");
    }
    for id in ["my-deployment", "arn:aws:bedrock:x", "notanthropic.claude-haiku-4-5", ""] {
        assert_eq!(input(id), None, "{id}");
    }
}

#[test]
fn a_model_is_listed_as_what_is_sent_and_else_as_what_it_is_filed_under() {
    let entries = vec![
        custom("mine", &[("a", "claude-haiku-4-5"), ("b", "arn:x")]),
        custom("claude-opus-4-8", &[("a", "arn:y"), ("b", "claude-haiku-4-5")]),
    ];
    let catalog = Catalog::new(entries.clone(), true).unwrap();
    let on = |id: &str, sent: &str| catalog.resolve(id).unwrap().listed_as(sent).map(|listed| listed.canonical);
    assert_eq!(on("mine", "claude-haiku-4-5"), Some("claude-haiku-4-5"));
    assert_eq!(on("mine", "arn:x"), None);
    assert_eq!(on("claude-opus-4-8", "arn:y"), Some("claude-opus-4-8"));
    assert_eq!(on("claude-opus-4-8", "claude-haiku-4-5"), Some("claude-haiku-4-5"));
    assert_eq!(on("claude-opus-4-8", "claude-opus-4-8"), Some("claude-opus-4-8"));
    assert_eq!((entries[0].is_listed_as("arn:x"), entries[0].is_listed_as("Claude-Haiku-4-5")), (false, true));
    assert!(entries[1].is_listed_as("arn:y"));
}

#[test]
fn an_id_is_known_when_a_client_a_provider_or_the_configuration_may_use_it() {
    let mine = || custom("mine", &[("a", "eu.anthropic.claude-haiku-4-5-20251001-v1:0"), ("b", "arn:X")]);
    let only = Catalog::new(vec![mine()], false).unwrap();
    for id in ["Mine", "arn:x", "eu.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"] {
        assert!(only.knows(id), "{id}");
    }
    for id in ["claude-haiku-4-5-20251001", "claude-opus-4-6", "arn:z", ""] {
        assert!(!only.knows(id), "{id}");
    }
    let all = Catalog::new(vec![mine()], true).unwrap();
    for id in ["claude-haiku-4-5-20251001", "claude-opus-4-6", "eu.anthropic.claude-opus-4-6-v1"] {
        assert!(all.knows(id), "{id}");
    }
}

#[test]
fn amounts_are_read_exactly_or_not_at_all() {
    for (text, nano) in [
        ("0", 0),
        ("0.01", 10_000_000),
        ("18.75", 18_750_000_000),
        ("0.000000001", 1),
        ("9223372036.854775807", i64::MAX),
    ] {
        assert_eq!(nano_dollars(text), Some(nano), "{text}");
    }
    for text in
        ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000000001", " 1", "9223372036.854775808", "1.2.3", "٣"]
    {
        assert_eq!(nano_dollars(text), None, "{text}");
    }
}

fn allow(entries: &[&str]) -> Allowlist {
    Allowlist::new(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
}

#[test]
fn an_id_entry_admits_itself_and_its_dated_form_only() {
    let (list, catalog) = (allow(&["Claude-Haiku-4-5"]), builtin());
    for admitted in
        ["claude-haiku-4-5", "CLAUDE-haiku-4-5-20251001", "claude-haiku-4-5[1m]", "claude-haiku-4-5-20251001[1M]"]
    {
        assert!(list.admits(admitted, &catalog), "{admitted}");
    }
    for refused in [
        "claude-haiku-4-5@20251001",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "claude-haiku-4-5-20990101",
        "claude-haiku-5-5",
        "claude-haiku",
        "haiku",
        "",
    ] {
        assert!(!list.admits(refused, &catalog), "{refused}");
    }
}

#[test]
fn a_dated_or_provider_entry_admits_only_itself() {
    let catalog = builtin();
    let dated = allow(&["claude-haiku-4-5-20251001"]);
    assert!(dated.admits("claude-haiku-4-5-20251001", &catalog));
    assert!(!dated.admits("claude-haiku-4-5", &catalog));
    let vertex = allow(&["claude-haiku-4-5@20251001"]);
    assert!(vertex.admits("claude-haiku-4-5@20251001", &catalog));
    assert!(!vertex.admits("claude-haiku-4-5", &catalog));
}

#[test]
fn a_family_entry_admits_every_spelling_of_its_family() {
    let (list, catalog) = (allow(&["OPUS[1m]"]), builtin());
    for admitted in [
        "opus",
        "claude-opus-4-8",
        "claude-opus-4-5@20251101",
        "us.anthropic.claude-opus-4-6-v1",
        "claude-opus-5[1m]",
        "eu.anthropic.claude-opus-5",
        "claude-opus-99",
    ] {
        assert!(list.admits(admitted, &catalog), "{admitted}");
    }
    for refused in ["sonnet", "claude-sonnet-4-6", "claude-octopus", "my-opus", "opusplan"] {
        assert!(!list.admits(refused, &catalog), "{refused}");
    }
}

#[test]
fn an_empty_list_admits_nothing() {
    let catalog = builtin();
    for list in [allow(&[]), allow(&["", "[1m]"])] {
        assert!(
            !list.admits("claude-opus-5", &catalog) && !list.admits("", &catalog) && !list.admits("[1m]", &catalog)
        );
        assert!(!catalog.listed().any(|model| list.admits_listed(model)));
    }
}

#[test]
fn the_model_list_is_filtered_by_the_same_rule() {
    let catalog = Catalog::new(vec![custom("mine", &[("a", "x")])], true).unwrap();
    let shown = |entries: &[&str]| {
        let list = allow(entries);
        catalog.listed().filter(|model| list.admits_listed(model)).map(|model| model.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&["claude-haiku-4-5", "MINE"]), ["mine", "claude-haiku-4-5-20251001"]);
    assert_eq!(shown(&["claude-haiku-4-5@20251001"]), [""; 0]);
    assert_eq!(shown(&["haiku"]), ["claude-haiku-4-5-20251001", "claude-haiku-5-5"]);
    for model in catalog.listed() {
        let list = allow(&["sonnet", "claude-opus-5", "claude-opus-4-1"]);
        assert_eq!(list.admits_listed(model), list.admits(&model.id, &catalog), "{}", model.id);
    }
}

#[test]
fn families_and_default_models_are_known() {
    assert!(["opus", "Sonnet", "HAIKU", "fable"].into_iter().all(is_known_family));
    assert!(!is_known_family("best") && !is_known_family(""));
    assert_eq!(builtin().resolve(Catalog::default_model()).unwrap().id, Catalog::default_model());
}

#[test]
fn a_window_of_a_million_tokens_is_known_of_each_model() {
    let entries = vec![
        custom("big", &[("a", "us.anthropic.claude-opus-5")]),
        custom("small", &[("a", "claude-opus-5"), ("b", "claude-haiku-4-5")]),
    ];
    let catalog = Catalog::new(entries, true).unwrap();
    let without: Vec<_> = catalog.listed().filter(|model| !model.supports_1m).map(|model| model.id.as_str()).collect();
    assert_eq!(
        without,
        ["small", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001", "claude-opus-4-1-20250805"]
    );
}

/// Every way to write every built-in that a client may use, and those nearby that it may not.
#[test]
fn each_model_answers_to_its_four_spellings_and_to_no_other() {
    let catalog = builtin();
    for model in &BUILTIN.models {
        let spellings = model.spellings();
        for spelling in spellings {
            for written in [spelling.to_owned(), spelling.to_ascii_uppercase()] {
                assert_eq!(catalog.resolve(&written).unwrap().canonical.as_deref(), Some(model.canonical.as_str()));
            }
        }
        let bare = model.bedrock_bare();
        let canonical = &model.canonical;
        for written in [
            bare.to_owned(),
            format!("eu.{bare}"),
            format!("apac.{bare}"),
            format!("global.{bare}"),
            format!("anthropic/{canonical}"),
            format!("{canonical}-latest"),
            format!("{canonical}-20990101"),
            format!("{canonical}@20990101"),
            format!("{canonical}[1m]"),
            format!(" {canonical}"),
            format!("{canonical} "),
            format!("{canonical}\0"),
            format!("arn:aws:bedrock:us-east-1:111111111111:inference-profile/us.{bare}"),
        ] {
            assert!(spellings.contains(&written.as_str()) || catalog.resolve(&written).is_none(), "{written:?}");
        }
    }
}

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../../wire/tests/golden/fixture.rs"]
mod fixture;

use std::collections::HashMap;

use proptest::prelude::*;
use wire::catalog::CustomModel;
use wire::usage::Meter;

use super::*;

const M: u64 = 1_000_000;
const DOLLAR: i64 = 1_000_000_000;

fn catalog() -> Catalog {
    let custom = |id: &str, sent: &str| CustomModel {
        id: id.to_owned(),
        label: None,
        description: None,
        upstream_model: HashMap::from([("up".to_owned(), sent.to_owned())]),
    };
    let entries =
        vec![custom("ours", "claude-haiku-4-5"), custom("strange", "model-x"), custom("claude-opus-4-5", "arn")];
    Catalog::new(entries, true).unwrap()
}

/// The quote for a model that goes to the upstream `up` under its own id.
fn quote(prices: &Prices, id: &str) -> Quote {
    let catalog = catalog();
    let model = catalog.resolve(id).unwrap();
    let sent = model.upstream_model.get("up").unwrap_or(&model.id);
    prices.quote(id, model, "up", sent)
}

fn list_price(id: &str, usage: &Usage) -> i64 {
    quote(&Prices::default(), id).charge(usage).nano()
}

/// A million tokens of each class.
fn classes(fast: bool) -> [Usage; 5] {
    let none = Usage { fast, ..Usage::default() };
    [
        Usage { input_tokens: M, ..none },
        Usage { output_tokens: M, ..none },
        Usage { cache_read_input_tokens: M, ..none },
        Usage { cache_creation_5m_tokens: M, ..none },
        Usage { cache_creation_1h_tokens: M, ..none },
    ]
}

#[test]
fn a_million_tokens_of_each_class_cost_the_list_price() {
    let price = |id: &str, fast: bool| classes(fast).map(|usage| Money::from_nano(list_price(id, &usage)).dollars());
    assert_eq!(price("claude-opus-4-1", false), ["15", "75", "1.5", "18.75", "30"]);
    assert_eq!(price("claude-opus-4-6", true), ["30", "150", "3", "37.5", "60"]);
    assert_eq!(price("claude-sonnet-4-6", true), ["3", "15", "0.3", "3.75", "6"]);
    assert_eq!(price("claude-fable-5-1", false), ["10", "50", "0.25", "12.5", "20"]);
    assert_eq!(price("claude-opus-4-5", false), ["5", "25", "0.5", "6.25", "10"]);
    assert_eq!(price("ours", false), ["1", "5", "0.1", "1.25", "2"]);
    assert_eq!(price("strange", true), ["5", "25", "0.5", "6.25", "10"]);
}

#[test]
fn every_golden_answer_costs_what_it_says() {
    for golden in fixture::all() {
        let mut meter = Meter::new(golden.is_stream.then_some("text/event-stream"), None);
        meter.feed(&golden.body.into());
        let reading = meter.finish();
        let model = if golden.model == "house-model" { "strange" } else { &golden.model };
        assert_eq!(list_price(model, &reading.billable()), golden.charge, "{}", golden.name);
        assert_eq!((reading.billable(), reading.is_final()), (golden.usage, golden.is_final), "{}", golden.name);
    }
}

#[test]
fn the_upper_tier_begins_above_its_threshold_and_counts_the_whole_prompt() {
    let prompt = |input: u64, cached: u64| {
        let usage = Usage { input_tokens: input, cache_read_input_tokens: cached, ..Usage::default() };
        list_price("claude-haiku-5-5", &usage)
    };
    assert_eq!(prompt(100_000, 0), 10_000_000);
    assert_eq!(prompt(100_001, 0), 50_000_500);
    assert_eq!(prompt(50_000, 50_001), 25_000_000 + 2_500_050);
    let answer = |output_tokens: u64| Usage { input_tokens: 100_000, output_tokens, ..Usage::default() };
    assert_eq!(list_price("claude-haiku-5-5", &answer(M)), 10_000_000 + 500_000_000, "output does not count");
}

#[test]
fn a_web_search_costs_a_cent_and_a_charge_is_rounded_up_once() {
    let searches = Usage { web_search_requests: 3, ..Usage::default() };
    assert_eq!(list_price("claude-sonnet-4-6", &searches), 3 * DOLLAR / 100);
    let third = Prices::new(Pricing { multiplier_nano: 333_333_333, overrides: Vec::new() });
    let one = Usage { cache_read_input_tokens: 1, output_tokens: 1, ..Usage::default() };
    // 300 + 15 000 nano-dollars at a third: 5 099.9999949.
    assert_eq!(quote(&third, "claude-sonnet-4-6").charge(&one).nano(), 5_100);
    assert_eq!(quote(&third, "claude-sonnet-4-6").charge(&searches).nano(), 9_999_999 + 1);
}

/// A row whose rates are all `usd`.
fn row(upstream: Option<&str>, model: &str, usd: i64) -> PriceOverride {
    let rate = usd * DOLLAR;
    PriceOverride {
        upstream: upstream.map(str::to_owned),
        model: model.to_owned(),
        rates: Rates { input: rate, output: rate, cache_read: rate, cache_write_5m: rate, cache_write_1h: rate },
        web_search: None,
    }
}

#[test]
fn an_override_has_a_rate_for_each_class_and_ignores_fast_speed_and_the_size_of_the_prompt() {
    let rates = Rates {
        input: DOLLAR,
        output: 2 * DOLLAR,
        cache_read: 3,
        cache_write_5m: 4 * DOLLAR,
        cache_write_1h: 5 * DOLLAR,
    };
    let over = |model: &str| PriceOverride { rates, web_search: Some(7), ..row(None, model, 1) };
    let overrides = vec![over("claude-opus-4-6"), over("claude-haiku-5-5")];
    let prices = Prices::new(Pricing { multiplier_nano: 2 * DOLLAR, overrides });
    for id in ["claude-opus-4-6", "claude-haiku-5-5"] {
        let quote = quote(&prices, id);
        let charges = classes(true).map(|usage| quote.charge(&usage).nano());
        assert_eq!(charges, [2 * DOLLAR, 4 * DOLLAR, 6, 8 * DOLLAR, 10 * DOLLAR], "{id}");
        assert_eq!(quote.charge(&Usage { web_search_requests: 5, ..Usage::default() }).nano(), 70, "{id}");
    }
    let unsaid = Prices::new(Pricing { multiplier_nano: 2 * DOLLAR, overrides: vec![row(None, "claude-opus-4-6", 1)] });
    let searched = quote(&unsaid, "claude-opus-4-6").charge(&Usage { web_search_requests: 5, ..Usage::default() });
    assert_eq!(searched.dollars(), "0.1");
}

#[test]
fn of_several_overrides_the_most_exact_one_applies() {
    const DATED: &str = "claude-sonnet-4-5-20250929";
    const CLOUD: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let (builtin, asked, sent) = (row(None, "Claude-Sonnet-4-5", 2), row(None, "nick", 3), row(None, CLOUD, 4));
    let (own_builtin, own_dated) = (row(Some("up"), "claude-sonnet-4-5", 6), row(Some("up"), DATED, 7));
    let elsewhere = row(Some("other"), "claude-sonnet-4-5", 9);
    let nick = CustomModel {
        id: "nick".to_owned(),
        label: None,
        description: None,
        upstream_model: HashMap::from([("up".to_owned(), CLOUD.to_owned())]),
    };
    let catalog = Catalog::new(vec![nick], true).unwrap();
    let price = |overrides: &[&PriceOverride], asked: &str, sent: &str| {
        let overrides: Vec<PriceOverride> = overrides.iter().map(|over| (*over).clone()).collect();
        let prices = Prices::new(Pricing { overrides, ..Pricing::default() });
        let quote = prices.quote(asked, catalog.resolve(asked).unwrap(), "up", sent);
        quote.charge(&Usage { input_tokens: M, ..Usage::default() }).dollars()
    };
    let all = [&elsewhere, &builtin, &asked, &sent];
    assert_eq!(price(&all, "nick", CLOUD), "4", "what is sent");
    assert_eq!(price(&all[..3], "NICK", CLOUD), "3", "what the client asked for");
    assert_eq!(price(&all[..2], "nick", CLOUD), "2", "the built-in it is priced as");
    assert_eq!(price(&all[..1], "nick", CLOUD), "3", "list price: a row for another upstream is none");
    assert_eq!(price(&[&sent, &own_builtin], "nick", CLOUD), "6", "a row for this very upstream");
    assert_eq!(price(&[&own_builtin, &own_dated], "claude-sonnet-4-5", DATED), "7");
    assert_eq!(price(&[&own_dated, &own_builtin], "claude-sonnet-4-5@20250929", DATED), "7");
    assert_eq!(price(&[&own_dated], "claude-sonnet-4-5", CLOUD), "3", "a dated spelling is that string only");
    assert_eq!(price(&[&own_builtin], "claude-sonnet-4-5@20250929", CLOUD), "6", "a built-in covers its spellings");
}

#[test]
fn an_id_without_a_price_is_told_once() {
    let prices = Prices::default();
    for _ in 0..3 {
        let _ = quote(&prices, "strange");
    }
    assert_eq!(*prices.unknown.lock().unwrap(), HashSet::from(["model-x".to_owned()]));
    let priced = Prices::new(Pricing { overrides: vec![row(None, "strange", 1)], ..Pricing::default() });
    let _ = quote(&priced, "strange");
    assert!(priced.unknown.lock().unwrap().is_empty());
}

#[test]
fn nothing_that_an_upstream_claims_overflows() {
    let absurd = Usage {
        input_tokens: u64::MAX,
        output_tokens: u64::MAX,
        cache_read_input_tokens: u64::MAX,
        cache_creation_5m_tokens: u64::MAX,
        cache_creation_1h_tokens: u64::MAX,
        web_search_requests: u64::MAX,
        fast: true,
    };
    let over = PriceOverride { web_search: Some(i64::MAX), ..row(None, "claude-opus-4-6", 9_000_000_000) };
    for overrides in [vec![], vec![over]] {
        let dear = Prices::new(Pricing { multiplier_nano: i64::MAX, overrides });
        let quote = quote(&dear, "claude-opus-4-6");
        assert_eq!((quote.charge(&absurd), quote.bound(u64::MAX, u64::MAX, u64::MAX)), (Money::MAX, Money::MAX));
    }
}

#[test]
fn the_bound_covers_every_way_to_use_so_many_bytes_and_tokens() {
    let odd =
        PriceOverride { rates: Rates { cache_read: 90 * DOLLAR, ..row(None, "", 1).rates }, ..row(None, "ours", 1) };
    let prices = Prices::new(Pricing { overrides: vec![odd], ..Pricing::default() });
    for id in ["claude-opus-4-6", "claude-haiku-5-5", "claude-sonnet-4-6", "ours"] {
        let quote = quote(&prices, id);
        let bound = quote.bound(120_000, 500, 0);
        for usage in [
            Usage { input_tokens: 120_000, output_tokens: 500, fast: true, ..Usage::default() },
            Usage { cache_creation_1h_tokens: 120_000, output_tokens: 500, ..Usage::default() },
            Usage { cache_read_input_tokens: 120_000, output_tokens: 500, ..Usage::default() },
            Usage { cache_creation_5m_tokens: 119_999, input_tokens: 1, output_tokens: 500, ..Usage::default() },
        ] {
            assert!(quote.charge(&usage) <= bound, "{id}");
        }
    }
}

fn any_quote() -> impl Strategy<Value = Quote> {
    let rate = 1..=1_000 * DOLLAR;
    let rates = [rate.clone(), rate.clone(), rate.clone(), rate.clone(), rate];
    let rates = rates.prop_map(|[input, output, cache_read, cache_write_5m, cache_write_1h]| Rates {
        input,
        output,
        cache_read,
        cache_write_5m,
        cache_write_1h,
    });
    (rates, 1..=6_i64, 1..=DOLLAR, 1..=3_000_000_000_i64).prop_map(|(base, fast, web_search, multiplier_nano)| Quote {
        upstream: "up".to_owned(),
        base,
        long_prompt: None,
        fast,
        web_search,
        multiplier_nano,
    })
}

fn any_usage() -> impl Strategy<Value = Usage> {
    let count = || prop_oneof![4 => 0..=300_000_u64, 1 => Just(0), 1 => any::<u64>()];
    ([count(), count(), count(), count(), count(), count()], any::<bool>()).prop_map(|(counts, fast)| {
        let [input_tokens, output_tokens, cache_read_input_tokens, cache_creation_5m_tokens, ..] = counts;
        let [.., cache_creation_1h_tokens, web_search_requests] = counts;
        Usage {
            input_tokens,
            output_tokens,
            cache_read_input_tokens,
            cache_creation_5m_tokens,
            cache_creation_1h_tokens,
            web_search_requests,
            fast,
        }
    })
}

proptest! {
    #[test]
    fn the_parts_of_a_charge_add_up_to_it_and_are_fair(quote in any_quote(), usage in any_usage()) {
        let (charge, split) = (quote.charge(&usage), quote.split(&usage));
        prop_assert_eq!(split.sum(), charge);
        for (part, cost) in Part::ALL.into_iter().zip(quote.costs(&usage)) {
            let amount = split.of(part);
            prop_assert!(amount >= Money::ZERO);
            if charge < Money::MAX {
                let alone = quote.round_up(cost);
                prop_assert!((amount.nano() - alone.nano()).abs() <= 1, "{part:?}: {amount} and {alone}");
                prop_assert!(cost > 0 || amount == Money::ZERO, "{part:?} costs nothing");
            }
        }
    }
}

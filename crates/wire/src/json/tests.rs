use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;

fn accepts(doc: &[u8]) -> bool {
    members(doc, |_, _| {}).is_ok()
}

fn oracle(doc: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(doc).is_ok()
}

#[test]
fn validity_is_that_of_serde_json_on_chosen_documents() {
    for doc in [
        "",
        " ",
        "{}",
        "[]",
        "{",
        "}",
        "[",
        "]",
        "{]",
        "[}",
        "{}{}",
        "{} x",
        "\u{feff}{}",
        "null",
        "nul",
        "nulls",
        "true1",
        "0",
        "-0",
        "-",
        "01",
        "1.",
        "1.5",
        ".5",
        "1e",
        "1e5",
        "1E+5",
        "1e-",
        "1e400",
        "-1.0e-10",
        "+1",
        "0x1",
        "NaN",
        "\"",
        "\"\"",
        "\"a\nb\"",
        "\"\\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12G4\"",
        "\"\\ud800\"",
        "\"\\",
        "\"\u{7f}\"",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "{\"a\":1,\"b\":[{}, {\"c\":null}]}",
        " { \"a\" : [ 1 , 2 ] } ",
        "{\"a\":{\"b\":[[[{}]]]}}",
        "{\"a\":[}",
        "'a'",
    ] {
        assert_eq!(accepts(doc.as_bytes()), oracle(doc.as_bytes()), "{doc:?}");
    }
    assert!(accepts(b"{\"a\":\"\xff\xfe\"}") && oracle(b"{\"a\":\"\xff\xfe\"}"));
    assert!(!accepts(b"{\"a\":\"\x1f\"}"));
}

#[test]
fn nesting_past_the_limit_is_invalid_and_up_to_it_is_not() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(accepts(nested(MAX_DEPTH).as_bytes()));
    assert!(!accepts(nested(MAX_DEPTH + 1).as_bytes()));
    assert!(!accepts("[".repeat(1_000_000).as_bytes()));
    let mixed = format!("{}1{}", "{\"a\":[".repeat(MAX_DEPTH / 2), "]}".repeat(MAX_DEPTH / 2));
    assert!(accepts(mixed.as_bytes()));
}

#[test]
fn every_byte_of_a_string_is_looked_at_wherever_it_stands() {
    for length in (0..80).chain([1000]) {
        for byte in [0x00, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x5b, 0x5c, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
            for tail in [0, 1, 7, 8, 100] {
                let doc = [b"\"", vec![b'a'; length].as_slice(), &[byte], vec![0xa2; tail].as_slice(), b"\""].concat();
                assert_eq!(accepts(&doc), oracle(&doc), "{byte:#x} after {length} before {tail}");
            }
        }
    }
}

#[test]
fn text_is_decoded_whatever_it_holds() {
    for (escaped, expected) in [
        (&b"plain"[..], "plain"),
        (br#"a\"b\\c\/d\b\f\n\r\t"#, "a\"b\\c/d\u{8}\u{c}\n\r\t"),
        (br"\u00e9\ud83d\ude00!", "é😀!"),
        (br"\ud800x\udc00", "\u{fffd}x\u{fffd}"),
        (br"\ud800\u0041", "\u{fffd}A"),
        (b"\xffz", "\u{fffd}z"),
    ] {
        assert_eq!(unescape(escaped), expected);
    }
}

#[test]
fn a_repeated_key_gives_its_last_value_and_escaped_keys_count() {
    assert_eq!(get(br#"{"a":1,"\u0061":[2]}"#, "a"), Some(&b"[2]"[..]));
    assert_eq!(get(br#"{"a":1"#, "a"), None);
    assert_eq!(elements(br#" [1, "a" ,{"b":[]}] "#), [&b"1"[..], br#""a""#, br#"{"b":[]}"#]);
    assert!(elements(b"{}").is_empty());
}

/// Fragments that make valid, nearly valid and hopeless documents.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"",
        "\\",
        "\\n",
        "\\u0041",
        "\\u00",
        "1",
        "-",
        "0",
        ".5",
        "e3",
        "true",
        "null",
        " ",
        "\n",
        "\"b\":",
        "{\"a\":1}",
        "[]",
        "é",
    ]);
    prop::collection::vec(fragment, 0..14).prop_map(|parts| parts.concat().into_bytes())
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        prop::sample::select(vec![0.5, -1.25e-7, 1e300]).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn validity_is_that_of_serde_json_on_fragments(doc in soup()) {
        prop_assert_eq!(accepts(&doc), oracle(&doc));
    }

    #[test]
    fn validity_is_that_of_serde_json_on_damaged_documents(
        value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut doc = value.to_string().into_bytes();
        prop_assert!(accepts(&doc));
        let at = at.index(doc.len());
        if cut { doc.truncate(at) } else { doc[at] = byte }
        prop_assert_eq!(accepts(&doc), oracle(&doc));
    }

    #[test]
    fn values_are_those_of_serde_json(value in any_json(), pretty in any::<bool>()) {
        let doc = if pretty { format!("{value:#}") } else { value.to_string() };
        let mut found = serde_json::Map::new();
        members(doc.as_bytes(), |key, member| {
            let value = serde_json::from_slice(&doc.as_bytes()[member.value]);
            found.insert(unescape(key), value.unwrap_or_default());
        }).map_err(|Invalid| TestCaseError::fail("invalid"))?;
        prop_assert_eq!(found, value.as_object().cloned().unwrap_or_default());
        let list: Vec<serde_json::Value> =
            elements(doc.as_bytes()).into_iter().map(|element| serde_json::from_slice(element).unwrap_or_default()).collect();
        prop_assert_eq!(list, value.as_array().cloned().unwrap_or_default());
        if let Some(text) = value.as_str() {
            prop_assert_eq!(super::text(doc.as_bytes()), Some(text.to_owned()));
        }
    }
}

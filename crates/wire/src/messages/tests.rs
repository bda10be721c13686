#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

fn head(body: &str) -> RequestHead {
    read_head(body.as_bytes()).unwrap()
}

fn refusal(body: &str) -> String {
    read_head(body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_request_of_the_stock_client_is_read_whole() {
    let body = concat!(
        r#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"hi"}],"system":[],"tools":[{}],"#,
        r#""metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"s-1\"}"},"max_tokens":32000,"stream":true,"#,
        r#""tags":{"cost":"eng"}}"#
    );
    let head = head(body);
    assert_eq!(head.model, "claude-sonnet-4-5");
    assert_eq!(&body[head.model_span.clone()], r#""claude-sonnet-4-5""#);
    assert!(head.stream);
    assert_eq!(head.max_tokens, Some(32_000));
    assert_eq!(head.session_id.as_deref(), Some("s-1"));
    assert_eq!(&body[head.tags.clone().unwrap()], r#","tags":{"cost":"eng"}"#);
    assert_eq!(head.tags_billing.as_deref(), Some("eng"));
    assert_eq!(head.message_bytes, r#"[{"role":"user","content":"hi"}]"#.len() + "[]".len() + "[{}]".len());
}

#[test]
fn each_bad_body_gets_its_sentence() {
    for body in ["", "x", "{\"model\":\"m\"", "{\"model\":\"m\"}}", "[1,", "\u{1f}\u{8b}"] {
        assert_eq!(refusal(body), "invalid JSON", "{body:?}");
    }
    for body in ["[]", "null", "\"m\"", "3", " [{\"model\":\"m\"}] "] {
        assert_eq!(refusal(body), "request body must be a JSON object", "{body:?}");
    }
    for body in ["{}", "{\"model\":\"\"}", "{\"Model\":\"m\"}", "{\"a\":{\"model\":\"m\"}}"] {
        assert_eq!(refusal(body), "model is required", "{body:?}");
    }
    for value in ["null", "1", "[\"m\"]", "{}", "true"] {
        assert_eq!(refusal(&format!("{{\"model\":{value}}}")), "model must be a string", "{value}");
    }
}

#[test]
fn a_field_that_is_read_may_stand_only_once_however_it_is_spelled() {
    for name in READ_ONCE {
        let body = format!(r#"{{"model":"m","{name}":1,"x":2,"{name}":1}}"#);
        assert_eq!(read_head(body.as_bytes()), Err(BodyError::DuplicateKey(name)));
    }
    assert_eq!(
        refusal(r#"{"model":"allowed","mod\u0065l":"denied"}"#),
        r#"request body has more than one "model" field; send it once"#
    );
    assert_eq!(head(r#"{"model":"m","x":1,"x":2,"messages":[],"messages":[]}"#).model, "m");
    assert_eq!(refusal(r#"{"model":1,"stream":true,"stream":true"#), "invalid JSON");
}

#[test]
fn a_field_whose_name_is_not_utf_8_is_refused_because_an_upstream_may_read_another_one() {
    let body = b"{\"model\":\"a\",\"mo\xffdel\":\"b\"}";
    assert_eq!(read_head(body), Err(BodyError::InvalidJson));
}

#[test]
fn the_model_is_decoded_and_bytes_that_are_not_utf_8_pass_elsewhere() {
    assert_eq!(head(r#"{"m\u006fdel":"cl\u0061ude\/x"}"#).model, "claude/x");
    let body = b"{\"x\":\"\xff\xfe\",\"model\":\"m\",\"metadata\":{\"user_id\":\"\xff\"}}";
    assert_eq!(read_head(body).unwrap().model, "m");
}

#[test]
fn fields_of_an_unexpected_type_count_as_absent() {
    for (field, stream, max_tokens) in [
        (r#""stream":"true""#, false, None),
        (r#""stream":1"#, false, None),
        (r#""stream":false"#, false, None),
        (r#""stream" : true"#, true, None),
        (r#""max_tokens":-1"#, false, None),
        (r#""max_tokens":1.5"#, false, None),
        (r#""max_tokens":1e3"#, false, None),
        (r#""max_tokens":"5""#, false, None),
        (r#""max_tokens":99999999999999999999"#, false, None),
        (r#""max_tokens":0"#, false, Some(0)),
    ] {
        let head = head(&format!(r#"{{"model":"m",{field}}}"#));
        assert_eq!((head.stream, head.max_tokens), (stream, max_tokens), "{field}");
    }
    for metadata in
        ["null", "{}", r#"{"user_id":3}"#, r#"{"user_id":"user_x_session_y"}"#, r#"{"user_id":"{\"session_id\":1}"}"#]
    {
        assert_eq!(head(&format!(r#"{{"model":"m","metadata":{metadata}}}"#)).session_id, None, "{metadata}");
    }
}

#[test]
fn the_billing_tag_is_the_first_string_or_the_one_asked_for() {
    for (tags, first) in [
        (r#""eng""#, Some("eng")),
        (r#"[1,"eng","x"]"#, Some("eng")),
        (r#"{"a":1,"b":"eng","c":"x"}"#, Some("eng")),
        ("[]", None),
        ("7", None),
        (r#"{"a":{"b":"deep"}}"#, None),
    ] {
        let head = head(&format!(r#"{{"model":"m","tags":{tags}}}"#));
        assert_eq!(head.tags_billing.as_deref(), first, "{tags}");
    }
    let body = r#"{"model":"m","tags":{"a":"x","cost":"eng","n":1}}"#;
    let value = head(body).tags_value.unwrap();
    assert_eq!(tag_named(body.as_bytes(), &value, "cost").as_deref(), Some("eng"));
    assert_eq!(tag_named(body.as_bytes(), &value, "n"), None);
    assert_eq!(tag_named(body.as_bytes(), &(0..9_999), "a"), None);
}

fn edited(body: &str, edits: &mut [Edit]) -> String {
    let parts = splice(&Bytes::copy_from_slice(body.as_bytes()), edits);
    String::from_utf8(parts.concat()).unwrap()
}

#[test]
fn cutting_tags_leaves_the_rest_as_it_was_sent() {
    for (body, expected) in [
        (r#"{"tags":1}"#, "{}"),
        (r#"{ "tags" : [1, 2] , "model":"m"}"#, r#"{  "model":"m"}"#),
        (
            r#"{"model":"m", "tags":{"a":{}} , "n":12345678901234567890 }"#,
            r#"{"model":"m",  "n":12345678901234567890 }"#,
        ),
        (r#"{"model":"m" , "tags":null }"#, r#"{"model":"m"  }"#),
    ] {
        let with_model = body.replacen('{', r#"{"model":"m","#, usize::from(!body.contains("model")));
        let span = head(&with_model).tags.unwrap();
        let expected = if with_model == body { expected.to_owned() } else { r#"{"model":"m"}"#.to_owned() };
        assert_eq!(edited(&with_model, &mut [Edit { span, replacement: Bytes::new() }]), expected);
    }
}

#[test]
fn a_splice_shares_the_body_and_keeps_the_order() {
    let body = Bytes::from_static(b"0123456789");
    let edit = |span, text: &'static str| Edit { span, replacement: Bytes::from_static(text.as_bytes()) };
    let parts = splice(&body, &mut [edit(7..9, ""), edit(2..4, "ab")]);
    assert_eq!(parts, ["01", "ab", "456", "9"]);
    assert_eq!(parts[0].as_ptr(), body.as_ptr());
    assert_eq!(splice(&body, &mut []), ["0123456789"]);
    assert_eq!(splice(&body, &mut [edit(8..99, "z")]), ["01234567", "z"]);
    assert!(splice(&body, &mut [edit(0..10, "")]).is_empty());
}

fn field() -> impl Strategy<Value = (String, Value)> {
    let name =
        prop::sample::select(vec!["model", "stream", "max_tokens", "tags", "metadata", "messages", "x", "a\"b", "é"]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(serde_json::json!({"a": ["x", {"b": 1.5}]})),
    ];
    (name.prop_map(str::to_owned), value)
}

proptest! {
    #[test]
    fn heads_agree_with_serde_json(fields in prop::collection::vec(field(), 0..8), pretty in any::<bool>()) {
        let map: Map<String, Value> = fields.into_iter().collect();
        let value = Value::Object(map.clone());
        let body = if pretty { format!("{value:#}") } else { value.to_string() };
        match (map.get("model"), read_head(body.as_bytes())) {
            (Some(Value::String(model)), Ok(head)) => {
                prop_assert_eq!(model, &head.model);
                prop_assert!(!model.is_empty());
                prop_assert_eq!(head.stream, map.get("stream") == Some(&Value::Bool(true)));
                prop_assert_eq!(head.max_tokens, map.get("max_tokens").and_then(Value::as_u64));
                let mut edits = vec![Edit { span: head.model_span, replacement: Bytes::from_static(b"\"other\"") }];
                edits.extend(head.tags.map(|span| Edit { span, replacement: Bytes::new() }));
                let mut expected = map.clone();
                expected.insert("model".to_owned(), "other".into());
                expected.remove("tags");
                let sent: Map<String, Value> = serde_json::from_str(&edited(&body, &mut edits)).unwrap();
                prop_assert_eq!(sent, expected);
            }
            (model, result) => {
                let expected = match model {
                    None => BodyError::ModelMissing,
                    Some(Value::String(_)) => BodyError::ModelMissing,
                    Some(_) => BodyError::ModelNotAString,
                };
                prop_assert_eq!(result, Err(expected));
            }
        }
    }

    #[test]
    fn any_bytes_give_an_answer(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read_head(&body);
    }
}

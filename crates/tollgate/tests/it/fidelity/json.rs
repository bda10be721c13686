//! Documents that no JSON library would write again as they are.

use bytes::Bytes;

use super::DATED;
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

const VALUES: [&str; 16] = [
    // Halves of surrogate pairs, and escapes that need not be.
    r#""\u0041\u00e4 \ud834\udd1e \ud834 \udc00 \udd1e\ud834""#,
    r#""\/\b\f\n\r\t\"\\\u0000\u001F\u007f""#,
    "\"\u{7f}\u{feff}\u{2028}\u{2029}\u{1f600}e\u{301}\"",
    "123456789012345678901234567890",
    "-9007199254740993",
    "-0",
    "-0.0",
    "1e400",
    "-1E+400",
    "0.1e-400",
    "1.0",
    "1.10000000000000000000000000000000000001",
    "[ \t\r\n]",
    "[\n\t1 ,\r\n2\t]",
    r#"{ "b" : 1 , "a":2,"":3, "a" : 4, "__proto__":null }"#,
    r#"{"\u0061":1,"a":[{"messages":"\"model\":\"x\""},true , false,null]}"#,
];

/// One document with each value, one that is deep, and one with all of them; they ask for the model that is written so.
fn documents(model: &str) -> Vec<String> {
    let each = VALUES.iter().enumerate().map(|(number, value)| match number % 3 {
        0 => format!("{{\"model\":{model},\"metadata\":{value},\"max_tokens\":1}}"),
        1 => format!("\r\n{{ \"x\" :\t{value} ,\n \"model\" : {model} }}\n\n"),
        _ => format!("{{\"messages\":[{{\"content\":{value}}}],\"mod\\u0065l\":{model}}}"),
    });
    let deep = format!("{{\"x\":{}{},\"model\":{model}}}", "[".repeat(250), "]".repeat(250));
    let all = format!("{{\"messages\":[{}],\"model\":{model}}}", VALUES.join(" ,"));
    each.chain([deep, all]).collect()
}

#[tokio::test]
async fn requests_and_answers_pass_byte_for_byte_whatever_json_they_are() {
    let gateway = TestGateway::start().await;
    let alice = gateway.as_user("alice");
    let escaped = DATED.replace('-', r"\u002d");
    for model in [format!("\"{DATED}\""), format!("\"{escaped}\"")] {
        for document in documents(&model) {
            let asked = gateway.upstream().requests().len();
            gateway.upstream().answer(Answer::new(200, "application/json", document.clone()));
            let reply = alice.messages(document.clone()).await;
            assert_eq!(reply.text(), document);
            assert_eq!(gateway.upstream().request(asked).await.body, document);
        }
    }
}

#[tokio::test]
async fn only_the_model_id_changes_where_the_upstream_calls_it_otherwise() {
    let gateway = TestGateway::start().await;
    let alice = gateway.as_user("alice");
    for own in [r#""claude-haiku-4-5""#, r#""Claude-HAIKU-4-5""#, r#""claude\u002dhaiku-4-\u0035""#] {
        for (document, expected) in documents(own).into_iter().zip(documents(&format!("\"{DATED}\""))) {
            let asked = gateway.upstream().requests().len();
            gateway.upstream().answer(Answer::message(DATED, "hi", 1, 1));
            assert_eq!(alice.messages(document.clone()).await.status, 200, "{document}");
            assert_eq!(gateway.upstream().request(asked).await.body, expected);
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_pass_within_strings() {
    let gateway = TestGateway::start().await;
    let mut body = format!("{{\"model\":\"{DATED}\",\"x\":\"").into_bytes();
    body.extend(0x80..=0xff);
    body.extend_from_slice(b"\"}");
    gateway.upstream().answer(Answer::new(200, "application/json", body.clone()));
    assert_eq!(gateway.as_user("alice").messages(body.clone()).await.body, body);
    assert_eq!(gateway.upstream().request(0).await.body, Bytes::from(body));
}

#[tokio::test]
async fn an_answer_of_30_megabytes_passes_and_is_metered() {
    let gateway = TestGateway::start().await;
    let text = "\u{fc}\\u00fc\\ud834\\udd1e".repeat(1_600_000);
    let usage = r#""usage":{"input_tokens":11,"output_tokens":5}"#;
    let body = format!(r#"{{"type":"message","content":[{{"type":"text","text":"{text}"}}],{usage}}}"#);
    assert!((30 << 20..32 << 20).contains(&body.len()), "{}", body.len());
    gateway.upstream().answer(Answer::new(200, "application/json", body.clone()));
    let prompt = format!(r#"{{"model":"{DATED}","max_tokens":16,"messages":[]}}"#);
    assert!(gateway.as_user("alice").messages(prompt).await.body == body, "the answer was changed");
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["input_tokens"].as_u64(), event["output_tokens"].as_u64()), (Some(11), Some(5)));
}

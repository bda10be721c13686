//! The head of a request body: what is found lies where it is said to be, and a splice changes nothing else.
#![no_main]

use bytes::Bytes;
use wire::messages::{Edit, read_head, splice, tag_named};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(head) = read_head(data) else { return };
    // The scan does not look inside strings that it does not read; serde refuses bytes that are no UTF-8 there.
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    assert_eq!(value["model"].as_str(), Some(head.model.as_str()));
    assert_eq!(value["stream"] == true, head.stream);
    if let Some(tags) = &head.tags_value {
        let _ = tag_named(data, tags, "team");
    }
    let body = Bytes::copy_from_slice(data);
    let mut edits = vec![Edit { span: head.model_span, replacement: Bytes::from_static(b"\"other\"") }];
    edits.extend(head.tags.map(|span| Edit { span, replacement: Bytes::new() }));
    let edited: Vec<u8> = splice(&body, &mut edits).concat();
    let mut expected = value;
    expected["model"] = "other".into();
    expected.as_object_mut().expect("an object").remove("tags");
    let edited: serde_json::Value = serde_json::from_slice(&edited).expect("a splice leaves JSON");
    assert_eq!(edited, expected);
});

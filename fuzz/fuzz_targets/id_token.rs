//! Id_tokens, key sets and discovery documents: whatever a provider sends is read or refused, never more.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    control::identity::fuzzing::claims(data);
    let (keys, token) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(0));
    if let Ok(token) = std::str::from_utf8(token) {
        control::identity::fuzzing::signature(keys, token.trim_start_matches('\0'));
    }
    let _ = serde_json::from_slice::<wire::oidc::Discovery>(data);
    let _ = serde_json::from_slice::<wire::oidc::TokenAnswer>(data);
});

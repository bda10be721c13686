//! Forms: token requests and typed user codes.
#![no_main]

use control::identity::UserCode;
use url::form_urlencoded;
use wire::oauth::TokenRequest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let fields: Vec<(String, String)> = form_urlencoded::parse(data).into_owned().collect();
    let read = TokenRequest::from_form(fields.iter().map(|(name, value)| (name, value)));
    if let Ok(TokenRequest::DeviceCode { device_code: held } | TokenRequest::Refresh { refresh_token: held }) = read {
        assert!(!held.is_empty() && fields.iter().any(|(_, value)| *value == held));
    }
    for (_, typed) in &fields {
        if let Some(code) = UserCode::read(typed) {
            let shown = code.to_string();
            assert_eq!(shown.len(), 9);
            assert_eq!(UserCode::read(&shown), Some(code), "what is shown can be typed");
        }
    }
});

//! Sealed tokens and bearers: nothing that we did not make opens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(token) = std::str::from_utf8(data) {
        control::identity::fuzzing::forgery(token);
    }
    control::identity::fuzzing::damage(data);
});

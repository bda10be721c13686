//! The configuration: every problem is a sentence.
#![no_main]

use std::path::Path;

use tollgate::config::{Environment, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // No file of the machine that fuzzes is to be read.
    if data.windows(6).any(|window| window == b"${file") || data.windows(4).any(|window| window == b"path") {
        return;
    }
    let environment = Environment::from_pairs([("SECRET", "0123456789abcdef0123456789abcdef")]);
    if let Err(problems) = parse(data, Path::new("/nonexistent"), &environment) {
        assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.message.is_empty()));
    }
});

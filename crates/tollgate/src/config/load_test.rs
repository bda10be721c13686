//! `load_test_mode`: canned answers in place of an upstream's.

use std::time::Duration;

use proxy::upstream::LoadTest;

use super::number;
use super::read::Field;
use super::reference::{Section, key};

pub(super) const SECTION: Section = Section {
    path: "load_test_mode",
    about: "Every request is answered with a canned reply; no upstream is asked, and nothing costs anything. Refused on a \
            database that holds real spend. With the header `x-load-test-user: 1` (up to seven digits) a request counts as \
            that of another developer.",
    keys: &[
        key("enabled", "boolean", "required", "Whether it is on."),
        key("reply_tokens", "whole number from 1 to 100000", "750", "How long a reply is."),
        key("reply_seconds", "number from 0 to 600", "9.5", "How long a streamed reply takes; others come at once."),
    ],
    later: &[],
};

const REPLY_TOKENS: u32 = 750;
const REPLY_TIME: Duration = Duration::from_millis(9500);
const LONGEST: Duration = Duration::from_secs(600);

/// `Some(None)` where it is off.
pub(super) fn read(field: &Field<'_>) -> Option<Option<LoadTest>> {
    let mode = field.mapping(&SECTION)?;
    let enabled = mode.required("enabled", "write true or false", Field::flag);
    let tokens = mode.or("reply_tokens", REPLY_TOKENS, |field| {
        field.whole(1..=100_000).and_then(|tokens| u32::try_from(tokens).ok())
    });
    let time = mode.or("reply_seconds", REPLY_TIME, read_seconds);
    let (enabled, read) = (enabled?, LoadTest { reply_tokens: tokens?, reply_time: time? });
    if enabled {
        field.warn("load test mode is on: every request gets a canned reply and costs nothing; never serve people so");
    }
    Some(enabled.then_some(read))
}

fn read_seconds(field: &Field<'_>) -> Option<Duration> {
    let written = field.any_string()?;
    let nanos = number::nano(written.trim()).and_then(|nanos| u64::try_from(nanos).ok());
    let time = nanos.map(Duration::from_nanos).filter(|time| *time <= LONGEST);
    if time.is_none() {
        field.refuse("must be a number from 0 to 600 with at most nine decimals");
    }
    time
}

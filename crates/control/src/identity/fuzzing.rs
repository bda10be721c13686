//! Doors for the fuzz targets in `fuzz/`, which else see only what is public. Absent from every other build.

#![expect(clippy::panic, clippy::expect_used, reason = "a fuzz target says that something is wrong by stopping")]

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::seal::{Purpose, Seals};
use super::{Bearers, Lasting, SessionConfig};

pub use super::oidc::fuzzing::{claims, signature};

const SECRET: &str = "the-secret-that-no-fuzzer-knows-0123456789";
const PURPOSES: [Purpose; 3] = [Purpose::RefreshToken, Purpose::LoginState, Purpose::DeviceGrant];

static SEALS: LazyLock<Seals> = LazyLock::new(|| Seals::new(&[SECRET.into()]).expect("keys are derived"));
static BEARERS: LazyLock<Bearers> = LazyLock::new(|| {
    Bearers::new(SessionConfig {
        secrets: vec![SECRET.into()],
        ttl: Duration::from_secs(3600),
        issuer: "https://gateway.example".to_owned(),
        billing_group_tag: None,
        lasting: Lasting { idle: Duration::from_secs(3600), max: Duration::from_secs(3600) },
    })
});

/// A text that we did not make opens nowhere.
pub fn forgery(token: &str) {
    for purpose in PURPOSES {
        assert!(SEALS.open::<Value>(purpose, "", token).is_err(), "a forged token opens");
    }
    assert!(BEARERS.verify(token, Timestamp::UNIX_EPOCH).is_err(), "a forged bearer is accepted");
}

/// A token of ours opens to what was sealed, and not at all once a byte of it is another.
pub fn damage(data: &[u8]) {
    let Some((place, content)) = data.split_first() else { return };
    let token = SEALS.seal(Purpose::RefreshToken, "place", &content).expect("bytes are sealed");
    let opened: Vec<u8> = SEALS.open(Purpose::RefreshToken, "place", &token).expect("our own token opens");
    assert_eq!(opened, content);
    let mut token = token.into_bytes();
    let place = usize::from(*place) % token.len();
    token[place] = if token[place] == b'A' { b'B' } else { b'A' };
    let Ok(token) = String::from_utf8(token) else { panic!("base64 is text") };
    assert!(SEALS.open::<Vec<u8>>(Purpose::RefreshToken, "place", &token).is_err(), "a damaged token opens");
}

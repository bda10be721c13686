//! The documents that clients receive, ready to send.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Config, Kind};

/// A settings document and the answer that carries it (contract A9).
#[derive(Debug)]
pub struct Served {
    /// Position of the policy in the file, from 0; `None` when only telemetry settings are served.
    pub index: Option<usize>,
    /// For which sessions it is.
    pub kind: Kind,
    /// `sha256:` and the hex digest of the settings' canonical JSON.
    pub checksum: String,
    /// The checksum as an entity tag, in its quotes.
    pub etag: String,
    /// The whole response body, JSON.
    pub body: Bytes,
}

impl Served {
    pub(super) fn new(index: Option<usize>, kind: Kind, settings: Map<String, Value>) -> Self {
        // The body carries the canonical text itself, so whoever hashes what arrived gets the checksum.
        let canonical = wire::settings::canonical_json(&Value::Object(settings));
        let checksum = format!("sha256:{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
        let body = format!(r#"{{"uuid":"{checksum}","checksum":"{checksum}","settings":{canonical}}}"#);
        Self { index, kind, etag: format!("\"{checksum}\""), checksum, body: Bytes::from(body) }
    }
}

/// Adds what the gateway pushes by itself; whatever the policy says about the same thing wins.
pub(super) fn complete(mut document: Map<String, Value>, config: &Config) -> Map<String, Value> {
    if !config.telemetry_env.is_empty() {
        let env = document.entry("env").or_insert_with(|| Value::Object(Map::new()));
        // An `env` of another type does not pass the configuration's checks.
        if let Some(env) = env.as_object_mut() {
            for (name, value) in &config.telemetry_env {
                env.entry(name).or_insert_with(|| Value::from(value.as_str()));
            }
        }
    }
    if let Some(pricing) = &config.model_pricing {
        document.entry("modelPricing").or_insert_with(|| pricing.clone());
    }
    document
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

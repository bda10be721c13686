//! What the tests of credentials stand on: a way to this machine, a clock, a key.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control::clock::{Clock, TestClock};
use control::connect::{self, Egress};
use serde_json::Value;
use tempfile::TempDir;

use super::exchange::Ways;
use super::tokens::{Source, Tokens};
use super::{CredentialError, google};
use crate::upstream::scripted::{Exchange, Server, http};

/// 2026-11-22T12:00:00Z.
pub(in crate::upstream) const NOW: i64 = 1_795_348_800;

pub(in crate::upstream) struct Bench {
    pub(in crate::upstream) server: Server,
    pub(in crate::upstream) clock: Arc<TestClock>,
    pub(in crate::upstream) folder: TempDir,
    pub(in crate::upstream) egress: Egress,
}

impl Bench {
    pub(in crate::upstream) async fn new() -> Self {
        let clock = Arc::new(TestClock::at(jiff::Timestamp::from_second(NOW).unwrap()));
        let egress = Egress::new(&connect::Config { allow_loopback: true, proxy: None }).unwrap();
        Self { server: Server::start().await, clock, folder: tempfile::tempdir().unwrap(), egress }
    }

    pub(super) fn ways(&self) -> Ways {
        Ways::new(&self.egress, self.clock())
    }

    pub(in crate::upstream) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    pub(in crate::upstream) fn tokens(&self, source: Source) -> Tokens {
        Tokens::new(source, &self.egress, &self.clock())
    }

    pub(in crate::upstream) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(in crate::upstream) fn host(&self) -> String {
        self.server.url().strip_prefix("http://").unwrap().to_owned()
    }

    /// The machine's identity of Google Cloud, as the server says.
    pub(in crate::upstream) fn metadata(&self) -> Source {
        let environment = google::GoogleEnvironment { metadata_host: Some(self.host()), ..Default::default() };
        Source::Google(google::Google::from_environment(&environment).unwrap())
    }

    /// Answers one request with JSON.
    pub(in crate::upstream) async fn answer(&self, status: u16, body: &Value) -> Exchange {
        let answer = http(status, "content-type: application/json\r\n", &body.to_string());
        tokio::time::timeout(Duration::from_secs(20), self.server.answer(answer)).await.unwrap()
    }
}

/// The form of a request, decoded.
pub(in crate::upstream) fn form(exchange: &Exchange) -> Vec<(String, String)> {
    url::form_urlencoded::parse(&exchange.body).into_owned().collect()
}

pub(in crate::upstream) fn field<'f>(form: &'f [(String, String)], name: &str) -> &'f str {
    &form.iter().find(|(field, _)| field == name).unwrap().1
}

pub(super) fn message<T>(result: Result<T, CredentialError>) -> String {
    result.err().unwrap().to_string()
}

/// A new RSA key: in PEM form, and its public half.
pub(in crate::upstream) fn rsa() -> (String, jsonwebtoken::DecodingKey) {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let lines = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n");
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = key.public_key();
    let modulus = part(public.modulus().big_endian_without_leading_zero());
    let exponent = part(public.exponent().big_endian_without_leading_zero());
    (pem, jsonwebtoken::DecodingKey::from_rsa_components(&modulus, &exponent).unwrap())
}

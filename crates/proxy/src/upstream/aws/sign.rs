//! AWS Signature Version 4 on a request of ours.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::digest::{Context, SHA256};
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign as compute};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

use super::super::cloud::Unsigned;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Adds `authorization`, `x-amz-date`, `x-amz-content-sha256` and, with temporary credentials, `x-amz-security-token`.
/// Every header of the request is signed but `user-agent`.
pub(super) fn sign(
    request: &mut Unsigned,
    credentials: &Credentials,
    region: &str,
    service: &str,
    at: Timestamp,
) -> Result<(), Error> {
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let identity: Identity = credentials.clone().into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::from(at))
        .settings(settings)
        .build()?
        .into();
    let uri = request.uri.to_string();
    let headers = request.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let body = SignableBody::Precomputed(digest(&request.body));
    let (instructions, _) = compute(SignableRequest::new("POST", uri, headers, body)?, &params)?.into_parts();
    for (name, value) in instructions.headers() {
        let mut header = HeaderValue::try_from(value)?;
        header.set_sensitive(matches!(name, "authorization" | "x-amz-security-token"));
        request.headers.insert(HeaderName::try_from(name)?, header);
    }
    Ok(())
}

/// SHA-256 over the parts, in hexadecimal.
fn digest(parts: &[Bytes]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    context.finish().as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

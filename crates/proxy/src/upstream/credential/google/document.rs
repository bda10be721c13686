//! Credential files of Google Cloud: what each `type` of them must say.

use std::path::Path;

use jsonwebtoken::EncodingKey;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::external::External;
use super::{Google, GoogleEnvironment, HOUR, Impersonated, ServiceAccount, Source, User};
use crate::upstream::credential::exchange::endpoint;

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
const MAX_LIFETIME: i64 = 12 * HOUR;

/// A sentence that shows none of the file's values, the path left to the caller.
type Why = String;

pub(super) fn read(path: &Path, environment: &GoogleEnvironment) -> Result<Google, Why> {
    let text = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    // The parser's own words could repeat what stands there.
    let document: Value = serde_json::from_slice(&text)
        .map_err(|error| format!("it is not JSON (line {}, column {})", error.line(), error.column()))?;
    let source = source(&document, environment)?;
    Google::new(source, document["quota_project_id"].as_str(), environment).map_err(|error| error.to_string())
}

fn source(document: &Value, environment: &GoogleEnvironment) -> Result<Source, Why> {
    match text(document, "type")? {
        "service_account" => service_account(document).map(Source::ServiceAccount),
        "authorized_user" => user(document, "token_uri", false).map(Source::User),
        "external_account_authorized_user" => user(document, "token_url", true).map(Source::User),
        "external_account" => external(document, environment),
        "impersonated_service_account" => {
            let base = &document["source_credentials"];
            if base["type"] == "impersonated_service_account" {
                return Err("source_credentials must not be impersonated themselves; use delegates".to_owned());
            }
            impersonated(document, source(base, environment).map_err(|why| format!("source_credentials: {why}"))?)
        }
        other => Err(format!(
            "credentials of the type {} are not supported; use service_account, authorized_user, external_account, \
             external_account_authorized_user or impersonated_service_account",
            other.escape_debug()
        )),
    }
}

fn service_account(document: &Value) -> Result<ServiceAccount, Why> {
    let pem = text(document, "private_key")?;
    let key = EncodingKey::from_rsa_pem(pem.as_bytes())
        .map_err(|_| "private_key is not an RSA key in PEM form".to_owned())?;
    Ok(ServiceAccount {
        email: text(document, "client_email")?.to_owned(),
        key,
        key_id: document["private_key_id"].as_str().map(str::to_owned),
        token_url: url_or(document, "token_uri", TOKEN_URL)?,
    })
}

fn user(document: &Value, url_field: &str, is_basic: bool) -> Result<User, Why> {
    Ok(User {
        client_id: text(document, "client_id")?.to_owned(),
        client_secret: text(document, "client_secret")?.into(),
        refresh_token: text(document, "refresh_token")?.into(),
        token_url: url_or(document, url_field, TOKEN_URL)?,
        is_basic,
    })
}

fn external(document: &Value, environment: &GoogleEnvironment) -> Result<Source, Why> {
    let external = Source::External(Box::new(External::read(document, environment)?));
    if document["service_account_impersonation_url"].is_null() {
        return Ok(external);
    }
    impersonated(document, external)
}

fn impersonated(document: &Value, base: Source) -> Result<Source, Why> {
    let lifetime = &document["service_account_impersonation"]["token_lifetime_seconds"];
    let lifetime_seconds = if lifetime.is_null() { Some(HOUR) } else { lifetime.as_i64() };
    let lifetime_seconds = lifetime_seconds.filter(|seconds| (600..=MAX_LIFETIME).contains(seconds));
    let delegates = document["delegates"].as_array().into_iter().flatten();
    Ok(Source::Impersonated(Box::new(Impersonated {
        base,
        url: url(document, "service_account_impersonation_url")?,
        delegates: delegates.filter_map(Value::as_str).map(str::to_owned).collect(),
        lifetime_seconds: lifetime_seconds
            .ok_or_else(|| "token_lifetime_seconds must be a number from 600 to 43200".to_owned())?,
    })))
}

/// A field that must be there.
pub(super) fn text<'d>(document: &'d Value, field: &str) -> Result<&'d str, Why> {
    match &document[field] {
        Value::String(text) if !text.is_empty() => Ok(text),
        Value::Null => Err(format!("{field} is missing")),
        _ => Err(format!("{field} must be a text that is not empty")),
    }
}

pub(super) fn url(document: &Value, field: &str) -> Result<Url, Why> {
    endpoint(text(document, field)?).map_err(|why| format!("{field} {why}"))
}

fn url_or(document: &Value, field: &str, default: &str) -> Result<Url, Why> {
    if document[field].is_null() {
        return endpoint(default).map_err(str::to_owned);
    }
    url(document, field)
}

/// A secret that may be left out.
pub(super) fn secret(document: &Value, field: &str) -> Option<SecretString> {
    document[field].as_str().map(SecretString::from)
}

//! Clouds as far as the gateway meets them: answers for a scripted [`super::upstream::Upstream`] in the clouds' own formats,
//! with signatures checked and checksums made as the clouds do it, and those who issue tokens there. Each of them verifies what
//! it is asked as the real one would, and says what is wrong in the real one's words.

pub(crate) mod anthropic;
pub(crate) mod aws;
pub(crate) mod azure;
pub(crate) mod bedrock;
pub(crate) mod google;
mod signer;

use std::collections::HashMap;

use serde_json::{Value, json};
use url::form_urlencoded;

use super::upstream::{Answer, Received};

/// Fields of a form or of a query; one that is repeated is wrong everywhere.
type Fields = HashMap<String, String>;

fn fields(encoded: &[u8]) -> Result<Fields, String> {
    let mut fields = Fields::new();
    for (name, value) in form_urlencoded::parse(encoded).into_owned() {
        if fields.insert(name.clone(), value).is_some() {
            return Err(format!("{name} is repeated"));
        }
    }
    Ok(fields)
}

fn form(request: &Received) -> Result<Fields, String> {
    require(request.method == "POST", "not a POST")?;
    let media_type = request.header("content-type").unwrap_or_default();
    require(media_type.starts_with("application/x-www-form-urlencoded"), "not a form")?;
    fields(&request.body)
}

fn query(request: &Received) -> Result<Fields, String> {
    require(request.method == "GET", "not a GET")?;
    fields(request.uri.query().unwrap_or_default().as_bytes())
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn must_be(fields: &Fields, name: &str, value: &str) -> Result<(), String> {
    match fields.get(name) {
        Some(found) if found == value => Ok(()),
        found => Err(format!("{name} is {found:?} and not {value}")),
    }
}

/// RFC 6749, section 5: the token, or why not.
fn token(verified: Result<&str, String>, seconds: u32) -> Answer {
    match verified {
        Ok(token) => Answer::json(200, &granted(token, seconds)),
        Err(why) => Answer::json(400, &json!({ "error": "invalid_grant", "error_description": why })),
    }
}

fn granted(token: &str, seconds: u32) -> Value {
    json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" })
}

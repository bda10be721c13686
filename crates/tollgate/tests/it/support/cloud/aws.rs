//! What Amazon's services share: signatures, checked here by the letter of the documentation and not with the library that
//! makes them, and the services that hand out credentials.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use serde_json::json;

use crate::support::upstream::{Answer, Received};

/// A key that a mock knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) token: Option<&'static str>,
}

/// The one that tests write into configurations.
pub(crate) const KEYS: Keys =
    Keys { id: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token: None };
/// What the credential services hand out.
pub(crate) const TEMPORARY: Keys =
    Keys { id: "ASIAEXAMPLE", secret: "temporary/secret", token: Some("session-token==") };

/// Whether the request is signed with these keys for that service; else what is wrong.
pub(crate) fn check(received: &Received, keys: &Keys, region: &str, service: &str) -> Result<(), String> {
    let header = |name: &str| received.header(name).ok_or_else(|| format!("no {name}"));
    let authorization = header("authorization")?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let field = |name: &str| {
        let found = fields.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("no {name}"))
    };
    let (credential, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let date = header("x-amz-date")?;
    let scope = format!("{}/{region}/{service}/aws4_request", &date[..8]);
    if credential != format!("{}/{scope}", keys.id) {
        return Err(format!("the credential is {credential}"));
    }
    if received.header("x-amz-security-token") != keys.token {
        return Err("another session token".to_owned());
    }
    for needed in ["host", "x-amz-date"] {
        if !signed.split(';').any(|name| name == needed) {
            return Err(format!("{needed} is not signed"));
        }
    }
    let payload = hex(digest(&SHA256, &received.body).as_ref());
    if received.header("x-amz-content-sha256").is_some_and(|told| told != payload) {
        return Err("another body was signed".to_owned());
    }
    let headers: String = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", received.header(name).unwrap_or_default().trim()))
        .collect();
    let (path, query) = (encoded(received.uri.path()), received.uri.query().unwrap_or_default());
    let canonical = format!("{}\n{path}\n{query}\n{headers}\n{signed}\n{payload}", received.method);
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let mut key = format!("AWS4{}", keys.secret).into_bytes();
    for part in [&date[..8], region, service, "aws4_request"] {
        key = mac(&key, part);
    }
    if hex(&mac(&key, &to_sign)) == signature {
        Ok(())
    } else {
        Err(format!("the signature does not match\n{canonical}"))
    }
}

/// How Amazon refuses a request that is not signed well.
pub(crate) fn refused(why: &str) -> Answer {
    Answer::json(403, &json!({ "message": format!("The request signature does not match: {why}") }))
}

/// STS: `AssumeRole` signed with `keys` gives [`TEMPORARY`].
pub(crate) fn sts(keys: Keys, region: &'static str) -> impl Fn(&Received) -> Answer {
    move |received| match check(received, &keys, region, "sts") {
        Ok(()) => assumed("AssumeRole", "2099-01-01T00:00:00Z"),
        Err(why) => refused(&why),
    }
}

/// STS: what `AssumeRoleWithWebIdentity` gives: [`TEMPORARY`], until then. Nothing is signed there.
pub(crate) fn web_identity(ends: &str) -> Answer {
    assumed("AssumeRoleWithWebIdentity", ends)
}

fn assumed(action: &str, ends: &str) -> Answer {
    let Keys { id, secret, token } = TEMPORARY;
    let token = token.unwrap();
    let answer = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>{ends}</Expiration></Credentials></{action}Result></{action}Response>"
    );
    Answer::new(200, "text/xml", answer)
}

/// IAM Identity Center, both of its services: `CreateToken` gives "renewed-token", and `GetRoleCredentials` gives
/// [`TEMPORARY`] to who shows `token`.
/// <https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html>
/// <https://docs.aws.amazon.com/singlesignon/latest/OIDCAPIReference/API_CreateToken.html>
pub(crate) fn single_sign_on(token: &'static str) -> impl Fn(&Received) -> Answer {
    move |received| match received.uri.path() {
        "/token" if received.json()["grantType"] == "refresh_token" => {
            Answer::json(200, &json!({ "accessToken": "renewed-token", "expiresIn": 28_800, "tokenType": "Bearer" }))
        }
        "/federation/credentials" => {
            let query = received.uri.query().unwrap_or_default();
            assert!(query.contains("role_name=Developer") && query.contains("account_id=111122223333"), "{query}");
            if received.header("x-amz-sso_bearer_token") != Some(token) {
                return Answer::json(401, &json!({ "message": "Session token not found or invalid" }));
            }
            let Keys { id, secret, token } = TEMPORARY;
            let credentials = json!({
                "accessKeyId": id, "secretAccessKey": secret, "sessionToken": token, "expiration": 4_070_908_800_000_i64,
            });
            Answer::json(200, &json!({ "roleCredentials": credentials }))
        }
        _ => Answer::json(404, &json!({ "message": "no such operation" })),
    }
}

/// The instance's metadata service, version 2: it answers only with a token that it gave before.
pub(crate) fn instance_metadata(received: &Received) -> Answer {
    const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
    if received.uri.path() == "/latest/api/token" {
        assert!(received.header("x-aws-ec2-metadata-token-ttl-seconds").is_some());
        return Answer::new(200, "text/plain", "imds-token").header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
    }
    if received.header("x-aws-ec2-metadata-token") != Some("imds-token") {
        return Answer::new(401, "text/plain", "");
    }
    match received.uri.path().strip_prefix(ROLE) {
        Some("") => Answer::new(200, "text/plain", "tollgate-role"),
        Some("tollgate-role") => {
            credentials(&json!({ "Code": "Success", "LastUpdated": "2026-11-22T00:00:00Z", "Type": "AWS-HMAC" }))
        }
        _ => Answer::new(404, "text/plain", ""),
    }
}

/// A container's credential endpoint.
pub(crate) fn container(received: &Received) -> Answer {
    match received.header("authorization") {
        Some("container-token") => credentials(&json!({ "RoleArn": "arn:aws:iam::111122223333:role/task" })),
        _ => Answer::new(401, "text/plain", ""),
    }
}

fn credentials(more: &serde_json::Value) -> Answer {
    let mut document = more.clone();
    document["AccessKeyId"] = TEMPORARY.id.into();
    document["SecretAccessKey"] = TEMPORARY.secret.into();
    document["Token"] = TEMPORARY.token.into();
    document["Expiration"] = "2099-01-01T00:00:00Z".into();
    Answer::json(200, &document)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// The path as it came, encoded once more: every service but S3 signs it so.
fn encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
        encoded
    })
}

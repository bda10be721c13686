//! The service account in whose name the directory is asked: with a key of its own, or as the machine's identity, which
//! Google's IAM signs for.
//!
//! Knows how an assertion comes to be; knows nothing of groups.

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, StatusCode};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::super::call::{self, CallError, Line};
use super::{DirectoryError, Token};

/// Where Google Cloud's metadata server is, unless `GCE_METADATA_HOST` says otherwise.
const METADATA: &str = "metadata.google.internal";
const IAM: &str = "https://iamcredentials.googleapis.com";
const FLAVOR: &str = "metadata-flavor";
const LONGEST_ANSWER: usize = 64 * 1024;

/// Who signs.
#[derive(Debug, Clone)]
pub(super) enum Account {
    /// The key of a file.
    Key(Box<Key>),
    /// The identity of the machine.
    Machine(Machine),
}

/// A service account's key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    account: String,
    key: EncodingKey,
    id: Option<String>,
}

/// The identity that a metadata server vouches for.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    metadata: Authority,
    /// Where the IAM Credentials API is.
    pub(super) iam: String,
}

/// A service account's key file, as far as it is read.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: Option<String>,
    token_uri: String,
}

/// The answer of `signJwt`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    signed_jwt: String,
}

impl Account {
    /// The account of a key file, and where its tokens are fetched.
    pub(super) fn read(json: &str) -> Result<(Self, Url), String> {
        let file: KeyFile = serde_json::from_str(json).map_err(|_| {
            "is no service account key; write the path of the JSON file that Google gave you".to_owned()
        })?;
        let token_uri =
            Url::parse(&file.token_uri).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let token_uri = token_uri.ok_or("the key's token_uri is not an https URL")?;
        let key = EncodingKey::from_rsa_pem(file.private_key.as_bytes());
        let key = key.map_err(|_| "the key's private_key is not an RSA key in PEM form")?;
        let key = Key { account: file.client_email, key, id: file.private_key_id };
        Ok((Self::Key(Box::new(key)), token_uri))
    }

    /// The machine's identity; `host` is `GCE_METADATA_HOST`.
    pub(super) fn of_machine(host: Option<&str>) -> Result<Self, String> {
        let metadata: Option<Authority> = host.unwrap_or(METADATA).trim().parse().ok();
        let metadata = metadata.filter(|metadata| !metadata.as_str().contains('@'));
        let metadata = metadata.ok_or("GCE_METADATA_HOST is not a host, or a host and a port")?;
        Ok(Self::Machine(Machine { metadata, iam: IAM.to_owned() }))
    }

    /// `claims`, with the account as `iss`, as a signed JWT (RFC 7523, section 3).
    pub(super) async fn signed(&self, mut claims: Value, line: &Line) -> Result<String, DirectoryError> {
        match self {
            Self::Key(key) => {
                claims["iss"] = json!(key.account);
                let mut header = Header::new(Algorithm::RS256);
                header.kid.clone_from(&key.id);
                jsonwebtoken::encode(&header, &claims, &key.key).map_err(|_| DirectoryError::NotSigned)
            }
            Self::Machine(machine) => machine.signed(claims, line).await,
        }
    }
}

impl Machine {
    /// By IAM's own key (IAM Credentials API, `signJwt`): the machine's account needs the role of a token creator on itself.
    async fn signed(&self, mut claims: Value, line: &Line) -> Result<String, DirectoryError> {
        let untold = |error| DirectoryError::Call("the metadata server", error);
        let account = self.told("email", line).await.map_err(untold)?;
        let account = std::str::from_utf8(&account).ok().map(str::trim).filter(|account| is_address(account));
        let account = account.ok_or_else(|| untold(CallError::Unreadable))?;
        let token = self.told("token", line).await.map_err(untold)?;
        let token: Token = call::object(&token).ok_or_else(|| untold(CallError::Unreadable))?;
        let url = Url::parse(&format!("{}/v1/projects/-/serviceAccounts/{account}:signJwt", self.iam));
        let url = url.map_err(|_| DirectoryError::NotSigned)?;
        claims["iss"] = json!(account);
        let body = json!({"payload": claims.to_string()});
        let answer = line.post_json(&url, &body, &SecretString::from(token.access_token)).await;
        let signed: Signed =
            call::json(answer).map_err(|error| DirectoryError::Call("IAM, asked to sign (signJwt)", error))?;
        Ok(signed.signed_jwt)
    }

    /// What the metadata server says of the machine's service account.
    async fn told(&self, what: &str, line: &Line) -> Result<Bytes, CallError> {
        let path = "computeMetadata/v1/instance/service-accounts/default";
        // The header keeps a server that is tricked into asking from being answered.
        let request = Request::get(format!("http://{}/{path}/{what}", self.metadata)).header(FLAVOR, "Google");
        let request = request.body(Full::default()).map_err(|_| CallError::Unreadable)?;
        let egress = line.egress.towards_this_machine();
        let (answer, body) = egress.fetch(request, line.budget, LONGEST_ANSWER).await?;
        if answer.status != StatusCode::OK {
            return Err(CallError::Status(answer.status));
        }
        // Without it, whoever answered under that name is something else.
        let is_google = answer.headers.get(FLAVOR).is_some_and(|flavor| flavor == "Google");
        if is_google { Ok(body) } else { Err(CallError::Unreadable) }
    }
}

/// It becomes part of a path.
fn is_address(account: &str) -> bool {
    account.contains('@') && account.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@.-_".contains(&byte))
}

//! Where an upstream is: what of its `base_url` stands in every request to it.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use url::Url;

use super::Invalid;

/// A parsed `base_url`.
#[derive(Debug, Clone)]
pub(super) struct Base {
    scheme: Scheme,
    authority: Authority,
    /// Its path, without a trailing slash.
    prefix: String,
}

impl Base {
    /// Of the upstream `name`.
    ///
    /// # Errors
    /// [`Invalid::BaseUrl`].
    pub(super) fn new(name: &str, url: &Url) -> Result<Self, Invalid> {
        let invalid = || Invalid::BaseUrl(name.to_owned());
        let url: Uri = url.as_str().parse().map_err(|_| invalid())?;
        let scheme = url.scheme().cloned().ok_or_else(invalid)?;
        // Without user and password: they would be sent to whoever reads the Host header.
        let host_and_port = url.authority().and_then(|authority| authority.as_str().rsplit('@').next());
        let authority = host_and_port.and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
        Ok(Self { scheme, authority, prefix: url.path().trim_end_matches('/').to_owned() })
    }

    /// The address of a path below it, with the client's query where it is to be kept.
    ///
    /// # Errors
    /// When the path holds what no URL can.
    pub(super) fn uri(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let prefix = &self.prefix;
        let path_and_query: PathAndQuery = match query {
            None => format!("{prefix}{path}").try_into()?,
            Some(query) => format!("{prefix}{path}?{query}").try_into()?,
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path_and_query)
            .build()
    }

    /// The same for a path that is known at compile time: nothing is built where there is no prefix and no query.
    ///
    /// # Errors
    /// As [`Base::uri`].
    pub(super) fn uri_of(&self, path: &'static str, query: Option<&str>) -> Result<Uri, http::Error> {
        if !self.prefix.is_empty() || query.is_some() {
            return self.uri(path, query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::from_static(path))
            .build()
    }

    /// The `host` header, as it stands in every request: for signatures that cover it.
    ///
    /// # Errors
    /// When the host holds what no header can.
    pub(super) fn host(&self) -> Result<HeaderValue, http::Error> {
        let default = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = self.authority.host();
        Ok(match self.authority.port_u16() {
            Some(port) if port != default => HeaderValue::try_from(format!("{host}:{port}"))?,
            _ => HeaderValue::try_from(host)?,
        })
    }
}

/// A model id as one segment of a path: percent-encoded but for unreserved characters (RFC 3986, section 2.3) and `more`.
pub(super) fn encoded(id: &str, more: &str) -> String {
    let mut path = String::with_capacity(id.len() + 8);
    for byte in id.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(character) || more.contains(character) {
            path.push(character);
        } else {
            path.push('%');
            path.extend([byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789ABCDEF"[usize::from(nibble)])));
        }
    }
    path
}

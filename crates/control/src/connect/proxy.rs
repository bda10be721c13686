//! The forward proxy of the environment: which destinations go through it, and the CONNECT that pins their address.

use std::fmt;

use http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use secrecy::{ExposeSecret, SecretString};
use tower_service::Service;

use super::ConnectError;

/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as curl reads them. Secret, because a proxy URL may carry a password.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// Proxy of `https` destinations: an `http` or `https` URL.
    pub https: Option<SecretString>,
    /// Proxy of `http` destinations: an `http` or `https` URL.
    pub http: Option<SecretString>,
    /// Hosts, domains and networks that are reached directly, separated by commas; `*` for all.
    pub no_proxy: Option<String>,
    /// The proxy resolves names and decides where connections may go, instead of us.
    pub is_egress_boundary: bool,
}

/// The rules of a [`ProxyConfig`], ready to be asked.
pub(super) struct Proxies {
    matcher: Matcher,
    /// See [`ProxyConfig::is_egress_boundary`].
    pub(super) are_boundary: bool,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher's own Debug shows proxy URLs.
        f.write_str("Proxies")
    }
}

impl Proxies {
    /// # Errors
    /// A sentence, when a proxy URL is of a scheme that cannot be used.
    pub(super) fn new(config: &ProxyConfig) -> Result<Self, String> {
        let mut matcher = Matcher::builder();
        if let Some(url) = checked(config.https.as_ref(), "HTTPS_PROXY")? {
            matcher = matcher.https(url);
        }
        if let Some(url) = checked(config.http.as_ref(), "HTTP_PROXY")? {
            matcher = matcher.http(url);
        }
        if let Some(list) = &config.no_proxy {
            matcher = matcher.no(list.clone());
        }
        Ok(Self { matcher: matcher.build(), are_boundary: config.is_egress_boundary })
    }

    pub(super) fn intercept(&self, destination: &Uri) -> Option<Intercept> {
        self.matcher.intercept(destination)
    }
}

fn checked(url: Option<&SecretString>, name: &str) -> Result<Option<String>, String> {
    let Some(url) = url.map(ExposeSecret::expose_secret).filter(|url| !url.trim().is_empty()) else {
        return Ok(None);
    };
    let usable = match url.split_once("://") {
        Some((scheme, rest)) => matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") && !rest.is_empty(),
        // curl's short form, host:port.
        None => true,
    };
    if usable { Ok(Some(url.to_owned())) } else { Err(format!("{name} must be an http:// or https:// URL")) }
}

/// Asks the proxy behind `inner` for a tunnel to `target`: an address that was checked or, where the proxy is the
/// boundary, a name with a port.
pub(super) async fn tunnel<C>(
    proxy: &Intercept,
    inner: C,
    host: &str,
    target: &str,
) -> Result<C::Response, ConnectError>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |reason: String| ConnectError::Proxy { host: host.to_owned(), reason };
    let target = Uri::builder()
        .scheme("http")
        .authority(target)
        .path_and_query("/")
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let mut tunnel = Tunnel::new(proxy.uri().clone(), inner);
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    tunnel.call(target).await.map_err(|error| failed(error.to_string()))
}

//! The clients that everything outbound uses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use super::client::RequestError;
use super::guard::is_credential_service;
use super::proxy::Proxies;
use super::{Config, ConnectError, Connector, GuardedTlsConnector, UpstreamClient, connect_error};

/// The way out; cheap to clone.
#[derive(Debug, Clone)]
pub struct Egress {
    allow_loopback: bool,
    proxies: Option<Arc<Proxies>>,
    /// With the system's authorities.
    tls: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    to_upstreams: GuardedTlsConnector,
    direct: UpstreamClient<Full<Bytes>>,
}

/// An answer could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection was made.
    #[error("{0}")]
    Connect(String),
    /// The whole answer did not arrive within the budget.
    #[error("outgoing request timed out after {}ms", .0.as_millis())]
    TimedOut(Duration),
    /// The answer's body is longer than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke: {0}")]
    Interrupted(String),
}

impl Egress {
    /// Reads the trusted roots (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or the system's) and the proxy rules.
    ///
    /// # Errors
    /// A sentence, when a proxy URL cannot be used.
    pub fn new(config: &Config) -> Result<Self, String> {
        let proxies = config.proxy.as_ref().map(Proxies::new).transpose()?.map(Arc::new);
        let roots = Arc::new(system_roots());
        let tls = tls_config(&roots)?;
        let allow_loopback = config.allow_loopback;
        let connector = |proxies| {
            let tcp = Connector::new(allow_loopback, proxies, Arc::clone(&tls));
            GuardedTlsConnector::new(tcp, Arc::clone(&tls))
        };
        let (direct, to_upstreams) = (UpstreamClient::new(connector(None)), connector(proxies.clone()));
        Ok(Self { allow_loopback, proxies, tls, roots, to_upstreams, direct })
    }

    /// The same way out for the requests of [`Egress::fetch`] to one party: whose certificate may also come from
    /// `authorities`, and which is behind the forward proxy where `use_proxy` says so - left out, where the proxy is the
    /// boundary.
    ///
    /// # Errors
    /// A sentence, when an authority cannot be trusted.
    pub fn towards(&self, use_proxy: Option<bool>, authorities: &[CertificateDer<'static>]) -> Result<Self, String> {
        let wanted = |proxies: &&Arc<Proxies>| use_proxy.unwrap_or(proxies.are_boundary);
        let proxies = self.proxies.as_ref().filter(wanted).cloned();
        let tls = if authorities.is_empty() {
            Arc::clone(&self.tls)
        } else {
            let mut roots = RootCertStore::clone(&self.roots);
            for authority in authorities {
                roots.add(authority.clone()).map_err(|error| format!("an authority cannot be trusted: {error}"))?;
            }
            tls_config(&roots)?
        };
        // TLS to the proxy itself is the system's matter.
        let tcp = Connector::new(self.allow_loopback, proxies, Arc::clone(&self.tls));
        Ok(Self { direct: UpstreamClient::new(GuardedTlsConnector::new(tcp, tls)), ..self.clone() })
    }

    /// The same way out for the requests of [`Egress::fetch`], through the forward proxy where the environment says so.
    #[must_use]
    pub fn through_proxy(&self) -> Self {
        Self { direct: UpstreamClient::new(self.to_upstreams.clone()), ..self.clone() }
    }

    /// The same way out for the requests of [`Egress::fetch`] to services that a cloud offers to this machine itself: its
    /// metadata service, an identity endpoint beside the process. They live at the very addresses that everything else is
    /// kept from, so nothing is checked and no proxy is asked. Only for addresses that are part of a cloud's own protocol or
    /// that the process's environment names; never for one that a configuration or an answer names.
    #[must_use]
    pub fn towards_this_machine(&self) -> Self {
        let tcp = Connector::unguarded(Arc::clone(&self.tls));
        let direct = UpstreamClient::new(GuardedTlsConnector::new(tcp, Arc::clone(&self.tls)));
        Self { proxies: None, direct, ..self.clone() }
    }

    /// Whether a host, as it is written in a URL, is one where the clouds' tools ask for credentials: an address of the
    /// metadata services, or this machine.
    #[must_use]
    pub fn is_credential_service(host: &str) -> bool {
        is_credential_service(host)
    }

    /// A client for upstreams with a pool of its own, through the forward proxy where the environment says so. It follows
    /// no redirects and never sends a request twice.
    #[must_use]
    pub fn client<B>(&self) -> UpstreamClient<B>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        UpstreamClient::new(self.to_upstreams.clone())
    }

    /// One request, direct unless [`Egress::towards`] says otherwise, whose whole answer is wanted: of any status, redirects
    /// not followed, at most `max_body` bytes, within `budget`.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn fetch(
        &self,
        request: Request<Full<Bytes>>,
        budget: Duration,
        max_body: usize,
    ) -> Result<(response::Parts, Bytes), FetchError> {
        let exchange = async {
            let (parts, body) = self.direct.request(request).await.map_err(|error| of_client(&error))?.into_parts();
            match Limited::new(body, max_body).collect().await {
                Ok(body) => Ok((parts, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(max_body)),
                Err(error) => Err(FetchError::Interrupted(error.to_string())),
            }
        };
        tokio::time::timeout(budget, exchange).await.unwrap_or(Err(FetchError::TimedOut(budget)))
    }
}

fn of_client(error: &RequestError) -> FetchError {
    match connect_error(error) {
        Some(ConnectError::TimedOut { host }) => FetchError::Connect(format!("no connection to {host} in time")),
        Some(error) => FetchError::Connect(error.to_string()),
        None => FetchError::Interrupted(chain(error)),
    }
}

/// An error with its causes: the client's own text is one word, the reason is further down.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a trusted root certificate could not be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!("no trusted root certificates were found; TLS connections will fail (set SSL_CERT_FILE)");
    }
    roots
}

/// HTTP/1.1 only: over HTTP/2 long streams would share one connection, and queue behind its limit.
fn tls_config(roots: &RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let mut tls = builder.with_root_certificates(roots.clone()).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::connect::ProxyConfig;

    const SECOND: Duration = Duration::from_secs(1);

    fn egress(allow_loopback: bool) -> Egress {
        Egress::new(&Config { allow_loopback, proxy: None }).unwrap()
    }

    fn get(url: &str) -> Request<Full<Bytes>> {
        Request::get(url).body(Full::default()).unwrap()
    }

    /// Answers every connection with `answer` and gives back what the first one sent.
    async fn scripted(answers: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = String::new();
            for answer in answers {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                heard.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            heard
        });
        (port, server)
    }

    #[tokio::test]
    async fn a_literal_and_a_name_that_lead_to_this_machine_are_refused() {
        for host in ["127.0.0.1", "localhost", "2130706433", "[::1]"] {
            let error = egress(false).fetch(get(&format!("http://{host}:9/")), SECOND, 100).await.unwrap_err();
            assert!(error.to_string().contains("ECONNREFUSED_SSRF: blocked (loopback"), "{host}: {error}");
        }
    }

    #[tokio::test]
    async fn what_a_cloud_offers_to_this_machine_is_reached_unchecked_and_around_the_proxy() {
        let (proxy, _proxy) = proxy().await;
        let (port, server) = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
        let egress = behind(&ProxyConfig { is_egress_boundary: true, ..proxy }).towards_this_machine();
        let (_, body) = egress.fetch(get(&format!("http://localhost:{port}/token")), SECOND, 9).await.unwrap();
        assert_eq!(&body[..], b"ok");
        assert!(server.await.unwrap().starts_with("GET /token "));
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let (port, _server) =
            scripted(&["HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 2\r\n\r\nno"]).await;
        let (parts, body) = egress(true).fetch(get(&format!("http://localhost:{port}/")), SECOND, 100).await.unwrap();
        assert_eq!((parts.status.as_u16(), &body[..]), (302, &b"no"[..]));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let (port, _server) = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nabcdefghijkl"]).await;
        let error = egress(true).fetch(get(&format!("http://127.0.0.1:{port}/")), SECOND, 11).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge(11)), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = egress(true).fetch(get(&url), Duration::from_millis(20), 100).await.unwrap_err();
        assert_eq!(error.to_string(), "outgoing request timed out after 20ms");
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_from_other_troubles() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let client = egress(true).client::<Full<Bytes>>();
        let error = client.request(get(&format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
        assert!(matches!(connect_error(&error), Some(ConnectError::Refused { .. })), "{error:?}");
        let (port, _server) = scripted(&["not TLS at all"]).await;
        let error = client.request(get(&format!("https://127.0.0.1:{port}/"))).await.unwrap_err();
        assert!(matches!(connect_error(&error), Some(ConnectError::Tls { .. })), "{error:?}");
    }

    /// A proxy on loopback that says yes and is the destination itself, and rules that lead to it.
    async fn proxy() -> (ProxyConfig, tokio::task::JoinHandle<String>) {
        let (port, server) = scripted(&[
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        ])
        .await;
        let http = Some(format!("http://user:secret@127.0.0.1:{port}").into());
        (ProxyConfig { http, ..ProxyConfig::default() }, server)
    }

    fn behind(proxy: &ProxyConfig) -> Egress {
        Egress::new(&Config { allow_loopback: false, proxy: Some(proxy.clone()) }).unwrap()
    }

    #[tokio::test]
    async fn upstream_connections_ask_the_proxy_for_the_address_that_was_checked() {
        let (proxy, server) = proxy().await;
        let client =
            behind(&ProxyConfig { no_proxy: Some("other.example".to_owned()), ..proxy }).client::<Full<Bytes>>();
        let answer = client.request(get("http://192.0.2.7:8080/path")).await.unwrap();
        assert_eq!(answer.status(), 200);
        let heard = server.await.unwrap();
        assert!(heard.starts_with("CONNECT 192.0.2.7:8080 HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{heard}");
        assert!(heard.contains("GET /path HTTP/1.1\r\nhost: 192.0.2.7:8080\r\n"), "{heard}");
        let blocked = client.request(get("http://127.0.0.1:9/")).await.unwrap_err();
        assert!(matches!(connect_error(&blocked), Some(ConnectError::Blocked(_))), "{blocked:?}");
    }

    #[tokio::test]
    async fn a_proxy_that_is_the_boundary_is_given_the_name_and_never_this_machine() {
        let (proxy, server) = proxy().await;
        let proxy = ProxyConfig { is_egress_boundary: true, ..proxy };
        let egress = behind(&proxy);
        for host in ["localhost", "app.localhost", "169.254.169.254", "2130706433", "metadata.google.internal"] {
            let error = egress.towards(None, &[]).unwrap();
            let error = error.fetch(get(&format!("http://{host}/")), SECOND, 100).await.unwrap_err();
            assert!(error.to_string().contains("ECONNREFUSED_SSRF"), "{host}: {error}");
        }
        // A name that no resolver knows: the proxy is to find it.
        let (_, body) = egress.towards(None, &[]).unwrap().fetch(get("http://idp.invalid/"), SECOND, 9).await.unwrap();
        assert_eq!(&body[..], b"ok");
        assert!(server.await.unwrap().starts_with("CONNECT idp.invalid:80 HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn one_party_is_behind_the_proxy_when_it_is_asked_for_and_not_otherwise() {
        let (proxy, server) = proxy().await;
        let (port, direct) = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ndirect"]).await;
        let through = behind(&proxy).towards(Some(true), &[]).unwrap();
        let (_, body) = through.fetch(get("http://192.0.2.7/"), SECOND, 100).await.unwrap();
        assert_eq!(&body[..], b"ok");
        assert!(server.await.unwrap().starts_with("CONNECT 192.0.2.7:80 "));
        let boundary = ProxyConfig { is_egress_boundary: true, ..proxy.clone() };
        let egress = Egress::new(&Config { allow_loopback: true, proxy: Some(boundary) }).unwrap();
        let around = egress.towards(Some(false), &[]).unwrap();
        let url = format!("http://127.0.0.1:{port}/");
        let (_, body) = around.fetch(get(&url), SECOND, 100).await.unwrap();
        assert_eq!(&body[..], b"direct");
        assert!(direct.await.unwrap().starts_with("GET / "));
        let excepted = ProxyConfig { no_proxy: Some("127.0.0.1".to_owned()), ..proxy };
        let egress = Egress::new(&Config { allow_loopback: true, proxy: Some(excepted) }).unwrap();
        let (port, direct) = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ndirect"]).await;
        let url = format!("http://127.0.0.1:{port}/");
        egress.towards(Some(true), &[]).unwrap().fetch(get(&url), SECOND, 100).await.unwrap();
        assert!(direct.await.unwrap().starts_with("GET / "), "NO_PROXY");
    }

    #[test]
    fn a_proxy_of_another_scheme_is_refused_by_name() {
        let proxy = ProxyConfig { https: Some("socks5://proxy:1080".into()), ..ProxyConfig::default() };
        let refusal = Egress::new(&Config { allow_loopback: false, proxy: Some(proxy) }).unwrap_err();
        assert_eq!(refusal, "HTTPS_PROXY must be an http:// or https:// URL");
    }
}

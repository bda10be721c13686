//! The connector under every client: one lookup feeds the check and the connect, so a name cannot change its mind between.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::guard::check_loopback_name;
use super::proxy::{Proxies, tunnel};
use super::{ConnectError, check_address, check_literal_host};

/// From the lookup to the end of the TLS handshake.
const CONNECT_BUDGET: Duration = Duration::from_secs(10);
/// For one address of several, so that a dead one leaves time for the next.
const ADDRESS_BUDGET: Duration = Duration::from_secs(3);

/// A connection on its way to a destination: plain, or TLS to a forward proxy.
type Transport = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, ConnectError>> + Send>>;

/// TCP to a checked address, directly or through the forward proxy.
#[derive(Debug, Clone)]
pub struct Connector {
    is_guarded: bool,
    allow_loopback: bool,
    proxies: Option<Arc<Proxies>>,
    tls_to_proxy: Arc<ClientConfig>,
}

impl Connector {
    pub(super) fn new(allow_loopback: bool, proxies: Option<Arc<Proxies>>, tls_to_proxy: Arc<ClientConfig>) -> Self {
        Self { is_guarded: true, allow_loopback, proxies, tls_to_proxy }
    }

    /// Without any check; see [`super::Egress::towards_this_machine`].
    pub(super) fn unguarded(tls_to_proxy: Arc<ClientConfig>) -> Self {
        Self { is_guarded: false, allow_loopback: true, proxies: None, tls_to_proxy }
    }

    async fn connect(self, destination: Uri) -> Result<Transport, ConnectError> {
        let host = destination.host().ok_or(ConnectError::NoHost)?.to_owned();
        let port = port_of(&destination);
        let Some((proxy, are_boundary)) = self.intercept(&destination) else {
            let addresses = self.resolve(&host, port).await?;
            return Ok(MaybeHttpsStream::Http(TokioIo::new(first_to_answer(&host, &addresses).await?)));
        };
        let target = if are_boundary {
            check_literal_host(&host, self.allow_loopback)?;
            check_loopback_name(&host)?;
            format!("{host}:{port}")
        } else {
            let addresses = self.resolve(&host, port).await?;
            addresses.first().ok_or_else(|| no_address(&host))?.to_string()
        };
        let to_proxy = HttpsConnector::from((ToProxy, Arc::clone(&self.tls_to_proxy)));
        tunnel(&proxy, to_proxy, &host, &target).await
    }

    /// The proxy of a destination, and whether it is the boundary.
    fn intercept(&self, destination: &Uri) -> Option<(Intercept, bool)> {
        let proxies = self.proxies.as_ref()?;
        Some((proxies.intercept(destination)?, proxies.are_boundary))
    }

    /// Every address of the host.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        if !self.is_guarded {
            return lookup(host, port).await;
        }
        check_literal_host(host, self.allow_loopback)?;
        checked(host, lookup(host, port).await?, self.allow_loopback)
    }
}

/// Refused when one of them is, so that no answer can hide behind another.
fn checked(host: &str, addresses: Vec<SocketAddr>, allow_loopback: bool) -> Result<Vec<SocketAddr>, ConnectError> {
    for address in &addresses {
        check_address(address.ip(), allow_loopback).map_err(|blocked| blocked.resolved_from(host))?;
    }
    Ok(addresses)
}

impl Service<Uri> for Connector {
    type Response = Transport;
    type Error = ConnectError;
    type Future = Connecting<Transport>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        Box::pin(self.clone().connect(destination))
    }
}

/// [`Connector`] with TLS above it, where the URL says so, and one budget for all of it.
#[derive(Debug, Clone)]
pub struct GuardedTlsConnector {
    https: HttpsConnector<Connector>,
}

impl GuardedTlsConnector {
    pub(super) fn new(connector: Connector, tls: Arc<ClientConfig>) -> Self {
        Self { https: HttpsConnector::from((connector, tls)) }
    }
}

impl Service<Uri> for GuardedTlsConnector {
    type Response = MaybeHttpsStream<Transport>;
    type Error = ConnectError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let host = destination.host().unwrap_or_default().to_owned();
        let connecting = self.https.call(destination);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_BUDGET, connecting).await {
                Ok(Ok(connection)) => Ok(connection),
                // What did not come from the connector came from the handshake.
                Ok(Err(error)) => Err(match error.downcast::<ConnectError>() {
                    Ok(error) => *error,
                    Err(source) => ConnectError::Tls { host, source },
                }),
                Err(_) => Err(ConnectError::TimedOut { host }),
            }
        })
    }
}

/// TCP to the proxy itself. Not guarded: the operator's environment names it, and loopback is a usual place for one.
#[derive(Debug, Clone, Copy)]
struct ToProxy;

impl Service<Uri> for ToProxy {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        Box::pin(async move {
            let host = proxy.host().ok_or(ConnectError::NoHost)?;
            let addresses = lookup(host, port_of(&proxy)).await?;
            Ok(TokioIo::new(first_to_answer(host, &addresses).await?))
        })
    }
}

fn port_of(destination: &Uri) -> u16 {
    let default = if destination.scheme_str() == Some("https") { 443 } else { 80 };
    destination.port_u16().unwrap_or(default)
}

#[expect(clippy::disallowed_methods, reason = "this is the room that resolves names")]
async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::net::lookup_host((name, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(source) => Err(ConnectError::Dns { host: host.to_owned(), source }),
    }
}

/// The first address that accepts, tried in the resolver's order.
#[expect(clippy::disallowed_methods, reason = "this is the room that opens connections; the addresses are checked")]
async fn first_to_answer(host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    let mut failure = no_address(host);
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        let budget = if is_last { CONNECT_BUDGET } else { ADDRESS_BUDGET };
        failure = match tokio::time::timeout(budget, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it, Nagle and delayed acknowledgements cost 40 ms per small write.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(source)) => ConnectError::Refused { host: host.to_owned(), source },
            Err(_) => ConnectError::TimedOut { host: host.to_owned() },
        };
    }
    Err(failure)
}

fn no_address(host: &str) -> ConnectError {
    ConnectError::Dns { host: host.to_owned(), source: std::io::Error::other("the name has no address") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_when_any_of_its_addresses_is() {
        let addresses = |hosts: &[&str]| hosts.iter().map(|host| format!("{host}:443").parse().unwrap()).collect();
        let good: Vec<SocketAddr> = addresses(&["192.0.2.1", "10.0.0.1", "[2001:db8::1]"]);
        assert_eq!(checked("idp.example", good.clone(), false).unwrap(), good);
        for last in ["169.254.169.254", "127.0.0.1", "[::ffff:127.0.0.1]", "[fd00:ec2::254]"] {
            let refusal = checked("idp.example", addresses(&["192.0.2.1", last]), false).unwrap_err();
            assert!(matches!(refusal, ConnectError::Blocked(_)), "{last}: {refusal}");
        }
    }
}

//! Serving: bind, accept (with TLS where configured), drain.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum_server::Handle;
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{listen, metrics};

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(12);
/// What remains to streams that were cut, to say so before their connection closes.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// Connections that may wait for being accepted.
const QUEUED: i32 = 4096;

/// A listener that accepts requests.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    accepting: JoinHandle<std::io::Result<()>>,
}

/// Takes the configured address, so that nobody else does.
///
/// # Errors
/// When it cannot be had; the text names it.
pub fn bind(config: &listen::Config) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((config.host.as_str(), config.port))
        .with_context(|| format!("listen.host {} port {} cannot be bound", config.host, config.port))?;
    // std asks for 128. Who comes while the queue is full is not refused but tries again after a second: a replica that
    // takes over another's clients would be slow for each of them. The kernel lowers it to what it allows.
    socket2::SockRef::from(&listener).listen(QUEUED)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes the address of the figures.
///
/// # Errors
/// When it cannot be had; the text names it.
pub fn bind_metrics(config: &metrics::Metrics) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((config.host.as_str(), config.port))
        .with_context(|| format!("metrics.host {} port {} cannot be bound", config.host, config.port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Begins to serve `app`; `tasks` keeps the accepting.
    ///
    /// # Errors
    /// When a TLS file cannot be used.
    pub async fn start(
        listener: TcpListener,
        tls: Option<&listen::Tls>,
        app: Router,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let handle = Handle::new();
        let accepting = match tls {
            None => tasks.spawn(accept(listener, handle.clone(), NoDelayAcceptor::new(), app, HEAD_TIMEOUT)),
            Some(tls) => {
                let config = RustlsConfig::from_pem_file(&tls.cert, &tls.key).await.with_context(|| {
                    format!(
                        "listen.tls: {} and {} are not a certificate chain and its private key in PEM",
                        tls.cert.display(),
                        tls.key.display()
                    )
                })?;
                let acceptor = RustlsAcceptor::new(config).acceptor(NoDelayAcceptor::new());
                tasks.spawn(accept(listener, handle.clone(), acceptor, app, HEAD_TIMEOUT))
            }
        };
        Ok(Self { address, handle, accepting })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, gives open requests `drain` to finish, then has the rest cut. Gives how many connections were
    /// cut.
    pub async fn drain(self, drain: Duration, cut: &CancellationToken) -> usize {
        self.handle.graceful_shutdown(Some(drain + CUT_GRACE));
        let mut accepting = self.accepting;
        let cut_off = match tokio::time::timeout(drain, &mut accepting).await {
            Ok(_) => return 0,
            Err(_) => self.handle.connection_count(),
        };
        cut.cancel();
        // Ends by itself after the grace; a failure to accept matters no more.
        let _ = accepting.await;
        cut_off
    }
}

async fn accept<A>(
    listener: TcpListener,
    handle: Handle<SocketAddr>,
    acceptor: A,
    app: Router,
    head_timeout: Duration,
) -> std::io::Result<()>
where
    A: Accept<TcpStream, axum::middleware::AddExtension<Router, axum::extract::ConnectInfo<SocketAddr>>>
        + Clone
        + Send
        + Sync
        + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    A::Service: axum_server::service::SendService<http::Request<hyper::body::Incoming>> + Send,
    A::Future: Send,
{
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(acceptor);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(head_timeout);
    server.http_builder().http2().timer(TokioTimer::new());
    server.serve(app.into_make_service_with_connect_info::<SocketAddr>()).await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    #[test]
    fn hundreds_of_clients_that_come_at_once_are_all_connected() {
        let config = listen::Config {
            host: "127.0.0.1".into(),
            port: 0,
            public_url: None,
            tls: None,
            trusted_proxies: Vec::new(),
        };
        let listener = bind(&config).unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(900);
        let clients: Vec<_> = (0..300).map_while(|_| Client::connect_timeout(&address, patience).ok()).collect();
        assert_eq!(clients.len(), 300);
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_the_head_of_its_request_is_let_go() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(50);
        let tasks = TaskTracker::new();
        let accepting = accept(listener, Handle::new(), NoDelayAcceptor::new(), Router::new(), patience);
        let accepting = tasks.spawn(accepting);
        #[expect(clippy::disallowed_methods, reason = "a client of the test's own")]
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /healthz HTTP/1.1\r\nhost: gate").await.unwrap();
        let mut told = String::new();
        client.read_to_string(&mut told).await.unwrap();
        assert!(!told.starts_with("HTTP/1.1 200"), "{told}");
        accepting.abort();
    }
}

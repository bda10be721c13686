//! The gateway with a certificate of its own.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PROMPT;
use crate::support::gateway::TestGateway;

struct Secured {
    gateway: TestGateway,
    certificate: CertificateDer<'static>,
    _files: TempDir,
}

async fn secured() -> Secured {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = json!({ "listen": { "tls": { "cert": cert, "key": key } } });
    let gateway = TestGateway::setup().config(tls).start().await;
    Secured { gateway, certificate: made.cert.der().clone(), _files: files }
}

impl Secured {
    async fn connect(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        let name = ServerName::try_from("gateway.test").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

#[tokio::test]
async fn https_answers_over_http_1_and_insists_on_staying() {
    let secured = secured().await;
    let stream = secured.connect(&[b"http/1.1"]).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/readyz").header("host", "gateway.test").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000; includeSubDomains");
}

#[tokio::test]
async fn http_2_is_offered_and_serves_an_answer() {
    let secured = secured().await;
    let stream = secured.connect(&[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let own = secured.gateway.as_user("alice").request("POST", "/v1/messages", PROMPT);
    let request = Request::post("https://gateway.test/v1/messages")
        .header("authorization", own.headers()["authorization"].clone())
        // A length is not needed here: frames say where the body ends.
        .body(Full::new(Bytes::from_static(PROMPT.as_bytes())).map_err(|never| match never {}).boxed())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.windows(11).any(|part| part == b"Hello there"), "{body:?}");
    assert_eq!(secured.gateway.upstream().request(0).await.body, PROMPT.replace("4-5", "4-5-20251001"));
}

#[tokio::test]
async fn plain_http_does_not_get_a_byte_from_a_tls_port() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let secured = secured().await;
    let mut stream = TcpStream::connect(secured.gateway.address()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
}

//! The two paths over real connections, before a scripted upstream; money is the proxy's own test.
#![expect(clippy::unwrap_used, reason = "tests")]

use axum::Extension;
use control::audit::AuditLog;
use control::clock::{Clock, SystemClock};
use control::connect::{self, Egress};
use control::identity::Principal;
use control::policy::{self, Policies};
use proxy::inference::{self, MOST, Seats};
use proxy::upstream::{AnthropicConfig, ApiConfig, Config, Credential, FailoverOn, Timeouts, Upstreams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::catalog::Catalog;

use super::*;
use crate::serve::Server;

const BODY: &str = r#"{"model":"claude-sonnet-4-6"}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn inference(upstream: &TcpListener) -> Inference {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let catalog = Arc::new(Catalog::new(Vec::new(), true).unwrap());
    let egress = Egress::new(&connect::Config { allow_loopback: true, proxy: None }).unwrap();
    let config = Config {
        name: "a".to_owned(),
        base_url: format!("http://{}", upstream.local_addr().unwrap()).parse().unwrap(),
        headers: Vec::new(),
        models: None,
        groups: None,
        api: ApiConfig::Anthropic(AnthropicConfig {
            credential: Credential::ApiKey("sk-upstream".into()),
            forward_user_identity: false,
        }),
        timeouts: Timeouts::default(),
        failover_on: FailoverOn::default(),
        breaker: None,
    };
    Inference {
        meters: proxy::inference::meters::Meters::default(),
        config: inference::Config { max_request_bytes: 1000, billing_group_tag: None },
        upstreams: Upstreams::new(vec![config], &catalog, &egress, &clock).unwrap(),
        policies: Arc::new(Policies::compile(policy::Config::default(), catalog).0),
        ledger: None,
        load_test: None,
        seats: Arc::new(Seats::new(MOST, None)),
        audit: AuditLog::to(std::io::sink(), Arc::clone(&clock)).unwrap(),
        clock,
        cut: CancellationToken::new(),
    }
}

/// A client's connection to a gateway before `upstream`, with a request for messages sent.
async fn request(upstream: &TcpListener, body: &str) -> TcpStream {
    let principal = Principal {
        sub: "u".to_owned(),
        email: None,
        name: None,
        groups: Vec::new(),
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    };
    let received = SystemClock.instant();
    let facts = RequestFacts { request_id: Arc::from("r-1"), client_ip: [127, 0, 0, 1].into(), received };
    let app = routes(Arc::new(inference(upstream)), None, None)
        .layer(Extension(Caller(Arc::new(principal))))
        .layer(Extension(facts));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = Server::start(listener, None, app, &TaskTracker::new()).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a client, not the gateway")]
    let mut client = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    client
}

/// Takes the gateway's request, whole, off the upstream's socket.
async fn accept(upstream: &TcpListener) -> TcpStream {
    let (mut stream, _) = upstream.accept().await.unwrap();
    read_until(&mut stream, BODY).await;
    stream
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

async fn closed(mut stream: TcpStream) {
    // A reset is as good as an end.
    while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
}

#[tokio::test]
async fn headers_reach_the_client_before_any_byte_of_the_body() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = request(&upstream, BODY).await;
    let mut serving = accept(&upstream).await;
    serving.write_all(EVENTS.as_bytes()).await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nrequest-id: r-1\r\n"), "{head}");
    serving.write_all(b"6\r\nda\r\nta\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut client, "0\r\n\r\n").await, "6\r\nda\r\nta\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_upstreams_work_in_the_middle_of_a_stream() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = request(&upstream, BODY).await;
    let mut serving = accept(&upstream).await;
    serving.write_all(EVENTS.as_bytes()).await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    drop(client);
    closed(serving).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_upstreams_work_before_the_headers() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = request(&upstream, BODY).await;
    let serving = accept(&upstream).await;
    drop(client);
    closed(serving).await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_tears_the_clients_answer() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = request(&upstream, BODY).await;
    let mut serving = accept(&upstream).await;
    serving.write_all(format!("{EVENTS}4\r\ndata\r\n").as_bytes()).await.unwrap();
    read_until(&mut client, "data\r\n").await;
    drop(serving);
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "no last chunk");
}

#[tokio::test]
async fn a_refusal_has_no_request_id_of_an_answer() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = request(&upstream, "[]").await;
    let answer = read_until(&mut client, "}}").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(!answer.contains("\nrequest-id: "), "{answer}");
    assert!(answer.ends_with(r#""message":"request body must be a JSON object"}}"#), "{answer}");
}

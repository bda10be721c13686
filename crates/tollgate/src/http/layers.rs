//! What every request passes before it meets a route: a name, an address, the address rules, the size caps - and what
//! every answer carries.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use control::audit::{AuditLog, Event};
use control::clock::Clock;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use ipnet::IpNet;
use wire::error::ErrorType;

use super::error::refuse;
use super::unread::Unread;

/// What is known of a request before anyone has read it; put there by the outermost layer.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// The answer's `x-request-id`.
    pub request_id: Arc<str>,
    /// The client's address, after trusted proxies.
    pub client_ip: IpAddr,
    /// When the request arrived.
    pub received: Instant,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestFacts {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // The outermost layer has put them there; a router tested by itself gets blank ones.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(Self::blank))
    }
}

impl RequestFacts {
    #[expect(clippy::disallowed_methods, reason = "a blank for routers that are tested by themselves")]
    fn blank() -> Self {
        Self { request_id: Arc::from(""), client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), received: Instant::now() }
    }
}

/// The rules of the outermost layer.
#[derive(Debug)]
pub struct Edge {
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks that are refused.
    pub deny: Vec<IpNet>,
    /// Networks that are let in; empty: all.
    pub allow: Vec<IpNet>,
    /// Longest body in bytes.
    pub max_request_bytes: u64,
    /// Longest request headers in bytes, names and values together.
    pub max_request_header_bytes: Option<usize>,
    /// Longest request target in bytes.
    pub max_url_length: Option<usize>,
    /// The listener speaks TLS.
    pub tls: bool,
    /// The audit log.
    pub audit: AuditLog,
    /// Tells when requests arrive.
    pub clock: Arc<dyn Clock>,
    /// `X-Forwarded-For` was seen without a trusted proxy, which is told once.
    pub told_untrusted: AtomicBool,
}

/// Who sent a request, as far as the proxies in front can be believed.
#[derive(Debug, PartialEq, Eq)]
enum Client {
    At(IpAddr),
    /// A hop that is not an address; the peer that sent it.
    Unreadable(String, IpAddr),
}

/// The outermost layer.
pub async fn edge(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    // First: every later line of any log names the request.
    let request_id = request_id(&request);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let client = edge.client(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), &request);
    let (Client::At(client_ip) | Client::Unreadable(_, client_ip)) = client;
    let facts = RequestFacts { request_id: Arc::clone(&request_id), client_ip, received: edge.clock.instant() };
    let unread = Unread::of(&mut request);
    let mut response = match edge.admit(&request, &client, &facts) {
        Ok(()) => {
            normalise_path(&mut request);
            request.extensions_mut().insert(facts);
            // A panic is answered, not a torn connection; what was reserved is settled as its owner is dropped.
            match AssertUnwindSafe(next.run(request)).catch_unwind().await {
                Ok(response) => response,
                Err(_) => {
                    tracing::error!("unhandled request_id={request_id}: a panic, told above");
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    refuse(status, ErrorType::Api, "internal server error", &request_id)
                }
            }
        }
        Err(refusal) => {
            drop(request);
            refusal
        }
    };
    if let Some(unread) = unread {
        unread.throw_away().await;
    }
    edge.dress(&mut response, &request_id);
    response
}

impl Edge {
    /// Address rules, then sizes, all before anything is read.
    #[expect(clippy::result_large_err, reason = "a response is what the caller is about to send")]
    fn admit(&self, request: &Request, client: &Client, facts: &RequestFacts) -> Result<(), Response> {
        self.admit_address(request, client, facts)?;
        let id = &facts.request_id;
        // RFC 9112 section 3.2: who does not say where it wants to go is not guessed at.
        if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
            return Err(refuse(StatusCode::BAD_REQUEST, ErrorType::InvalidRequest, "the Host header is missing", id));
        }
        if !is_health(request) {
            if self.max_url_length.is_some_and(|max| url_length(request) > max) {
                return Err(refuse(StatusCode::URI_TOO_LONG, ErrorType::InvalidRequest, "uri too long", id));
            }
            if self.max_request_header_bytes.is_some_and(|max| header_bytes(request) > max) {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Err(refuse(status, ErrorType::InvalidRequest, "request header fields too large", id));
            }
        }
        self.admit_body(request, id)
    }

    #[expect(clippy::result_large_err, reason = "a response is what the caller is about to send")]
    fn admit_address(&self, request: &Request, client: &Client, facts: &RequestFacts) -> Result<(), Response> {
        let ip = facts.client_ip;
        let inside = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        let (reason, hop) = match client {
            Client::Unreadable(hop, _) if !(self.deny.is_empty() && self.allow.is_empty()) => {
                ("xff_unparseable", Some(hop.as_str()))
            }
            _ if inside(&self.deny) => ("ip_denylist", None),
            _ if !self.allow.is_empty() && !inside(&self.allow) && !is_health(request) => ("ip_not_allowlisted", None),
            _ => return Ok(()),
        };
        let event = Event::AccessDenied { reason, xff_hop: hop, client_ip: &ip.to_string() };
        self.audit.emit(Some(&facts.request_id), &event);
        Err(refuse(StatusCode::FORBIDDEN, ErrorType::Permission, "forbidden", &facts.request_id))
    }

    #[expect(clippy::result_large_err, reason = "a response is what the caller is about to send")]
    fn admit_body(&self, request: &Request, id: &str) -> Result<(), Response> {
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH);
        if request.version() < Version::HTTP_2 && headers.contains_key(header::TRANSFER_ENCODING) {
            // Both at once is how requests are smuggled (RFC 9112 section 6.1).
            if length.is_some() {
                let message = "a request carries either content-length or transfer-encoding, not both";
                return Err(refuse(StatusCode::BAD_REQUEST, ErrorType::InvalidRequest, message, id));
            }
            if request.method() == Method::POST {
                return Err(refuse(StatusCode::LENGTH_REQUIRED, ErrorType::InvalidRequest, "length required", id));
            }
        }
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.max_request_bytes) {
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, ErrorType::RequestTooLarge, "payload too large", id));
        }
        Ok(())
    }

    /// The first address from the right of `X-Forwarded-For` that is not a trusted proxy.
    fn client(&self, peer: IpAddr, request: &Request) -> Client {
        let peer = peer.to_canonical();
        let trusted = |ip: &IpAddr| self.trusted_proxies.iter().any(|network| network.contains(ip));
        let mut hops = request.headers().get_all("x-forwarded-for").iter().peekable();
        if hops.peek().is_none() {
            return Client::At(peer);
        }
        if !trusted(&peer) {
            self.tell_untrusted();
            return Client::At(peer);
        }
        let lines: Vec<&HeaderValue> = hops.collect();
        let mut client = peer;
        for line in lines.into_iter().rev() {
            let Ok(line) = line.to_str() else { return Client::Unreadable("(not text)".to_owned(), client) };
            for hop in line.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
                let Some(ip) = parse_hop(hop) else { return Client::Unreadable(hop.to_owned(), client) };
                client = ip;
                if !trusted(&ip) {
                    return Client::At(ip);
                }
            }
        }
        Client::At(client)
    }

    fn tell_untrusted(&self) {
        if self.trusted_proxies.is_empty() && !self.told_untrusted.swap(true, Ordering::Relaxed) {
            tracing::warn!("a request carried an X-Forwarded-For header but trusted_proxies is not set; it is ignored");
        }
    }

    /// What every answer carries (contract A2).
    fn dress(&self, response: &mut Response, request_id: &str) {
        const ALWAYS: [(HeaderName, HeaderValue); 4] = [
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        ];
        let headers = response.headers_mut();
        for (name, value) in ALWAYS {
            headers.insert(name, value);
        }
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert(HeaderName::from_static("x-request-id"), value);
        }
        if self.tls {
            let value = HeaderValue::from_static("max-age=31536000; includeSubDomains");
            headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
        }
    }
}

/// A client's own id is taken over when it is short and plain enough for every log and header it will stand in.
fn request_id(request: &Request) -> Arc<str> {
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = request.headers().get("x-client-request-id").and_then(|id| id.to_str().ok()).filter(plain);
    match given {
        Some(id) => Arc::from(id),
        None => {
            let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
            Arc::from(&*uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer))
        }
    }
}

/// Whether it is a health check. Load balancers ask from addresses that nobody lists, and must not be told about sizes.
pub fn is_health(request: &Request) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz")
}

fn url_length(request: &Request) -> usize {
    request.uri().path_and_query().map_or(0, |target| target.as_str().len())
}

fn header_bytes(request: &Request) -> usize {
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// `ip`, `ipv4:port`, `[ipv6]:port`; an IPv4 address in IPv6 clothes is the IPv4 address.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip = hop.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(ip.to_canonical())
}

/// Removes dot segments (RFC 3986 section 5.2.4), so that a path means the same to the router as to a proxy in front.
fn normalise_path(request: &mut Request) {
    let path = request.uri().path();
    if !path.contains("/.") {
        return;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            other => kept.push(other),
        }
        if last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    let mut target = format!("/{}", kept.join("/"));
    if let Some(query) = request.uri().query() {
        target.push('?');
        target.push_str(query);
    }
    // A path made of parts of a valid path is valid.
    if let Ok(uri) = target.parse() {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use control::clock::SystemClock;

    fn edge(trusted: &[&str]) -> Edge {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Edge {
            trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            deny: Vec::new(),
            allow: Vec::new(),
            max_request_bytes: 10,
            max_request_header_bytes: None,
            max_url_length: None,
            tls: false,
            audit: AuditLog::to(std::io::sink(), Arc::clone(&clock)).unwrap(),
            clock,
            told_untrusted: AtomicBool::new(false),
        }
    }

    fn forwarded(lines: &[&str]) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        for line in lines {
            request.headers_mut().append("x-forwarded-for", line.parse().unwrap());
        }
        request
    }

    fn seen(trusted: &[&str], peer: &str, lines: &[&str]) -> Client {
        edge(trusted).client(peer.parse().unwrap(), &forwarded(lines))
    }

    fn at(ip: &str) -> Client {
        Client::At(ip.parse().unwrap())
    }

    #[test]
    fn the_client_is_the_first_untrusted_hop_from_the_right() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(seen(&trusted, "10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.2"]), at("203.0.113.9"));
        assert_eq!(seen(&trusted, "10.0.0.1", &["6.6.6.6", "203.0.113.9:4711, 10.0.0.2"]), at("203.0.113.9"));
        assert_eq!(seen(&trusted, "10.0.0.1", &["[2001:db8::1]:443"]), at("2001:db8::1"));
        assert_eq!(seen(&trusted, "::ffff:10.0.0.1", &["::ffff:203.0.113.9"]), at("203.0.113.9"));
        assert_eq!(seen(&trusted, "10.0.0.1", &["10.0.0.3, 10.0.0.2"]), at("10.0.0.3"));
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(seen(&["10.0.0.0/8"], "203.0.113.9", &["10.0.0.1"]), at("203.0.113.9"));
        assert_eq!(seen(&[], "203.0.113.9", &["10.0.0.1"]), at("203.0.113.9"));
    }

    #[test]
    fn a_hop_that_is_no_address_is_told_apart() {
        let unreadable = Client::Unreadable("unknown".to_owned(), "10.0.0.1".parse().unwrap());
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["unknown"]), unreadable);
    }

    #[test]
    fn dot_segments_are_removed_before_routing() {
        let normal = |path: &str| {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            normalise_path(&mut request);
            request.uri().to_string()
        };
        assert_eq!(normal("/x/../healthz?a=b"), "/healthz?a=b");
        assert_eq!(normal("/../../healthz"), "/healthz");
        assert_eq!(normal("/a/./b/.."), "/a/");
        assert_eq!(normal("/.well-known/x"), "/.well-known/x");
    }

    #[test]
    fn sizes_are_judged_by_what_is_declared() {
        let edge = edge(&[]);
        let with = |headers: &[(&'static str, &str)]| {
            let mut request = Request::new(axum::body::Body::empty());
            *request.method_mut() = Method::POST;
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            edge.admit_body(&request, "id").err().map(|response| response.status().as_u16())
        };
        assert_eq!(with(&[("content-length", "10")]), None);
        assert_eq!(with(&[("content-length", "11")]), Some(413));
        assert_eq!(with(&[("transfer-encoding", "chunked")]), Some(411));
        assert_eq!(with(&[("content-length", "10"), ("transfer-encoding", "chunked")]), Some(400));
    }
}

//! The client under everything outbound: HTTP/1.1 over guarded connections that are kept for the next request.
//!
//! A connection has no task of its own: whoever waits for its answer drives it. A stream's events so go from the upstream's
//! socket to the client's in one step, without a handover between tasks for each of them.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use tower_service::Service;

use super::{ConnectError, GuardedTlsConnector};
use crate::clock::{Clock, SystemClock};

/// Shorter than the idle timeouts of common load balancers, so that a kept connection is not found dead.
const KEEP: Duration = Duration::from_secs(50);

/// Frames below this many bytes are joined with what has come behind them: a copy of so little costs less than one more
/// step of every layer between here and the client's socket.
const SMALL: usize = 4096;

/// Joined frames are no longer than this and one small frame.
const JOINED: usize = 16 << 10;

/// What the connector allows itself for a connection; a budget above it changes nothing.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// A client for requests with bodies of type `B`; cheap to clone, clones share their connections. It follows no redirects
/// and never sends a request twice.
pub struct UpstreamClient<B: Body + 'static> {
    connector: GuardedTlsConnector,
    idle: Arc<Idle<B>>,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request's URI has no scheme or host.
    #[error("the URL has no scheme or host")]
    NoHost,
    /// No connection was made; nothing was sent.
    #[error("no connection")]
    Connect(#[source] ConnectError),
    /// The connection broke, or what came was not HTTP.
    #[error("the exchange failed")]
    Exchange(#[from] hyper::Error),
    /// The connection ended before there was an answer.
    #[error("the connection was closed before an answer")]
    Closed,
}

/// The body of an answer. Reading it to its end keeps the connection for the next request; dropping it before closes the
/// connection, which tells the other side to stop.
///
/// Small frames that have come together leave it as one; none waits for another.
pub struct ResponseBody {
    incoming: Incoming,
    /// What came behind the frames that were joined, and is none of them.
    next: Option<Box<Result<Frame<Bytes>, hyper::Error>>>,
    /// `None` once the connection is kept, or closed.
    driver: Option<Box<dyn Drive>>,
}

/// What a body has to say: a frame, its end, or why it broke.
type Polled = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A connection that waits for its next request.
struct Idle<B: Body + 'static> {
    connections: Mutex<HashMap<Key, Vec<Kept<B>>>>,
}

/// No answer; with the request, where not a byte of it was written.
struct Unanswered<B> {
    why: RequestError,
    unsent: Option<Request<B>>,
}

type Key = (Scheme, Authority);
/// Since when it waits.
type Kept<B> = (Instant, Wire<B>);
type Io = <GuardedTlsConnector as Service<Uri>>::Response;

struct Wire<B: Body + 'static> {
    sender: SendRequest<B>,
    connection: Pin<Box<Connection<Io, B>>>,
}

/// What a body needs of its connection, whatever it sent.
trait Drive: Send {
    /// Lets the connection do what it can; ready when it is closed.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Keeps it, when it can take another request.
    fn keep(self: Box<Self>);
}

struct Driver<B: Body + 'static> {
    wire: Wire<B>,
    key: Key,
    idle: Arc<Idle<B>>,
}

impl<B> UpstreamClient<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(connector: GuardedTlsConnector) -> Self {
        Self { connector, idle: Arc::new(Idle { connections: Mutex::default() }) }
    }

    /// Sends a request to where its URI says and returns the answer's head, its body still to come. Dropping the future
    /// closes the connection.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(&self, request: Request<B>) -> Result<Response<ResponseBody>, RequestError> {
        self.request_within(request, LONGEST_CONNECT).await
    }

    /// As [`UpstreamClient::request`]; a connection that has to be made is made within `connect_budget`.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request_within(
        &self,
        mut request: Request<B>,
        connect_budget: Duration,
    ) -> Result<Response<ResponseBody>, RequestError> {
        let key = address(&mut request)?;
        if let Some(kept) = self.idle.take(&key) {
            match self.exchange(kept, request, &key).await {
                // It ended before a byte of the request was written, so nobody has seen it.
                Err(Unanswered { unsent: Some(unsent), .. }) => request = unsent,
                answered => return answered.map_err(|unanswered| unanswered.why),
            }
        }
        let connecting = tokio::time::timeout(connect_budget, self.connect(&key)).await;
        let timed_out = || RequestError::Connect(ConnectError::TimedOut { host: key.1.host().to_owned() });
        let wire = connecting.unwrap_or_else(|_| Err(timed_out()))?;
        self.exchange(wire, request, &key).await.map_err(|unanswered| unanswered.why)
    }

    async fn exchange(
        &self,
        wire: Wire<B>,
        request: Request<B>,
        key: &Key,
    ) -> Result<Response<ResponseBody>, Unanswered<B>> {
        let Wire { mut sender, mut connection } = wire;
        let mut answering = Box::pin(sender.try_send_request(request));
        // The request is on its way only while somebody drives the connection.
        let exchange = std::future::poll_fn(|cx| {
            let closed = connection.as_mut().poll(cx).is_ready();
            match answering.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready((Some(answer), closed)),
                Poll::Pending if closed => Poll::Ready((None, closed)),
                Poll::Pending => Poll::Pending,
            }
        });
        let (answer, closed) = exchange.await;
        // Once it is gone, it has handed back what it had not taken up.
        let open = (!closed).then_some(connection);
        let answer = match answer {
            Some(answer) => Some(answer),
            None => answering.as_mut().now_or_never(),
        };
        drop(answering);
        let response = match answer {
            Some(Ok(response)) => response,
            Some(Err(mut error)) => {
                let unsent = error.take_message();
                return Err(Unanswered { why: RequestError::Exchange(error.into_error()), unsent });
            }
            None => return Err(Unanswered { why: RequestError::Closed, unsent: None }),
        };
        let driver =
            |connection| Driver { wire: Wire { sender, connection }, key: key.clone(), idle: self.idle.clone() };
        let driver = open.map(|connection| Box::new(driver(connection)) as Box<dyn Drive>);
        Ok(response.map(|incoming| ResponseBody { incoming, next: None, driver }))
    }

    async fn connect(&self, key: &Key) -> Result<Wire<B>, RequestError> {
        let destination = Uri::builder().scheme(key.0.clone()).authority(key.1.clone()).path_and_query("/").build();
        let destination = destination.map_err(|_| RequestError::NoHost)?;
        let io = self.connector.clone().call(destination).await.map_err(RequestError::Connect)?;
        let (sender, connection) = Builder::new().handshake(io).await?;
        Ok(Wire { sender, connection: Box::pin(connection) })
    }
}

/// Where the request goes; it is left as it is written on a connection to there (RFC 9112, section 3.2.1).
fn address<B>(request: &mut Request<B>) -> Result<Key, RequestError> {
    let uri = request.uri().clone().into_parts();
    let (Some(scheme), Some(authority)) = (uri.scheme, uri.authority) else { return Err(RequestError::NoHost) };
    let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    if !request.headers().contains_key(HOST) {
        let default = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = match authority.port_u16() {
            Some(port) if port != default => format!("{}:{port}", authority.host()),
            _ => authority.host().to_owned(),
        };
        let host = HeaderValue::try_from(host).map_err(|_| RequestError::NoHost)?;
        request.headers_mut().insert(HOST, host);
    }
    Ok((scheme, authority))
}

impl<B> Idle<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The connection used last, if it is still good; those that are not are closed on the way.
    fn take(&self, key: &Key) -> Option<Wire<B>> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = connections.get_mut(key)?;
        let now = SystemClock.instant();
        while let Some((since, mut wire)) = kept.pop() {
            if now.saturating_duration_since(since) < KEEP && wire.is_good() {
                return Some(wire);
            }
        }
        None
    }

    fn put(&self, key: Key, wire: Wire<B>) {
        let now = SystemClock.instant();
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = connections.entry(key).or_default();
        // Oldest first: what has not been needed for long goes.
        let stale = kept.iter().take_while(|(since, _)| now.saturating_duration_since(*since) >= KEEP).count();
        kept.drain(..stale);
        kept.push((now, wire));
    }
}

impl<B> Wire<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Whether it can take a request now. Asks the connection, which so notices that the other side has closed it.
    fn is_good(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.connection.as_mut().poll(&mut nobody).is_pending() && self.sender.is_ready()
    }
}

impl<B> Drive for Driver<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.connection.as_mut().poll(cx).map(|_| ())
    }

    fn keep(self: Box<Self>) {
        let Self { mut wire, key, idle } = *self;
        if wire.is_good() {
            idle.put(key, wire);
        }
    }
}

impl ResponseBody {
    /// What the connection has, driving it when that is nothing yet.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some(driver) = &mut self.driver
        {
            if driver.drive(cx).is_ready() {
                self.driver = None;
            }
            // What the connection has just read, or why it ended.
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(None) => self.keep(),
            Poll::Ready(Some(Err(_))) => self.driver = None,
            _ => {}
        }
        frame
    }

    /// `first` and the small frames that have come behind it.
    fn join(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        if first.len() >= SMALL {
            return first;
        }
        let mut joined = BytesMut::new();
        while first.len().max(joined.len()) < JOINED
            && let Poll::Ready(next) = self.receive(cx)
        {
            match next {
                Some(Ok(frame)) if frame.data_ref().is_some_and(|data| data.len() < SMALL) => {
                    if joined.is_empty() {
                        joined.reserve(SMALL);
                        joined.extend_from_slice(&first);
                    }
                    joined.extend(frame.into_data());
                }
                other => {
                    // An end is told again to whoever asks again.
                    self.next = other.map(Box::new);
                    break;
                }
            }
        }
        if joined.is_empty() { first } else { joined.freeze() }
    }

    fn keep(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.keep();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let first = match self.next.take() {
            Some(next) => Some(*next),
            None => ready!(self.receive(cx)),
        };
        let first = match first.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => data,
            Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(self.join(first, cx)))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.next.as_ref().and_then(|next| Some(next.as_ref().as_ref().ok()?.data_ref()?.len()));
        let (held, coming) = (held.unwrap_or_default() as u64, self.incoming.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower().saturating_add(held));
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // All of it was read, and nobody asked whether there is more.
        if self.incoming.is_end_stream() {
            self.keep();
        }
    }
}

impl<B: Body + 'static> Clone for UpstreamClient<B> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone(), idle: Arc::clone(&self.idle) }
    }
}

impl<B: Body + 'static> fmt::Debug for UpstreamClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamClient")
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Config, Egress};
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// Answers one request on each connection it is offered, and says when it has closed it.
    async fn answer_one(listener: &TcpListener) -> tokio::net::TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"{}") {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
        stream.write_all(ANSWER.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_request_for_which_its_kept_connection_ended_before_a_byte_of_it_goes_out_on_a_new_one() {
        let egress = Egress::new(&Config { allow_loopback: true, proxy: None }).unwrap();
        let client = egress.client::<Full<Bytes>>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let request = || Request::post(&url).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let (answer, stream) = tokio::join!(client.request(request()), answer_one(&listener));
        assert_eq!(answer.unwrap().collect().await.unwrap().to_bytes(), "ok");
        let mut asked = request();
        let key = address(&mut asked).unwrap();
        let kept = client.idle.take(&key).unwrap();
        drop(stream);
        // Whoever looked a moment ago found it good; the runtime has heard of its end since.
        tokio::task::yield_now().await;
        let unanswered = client.exchange(kept, asked, &key).await.err().unwrap();
        assert!(unanswered.unsent.is_some(), "{}", unanswered.why);
        let (answer, _stream) = tokio::join!(client.request(request()), answer_one(&listener));
        assert_eq!(answer.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_request_that_was_written_is_never_sent_again() {
        let egress = Egress::new(&Config { allow_loopback: true, proxy: None }).unwrap();
        let client = egress.client::<Full<Bytes>>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let request = || Request::post(&url).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let (answer, mut stream) = tokio::join!(client.request(request()), answer_one(&listener));
        assert_eq!(answer.unwrap().collect().await.unwrap().to_bytes(), "ok");
        let (refused, ()) = tokio::join!(client.request(request()), async {
            let mut read = Vec::new();
            while !read.ends_with(b"{}") {
                assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
            }
            drop(stream);
        });
        assert!(refused.is_err());
    }

    /// What came of an answer whose body was written in these pieces, each after the frame before it was there.
    async fn frames(head: &str, pieces: &[&[u8]]) -> (Vec<usize>, Option<hyper::Error>) {
        let egress = Egress::new(&Config { allow_loopback: true, proxy: None }).unwrap();
        let client = egress.client::<Full<Bytes>>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let request = Request::post(&url).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let accept = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"{}") {
                assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
            }
            stream.write_all(head.as_bytes()).await.unwrap();
            stream
        };
        let (answer, mut stream) = tokio::join!(client.request(request), accept);
        let mut body = answer.unwrap().into_body();
        let mut came = Vec::new();
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            came.push(frame.into_data().unwrap().len());
        }
        drop(stream);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => came.push(frame.into_data().unwrap().len()),
                Err(error) => return (came, Some(error)),
            }
        }
        (came, None)
    }

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    #[tokio::test]
    async fn small_chunks_that_have_come_together_are_one_frame_and_wait_for_no_other() {
        let together = b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n";
        let (came, error) = frames(CHUNKED, &[together, b"2\r\ngh\r\n1\r\ni\r\n0\r\n\r\n"]).await;
        assert!(error.is_none());
        assert_eq!(came, [6, 3]);
    }

    #[tokio::test]
    async fn a_large_chunk_is_a_frame_of_its_own_and_nothing_of_it_is_lost() {
        let large = [b"2\r\nab\r\n1000\r\n".to_vec(), vec![b'x'; SMALL], b"\r\n0\r\n\r\n".to_vec()].concat();
        let (came, error) = frames(CHUNKED, &[&large]).await;
        assert!(error.is_none());
        assert_eq!((came[0], came[1..].iter().sum::<usize>()), (2, SMALL));
    }

    #[tokio::test]
    async fn what_came_before_a_connection_broke_comes_before_the_error() {
        let (came, error) = frames(CHUNKED, &[b"2\r\nab\r\n1\r\nc\r\nnonsense"]).await;
        assert!(error.is_some());
        assert_eq!(came, [3]);
    }
}

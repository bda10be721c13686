//! A scripted upstream that speaks Anthropic's Messages format on loopback: it records what it is sent and answers
//! what the test says, byte for byte and, where the test wants it, only when the test opens a gate.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

mod connection;

use connection::Connection;

/// A running upstream; its port is closed when this value is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    script: Arc<Script>,
    _accepting: AbortOnDropHandle<()>,
}

struct Script {
    queue: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Otherwise>,
    received: watch::Sender<Vec<Received>>,
}

impl Script {
    fn next(&self, received: Received) -> Answer {
        // One lock for both, so that answers are given in the order in which requests are counted.
        let mut queue = self.queue.lock().unwrap();
        self.received.send_modify(|all| all.push(received.clone()));
        let queued = queue.pop_front();
        drop(queue);
        queued.unwrap_or_else(|| (self.otherwise.lock().unwrap())(&received))
    }
}

type Otherwise = Box<dyn Fn(&Received) -> Answer + Send + Sync>;

impl Upstream {
    /// Starts an upstream that says hello to every request, streamed or not as the request asks.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script {
            queue: Mutex::default(),
            otherwise: Mutex::new(Box::new(hello)),
            received: watch::Sender::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&script)));
        Self { address, script, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// `http://127.0.0.1:PORT`, as `base_url` wants it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next request that no earlier answer is waiting for.
    pub(crate) fn answer(&self, answer: Answer) {
        self.script.queue.lock().unwrap().push_back(answer);
    }

    /// Answers every request for which nothing is queued.
    pub(crate) fn answer_otherwise(&self, otherwise: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        *self.script.otherwise.lock().unwrap() = Box::new(otherwise);
    }

    /// Every request so far, in the order in which their bodies ended.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.script.received.borrow().clone()
    }

    /// The `number`th request (from 0); waits until it was received.
    pub(crate) async fn request(&self, number: usize) -> Received {
        let mut received = self.script.received.subscribe();
        let requests = received.wait_for(|requests| requests.len() > number).await.unwrap();
        requests[number].clone()
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    fate: watch::Sender<Fate>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not all of it has been handed to the connection.
    Open,
    /// All of it was sent, or as much as the script says.
    Sent,
    /// Downstream closed the connection first.
    Aborted,
}

impl Received {
    /// A POST that nobody has sent.
    pub(crate) fn new(path: &str, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        let fate = watch::Sender::new(Fate::Sent);
        Self { method: Method::POST, uri: path.parse().unwrap(), headers, body: body.into(), fate }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Waits until the answer is finished, one way or the other.
    pub(crate) async fn fate(&self) -> Fate {
        *self.fate.subscribe().wait_for(|fate| *fate != Fate::Open).await.unwrap()
    }
}

/// What the upstream answers to one request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Passed before anything is sent, the head included.
    before: Option<Gate>,
    steps: Vec<Step>,
    end: End,
}

/// One step of an answer's body.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// These bytes, in one piece.
    Send(Bytes),
    /// Nothing, until the gate opens.
    Wait(Gate),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// No head, no body: the connection is closed.
    NoAnswer,
    /// The connection is reset after the steps.
    Reset,
}

impl Answer {
    /// Any answer of one piece.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let length = body.len().to_string();
        let steps = if body.is_empty() { Vec::new() } else { vec![Step::Send(body)] };
        Self::in_steps(content_type, steps).status(status).header("content-length", &length)
    }

    /// A JSON document.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// A whole message that says `text` and bills these tokens.
    pub(crate) fn message(model: &str, text: &str, input_tokens: u64, output_tokens: u64) -> Self {
        let mut message = message(model, input_tokens, output_tokens);
        message["content"] = json!([{ "type": "text", "text": text }]);
        message["stop_reason"] = "end_turn".into();
        Self::json(200, &message)
    }

    /// An error in Anthropic's envelope.
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::json(status, &json!({ "type": "error", "error": { "type": kind, "message": message } }))
    }

    /// An event stream, one piece per step.
    pub(crate) fn stream(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::in_steps("text/event-stream; charset=utf-8", steps.into_iter().collect())
    }

    /// The connection is closed without a byte.
    pub(crate) fn none() -> Self {
        Self { end: End::NoAnswer, ..Self::stream([]) }
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        self
    }

    /// Not even the head is sent before the gate opens.
    pub(crate) fn after(mut self, gate: &Gate) -> Self {
        self.before = Some(gate.clone());
        self
    }

    /// The connection is reset after the last step, in the middle of the body.
    pub(crate) fn then_reset(mut self) -> Self {
        self.headers.remove(CONTENT_LENGTH);
        self.end = End::Reset;
        self
    }

    /// Any answer of several pieces.
    pub(crate) fn in_steps(content_type: &str, steps: Vec<Step>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(content_type).unwrap());
        Self { status: StatusCode::OK, headers, before: None, steps, end: End::Whole }
    }
}

impl<T: Into<Bytes>> From<T> for Step {
    fn from(bytes: T) -> Self {
        Self::Send(bytes.into())
    }
}

/// Holds an answer until the test lets it go on.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    open: Arc<Semaphore>,
    reached: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), reached: watch::Sender::new(false) }
    }

    /// One that holds nobody.
    pub(crate) fn opened() -> Self {
        let gate = Self::closed();
        gate.open();
        gate
    }

    /// Lets through whoever waits, and all who come later.
    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }

    /// Waits until an answer stands before the gate: everything before it was handed to the connection.
    pub(crate) async fn reached(&self) {
        self.reached.subscribe().wait_for(|reached| *reached).await.unwrap();
    }

    /// This gate as a step of a stream.
    pub(crate) fn step(&self) -> Step {
        Step::Wait(self.clone())
    }

    async fn pass(&self) {
        self.reached.send_replace(true);
        // The permit is given back at once, so that the gate stays open.
        drop(self.open.acquire().await.unwrap());
    }
}

/// One server-sent event as Anthropic writes it; its name is the data's `type`.
pub(crate) fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

/// The events of a streamed message that says the parts of `text` one by one and bills these tokens.
pub(crate) fn message_events(model: &str, text: &[&str], input_tokens: u64, output_tokens: u64) -> Vec<String> {
    let start = json!({ "type": "message_start", "message": message(model, input_tokens, 1) });
    let block = json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } });
    let mut events = vec![event(&start), event(&block), event(&json!({ "type": "ping" }))];
    for text in text {
        let delta = json!({ "type": "text_delta", "text": text });
        events.push(event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
    }
    events.push(event(&json!({ "type": "content_block_stop", "index": 0 })));
    let delta = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    let usage = json!({ "output_tokens": output_tokens });
    events.push(event(&json!({ "type": "message_delta", "delta": delta, "usage": usage })));
    events.push(event(&json!({ "type": "message_stop" })));
    events
}

fn message(model: &str, input_tokens: u64, output_tokens: u64) -> Value {
    json!({
        "id": "msg_01TestTestTestTestTestTest", "type": "message", "role": "assistant", "model": model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": input_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": output_tokens, "service_tier": "standard",
        },
    })
}

fn hello(received: &Received) -> Answer {
    let body = received.json();
    let model = body["model"].as_str().unwrap_or("claude-haiku-4-5-20251001");
    if received.uri.path().ends_with("/count_tokens") {
        return Answer::json(200, &json!({ "input_tokens": 11 }));
    }
    if body["stream"] == true {
        return Answer::stream(message_events(model, &["Hello", " there"], 11, 5).into_iter().map(Step::from));
    }
    Answer::message(model, "Hello there", 11, 5)
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    // The connections end with this set, and the set with the upstream.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&script)));
    }
}

async fn serve(stream: TcpStream, script: Arc<Script>) {
    stream.set_nodelay(true).unwrap();
    let reset = Arc::new(AtomicBool::new(false));
    let connection = TokioIo::new(Connection::new(stream, Arc::clone(&reset)));
    let service = service_fn(move |request| respond(request, Arc::clone(&script), Arc::clone(&reset)));
    // A connection that ends badly is what some scripts ask for.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(connection, service).await;
}

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

async fn respond(
    request: Request<Incoming>,
    script: Arc<Script>,
    reset: Arc<AtomicBool>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let fate = Watched(watch::Sender::new(Fate::Open));
    let received = Received { method: head.method, uri: head.uri, headers: head.headers, body, fate: fate.0.clone() };
    let answer = script.next(received);

    if let Some(gate) = &answer.before {
        gate.pass().await;
    }
    if answer.end == End::NoAnswer {
        fate.sent();
        return Err(io::Error::other("the script says not to answer"));
    }
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let play = Play { steps: answer.steps.into(), end: answer.end, fate, reset };
    // An empty body is not polled at all.
    play.tell_when_sent();
    Ok(response.map(|()| StreamBody::new(stream::unfold(play, Play::next).boxed())))
}

/// The rest of an answer's body.
struct Play {
    steps: VecDeque<Step>,
    end: End,
    fate: Watched,
    reset: Arc<AtomicBool>,
}

impl Play {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Send(bytes) => {
                    // With a content length, nobody asks for the end of the body.
                    self.tell_when_sent();
                    return Some((Ok(Frame::data(bytes)), self));
                }
                Step::Wait(gate) => gate.pass().await,
            }
        }
        self.tell_when_sent();
        if self.end != End::Reset {
            return None;
        }
        self.reset.store(true, Ordering::Relaxed);
        Some((Err(io::Error::other("the script says to reset")), self))
    }

    fn tell_when_sent(&self) {
        if self.steps.is_empty() {
            self.fate.sent();
        }
    }
}

/// Tells the fate of an answer when it is dropped: by its end, or because the connection went away.
struct Watched(watch::Sender<Fate>);

impl Watched {
    fn sent(&self) {
        self.0.send_replace(Fate::Sent);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.send_if_modified(|fate| {
            let open = *fate == Fate::Open;
            if open {
                *fate = Fate::Aborted;
            }
            open
        });
    }
}

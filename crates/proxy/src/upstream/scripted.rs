//! A server whose every byte a test decides, for tests of what goes out and comes back.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listening socket; the test takes connections off it one by one.
pub(crate) struct Server {
    listener: TcpListener,
}

/// One request on a connection of its own, read whole.
pub(crate) struct Exchange {
    stream: TcpStream,
    /// The request line and the headers, as they came.
    pub(crate) head: String,
    /// The request's body.
    pub(crate) body: Bytes,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    pub(crate) async fn accept(&self) -> Exchange {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut read = Vec::new();
        let head_end = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the client left");
        };
        let head = String::from_utf8(read[..head_end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let whole = head_end + length.map_or(0, |length| length.parse().unwrap());
        while read.len() < whole {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the client left");
        }
        Exchange { stream, head, body: Bytes::from(read).slice(head_end..whole) }
    }

    /// Answers the next request and hands out what it was. No answer: the connection is closed.
    pub(crate) async fn answer(&self, answer: impl AsRef<[u8]>) -> Exchange {
        let mut exchange = self.accept().await;
        exchange.send(answer).await;
        exchange.stream.shutdown().await.unwrap();
        exchange
    }

    /// Whether nobody has connected.
    pub(crate) fn is_idle(&self) -> bool {
        let waiting = std::pin::pin!(self.listener.accept());
        std::future::Future::poll(waiting, &mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
    }
}

impl Exchange {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// A chunk of a body in chunked transfer coding.
    pub(crate) async fn chunk(&mut self, bytes: &str) {
        self.send(format!("{:x}\r\n{bytes}\r\n", bytes.len())).await;
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn closed(mut self) {
        // A reset is as good as an end.
        while self.stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
    }
}

/// An answer with these headers, each line ended, and this body.
pub(crate) fn http(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Text\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

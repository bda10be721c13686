//! An upstream of which the test writes every byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listening socket; the test takes connections off it one by one.
pub(crate) struct Raw(TcpListener);

impl Raw {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// As `base_url` wants it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// A connection of its own whose request was read.
    pub(crate) async fn accept(&self) -> TcpStream {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut read = Vec::new();
        while !is_whole(&read) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the gateway left");
        }
        stream
    }

    /// Answers the next request with these bytes and closes the connection.
    pub(crate) async fn answer(&self, bytes: impl AsRef<[u8]>) {
        let mut stream = self.accept().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    /// Answers the next request with this head and as much of `x` as is taken, up to so many bytes: how many were.
    pub(crate) async fn flood(&self, head: &str, most: usize) -> usize {
        let mut stream = self.accept().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let (piece, mut sent) = (vec![b'x'; 1 << 20], 0);
        while sent < most {
            match stream.write(&piece[..piece.len().min(most - sent)]).await {
                Ok(count) => sent += count,
                // It was not wanted any more.
                Err(_) => break,
            }
        }
        sent
    }
}

/// A request with a length.
fn is_whole(read: &[u8]) -> bool {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&read[..end]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    read.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap())
}

/// A chunk in chunked transfer coding.
pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

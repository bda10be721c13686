//! A way to PostgreSQL on which the answer to a commit can be lost: the database has made it so, and nobody hears of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What the server says of a commit, see "CommandComplete" in PostgreSQL's protocol.
const COMMITTED: &[u8] = b"COMMIT\0";

/// Passes everything on, as long as it lives.
pub(crate) struct Relay {
    loses: Arc<AtomicBool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    /// One before the server of `url`, and the URL of the same database by way of it.
    pub(crate) async fn to(url: &str) -> (Self, String) {
        let server: url::Url = url.parse().unwrap();
        let address = (server.host_str().unwrap().to_owned(), server.port().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut by_way = server.clone();
        by_way.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let loses = Arc::new(AtomicBool::new(false));
        let lose = Arc::clone(&loses);
        let accepting = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((address.0.as_str(), address.1)).await.unwrap();
                sessions.spawn(pass(client, server, Arc::clone(&lose)));
            }
        });
        (Self { loses, _accepting: AbortOnDropHandle::new(accepting) }, by_way.to_string())
    }

    /// The next commit is not heard of: the connection is cut instead.
    pub(crate) fn lose_a_commit(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    /// Whether that is still to happen.
    pub(crate) fn has_a_commit_to_lose(&self) -> bool {
        self.loses.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: TcpStream, lose: Arc<AtomicBool>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = from_server.read(&mut buffer).await?;
            let answer = &buffer[..length];
            let commits = answer.windows(COMMITTED.len()).any(|part| part == COMMITTED);
            if length == 0 || (commits && lose.swap(false, Ordering::SeqCst)) {
                return Ok::<_, io::Error>(());
            }
            to_client.write_all(answer).await?;
        }
    };
    // Either side's end is the other's, whatever it was.
    tokio::select! {
        _ = answers => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}

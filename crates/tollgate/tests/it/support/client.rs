//! The stock Claude Code client, unmodified, in a box of its own: private HOME, private /etc/claude-code.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::idp::node_directory;

/// One installation of the client, pointed at one gateway. What it stores is removed with this value.
pub(crate) struct StockClient {
    gateway_url: String,
    state: TempDir,
}

impl StockClient {
    /// Walks through the client's sign-in: `approve` is given the user code and completes the browser part.
    pub(crate) async fn sign_in(gateway_url: &str, approve: impl AsyncFnOnce(String)) -> Self {
        let client = Self { gateway_url: gateway_url.to_owned(), state: tempfile::tempdir().unwrap() };
        let mut login = client.script("login.sh").stdout(Stdio::piped()).spawn().unwrap();
        let mut screen = BufReader::new(login.stdout.take().unwrap());
        let (code, mut screen) = spawn_blocking(move || {
            let mut code = String::new();
            screen.read_line(&mut code).unwrap();
            (code, screen)
        })
        .await
        .unwrap();
        let is_code = code.trim().len() == 9 && code.as_bytes()[4] == b'-';
        if is_code {
            approve(code.trim().to_owned()).await;
        }
        let (connected, rest) = spawn_blocking(move || {
            let mut rest = String::new();
            screen.read_to_string(&mut rest).unwrap();
            (login.wait().unwrap().success(), rest)
        })
        .await
        .unwrap();
        assert!(connected, "the client did not connect; it shows:\n{code}{rest}");
        client
    }

    /// Sends one prompt, as `claude -p` does, and waits until the client ends.
    pub(crate) async fn prompt(&self, text: &str) -> Output {
        self.run(&["-p", text]).await
    }

    /// Runs the client with any arguments and waits until it ends.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.script("claude.sh");
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Sends one prompt in a terminal, waits until the screen shows what the pattern `notice` matches, and asks for
    /// `/usage`: everything it showed.
    pub(crate) async fn usage(&self, notice: &str) -> String {
        let mut command = self.script("usage.sh");
        command.arg(notice).stdout(Stdio::piped());
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}");
        shown
    }

    /// The HOME of the client: what a developer's machine keeps of the gateway is below it.
    pub(crate) fn home(&self) -> PathBuf {
        self.state.path().join("home")
    }

    fn script(&self, name: &str) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client");
        let mut command = Command::new(scripts.join(name));
        command
            .args([OsStr::new(&self.gateway_url), self.state.path().as_os_str()])
            .env("CLAUDE_BIN", binary())
            .stdin(Stdio::null());
        command
    }
}

/// The client's native binary, as `scripts/test` installs it; `CLAUDE_BIN` names another one.
pub(crate) fn binary() -> PathBuf {
    env::var_os("CLAUDE_BIN").map_or_else(
        || {
            let package = format!("node_modules/@anthropic-ai/claude-code-linux-{}/claude", node_architecture());
            node_directory().join(package)
        },
        PathBuf::from,
    )
}

fn node_architecture() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    }
}

//! The gateway as an operator runs it: a process with a configuration file, signals and an exit status.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Audit, PATIENCE};

/// A running `tollgate`. It is killed when this value is dropped, and when the test's thread ends, for whatever reason.
pub(crate) struct Process {
    child: Option<Child>,
    pid: u32,
    /// Operational lines so far; closed when the process has closed its stderr.
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    /// `tollgate serve` with the `gateway.yaml` of a directory.
    pub(super) fn serve(directory: &Path, environment: &[(&'static str, String)], audit: Audit) -> Self {
        let mut command = tollgate(&["serve", "--config", "gateway.yaml"]);
        command.current_dir(directory).envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (told, lines) = watch::channel(Vec::new());
        let reader = move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.starts_with('{') {
                    audit.record(line.as_bytes());
                } else {
                    told.send_modify(|lines| lines.push(line));
                }
            }
        };
        std::thread::Builder::new().name("stderr of a gateway".to_owned()).spawn(reader).unwrap();
        Self { pid: child.id(), child: Some(child), lines }
    }

    /// Sends a signal by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid.to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Ends it as the system does that has no memory left, and returns when it is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it has ended before");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The most memory it has had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// The first operational line that contains `text`; waits for it.
    pub(crate) async fn line(&self, text: &str) -> String {
        let mut lines = self.lines.clone();
        let has = |lines: &Vec<String>| lines.iter().any(|line| line.contains(text));
        let came = timeout(PATIENCE, lines.wait_for(has)).await.is_ok_and(|lines| lines.is_ok());
        assert!(came, "no line with {text:?}:\n{}", self.log());
        let found = self.lines.borrow().iter().find(|line| line.contains(text)).cloned();
        found.unwrap()
    }

    /// Where it listens; waits until it does.
    pub(crate) async fn url(&self) -> String {
        let line = self.line("listening on").await;
        line.split_ascii_whitespace().find(|word| word.contains("://")).unwrap().to_owned()
    }

    /// All operational lines so far.
    pub(crate) fn log(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Waits for its end; then all that it said is known.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it has ended before");
        // By the process, not by this value: it is killed also when this future is dropped.
        let ending = spawn_blocking(move || child.wait().unwrap());
        let Ok(status) = timeout(PATIENCE * 2, ending).await else {
            // The test's runtime would wait for it.
            self.signal("KILL");
            panic!("it does not end:\n{}", self.log());
        };
        // The writer of the lines is dropped when everything was read.
        while self.lines.changed().await.is_ok() {}
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary with these arguments and an empty environment, killed by the system when the thread that starts it ends.
pub(crate) fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_tollgate")]).args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

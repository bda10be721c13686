//! Real databases for the tests: SQLite files, and a PostgreSQL server started for this test process.
//! Whatever way the test process ends, the server ends with it and its files are removed.

use std::fs;
use std::future::poll_fn;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::http::unused_port;

mod relay;

pub(crate) use relay::Relay;

/// The two kinds of database a gateway can keep its state in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    /// An empty database of this kind that no other test sees.
    pub(crate) async fn fresh(self) -> Store {
        match self {
            Self::Sqlite => Store::Sqlite(tempfile::tempdir().unwrap()),
            Self::Postgres => Store::Postgres(fresh_database().await),
        }
    }
}

/// Makes two tests of each async function that takes a [`Database`]: one per kind.
macro_rules! on_both_databases {
    ($($body:ident),+ $(,)?) => {
        $(mod $body {
            use crate::support::database::Database;

            #[tokio::test]
            async fn on_sqlite() {
                Box::pin(super::$body(Database::Sqlite)).await;
            }

            #[tokio::test]
            async fn on_postgres() {
                Box::pin(super::$body(Database::Postgres)).await;
            }
        })+
    };
}
pub(crate) use on_both_databases;

/// One database, for one test.
#[derive(Debug)]
pub(crate) enum Store {
    /// The directory that will hold the file; removed with this value.
    Sqlite(TempDir),
    /// The URL, credentials included.
    Postgres(String),
}

impl Store {
    /// The `store:` section of a `gateway.yaml`.
    pub(crate) fn yaml(&self) -> String {
        match self {
            Self::Sqlite(_) => format!("store:\n  sqlite_path: {}\n", self.sqlite_path().unwrap().display()),
            Self::Postgres(url) => format!("store:\n  postgres_url: {url}\n"),
        }
    }

    /// Where the SQLite file is or will be.
    pub(crate) fn sqlite_path(&self) -> Option<PathBuf> {
        match self {
            Self::Sqlite(directory) => Some(directory.path().join("tollgate.db")),
            Self::Postgres(_) => None,
        }
    }
}

/// The URL of a new, empty PostgreSQL database on the server that all tests of this process share.
pub(crate) async fn fresh_database() -> String {
    static SHARED: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::start);
    SHARED.fresh_database().await
}

/// A session of its own with the database at `url`.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    tokio::spawn(connection);
    client
}

/// Counts the rows that are inserted into a PostgreSQL table from now on, as they are committed and as long as the session
/// lives.
pub(crate) async fn committed_rows(url: &str, table: &str) -> (Client, watch::Receiver<usize>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = message {
                count.send_modify(|count| *count += 1);
            }
        }
    });
    // Equal notifications of one transaction are one: each says which row.
    let tell = format!(
        "CREATE OR REPLACE FUNCTION tell_of_a_row() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_notify('committed', NEW.id); RETURN NEW; END $$;
         CREATE OR REPLACE TRIGGER tell_of_a_row AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION tell_of_a_row();
         LISTEN committed"
    );
    client.batch_execute(&tell).await.unwrap();
    (client, counted)
}

/// A PostgreSQL server. Tests of outages start their own; all others share one through [`fresh_database`].
pub(crate) struct PostgresServer {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    databases: AtomicUsize,
    keeper: Child,
}

const PASSWORD: &str = "a-test-password";

impl PostgresServer {
    /// Creates a cluster in a temporary directory and starts it on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let binaries = binaries();
        let directory = tempfile::Builder::new().prefix("tollgate-postgres-").tempdir().unwrap().keep();
        fs::write(directory.join("password"), PASSWORD).unwrap();
        if is_root() {
            run(Command::new("chown").arg("-R").arg("postgres:").arg(&directory));
        }
        let keeper = keeper(&binaries, &directory);
        let mut server = Self { binaries, directory, port: 0, databases: AtomicUsize::new(0), keeper };
        let password_file = server.directory.join("password");
        run(server
            .command("initdb")
            .args(["--no-sync", "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .arg("--pwfile")
            .arg(password_file));
        // The port was free when it was asked for; somebody else may have been faster.
        for _ in 0..5 {
            server.port = unused_port();
            if server.launch() {
                return server;
            }
        }
        panic!("PostgreSQL does not start:\n{}", server.log());
    }

    /// The URL of a new, empty database on this server.
    pub(crate) async fn fresh_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let server = connect(&self.url("postgres")).await;
        // template0: sessions that look around in template1 would get in the way.
        server.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
        self.url(&name)
    }

    /// Stops the server, cutting every session, and returns when it is gone.
    pub(crate) fn stop(&self) {
        run(self.command("pg_ctl").args(["stop", "-m", "immediate"]));
    }

    /// Starts a stopped server again, on the same port with the same databases.
    pub(crate) fn start_again(&self) {
        assert!(self.launch(), "PostgreSQL does not start again:\n{}", self.log());
    }

    /// Freezes the server and all its sessions: connections are accepted by the kernel and never answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused server go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Where the cluster and its log are, as long as this value lives.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    fn launch(&self) -> bool {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='{}' -c max_connections=200 -c fsync=off",
            self.port,
            self.directory.display()
        );
        let log = self.directory.join("log");
        let status = self.command("pg_ctl").args(["start", "-w", "-o", &options, "-l"]).arg(log).status().unwrap();
        status.success()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Stopped, the first process starts no sessions and buries none: so it is the first to stop and the last to go on.
    fn signal(&self, signal: &str) {
        let pid_file = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let postmaster = pid_file.lines().next().unwrap();
        let kill = |pids: &str| {
            let pids = pids.split_ascii_whitespace();
            run(Command::new("sh").args(["-c", "kill -s \"$@\"", "sh", signal]).args(pids));
        };
        let sessions = || fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        if signal == "STOP" {
            kill(postmaster);
            kill(&sessions());
        } else {
            kill(&sessions());
            kill(postmaster);
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = as_server_account(&self.binaries.join(program));
        command.env("PGDATA", self.directory.join("data")).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A shell that outlives the test process by a moment: when its input closes, for whatever reason, it stops the
/// server and removes the files. (A parent-death signal would come as soon as the starting *thread* ends.)
fn keeper(binaries: &Path, directory: &Path) -> Child {
    const SCRIPT: &str = r#"
        trap '' HUP INT TERM
        cat >/dev/null
        if pid=$(head -n 1 "$PGDATA/postmaster.pid" 2>/dev/null); then
            kill -CONT "$pid" $(cat "/proc/$pid/task/$pid/children")
            "$1/pg_ctl" stop -m immediate
        fi
        rm -rf "$2"
    "#;
    as_server_account(Path::new("/bin/sh"))
        .args(["-c", SCRIPT, "keeper"])
        .args([binaries, directory])
        .env("PGDATA", directory.join("data"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// PostgreSQL refuses to run as root: then it runs as the account that Debian's package brings.
fn as_server_account(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    static ROOT: LazyLock<bool> = LazyLock::new(|| {
        let output = Command::new("id").arg("-u").output().unwrap();
        output.stdout == b"0\n"
    });
    *ROOT
}

/// Where `initdb` and `postgres` are: among Debian's versions (not on PATH there), else on PATH.
fn binaries() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    versions.sort();
    let newest = versions.pop().map(|(_, path)| path);
    let found =
        newest.or_else(|| std::env::split_paths(&std::env::var_os("PATH")?).find(|path| path.join("initdb").exists()));
    found.expect("PostgreSQL's server programs are missing; scripts/test installs them")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

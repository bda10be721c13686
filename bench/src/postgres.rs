//! PostgreSQL: a private server in a private folder, with the durability a production server has.
//! Knows how to start one; knows nothing of what is stored.

use crate::control;
use crate::process::{self, Running};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A running server; ended when dropped.
pub(crate) struct Postgres {
    server: Running,
    port: u16,
    programs: PathBuf,
}

impl Postgres {
    /// Creates a cluster in `folder` and serves it on loopback, TCP only, `fsync` on.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let programs = programs()?;
        // PostgreSQL refuses to run as root.
        let user = (fs::metadata("/proc/self")?.uid() == 0).then_some("postgres");
        let cluster = folder.join("cluster");
        fs::create_dir(&cluster)?;
        if user.is_some() {
            let id = |flag: &str| -> Result<u32> {
                let said = process::run(process::command("id", None).args([flag, "postgres"]))?;
                said.trim().parse().context("the id of the user postgres")
            };
            chown(&cluster, Some(id("-u")?), Some(id("-g")?))?;
        }
        let mut create = process::command(programs.join("initdb"), user);
        process::run(create.arg("-D").arg(&cluster).args(["-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"]))?;

        let port = control::free_port()?;
        let mut serve = process::command(programs.join("postgres"), user);
        serve.arg("-D").arg(&cluster).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
        let log = folder.join("postgres.log");
        let mut postgres = Self { server: Running::start(&mut serve, &log, "INT")?, port, programs };
        let deadline = Instant::now() + Duration::from_secs(30);
        while postgres.sql("SELECT 1").is_err() {
            postgres.server.check(&log)?;
            if Instant::now() > deadline {
                bail!("PostgreSQL did not answer within 30 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(postgres)
    }

    /// Creates an empty database and gives its URL.
    pub(crate) fn database(&self, name: &str) -> Result<String> {
        self.sql(&format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://bench@127.0.0.1:{}/{name}?sslmode=disable", self.port))
    }

    /// The server's own words for its version.
    pub(crate) fn version(&self) -> Result<String> {
        Ok(self.sql("SHOW server_version")?.trim().to_owned())
    }

    /// The root of the server's processes.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    fn sql(&self, statement: &str) -> Result<String> {
        self.sql_in("postgres", statement)
    }

    /// Runs a statement in a database; what it answers, one line per row.
    pub(crate) fn sql_in(&self, database: &str, statement: &str) -> Result<String> {
        let mut psql = process::command(self.programs.join("psql"), None);
        psql.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "bench", "-d", database]);
        process::run(psql.args(["-p", &self.port.to_string(), "-c", statement]))
    }
}

/// The folder of PostgreSQL's own programs: Debian keeps one per major version, the newest wins.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is missing: apt-get install postgresql")?;
    let mut found: Vec<PathBuf> = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    found.retain(|folder| folder.join("initdb").exists());
    found.sort();
    found.pop().context("PostgreSQL is missing: apt-get install postgresql")
}

//! The lab: one mock upstream, one PostgreSQL and every peer that is installed, started together and ended together.
//! Knows which peers exist; knows nothing of what is measured with them.

use crate::control;
use crate::peer::{Peer, Setup, Site, Store};
use crate::postgres::Postgres;
use crate::process::{self, Running, Tree};
use anyhow::{Context, Result};
use clap::Args;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The programs to measure, and where to work.
#[derive(Args, Clone)]
pub(crate) struct Programs {
    /// nginx, a name or a path.
    #[arg(long, env = "NGINX_BIN", default_value = "nginx")]
    nginx: PathBuf,
    /// The reference gateway; left out, it is not measured.
    #[arg(long, env = "CLAUDE_BIN")]
    reference: Option<PathBuf>,
    /// Tollgate's binary.
    #[arg(long, env = "TOLLGATE_BIN", default_value = "target/nolto/tollgate")]
    tollgate: PathBuf,
    /// Start and measure only these peers, such as nginx,tollgate; all when left out.
    #[arg(long, value_delimiter = ',', value_parser = ["nginx", "reference", "tollgate", "tollgate-sqlite"])]
    peers: Vec<String>,
    /// Folder below which a private one is made for configuration, logs and databases; PostgreSQL's user must reach it.
    #[arg(long, default_value = "/tmp")]
    scratch: PathBuf,
    /// Leave that folder in place afterwards.
    #[arg(long)]
    keep: bool,
}

impl Programs {
    /// The same, with no other peer.
    pub(crate) fn only(&self, peer: &str) -> Self {
        Self { peers: vec![peer.to_owned()], ..self.clone() }
    }

    fn wants(&self, peer: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|name| name == peer)
    }
}

/// What a measurement needs beside the gateways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    /// Nothing.
    Nothing,
    /// nginx as a plain proxy.
    PlainProxy,
    /// Three upstreams for every gateway, the first of them another than the two others.
    Hole,
    /// Gateways in strict mode too, and a second replica of each that is on PostgreSQL.
    CapsInEveryWay,
}

/// Everything that runs during a measurement. Fields end in this order: gateways before what they depend on.
pub(crate) struct Lab {
    /// The peers, the upstream itself first.
    pub(crate) peers: Vec<Peer>,
    /// What the reader of a result must know: versions and settings, one per line, no paths.
    pub(crate) notes: Vec<String>,
    /// The database server.
    pub(crate) postgres: Postgres,
    upstream: Running,
    /// The upstream that can stop answering.
    _hole: Option<Running>,
    /// The shared addresses.
    pub(crate) site: Site,
    _folder: Folder,
}

impl Lab {
    /// Starts everything that is installed and asked for; what is missing becomes a note.
    pub(crate) fn open(programs: &Programs, extra: Extra) -> Result<Self> {
        let folder = Folder::create(programs)?;
        let (address, upstream) = mock(&folder.path.join("upstream.log"))?;
        let hole = (extra == Extra::Hole).then(|| mock(&folder.path.join("hole.log"))).transpose()?;
        let (hole_address, hole) = hole.unzip();
        let site = Site { folder: folder.path.clone(), upstream: address, hole: hole_address };

        let postgres = Postgres::start(&site.folder)?;
        let notes = vec![format!("PostgreSQL {}: defaults, fsync on", postgres.version()?)];
        let peers = vec![Peer::direct(&site)];
        let mut lab = Self { peers, notes, postgres, upstream, _hole: hole, site, _folder: folder };
        if extra == Extra::PlainProxy && programs.wants("nginx") {
            lab.add_nginx(programs)?;
        }
        lab.add_reference(programs, extra)?;
        lab.add_tollgate(programs, extra)?;
        Ok(lab)
    }

    fn add_nginx(&mut self, programs: &Programs) -> Result<()> {
        let Ok(version) = process::run(process::command(&programs.nginx, None).arg("-v")) else {
            self.notes.push("nginx: not installed (apt-get install nginx-light, or --nginx PATH)".into());
            return Ok(());
        };
        let version = version.trim();
        self.notes.push(format!("{version}: 2 workers, upstream keepalive 256, proxy_buffering off, no access log"));
        self.peers.push(Peer::nginx(&self.site, &programs.nginx)?);
        Ok(())
    }

    fn add_reference(&mut self, programs: &Programs, extra: Extra) -> Result<()> {
        let Some(program) = programs.reference.as_ref().filter(|_| programs.wants("reference")) else {
            self.notes.push("reference: not measured".into());
            return Ok(());
        };
        self.notes.push(format!("reference: {}, default settings", version(program, &self.site.folder)?));
        let store = Store::Postgres(self.postgres.database("reference")?);
        let setup = Setup { name: "reference", program, word: "gateway", store: &store, strict: false };
        self.add_gateway(&setup, extra)
    }

    fn add_tollgate(&mut self, programs: &Programs, extra: Extra) -> Result<()> {
        if !programs.tollgate.exists() {
            self.notes.push("tollgate: not built (or --tollgate PATH)".into());
            return Ok(());
        }
        let program = programs.tollgate.canonicalize()?;
        self.notes.push(format!("{}, default settings", version(&program, &self.site.folder)?));
        for (name, strict) in [("tollgate", "tollgate-strict"), ("tollgate-sqlite", "tollgate-sqlite-strict")] {
            if !programs.wants(name) {
                continue;
            }
            let strict = (extra == Extra::CapsInEveryWay).then_some((strict, true));
            for (name, strict) in [(name, false)].into_iter().chain(strict) {
                let store = if name.contains("sqlite") {
                    Store::Sqlite
                } else {
                    Store::Postgres(self.postgres.database(&name.replace('-', "_"))?)
                };
                self.add_gateway(&Setup { name, program: &program, word: "serve", store: &store, strict }, extra)?;
            }
        }
        Ok(())
    }

    fn add_gateway(&mut self, setup: &Setup<'_>, extra: Extra) -> Result<()> {
        let mut peer = Peer::gateway(&self.site, setup)?;
        if extra == Extra::CapsInEveryWay && matches!(setup.store, Store::Postgres(_)) {
            peer.add_replica(&self.site, setup)?;
        }
        self.peers.push(peer);
        Ok(())
    }

    /// The peers that take bearers and caps.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.is_gateway())
    }

    /// The processes behind a peer: itself, its database server, the mock upstream.
    pub(crate) fn trees(&self, peer: &Peer) -> Vec<Tree> {
        let database = Tree { name: "database".into(), root: self.postgres.pid() };
        let upstream = Tree { name: "upstream".into(), root: self.upstream.pid() };
        let own = peer.tree().into_iter();
        own.chain(peer.uses_postgres().then_some(database)).chain([upstream]).collect()
    }
}

/// A mock upstream of its own.
fn mock(log: &Path) -> Result<(SocketAddr, Running)> {
    let port = control::free_port()?;
    let harness = std::env::current_exe().context("finding this program")?;
    let mut command = process::command(&harness, None);
    command.args(["upstream", "--port", &port.to_string()]);
    let address = ([127, 0, 0, 1], port).into();
    let mut upstream = Running::start(&mut command, log, "TERM")?;
    control::await_ready(address, "/jwks", || upstream.check(log))?;
    Ok((address, upstream))
}

fn version(program: &Path, home: &Path) -> Result<String> {
    let mut command = process::command(program, None);
    command.env("HOME", home).env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    Ok(process::run(command.arg("--version"))?.trim().to_owned())
}

/// The private folder; removed when dropped.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn create(programs: &Programs) -> Result<Self> {
        let path = programs.scratch.join(format!("tollgate-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        // PostgreSQL's own user walks through it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { path, keep: programs.keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("left in place: {}", self.path.display());
        } else {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

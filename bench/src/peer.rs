//! Peers: the proxies that are measured, each in front of the same mock upstream.
//! Knows their command lines and configuration files; knows nothing of loads.

use crate::blackhole::FIRST_BYTE_MS;
use crate::control;
use crate::identity;
use crate::process::{self, Running, Tree};
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The admin key every gateway under test is configured with. It opens loopback only.
const ADMIN_KEY: &str = "loopback-benchmark-admin-key-0123456789abcdef";

/// Where the programs are and what they share.
pub(crate) struct Site {
    /// A private folder for configuration, logs and databases.
    pub(crate) folder: PathBuf,
    /// The mock upstream, which is also the issuer.
    pub(crate) upstream: SocketAddr,
    /// The first of three upstreams, where gateways have three.
    pub(crate) hole: Option<SocketAddr>,
}

/// What a gateway keeps its ledger in.
pub(crate) enum Store {
    /// A PostgreSQL URL.
    Postgres(String),
    /// The embedded database, in the peer's own folder.
    Sqlite,
}

/// One measured proxy, or the upstream itself as the floor.
pub(crate) struct Peer {
    /// What tables call it.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The origin its bearers name as issuer.
    pub(crate) public_url: String,
    process: Option<Running>,
}

impl Peer {
    /// The mock upstream without a proxy: what the harness itself costs.
    pub(crate) fn direct(site: &Site) -> Self {
        Self { name: "direct", address: site.upstream, public_url: format!("http://{}", site.upstream), process: None }
    }

    /// nginx as a plain reverse proxy: two workers, upstream connections kept alive, no buffering of answers, no access log.
    pub(crate) fn nginx(site: &Site, program: &Path) -> Result<Self> {
        let folder = site.folder.join("nginx");
        fs::create_dir(&folder)?;
        let port = control::free_port()?;
        let configuration = NGINX
            .replace("FOLDER", &folder.display().to_string())
            .replace("UPSTREAM", &site.upstream.to_string())
            .replace("PORT", &port.to_string());
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = process::command(program, None);
        command.arg("-c").arg(&file).arg("-p").arg(&folder).arg("-e").arg(folder.join("error.log"));
        Self::start("nginx", port, &folder, &mut command, "/jwks")
    }

    /// A gateway: `PROGRAM WORDS --config FILE`, with authentication, metering, audit and the admin API on.
    pub(crate) fn gateway(
        name: &'static str,
        site: &Site,
        program: &Path,
        words: &[&str],
        store: &Store,
    ) -> Result<Self> {
        let folder = site.folder.join(name);
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        let port = control::free_port()?;
        let file = folder.join("gateway.yaml");
        fs::write(&file, gateway_yaml(site, port, store, &folder))?;
        let mut command = process::command(program, None);
        command.args(words).arg("--config").arg(&file).current_dir(&folder);
        command.env("HOME", &folder).env("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1");
        command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        Self::start(name, port, &folder, &mut command, "/readyz")
    }

    fn start(
        name: &'static str,
        port: u16,
        folder: &Path,
        command: &mut std::process::Command,
        ready: &str,
    ) -> Result<Self> {
        let log = folder.join("output.log");
        let mut process = Running::start(command, &log, "TERM")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        control::await_ready(address, ready, || process.check(&log)).with_context(|| format!("starting {name}"))?;
        Ok(Self { name, address, public_url: format!("http://{address}"), process: Some(process) })
    }

    /// The peer's processes, for the load generator to watch; none for the upstream itself.
    pub(crate) fn tree(&self) -> Option<Tree> {
        self.process.as_ref().map(|process| Tree { name: "peer".into(), root: process.pid() })
    }

    /// Whether its ledger is in the shared PostgreSQL.
    pub(crate) fn uses_postgres(&self) -> bool {
        matches!(self.name, "reference" | "tollgate")
    }

    /// Whether it takes bearers and caps.
    pub(crate) fn is_gateway(&self) -> bool {
        !matches!(self.name, "direct" | "nginx")
    }

    /// Caps every user's month, in whole cents.
    pub(crate) fn cap(&self, cents: u64) -> Result<()> {
        let headers = format!("x-api-key: {ADMIN_KEY}\r\ncontent-type: application/json\r\n");
        let body = format!(r#"{{"scope":{{"type":"organization"}},"amount":"{cents}","period":"monthly"}}"#);
        let path = "/v1/organizations/spend_limits";
        let (status, answer) = control::call(self.address, "POST", path, &headers, &body)?;
        if status == 200 { Ok(()) } else { bail!("{} refused the cap: {status} {answer}", self.name) }
    }

    /// What the ledger says a user spent this month, in cents as the admin API prints them.
    pub(crate) fn spent(&self, subject: &str) -> Result<String> {
        let headers = format!("x-api-key: {ADMIN_KEY}\r\n");
        let path = format!("/v1/organizations/spend_limits/effective?user_ids[]={subject}&period[]=monthly");
        let (status, answer) = control::call(self.address, "GET", &path, &headers, "")?;
        let rows: serde_json::Value = serde_json::from_str(&answer).with_context(|| format!("{status} {answer}"))?;
        let spent = &rows["data"][0]["period_to_date_spend"];
        Ok(spent.as_str().unwrap_or("?").to_owned())
    }

    /// Bearers of that many different users, one per line, in a file for the load generator.
    pub(crate) fn bearers(&self, site: &Site, prefix: &str, users: usize) -> Result<PathBuf> {
        let lines: Vec<String> = (0..users)
            .map(|user| identity::bearer(&self.public_url, &format!("{prefix}{user}")))
            .collect::<Result<_>>()?;
        let file = site.folder.join(format!("{}-{prefix}.bearers", self.name));
        fs::write(&file, lines.join("\n"))?;
        Ok(file)
    }
}

fn gateway_yaml(site: &Site, port: u16, store: &Store, folder: &Path) -> String {
    let upstream = site.upstream;
    let secret = identity::JWT_SECRET;
    let upstreams = upstreams_yaml(site);
    let store = match store {
        Store::Postgres(url) => format!("postgres_url: \"{url}\""),
        Store::Sqlite => format!("sqlite_path: \"{}\"", folder.join("ledger.db").display()),
    };
    format!(
        r#"listen:
  host: 127.0.0.1
  port: {port}
  public_url: "http://127.0.0.1:{port}"
oidc:
  issuer: "http://{upstream}"
  client_id: bench
  client_secret: bench-client-secret
session:
  jwt_secret: "{secret}"
store:
  {store}
{upstreams}
auto_include_builtin_models: true
managed:
  policies:
    - match: {{}}
      cli:
        availableModels: [claude-sonnet-4-6, claude-haiku-4-5]
        model: claude-sonnet-4-6
admin:
  write_keys:
    - id: bench
      key: "{ADMIN_KEY}"
"#
    )
}

/// One upstream, or three of which the first can stop answering.
fn upstreams_yaml(site: &Site) -> String {
    let all = match site.hole {
        None => vec![("anthropic", site.upstream)],
        Some(hole) => vec![("first", hole), ("second", site.upstream), ("third", site.upstream)],
    };
    let entry = |(name, address): &(&str, SocketAddr)| {
        format!(
            "  - name: {name}\n    provider: anthropic\n    base_url: \"http://{address}\"\n    \
             auth:\n      api_key: mock-upstream-key\n"
        )
    };
    let entries: String = all.iter().map(entry).collect();
    match site.hole {
        None => format!("upstreams:\n{entries}"),
        Some(_) => format!("upstreams:\n{entries}timeouts:\n  upstream_ttfb_ms: {FIRST_BYTE_MS}\n"),
    }
}

/// Bodies stay in memory (the default would write a 20 KB prompt to disk); everything else is what a plain proxy needs.
const NGINX: &str = "\
daemon off;
user root;
worker_processes 2;
worker_rlimit_nofile 20000;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log error;
events { worker_connections 10000; }
http {
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  client_body_buffer_size 256k;
  client_max_body_size 64m;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  upstream messages { server UPSTREAM; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:PORT reuseport backlog=4096;
    location / {
      proxy_pass http://messages;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
";

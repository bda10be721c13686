//! Peers: the proxies that are measured, each in front of the same mock upstream.
//! Knows their command lines and configuration files; knows nothing of loads.

use crate::blackhole::FIRST_BYTE_MS;
use crate::control;
use crate::identity;
use crate::process::{self, Running, Tree};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The admin key every gateway under test is configured with. It opens loopback only.
pub(crate) const ADMIN_KEY: &str = "loopback-benchmark-admin-key-0123456789abcdef";

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

/// One kind of gateway, as it is to be started.
pub(crate) struct Setup<'a> {
    /// What tables call it.
    pub(crate) name: &'static str,
    /// Its binary.
    pub(crate) program: &'a Path,
    /// The subcommand that serves.
    pub(crate) word: &'static str,
    /// What it keeps its ledger in.
    pub(crate) store: &'a Store,
    /// With `enforcement.overshoot: none`.
    pub(crate) strict: bool,
}

/// What holds back who spends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cap<'a> {
    /// Every user's month.
    Everyone,
    /// One user's month.
    Seat(&'a str),
    /// The month that the members of a group share.
    Pool(&'a str),
}

/// One measured proxy, or the upstream itself as the floor.
pub(crate) struct Peer {
    /// What tables call it.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The origin its bearers name as issuer.
    pub(crate) public_url: String,
    /// A second process on the same database that goes by the same public URL.
    pub(crate) replica: Option<Box<Peer>>,
    process: Option<Running>,
}

impl Peer {
    /// The mock upstream without a proxy: what the harness itself costs.
    pub(crate) fn direct(site: &Site) -> Self {
        let public_url = format!("http://{}", site.upstream);
        Self { name: "direct", address: site.upstream, public_url, replica: None, process: None }
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

    /// A gateway: `PROGRAM WORD --config FILE`, with authentication, metering, audit and the admin API on.
    pub(crate) fn gateway(site: &Site, setup: &Setup<'_>) -> Result<Self> {
        Self::gateway_in(&site.folder.join(setup.name), site, setup, None)
    }

    /// Starts its second replica.
    pub(crate) fn add_replica(&mut self, site: &Site, setup: &Setup<'_>) -> Result<()> {
        let folder = site.folder.join(format!("{}-replica", setup.name));
        let mut replica = Self::gateway_in(&folder, site, setup, Some(&self.public_url))?;
        replica.public_url.clone_from(&self.public_url);
        self.replica = Some(Box::new(replica));
        Ok(())
    }

    fn gateway_in(folder: &Path, site: &Site, setup: &Setup<'_>, public_url: Option<&str>) -> Result<Self> {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let port = control::free_port()?;
        let file = folder.join("gateway.yaml");
        fs::write(&file, gateway_yaml(site, port, public_url, setup, folder))?;
        let mut command = process::command(setup.program, None);
        command.arg(setup.word).arg("--config").arg(&file).current_dir(folder);
        command.env("HOME", folder).env("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1");
        command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        Self::start(setup.name, port, folder, &mut command, "/readyz")
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
        Ok(Self { name, address, public_url: format!("http://{address}"), replica: None, process: Some(process) })
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

    /// Sets a monthly cap, in whole cents.
    pub(crate) fn cap(&self, cap: Cap<'_>, cents: u64) -> Result<()> {
        let headers = format!("x-api-key: {ADMIN_KEY}\r\ncontent-type: application/json\r\n");
        let cents = cents.to_string();
        let body = match cap {
            Cap::Everyone => json!({"scope": {"type": "organization"}, "amount": cents, "period": "monthly"}),
            Cap::Seat(user) => {
                json!({"scope": {"type": "user", "user_id": user}, "amount": cents, "period": "monthly"})
            }
            Cap::Pool(group) => json!({
                "scope": {"type": "rbac_group", "rbac_group_id": group},
                // What each member may spend is no limit here.
                "amount": "100000",
                "period": "monthly",
                "pooled_budget": {"amount": cents, "paused": false},
            }),
        };
        let path = "/v1/organizations/spend_limits";
        let (status, answer) = control::call(self.address, "POST", path, &headers, &body.to_string())?;
        if status == 200 { Ok(()) } else { bail!("{} refused the cap: {status} {answer}", self.name) }
    }

    /// What the ledger says was spent of a cap this month, in cents as the admin API prints them.
    pub(crate) fn spent(&self, cap: Cap<'_>) -> Result<String> {
        let headers = format!("x-api-key: {ADMIN_KEY}\r\n");
        let path = match cap {
            Cap::Seat(user) => format!("/v1/organizations/spend_limits/effective?user_ids[]={user}&period[]=monthly"),
            Cap::Everyone | Cap::Pool(_) => "/v1/organizations/spend_limits?limit=1000".to_owned(),
        };
        let (status, answer) = control::call(self.address, "GET", &path, &headers, "")?;
        let rows: Value = serde_json::from_str(&answer).with_context(|| format!("{status} {answer}"))?;
        let spent = match cap {
            Cap::Pool(group) => {
                let mut rows = rows["data"].as_array().into_iter().flatten();
                let row = rows.find(|row| row["scope"]["rbac_group_id"] == group);
                row.map_or(&Value::Null, |row| &row["pooled_budget"]["period_to_date_spend"])
            }
            Cap::Everyone | Cap::Seat(_) => &rows["data"][0]["period_to_date_spend"],
        };
        Ok(spent.as_str().unwrap_or("?").to_owned())
    }

    /// Bearers of that many different users, one per line, in a file for the load generator.
    pub(crate) fn bearers(&self, site: &Site, prefix: &str, users: usize) -> Result<PathBuf> {
        self.bearers_in(site, "engineering", prefix, users)
    }

    /// The same, of members of a group.
    pub(crate) fn bearers_in(&self, site: &Site, group: &str, prefix: &str, users: usize) -> Result<PathBuf> {
        let lines: Vec<String> = (0..users)
            .map(|user| identity::bearer(&self.public_url, &format!("{prefix}{user}"), group))
            .collect::<Result<_>>()?;
        let file = site.folder.join(format!("{}-{prefix}.bearers", self.name));
        fs::write(&file, lines.join("\n"))?;
        Ok(file)
    }
}

fn gateway_yaml(site: &Site, port: u16, public_url: Option<&str>, setup: &Setup<'_>, folder: &Path) -> String {
    let public_url = public_url.map_or_else(|| format!("http://127.0.0.1:{port}"), str::to_owned);
    let enforcement = if setup.strict { "enforcement:\n  overshoot: none" } else { "" };
    let upstream = site.upstream;
    let secret = identity::JWT_SECRET;
    let upstreams = upstreams_yaml(site);
    let store = match setup.store {
        Store::Postgres(url) => format!("postgres_url: \"{url}\""),
        Store::Sqlite => format!("sqlite_path: \"{}\"", folder.join("ledger.db").display()),
    };
    format!(
        r#"listen:
  host: 127.0.0.1
  port: {port}
  public_url: "{public_url}"
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
{enforcement}
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

//! Staging: everything that runs during a demo, started in order and taken down in the opposite one.
//!
//! The gateway itself is the real one, booted from a configuration file as by `tollgate serve`.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use control::clock::SystemClock;
use http::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::chance;
use super::folder::Folder;
use super::idp::{Client, Provider};
use super::model::Model;
use super::people::{CONTRACTOR, ENGINEER, FINANCE};
use super::visitor::Visitor;
use crate::boot::{self, Gateway};
use crate::config::{self, Environment};
use crate::serve::Server;

/// For what is still open when the demo ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A demo that is running.
pub(super) struct Staging {
    folder: Folder,
    pub(super) config: PathBuf,
    pub(super) settings: PathBuf,
    /// `x-api-key` of the admin API.
    pub(super) admin_key: String,
    pub(super) provider: Arc<Provider>,
    pub(super) model: Arc<Model>,
    gateway: Gateway,
    around: Around,
}

/// The servers around the gateway.
struct Around {
    providing: Server,
    modelling: Server,
    tasks: TaskTracker,
}

/// What goes into the configuration file.
struct Facts {
    port: u16,
    issuer: String,
    model: String,
    client: Client,
    jwt_secret: String,
    admin_key: String,
    model_key: String,
}

impl Staging {
    /// Starts everything; the gateway listens on `port`, or on one that is free.
    pub(super) async fn set_up(
        folder: Folder,
        port: Option<u16>,
        audit: impl Write + Send + 'static,
    ) -> anyhow::Result<Self> {
        let tasks = TaskTracker::new();
        let client = Client { id: "tollgate".to_owned(), secret: chance::token()? };
        let model_key = chance::token()?;
        let (idp_origin, idp_listener) = listen()?;
        let (model_origin, model_listener) = listen()?;
        let provider = Provider::new(idp_origin.clone(), client.clone(), Arc::new(SystemClock))?;
        let model = Model::new(model_key.clone());
        let around = Around {
            providing: Server::start(idp_listener, None, Arc::clone(&provider).routes(), &tasks).await?,
            modelling: Server::start(model_listener, None, Arc::clone(&model).routes(), &tasks).await?,
            tasks,
        };

        let admin_key = chance::token()?;
        let facts = Facts {
            port: port.unwrap_or(0),
            issuer: idp_origin,
            model: model_origin,
            client,
            jwt_secret: chance::token()?,
            admin_key: admin_key.clone(),
            model_key,
        };
        let config = folder.write("gateway.yaml", &facts.to_yaml())?;
        let gateway = boot_from(&config, audit).await?;
        provider.register(format!("{}/oauth/callback", gateway.origin()));
        let login = json!({"forceLoginMethod": "gateway", "forceLoginGatewayUrl": gateway.origin()});
        let settings = folder.write("managed-settings.json", &format!("{login:#}\n"))?;
        Ok(Self { folder, config, settings, admin_key, provider, model, gateway, around })
    }

    pub(super) fn origin(&self) -> &str {
        self.gateway.origin()
    }

    /// Sets the demo's caps as an operator does: over HTTP, with the admin key.
    pub(super) async fn set_caps(&self) -> anyhow::Result<()> {
        let visitor = Visitor::new(self.origin())?;
        for (scope, cents, period) in caps() {
            let body = json!({"scope": scope, "amount": cents, "period": period}).to_string();
            let request = visitor.post("/v1/organizations/spend_limits").header("x-api-key", &self.admin_key);
            let answer = visitor.send(request, body).await?;
            ensure!(answer.status == StatusCode::OK, "a cap was not set: {} {}", answer.status, answer.text());
        }
        Ok(())
    }

    /// Ends everything: the gateway finishes what it has begun and writes its last lines.
    pub(super) async fn take_down(self) {
        let Around { providing, modelling, tasks } = self.around;
        self.gateway.stop().await;
        let cut = CancellationToken::new();
        tokio::join!(providing.drain(LAST_WORDS, &cut), modelling.drain(LAST_WORDS, &cut));
        tasks.close();
        tasks.wait().await;
        // Last: the database in it was open until now.
        drop(self.folder);
    }
}

/// Per-seat caps, as the admin API takes them: scope, whole US cents, period.
pub(super) fn caps() -> [(Value, &'static str, &'static str); 3] {
    let group = |name: &str| json!({"type": "rbac_group", "rbac_group_id": name});
    [
        (json!({"type": "organization"}), "2000", "monthly"),
        (group(ENGINEER.group), "200", "daily"),
        (group(CONTRACTOR.group), "5", "daily"),
    ]
}

async fn boot_from(file: &Path, audit: impl Write + Send + 'static) -> anyhow::Result<Gateway> {
    // Nothing of this machine's environment: no proxy stands between parts of one process.
    let environment = Environment::from_pairs([("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1")]);
    let loaded = config::load(file, &environment).context("the demo's own configuration")?;
    boot::start(loaded, audit).await.context("the gateway did not start")
}

fn listen() -> anyhow::Result<(String, TcpListener)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port on 127.0.0.1")?;
    listener.set_nonblocking(true)?;
    Ok((format!("http://{}", listener.local_addr()?), listener))
}

impl Facts {
    fn to_yaml(&self) -> String {
        let Self { port, issuer, model, client: Client { id, secret }, jwt_secret, admin_key, model_key } = self;
        let (contractors, finance) = (CONTRACTOR.group, FINANCE.group);
        format!(
            r#"# Written by `tollgate demo` for this run alone: every secret was made at its start and is worth nothing after it.
# For a real gateway begin with deploy/gateway.example.yaml, where secrets are references.

listen:
  host: 127.0.0.1
  port: {port}

login_notice: This is the Tollgate demo. Nobody here is real.

oidc:
  issuer: {issuer}
  client_id: {id}
  client_secret: "{secret}"
  allowed_email_domains: [demo.example]

session:
  jwt_secret: "{jwt_secret}"

# No store: an SQLite file beside this one.

upstreams:
  - name: scripted
    provider: anthropic
    base_url: {model}
    auth: {{ api_key: "{model_key}" }}

managed:
  policies:
    - match: {{ groups: [{contractors}] }}
      cli:
        model: claude-haiku-4-5
        availableModels: [claude-haiku-4-5]
    - match: {{}}
      cli:
        model: claude-sonnet-4-6
        availableModels: [claude-opus-4-8, claude-sonnet-4-6, claude-haiku-4-5]
        permissions:
          deny: ["Read(./.env)"]
      desktop:
        disabledBuiltinTools: [WebSearch]

# The caps themselves are set over HTTP, and are in the database.
admin:
  admin_groups: [{finance}]
  write_keys:
    - {{ id: demo-operator, key: "{admin_key}" }}
  blocked_message: ask Fran for more

# Longer than the usual 5, so that a busy machine shows the same as an idle one.
enforcement:
  wait_seconds: 60
"#
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_the_gateway_accepts_without_a_warning() {
        let token = || chance::token().unwrap();
        let facts = Facts {
            port: 0,
            issuer: "http://127.0.0.1:1".to_owned(),
            model: "http://127.0.0.1:2".to_owned(),
            client: Client { id: "tollgate".to_owned(), secret: token() },
            jwt_secret: token(),
            admin_key: token(),
            model_key: token(),
        };
        let environment = Environment::from_pairs([("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1")]);
        let (config, warnings) = config::parse(facts.to_yaml().as_bytes(), Path::new("/"), &environment).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.listen.host, "127.0.0.1");
    }
}

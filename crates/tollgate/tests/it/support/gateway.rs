//! A whole gateway, in this process or as a process of its own, with everything that stands around it: a database,
//! scripted upstreams, and an identity provider - a real one where somebody signs in, else a document that looks like one.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock, SystemClock};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::boot::{self, Gateway};
use tollgate::config::{self, Environment};

use super::database::{Database, Store};
use super::http::{Http, unused_port};
use super::idp::{Account, Idp, RefreshTokens};
use super::upstream::{Answer, Upstream};

mod audit;
mod books;
mod caller;
mod device;
mod process;

pub(crate) use audit::Audit;
pub(crate) use books::{Books, open};
pub(crate) use caller::Caller;
pub(crate) use device::Device;
pub(crate) use process::{Process, tollgate};

/// `session.jwt_secret`: whoever knows it mints bearers.
pub(crate) const SECRET: &str = "the-session-secret-of-the-tests-0123456789";
pub(crate) const WRITE_KEY: &str = "the-admin-write-key-of-the-tests-0123456789";
pub(crate) const READ_KEY: &str = "the-admin-read-key-of-the-tests-01234567890";
/// Whose members are administrators.
pub(crate) const ADMIN_GROUP: &str = "finops";

/// What a test waits for comes at once or not at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway to be.
pub(crate) struct Setup {
    /// Merged in this order.
    config: Vec<Value>,
    database: Database,
    store: Option<Store>,
    upstreams: Vec<Value>,
    sign_in: Option<(RefreshTokens, Vec<Account>)>,
    provider: Value,
    environment: Vec<(&'static str, String)>,
    clock: Arc<dyn Clock>,
}

/// A gateway that serves.
pub(crate) struct TestGateway {
    url: String,
    issuer: String,
    http: Http,
    audit: Audit,
    upstreams: Vec<Upstream>,
    provider: Provider,
    store: Store,
    running: Running,
    directory: TempDir,
}

enum Running {
    Here(Option<Gateway>),
    AsProcess(Process),
}

enum Provider {
    /// Says where sign-ins would go; nobody signs in.
    Document(#[expect(dead_code, reason = "answers as long as it lives")] Upstream),
    Real(Box<Idp>),
}

impl TestGateway {
    /// A gateway with one upstream, an embedded database and spend limits.
    pub(crate) async fn start() -> Self {
        Self::setup().start().await
    }

    /// The same, to be changed before it starts.
    pub(crate) fn setup() -> Setup {
        Setup {
            config: Vec::new(),
            database: Database::Sqlite,
            store: None,
            upstreams: Vec::new(),
            sign_in: None,
            provider: json!({}),
            environment: vec![("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1".to_owned())],
            clock: Arc::new(SystemClock),
        }
    }

    /// Where it listens, as the start of URLs; without a trailing slash.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        let url: url::Url = self.url.parse().unwrap();
        format!("127.0.0.1:{}", url.port().unwrap())
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The first upstream.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstreams[0]
    }

    pub(crate) fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// The real identity provider.
    pub(crate) fn idp(&self) -> &Idp {
        match &self.provider {
            Provider::Real(idp) => idp,
            Provider::Document(_) => panic!("this gateway has no real identity provider"),
        }
    }

    /// Somebody without credentials.
    pub(crate) fn anyone(&self) -> Caller {
        Caller::new(&self.url, &self.http)
    }

    /// Somebody with a bearer: an e-mail address at example.com and no groups.
    pub(crate) fn as_user(&self, sub: &str) -> Caller {
        self.as_member(sub, &[])
    }

    /// Somebody with a bearer that names groups.
    pub(crate) fn as_member(&self, sub: &str, groups: &[&str]) -> Caller {
        let email = format!("{sub}@example.com");
        self.as_bearer_of(&json!({ "sub": sub, "email": email, "groups": groups }))
    }

    /// Somebody whose bearer makes these claims beside the usual ones.
    pub(crate) fn as_bearer_of(&self, claims: &Value) -> Caller {
        self.anyone().bearer(&caller::mint(&self.issuer, claims))
    }

    /// Whoever holds the write key.
    pub(crate) fn admin(&self) -> Caller {
        self.anyone().header("x-api-key", WRITE_KEY)
    }

    /// Whoever holds the read key.
    pub(crate) fn auditor(&self) -> Caller {
        self.anyone().header("x-api-key", READ_KEY)
    }

    /// Caps what a user may spend in a day.
    pub(crate) async fn cap(&self, sub: &str, cents: u64) {
        let scope = json!({ "type": "user", "user_id": sub });
        let cap = json!({ "scope": scope, "amount": cents.to_string(), "period": "daily" });
        let reply = self.admin().post("/v1/organizations/spend_limits", cap.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Ends it as a signal would: what is under way may finish. Gives how many connections were cut.
    pub(crate) async fn stop(&mut self) -> usize {
        let Running::Here(gateway) = &mut self.running else { panic!("a process is stopped by a signal") };
        let gateway = gateway.take().expect("it was stopped before");
        gateway.stop().await
    }

    /// Ends it and starts it again in this process, with this merged into its configuration.
    pub(crate) async fn restart_with(&mut self, change: Value) {
        self.stop().await;
        let file = self.directory.path().join("gateway.yaml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        merge(&mut config, change);
        std::fs::write(&file, config.to_string()).unwrap();
        let environment = Environment::from_pairs([("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1")]);
        let loaded = config::load(&file, &environment).unwrap_or_else(|problems| panic!("{problems}"));
        let started = boot::start_at(loaded, self.audit.clone(), Arc::new(SystemClock)).await;
        self.running = Running::Here(Some(started.unwrap_or_else(|error| panic!("{error:#}"))));
    }

    /// Starts another process in the place of one that has ended: same configuration, same database, another port.
    pub(crate) async fn start_again(&mut self) {
        let environment = [("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1".to_owned())];
        let process = Process::serve(self.directory.path(), &environment, self.audit.clone());
        self.url = process.url().await;
        self.issuer.clone_from(&self.url);
        self.running = Running::AsProcess(process);
    }

    /// The process it runs as.
    pub(crate) fn process(&mut self) -> &mut Process {
        match &mut self.running {
            Running::AsProcess(process) => process,
            Running::Here(_) => panic!("this gateway is no process of its own"),
        }
    }

    /// The folder of its configuration.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The database of a gateway that has ended.
    pub(crate) async fn database(&self) -> control::store::Store {
        open(&self.store).await
    }

    /// Its database, for another gateway to go on with.
    pub(crate) fn into_store(self) -> Store {
        self.store
    }

    /// What stands in the database of a gateway that has ended.
    pub(crate) async fn books(&self) -> Books {
        Books::read(&self.store).await
    }
}

impl Setup {
    /// Merged into the configuration, object by object; `null` removes what stands there.
    pub(crate) fn config(mut self, config: Value) -> Self {
        self.config.push(config);
        self
    }

    /// On a fresh database of this kind.
    pub(crate) fn on(mut self, database: Database) -> Self {
        self.database = database;
        self
    }

    /// On this database.
    pub(crate) fn store(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// One more upstream, with these keys beside the usual ones; `path` is what its `base_url` ends in. Without any, there
    /// is one called `first`.
    pub(crate) fn upstream(mut self, extra: Value) -> Self {
        self.upstreams.push(extra);
        self
    }

    /// With a real identity provider, where these people can sign in.
    pub(crate) fn people(mut self, refresh_tokens: RefreshTokens, accounts: &[Account]) -> Self {
        self.sign_in = Some((refresh_tokens, accounts.to_vec()));
        self
    }

    /// More settings of the real identity provider, see [`Idp::start_with`].
    pub(crate) fn provider(mut self, more: Value) -> Self {
        self.provider = more;
        self
    }

    /// On a clock that the test moves.
    pub(crate) fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Starts it in this process.
    pub(crate) async fn start(self) -> TestGateway {
        let clock = Arc::clone(&self.clock);
        let environment = Environment::from_pairs(self.environment.clone());
        let ready = self.prepare().await;
        let file = ready.directory.path().join("gateway.yaml");
        let loaded = config::load(&file, &environment).unwrap_or_else(|problems| panic!("{problems}"));
        let audit = Audit::default();
        let gateway = boot::start_at(loaded, audit.clone(), clock).await.unwrap_or_else(|error| panic!("{error:#}"));
        let scheme = gateway.origin().split("://").next().unwrap();
        let url = format!("{scheme}://{}", gateway.address());
        ready.gateway(url, audit, Running::Here(Some(gateway)))
    }

    /// Starts it as a process of its own, which ends with the test.
    pub(crate) async fn start_process(self) -> TestGateway {
        let environment = self.environment.clone();
        let ready = self.prepare().await;
        let audit = Audit::default();
        let process = Process::serve(ready.directory.path(), &environment, audit.clone());
        let url = process.url().await;
        ready.gateway(url, audit, Running::AsProcess(process))
    }

    /// Starts it as a process that refuses to serve: how it ends, and what it says.
    pub(crate) async fn refuse(self) -> (ExitStatus, String) {
        let environment = self.environment.clone();
        let ready = self.prepare().await;
        let mut process = Process::serve(ready.directory.path(), &environment, Audit::default());
        let status = process.exit().await;
        (status, process.log())
    }

    /// Starts everything around it and writes its configuration.
    async fn prepare(mut self) -> Ready {
        let directory = tempfile::tempdir().unwrap();
        let mut config = json!({
            "listen": { "host": "127.0.0.1", "port": 0 },
            "oidc": { "client_id": Idp::CLIENT_ID, "client_secret": Idp::CLIENT_SECRET },
            "session": { "jwt_secret": SECRET },
            "admin": {
                "write_keys": [{ "id": "writer", "key": WRITE_KEY }],
                "read_keys": [{ "id": "reader", "key": READ_KEY }],
                "admin_groups": [ADMIN_GROUP],
            },
        });
        let provider = match self.sign_in {
            None => {
                let document = discovery().await;
                config["oidc"]["issuer"] = document.url().into();
                Provider::Document(document)
            }
            Some((refresh_tokens, accounts)) => {
                let port = unused_port();
                let redirect_uri = format!("http://127.0.0.1:{port}/oauth/callback");
                let idp = Idp::start_with(&redirect_uri, refresh_tokens, &accounts, &self.provider);
                config["listen"]["port"] = port.into();
                config["oidc"]["issuer"] = idp.issuer().into();
                Provider::Real(Box::new(idp))
            }
        };
        let store = match self.store {
            Some(store) => store,
            None => self.database.fresh().await,
        };
        config["store"] = match &store {
            Store::Sqlite(_) => json!({ "sqlite_path": store.sqlite_path().unwrap() }),
            Store::Postgres(url) => json!({ "postgres_url": url }),
        };
        if self.upstreams.is_empty() {
            self.upstreams.push(json!({ "name": "first" }));
        }
        let mut upstreams = Vec::new();
        config["upstreams"] = json!([]);
        for mut extra in self.upstreams {
            let upstream = Upstream::start().await;
            let path = extra.as_object_mut().unwrap().remove("path").unwrap_or_default();
            let base_url = upstream.url() + path.as_str().unwrap_or_default();
            let auth = json!({ "api_key": "sk-of-the-upstream" });
            let mut entry = json!({ "provider": "anthropic", "base_url": base_url, "auth": auth });
            merge(&mut entry, extra);
            config["upstreams"].as_array_mut().unwrap().push(entry);
            upstreams.push(upstream);
        }
        for extra in self.config {
            merge(&mut config, extra);
        }
        let public_url = config["listen"]["public_url"].as_str().map(str::to_owned);
        // JSON is YAML.
        std::fs::write(directory.path().join("gateway.yaml"), config.to_string()).unwrap();
        Ready { upstreams, provider, store, directory, public_url }
    }
}

struct Ready {
    upstreams: Vec<Upstream>,
    provider: Provider,
    store: Store,
    directory: TempDir,
    public_url: Option<String>,
}

impl Ready {
    fn gateway(self, url: String, audit: Audit, running: Running) -> TestGateway {
        let Self { upstreams, provider, store, directory, public_url } = self;
        let issuer = public_url.unwrap_or_else(|| url.clone());
        TestGateway { url, issuer, http: Http::new(), audit, upstreams, provider, store, running, directory }
    }
}

/// An issuer as far as a boot asks for one.
async fn discovery() -> Upstream {
    let provider = Upstream::start().await;
    let url = provider.url();
    provider.answer_otherwise(move |request| {
        assert_eq!(request.method, Method::GET);
        if request.uri.path() == "/jwks" {
            return Answer::json(200, &json!({ "keys": [] }));
        }
        let at = |path: &str| format!("{url}/{path}");
        Answer::json(
            200,
            &json!({
                "issuer": url, "authorization_endpoint": at("auth"), "token_endpoint": at("token"),
                "jwks_uri": at("jwks"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }),
        )
    });
    provider
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

//! The rooms around [`Inference`], put together for tests.

use std::io::Write;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::bytes::Bytes;
use control::audit::AuditLog;
use control::clock::{Clock, TestClock};
use control::connect::{self, Egress};
use control::identity::Principal;
use control::identity::admin_key::Admin;
use control::policy::{self, Policies, PolicyConfig};
use control::spend::{self, Caps, GroupMode, Ledger, Period, Prices, Pricing, Scope, Setting, Standing};
use control::store::{self, Store};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wire::catalog::Catalog;

use super::super::{Answer, Config, Facts, Failure, Inference, MOST, Relay, Seats};
use crate::upstream::scripted::Server;
use crate::upstream::{
    self, AnthropicConfig, ApiConfig, Breaker, Credential, Endpoint, FailoverOn, Timeouts, Upstreams,
};

/// Costs 3 dollars per million tokens of input, 15 of output.
pub(super) const MODEL: &str = "claude-sonnet-4-5-20250929";

pub(super) struct Gateway {
    pub(super) inference: Arc<Inference>,
    pub(super) clock: Arc<TestClock>,
    caps: Caps,
    store: Store,
    lines: Lines,
    _directory: tempfile::TempDir,
}

/// An [`Answer`] whose body can be read here.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) standing: Option<Standing>,
    pub(super) body: Pin<Box<Relay>>,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn config(name: &str, base_url: &str) -> upstream::Config {
    upstream::Config {
        name: name.to_owned(),
        base_url: base_url.parse().unwrap(),
        headers: Vec::new(),
        models: None,
        groups: None,
        api: ApiConfig::Anthropic(AnthropicConfig {
            credential: Credential::ApiKey("sk-upstream".into()),
            forward_user_identity: false,
        }),
        timeouts: Timeouts::default(),
        failover_on: FailoverOn::default(),
        breaker: Some(Breaker::default()),
    }
}

pub(super) fn alice() -> Principal {
    Principal {
        sub: "alice".to_owned(),
        email: Some("alice@example.com".to_owned()),
        name: None,
        groups: vec!["eng".to_owned()],
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    }
}

impl Gateway {
    /// A gateway with these servers as its upstreams a, b, ...
    pub(super) async fn before(servers: &[&Server]) -> Self {
        let configs = servers.iter().zip(["a", "b", "c"]).map(|(server, name)| config(name, &server.url()));
        Self::with(configs.collect(), None).await
    }

    pub(super) async fn with(upstreams: Vec<upstream::Config>, billing_group_tag: Option<&str>) -> Self {
        let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let caps = Caps::load(store.clone(), clock.clone(), GroupMode::Min).await.unwrap();
        let spend = spend::Config { wait: Duration::from_millis(1), ..spend::Config::default() };
        let prices = Prices::new(Pricing::default());
        let (ledger, writer) = Ledger::new(store.clone(), clock.clone(), caps.clone(), prices, &spend);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(writer.run(CancellationToken::new()));
        let catalog = Arc::new(Catalog::new(Vec::new(), true).unwrap());
        let egress = Egress::new(&connect::Config { allow_loopback: true, proxy: None }).unwrap();
        let lines = Lines::default();
        let seats = Arc::new(Seats::new(MOST, None));
        let shared_clock: Arc<dyn Clock> = clock.clone();
        let inference = Arc::new(Inference {
            seats,
            load_test: None,
            config: Config { max_request_bytes: 1000, billing_group_tag: billing_group_tag.map(str::to_owned) },
            upstreams: Upstreams::new(upstreams, &catalog, &egress, &shared_clock).unwrap(),
            policies: Arc::new(policies(catalog)),
            ledger: Some(ledger),
            audit: AuditLog::to(lines.clone(), clock.clone()).unwrap(),
            clock: clock.clone(),
            cut: CancellationToken::new(),
            meters: crate::inference::meters::Meters::default(),
        });
        Self { inference, clock, caps, store, lines, _directory: directory }
    }

    /// A cap for alice, by day.
    pub(super) async fn cap(&self, cents: i64) {
        let access = Admin::person(&alice(), &["eng".to_owned()]).unwrap().write_access().unwrap();
        let scope = Scope::User("alice".to_owned());
        let wanted = Setting { scope, period: Period::Daily, cents: Some(cents), pool: None };
        self.caps.set(&access, &wanted).await.unwrap();
    }

    pub(super) async fn messages(&self, body: impl Into<Bytes>) -> Result<Received, Failure> {
        self.run(Endpoint::Messages, Request::post("/v1/messages").body(body.into()).unwrap()).await
    }

    pub(super) async fn run(&self, endpoint: Endpoint, request: Request<Bytes>) -> Result<Received, Failure> {
        let facts =
            Facts { request_id: Arc::from("r-1"), received: self.clock.instant(), principal: Arc::new(alice()) };
        let answer = self.inference.run(endpoint, facts, request.map(Full::new)).await?;
        let Answer { status, headers, standing, body } = answer;
        Ok(Received { status, headers, standing, body: Box::pin(body) })
    }

    /// The audit lines so far, without what is the same in all of them.
    pub(super) async fn audit(&self) -> Vec<Value> {
        self.inference.audit.flush().await;
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        let mut events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for event in events.iter_mut().filter_map(Value::as_object_mut) {
            for same in ["ts", "sub", "email", "request_id", "path", "ms", "ttfb_ms"] {
                event.remove(same);
            }
            event.retain(|_, value| !value.is_null());
        }
        events
    }

    /// How the one request so far ended in the audit: its outcome, status, tokens and cost.
    pub(super) async fn ended(&self) -> String {
        let events = self.audit().await;
        assert_eq!(events.len(), 1, "{events:?}");
        let field = |name| events[0].get(name).cloned().unwrap_or_default();
        let estimated = if field("estimated") == json!(true) { " estimated" } else { "" };
        format!(
            "{} {} by {}: {}+{} tokens, ${}{estimated}",
            field("outcome").as_str().unwrap_or("-"),
            field("status"),
            field("upstream").as_str().unwrap_or("-"),
            field("input_tokens"),
            field("output_tokens"),
            field("cost_usd"),
        )
    }

    /// What the database holds: settled and reserved nano-dollars of the day, and the usage rows' charges.
    pub(super) async fn books(&self) -> (i64, i64, Vec<i64>) {
        self.inference.ledger.as_ref().unwrap().flush().await;
        let day = "SELECT settled, reserved FROM account WHERE id = 'user:alice' AND period = '2026-11-22'";
        let account = self.store.fetch_optional(day, &[]).await.unwrap();
        let (settled, reserved) = account.map_or((0, 0), |row| (row.int(0).unwrap(), row.int(1).unwrap()));
        let charges = self.store.fetch("SELECT charge FROM usage ORDER BY started_at", &[]).await.unwrap();
        (settled, reserved, charges.iter().map(|row| row.int(0).unwrap()).collect())
    }
}

async fn open(directory: &Path) -> Store {
    Store::open(&store::Config::Sqlite { path: directory.join("test.db") }).await.unwrap()
}

/// Everyone may use sonnet only.
fn policies(catalog: Arc<Catalog>) -> Policies {
    let cli = json!({"availableModels": ["sonnet"]}).as_object().cloned();
    let policy = PolicyConfig { settings: cli, ..PolicyConfig::default() };
    let config = policy::Config { policies: Some(vec![policy]), ..policy::Config::default() };
    Policies::compile(config, catalog).0
}

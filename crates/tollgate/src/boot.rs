//! Boot: a configuration becomes rooms, rooms become routes, routes are served. The only place that knows everyone.

mod explain;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use control::audit::{AuditLog, Event};
use control::clock::{Clock, SystemClock};
use control::connect::Egress;
use control::identity::sign_in::{self, SignIn};
use control::limit::Counters;
use control::policy::{self, Policies};
use control::spend::upkeep::Proof;
use control::spend::{Caps, Ledger, Prices, Report, Upkeep};
use control::store::Store;
use proxy::inference::meters::Meters;
use proxy::inference::{self, Inference, Seats};
use proxy::otlp;
use proxy::upstream::Upstreams;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::catalog::Catalog;

use crate::config::{Config, Lines, Loaded, Remark};
use crate::http::admin::{self, Admins};
use crate::http::caller::Wall;
use crate::http::documents::{self, Landing};
use crate::http::health::{self, Readiness};
use crate::http::inference::models::Reach;
use crate::http::layers::Edge;
use crate::http::{self, Router, Surfaces, managed, oauth};
use crate::serve::{self, Server};

pub use explain::{Explained, Who, explain};

/// How often expired rows of the sign-in are removed.
const SWEEP: Duration = Duration::from_secs(30);
/// How often rows past their retention are removed.
const KEEP_UP: Duration = Duration::from_secs(3600);
/// How often an hour of usage is looked for that can be added up; and after one that was, for the ledger to have its turn.
const FOLD: Duration = Duration::from_secs(60);
const FOLD_NEXT: Duration = Duration::from_millis(20);
/// What posts to collectors may still take after the last request.
const LAST_POSTS: Duration = Duration::from_secs(5);

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    origin: String,
    server: Server,
    /// Outlives the requests, so that it tells of the last of them.
    metrics: Option<Server>,
    drain: Duration,
    cut: CancellationToken,
    /// What runs beside the requests, until they are over.
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The ledger's writer: the last to go.
    writers: TaskTracker,
    stop_writers: CancellationToken,
    audit: AuditLog,
}

/// Starts a gateway whose audit lines go to `audit_out`, on the machine's clock.
///
/// # Errors
/// Whatever keeps it from serving: the database, the identity provider, a TLS file, the address. Nothing is left running.
pub async fn start(loaded: Loaded, audit_out: impl Write + Send + 'static) -> anyhow::Result<Gateway> {
    start_at(loaded, audit_out, Arc::new(SystemClock)).await
}

/// As [`start`], on a clock of the caller's.
///
/// # Errors
/// As [`start`].
pub async fn start_at(
    loaded: Loaded,
    audit_out: impl Write + Send + 'static,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Gateway> {
    let Loaded { mut config, warnings, digest, path, lines } = loaded;
    let audit = AuditLog::to(audit_out, Arc::clone(&clock)).context("the audit's thread cannot be started")?;
    let load = Event::ConfigLoad { path: &path.display().to_string(), sha256: &digest };
    audit.emit(None, &load);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    // Before anything else: a port that the system chooses is part of the issuer.
    let listener = serve::bind(&config.listen)?;
    config.listening_on(listener.local_addr()?.port());
    let store = Store::open(&config.store).await?;
    if config.load_test.is_some() && control::spend::has_spend(&store).await? {
        return Err(anyhow!(
            "load_test_mode: this database holds real spend; use an empty one, or leave load_test_mode out"
        ));
    }
    let building = Building::new(&config, store, audit, clock);
    let summary = summary(&config);
    let metrics_at = config.metrics.clone();
    // On the heap: it holds the whole configuration, and every caller of this function would hold it too.
    let rooms = Box::pin(building.rooms(config, &lines)).await?;
    let metrics = match metrics_at {
        Some(at) => Some(Server::start(serve::bind_metrics(&at)?, None, rooms.metrics, &building.tasks).await?),
        None => None,
    };
    let server = Server::start(listener, rooms.tls.as_ref(), rooms.app, &building.tasks).await?;
    tracing::info!("tollgate {} listening on {}", env!("CARGO_PKG_VERSION"), shown(&server, rooms.tls.is_some()));
    summary.iter().for_each(|line| tracing::info!("{line}"));
    Ok(building.gateway(rooms.origin, server, metrics, rooms.drain))
}

/// What an operator should know about a configuration, as far as it shows without connecting to anything.
///
/// # Errors
/// What would keep it from serving.
pub fn check(loaded: Loaded) -> anyhow::Result<Vec<Remark>> {
    let Loaded { config, mut warnings, lines, .. } = loaded;
    let catalog = Arc::new(Catalog::new(config.models, config.auto_include_builtin_models)?);
    let egress = Egress::new(&config.connect).map_err(|error| anyhow!(error))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Upstreams::new(config.upstreams, &catalog, &egress, &clock).map_err(|error| anyhow!("{error}"))?;
    let (_, of_policies) = Policies::compile(config.policy, catalog);
    warnings.extend(of_policies.into_iter().map(|warning| located(warning, &lines)));
    warnings.sort_by_key(|warning| warning.line);
    Ok(warnings)
}

/// With the line of the file that it speaks of.
fn located(warning: policy::Warning, lines: &Lines) -> Remark {
    Remark { line: lines.find(&warning.path), path: warning.path, message: warning.message }
}

/// Proves the books of the ledger: counters equal what their rows add up to.
///
/// # Errors
/// When the database does not answer, or is in use by a gateway that keeps it to itself.
pub async fn verify_ledger(loaded: Loaded) -> anyhow::Result<Proof> {
    let Loaded { config, .. } = loaded;
    let retention = config.admin.as_ref().map(|admin| admin.retention).unwrap_or_default();
    let store = Store::open(&config.store).await?;
    Ok(Upkeep::new(store, Arc::new(SystemClock), retention).verify().await?)
}

impl Gateway {
    /// The public origin, without a trailing slash.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How long open requests may take to finish once it is stopped.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain
    }

    /// Takes no more requests, lets those under way finish within the drain time, cuts the rest, writes every settlement
    /// and every audit line, and returns how many connections were cut.
    pub async fn stop(self) -> usize {
        let cut = self.server.drain(self.drain, &self.cut).await;
        if let Some(metrics) = self.metrics {
            metrics.drain(Duration::ZERO, &CancellationToken::new()).await;
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST_POSTS, self.tasks.wait()).await.is_err() {
            tracing::warn!("posts to collectors that did not answer are given up");
        }
        // Only now: every request is over, so nothing can be entered after the writer has gone.
        self.stop_writers.cancel();
        self.writers.close();
        self.writers.wait().await;
        self.audit.flush().await;
        cut
    }
}

/// What is built on the way, and must be taken down when the boot fails half way.
struct Building {
    store: Store,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    cut: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    writers: TaskTracker,
    stop_writers: CancellationToken,
    named_groups: Vec<String>,
}

/// The rooms, wired.
struct Rooms {
    app: Router,
    metrics: Router,
    tls: Option<crate::config::listen::Tls>,
    origin: String,
    drain: Duration,
}

impl Drop for Building {
    fn drop(&mut self) {
        // Cancels nothing once `gateway` has handed the tokens on: it leaves clean ones.
        self.stop.cancel();
        self.stop_writers.cancel();
    }
}

impl Building {
    fn new(config: &Config, store: Store, audit: AuditLog, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            audit,
            clock,
            cut: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            writers: TaskTracker::new(),
            stop_writers: CancellationToken::new(),
            named_groups: named_groups(config),
        }
    }

    fn gateway(mut self, origin: String, server: Server, metrics: Option<Server>, drain: Duration) -> Gateway {
        Gateway {
            origin,
            server,
            metrics,
            drain,
            cut: self.cut.clone(),
            stop: std::mem::take(&mut self.stop),
            tasks: self.tasks.clone(),
            writers: self.writers.clone(),
            stop_writers: std::mem::take(&mut self.stop_writers),
            audit: self.audit.clone(),
        }
    }

    async fn rooms(&self, config: Config, lines: &Lines) -> anyhow::Result<Rooms> {
        let egress = Egress::new(&config.connect).map_err(|error| anyhow!(error))?;
        let origin = config.session.issuer.clone();
        let tls = config.listen.tls.clone();
        let sign_in = self.sign_in(&config, egress.clone()).await?;
        let wall = Wall {
            bearers: Arc::clone(sign_in.bearers()),
            sessions: sign_in.sessions().clone(),
            clock: Arc::clone(&self.clock),
            audit: self.audit.clone(),
        };
        let catalog = Catalog::new(config.models, config.auto_include_builtin_models)?;
        let catalog = Arc::new(catalog);
        let (policies, warnings) = Policies::compile(config.policy, Arc::clone(&catalog));
        let policies = Arc::new(policies);
        warnings.into_iter().for_each(|warning| tracing::warn!("{}", located(warning, lines)));

        let admin_groups = config.admin.as_ref().map(|admin| admin.groups.clone()).unwrap_or_default();
        let blocked_message = config.admin.as_ref().and_then(|admin| admin.spend.blocked_message.clone());
        let (ledger, report, admin) = match config.admin {
            Some(admin) => {
                let admins = Admins {
                    keys: admin.keys.clone(),
                    groups: admin.groups.clone(),
                    wall: wall.clone(),
                    counters: Counters::new(self.store.clone()),
                    failures: config.rate_limits.admin_auth,
                };
                let (ledger, caps, report) = self.money(&admin, Prices::new(config.pricing)).await?;
                let upkeep = Upkeep::new(self.store.clone(), Arc::clone(&self.clock), admin.retention);
                self.tasks.spawn(keep_up(upkeep.clone(), self.stop.clone()));
                self.tasks.spawn(fold(upkeep.clone(), self.stop.clone()));
                let (sessions, audit) = (sign_in.sessions().clone(), self.audit.clone());
                let rooms = admin::Surface { caps, report: report.clone(), upkeep, sessions, audit };
                let surface = admin::routes(Arc::new(admins), rooms);
                (Some(ledger), Some(report), surface)
            }
            None => (None, None, Router::new()),
        };
        let upstreams = Upstreams::new(config.upstreams, &catalog, &egress, &self.clock);
        let upstreams = upstreams.map_err(|error| anyhow!("{error}"))?;
        let limits = &config.limits;
        let seats = Seats::new(limits.max_concurrent_requests, limits.max_concurrent_per_user);
        let inference = Inference {
            config: inference::Config {
                max_request_bytes: config.limits.max_request_bytes,
                billing_group_tag: config.session.billing_group_tag.clone(),
            },
            policies: Arc::clone(&policies),
            ledger,
            seats: Arc::new(seats),
            load_test: config.load_test,
            upstreams,
            audit: self.audit.clone(),
            clock: Arc::clone(&self.clock),
            cut: self.cut.clone(),
            meters: Meters::default(),
        };
        let (clock, tasks) = (Arc::clone(&self.clock), self.tasks.clone());
        let relay = otlp::Relay::new(config.telemetry, &egress, clock, tasks).map_err(|error| anyhow!("{error}"))?;
        let readiness = Readiness::new(self.store.clone(), Arc::clone(&self.clock), config.readiness_grace);

        let cut_by = config.cut_streams.then(|| Arc::clone(sign_in.sessions().revoked()));
        let sessions = sign_in.sessions().clone();
        let open = oauth::routes(
            sign_in,
            Counters::new(self.store.clone()),
            self.audit.clone(),
            Arc::clone(&self.clock),
            oauth::Config {
                public_origin: origin.clone(),
                login_notice: config.login_notice,
                form_action_origins: config.form_action_origins,
                device_authorization: config.rate_limits.device_authorization,
                device_verify: config.rate_limits.device_verify,
                refresh: config.rate_limits.refresh,
            },
        );
        let landing = Landing {
            public_origin: origin.clone(),
            idp_host: config.oidc.issuer.host_str().unwrap_or_default().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let largest = usize::try_from(config.limits.max_request_bytes).unwrap_or(usize::MAX);
        let inference = Arc::new(inference);
        let metrics = http::metrics::routes(Arc::clone(&inference), sessions);
        let reach: Reach = {
            let inference = Arc::clone(&inference);
            Arc::new(move |model, groups| inference.upstreams.serve(model, groups))
        };
        let desktop = managed::Desktop {
            reach: Arc::clone(&reach),
            clock: Arc::clone(&self.clock),
            ttl: config.session.ttl,
            admin_groups,
        };
        let surfaces = Surfaces {
            open: health::routes(Arc::new(readiness)).merge(documents::routes(landing)).merge(open),
            guarded: http::inference::messages::routes(inference, blocked_message, cut_by)
                .merge(http::inference::models::routes(Arc::clone(&policies), reach))
                .merge(http::inference::usage::routes(report))
                .merge(managed::routes(policies, desktop, self.audit.clone()))
                .merge(http::otlp::routes(Arc::new(relay), largest)),
            admin,
        };
        let edge = Edge {
            trusted_proxies: config.listen.trusted_proxies,
            deny: config.access_control.deny,
            allow: config.access_control.allow,
            max_request_bytes: config.limits.max_request_bytes,
            max_request_header_bytes: config.limits.max_request_header_bytes,
            max_url_length: config.limits.max_url_length,
            tls: tls.is_some(),
            audit: self.audit.clone(),
            clock: Arc::clone(&self.clock),
            told_untrusted: AtomicBool::new(false),
        };
        Ok(Rooms { app: http::app(Arc::new(edge), &wall, surfaces), metrics, tls, origin, drain: config.drain_timeout })
    }

    async fn sign_in(&self, config: &Config, egress: Egress) -> anyhow::Result<Arc<SignIn>> {
        let rooms = sign_in::Config {
            oidc: config.oidc.clone(),
            session: config.session.clone(),
            named_groups: self.named_groups.clone(),
        };
        let (store, audit, clock) = (self.store.clone(), self.audit.clone(), Arc::clone(&self.clock));
        let sign_in = SignIn::open(rooms, store, egress, audit, clock).await?;
        let sign_in = Arc::new(sign_in.tracked_by(self.tasks.clone()));
        let (sessions, stop) = (sign_in.sessions().clone(), self.stop.clone());
        self.tasks.spawn(async move { stop.run_until_cancelled(sessions.follow()).await });
        let sweep = Sweep {
            sign_in: Arc::clone(&sign_in),
            counters: Counters::new(self.store.clone()),
            clock: Arc::clone(&self.clock),
        };
        // What ran out while nobody was here is gone before anybody asks.
        sweep.once().await;
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(sweep.now_and_then()).await });
        Ok(sign_in)
    }

    async fn money(&self, config: &crate::config::Admin, prices: Prices) -> anyhow::Result<(Ledger, Caps, Report)> {
        let (store, clock) = (self.store.clone(), Arc::clone(&self.clock));
        let caps = Caps::load(store.clone(), Arc::clone(&clock), config.spend.group_mode).await?;
        let (ledger, writer) = Ledger::new(store.clone(), Arc::clone(&clock), caps.clone(), prices, &config.spend);
        self.writers.spawn(writer.run(self.stop_writers.clone()));
        let (follower, stop) = (ledger.clone(), self.stop.clone());
        self.tasks.spawn(async move { stop.run_until_cancelled(follower.follow_caps()).await });
        let report = Report::new(store, caps.clone(), clock);
        Ok((ledger, caps, report))
    }
}

/// Removes what has expired of the sign-in.
struct Sweep {
    sign_in: Arc<SignIn>,
    counters: Counters,
    clock: Arc<dyn Clock>,
}

impl Sweep {
    async fn once(&self) {
        if let Err(error) = self.sign_in.sweep().await {
            tracing::warn!("expired sign-ins are not removed yet: {error}");
        }
        if let Err(error) = self.counters.sweep(self.clock.now()).await {
            tracing::warn!("expired counters are not removed yet: {error}");
        }
    }

    async fn now_and_then(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.once().await;
        }
    }
}

async fn keep_up(upkeep: Upkeep, stop: CancellationToken) {
    let keeping = async {
        loop {
            match upkeep.sweep().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!("{removed} rows are past their retention and were removed"),
                Err(error) => tracing::warn!("rows past their retention are not removed yet: {error}"),
            }
            tokio::time::sleep(KEEP_UP).await;
        }
    };
    stop.run_until_cancelled(keeping).await;
}

/// Keeps reports short of rows to read.
async fn fold(upkeep: Upkeep, stop: CancellationToken) {
    let folding = async {
        loop {
            let pause = match upkeep.fold_hour().await {
                Ok(true) => FOLD_NEXT,
                Ok(false) => FOLD,
                Err(error) => {
                    tracing::warn!("usage is not added up by the hour yet, so reports take longer: {error}");
                    FOLD
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    stop.run_until_cancelled(folding).await;
}

/// Every group that a rule names: a bearer that cannot carry all of a person's groups carries these.
fn named_groups(config: &Config) -> Vec<String> {
    let mut groups = config.oidc.allowed_groups.clone();
    groups.extend(config.admin.iter().flat_map(|admin| admin.groups.clone()));
    groups.extend(config.upstreams.iter().flat_map(|upstream| upstream.groups.clone().unwrap_or_default()));
    let policies = config.policy.policies.iter().flatten();
    groups.extend(policies.flat_map(|policy| policy.groups.clone().unwrap_or_default()));
    groups.sort();
    groups.dedup();
    groups
}

fn shown(server: &Server, tls: bool) -> String {
    format!("{}://{}", if tls { "https" } else { "http" }, server.address())
}

/// What an operator looks for first.
fn summary(config: &Config) -> Vec<String> {
    let list = |names: &[String], none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    let upstreams: Vec<String> =
        config.upstreams.iter().map(|up| format!("{}({})", up.name, up.api.provider().as_str())).collect();
    let proxies = config.listen.trusted_proxies.len();
    let client_ips = match proxies {
        0 => "client IPs: the connection's peer; X-Forwarded-For is ignored".to_owned(),
        _ => format!("client IPs: X-Forwarded-For of {proxies} trusted proxies or networks"),
    };
    let policies = config.policy.policies.as_ref().map(Vec::len);
    vec![
        format!("public_url {}", config.session.issuer),
        client_ips,
        format!("oidc issuer {}", config.oidc.issuer),
        format!("email domains: {}", list(&config.oidc.allowed_email_domains, "any")),
        format!("allowed groups: {}", list(&config.oidc.allowed_groups, "any")),
        format!("upstreams {}: {}", upstreams.len(), upstreams.join(", ")),
        format!("telemetry relay: {} destinations", config.telemetry.len()),
        policies.map_or_else(
            || "managed settings: not configured".to_owned(),
            |count| format!("managed settings: configured, {count} policies"),
        ),
        format!("spend limits: {}", if config.admin.is_some() { "on" } else { "off (no admin section)" }),
    ]
}

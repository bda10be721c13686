//! A replica of the ledger without a gateway around it, and the people who spend.

use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock, SystemClock};
use control::identity::Principal;
use control::identity::admin_key::{AdminKey, AdminKeys, WriteAccess};
use control::policy::{Config as PolicyConfig, Policies};
use control::spend::ledger::Writer;
use control::spend::pool::PoolChange;
use control::spend::{
    Admission, Caps, Config, Ledger, Money, Origin, Overshoot, Period, Prices, Pricing, Quote, Refusal, Reservation,
    Scope, Setting, Settlement, Size,
};
use control::store::{Config as StoreConfig, PostgresConfig, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::catalog::Catalog;
use wire::messages::Reach;
use wire::usage::Usage;

use crate::support::database::{self, Database};

const MODEL: &str = "claude-sonnet-4-6";
/// A thousand input tokens and two hundred output tokens of [`MODEL`]: $0.003 and $0.003.
pub(super) const USED: Usage = Usage {
    input_tokens: 1_000,
    output_tokens: 200,
    cache_read_input_tokens: 0,
    cache_creation_5m_tokens: 0,
    cache_creation_1h_tokens: 0,
    web_search_requests: 0,
    fast: false,
};
pub(super) const COST: Money = Money::from_nano(6_000_000);

#[derive(Clone)]
pub(super) struct House {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) caps: Caps,
    pub(super) ledger: Ledger,
    policies: Arc<Policies>,
}

pub(super) struct Running {
    pub(super) house: House,
    pub(super) writer: JoinHandle<()>,
    pub(super) stop: CancellationToken,
    /// Keeps a database file until the end.
    _database: Option<database::Store>,
}

impl Running {
    /// Ends as the process does: everything entered is written.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.writer.await.unwrap();
    }

    /// Ends as a killed process does.
    pub(super) async fn kill(self) -> Option<database::Store> {
        self.writer.abort();
        assert!(self.writer.await.unwrap_err().is_cancelled());
        self._database
    }
}

pub(super) fn store_config(database: &database::Store) -> StoreConfig {
    match database {
        database::Store::Sqlite(_) => StoreConfig::Sqlite { path: database.sqlite_path().unwrap() },
        database::Store::Postgres(url) => postgres(url),
    }
}

pub(super) fn postgres(url: &str) -> StoreConfig {
    StoreConfig::Postgres(PostgresConfig {
        url: url.to_owned().into(),
        username: None,
        password: None,
        max_connections: 5,
        connect_timeout: Duration::from_secs(5),
    })
}

pub(super) fn config(wait: Duration) -> Config {
    Config { wait, ..Config::default() }
}

async fn open(store: &StoreConfig, clock: Arc<dyn Clock>, config: &Config) -> (House, Writer) {
    let store = Store::open(store).await.unwrap();
    let caps = Caps::load(store.clone(), Arc::clone(&clock), config.group_mode).await.unwrap();
    let prices = Prices::new(Pricing::default());
    let (ledger, writer) = Ledger::new(store.clone(), Arc::clone(&clock), caps.clone(), prices, config);
    let catalog = Arc::new(Catalog::new(Vec::new(), true).unwrap());
    let (policies, _) = Policies::compile(PolicyConfig::default(), catalog);
    (House { store, clock, caps, ledger, policies: Arc::new(policies) }, writer)
}

/// What the model costs on the one upstream.
fn quote() -> Quote {
    let catalog = Catalog::new(Vec::new(), true).unwrap();
    Prices::default().quote(MODEL, catalog.resolve(MODEL).unwrap(), "anthropic", MODEL)
}

pub(super) async fn start(database: Database, wait: Duration) -> Running {
    let database = database.fresh().await;
    let store = store_config(&database);
    run(&store, Some(database), Arc::new(SystemClock), &config(wait)).await
}

pub(super) async fn run(
    store: &StoreConfig,
    database: Option<database::Store>,
    clock: Arc<dyn Clock>,
    config: &Config,
) -> Running {
    let (house, writer) = open(store, clock, config).await;
    let stop = CancellationToken::new();
    let writer = tokio::spawn(writer.run(stop.clone()));
    Running { house, writer, stop, _database: database }
}

pub(super) fn principal(sub: &str) -> Arc<Principal> {
    Arc::new(Principal {
        sub: sub.to_owned(),
        email: Some(format!("{sub}@example.com")),
        name: None,
        groups: vec!["eng".to_owned()],
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    })
}

pub(super) fn admin() -> WriteAccess {
    let key = AdminKey { id: "tests".to_owned(), key: "k".repeat(32).into() };
    let keys = AdminKeys { write: vec![key], read: Vec::new() };
    keys.find(&"k".repeat(32)).unwrap().write_access().unwrap()
}

impl House {
    pub(super) async fn cap(&self, scope: Scope, period: Period, cents: i64) {
        let wanted = Setting { scope, period, cents: Some(cents), pool: None };
        self.caps.set(&admin(), &wanted).await.unwrap();
    }

    /// Gives the members of a group this much to spend together in a month.
    pub(super) async fn pool(&self, group: &str, cents: i64) {
        let scope = Scope::Group(group.to_owned());
        let pool = Some(PoolChange { cents: Some(cents), paused: None });
        let setting = Setting { scope, period: Period::Monthly, cents: Some(1_000_000), pool };
        self.caps.set(&admin(), &setting).await.unwrap();
    }

    pub(super) fn admission(who: &Arc<Principal>) -> Admission {
        Admission {
            id: Uuid::new_v4(),
            principal: Arc::clone(who),
            // Bounds what is used, prices of the dearest kind included.
            size: Size { body_bytes: 1_000, max_tokens: Some(200), reach: Some(Ok(Reach::default())) },
            quotes: vec![quote()],
            origin: Origin { session_id: Some("s-1".to_owned()), ..Origin::default() },
        }
    }

    pub(super) async fn reserve(&self, who: &Arc<Principal>) -> Result<Reservation, Refusal> {
        self.reserve_as(who, Self::admission(who)).await
    }

    pub(super) async fn reserve_as(&self, who: &Arc<Principal>, admission: Admission) -> Result<Reservation, Refusal> {
        let permit = self.policies.permit(who, MODEL).unwrap();
        self.ledger.reserve(&permit, admission).await
    }

    /// `(settled, reserved)` of a principal this month.
    pub(super) async fn balance(&self, sub: &str) -> (i64, i64) {
        self.account(&format!("user:{sub}")).await
    }

    /// As [`House::balance`], of a group's pool.
    pub(super) async fn of_pool(&self, group: &str) -> (i64, i64) {
        self.account(&format!("pool:{group}")).await
    }

    async fn account(&self, account: &str) -> (i64, i64) {
        let sql = "SELECT settled, reserved FROM account WHERE id = $1 AND period = $2";
        let month = Period::Monthly.key(self.clock.now());
        let row = self.store.fetch_optional(sql, &[account.into(), (&month).into()]).await.unwrap();
        row.map_or((0, 0), |row| (row.int(0).unwrap(), row.int(1).unwrap()))
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        self.store.fetch_optional(sql, &[]).await.unwrap().unwrap().int(0).unwrap()
    }

    /// Counters equal the sum of the rows they count, in every period.
    pub(super) async fn verify(&self) {
        let mut rows = "SELECT id, period, settled, reserved FROM account".to_owned();
        for (table, settled, reserved) in
            [("usage", "-charge", "0"), ("reservation", "0", "-amount"), ("lease", "0", "-amount")]
        {
            for period in ["day", "week", "month"] {
                rows += &format!(" UNION ALL SELECT account, {period}, {settled}, {reserved} FROM {table}");
            }
            if table != "lease" {
                let pool = format!("SELECT pool, month, {settled}, {reserved} FROM {table} WHERE pool IS NOT NULL");
                rows += &format!(" UNION ALL {pool}");
            }
        }
        let wrong = format!(
            "SELECT COUNT(*) FROM (SELECT id, period FROM ({rows}) AS x GROUP BY id, period
             HAVING SUM(settled) <> 0 OR SUM(reserved) <> 0) AS y"
        );
        assert_eq!(self.number(&wrong).await, 0, "a counter differs from its rows");
    }
}

pub(super) fn settlement(usage: Usage) -> Settlement {
    Settlement {
        upstream: "anthropic".to_owned(),
        model_sent: None,
        usage,
        estimated: false,
        status: 200,
        ms: 12,
        ttfb_ms: Some(5),
    }
}

/// Ten requests one after the other: enough to be busy.
pub(super) async fn warm_up(house: &House, who: &Arc<Principal>) {
    for _ in 0..10 {
        house.reserve(who).await.unwrap().settle(settlement(USED));
    }
    house.ledger.flush().await;
}

pub(super) async fn leased(house: &House) -> i64 {
    house.number("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM lease").await
}

/// What is answered before anything else runs: without a word from the database. `None` when that is waited for.
pub(super) fn at_once<T>(asking: impl Future<Output = T>) -> Option<T> {
    let mut asking = Box::pin(asking);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match asking.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

pub(super) fn strict() -> Config {
    Config { overshoot: Overshoot::None, ..config(Duration::from_secs(30)) }
}

pub(super) async fn start_with(database: Database, config: &Config) -> Running {
    let database = database.fresh().await;
    let store = store_config(&database);
    run(&store, Some(database), Arc::new(SystemClock), config).await
}

/// Fifty at once; gives how many got through.
pub(super) async fn fifty_at_once(house: &House, who: impl Fn(usize) -> Arc<Principal>) -> usize {
    let tasks = (0..50).map(|turn| {
        let (house, who) = (house.clone(), who(turn));
        tokio::spawn(async move {
            let reservation = house.reserve(&who).await?;
            tokio::task::yield_now().await;
            Ok::<_, Refusal>(reservation.settle(settlement(USED)))
        })
    });
    let mut through = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => through += 1,
            Err(Refusal::Over(_) | Refusal::TooDear { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    house.ledger.flush().await;
    house.verify().await;
    through
}

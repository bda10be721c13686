//! The promises of the ledger, on both databases: a cap holds under concurrency and across replicas, and every request
//! is settled exactly once, also when its replica dies or the database goes away.

mod random;

use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock, SystemClock, TestClock};
use control::identity::Principal;
use control::identity::admin_key::{AdminKey, AdminKeys, WriteAccess};
use control::policy::{Config as PolicyConfig, Policies};
use control::spend::ledger::Writer;
use control::spend::pool::PoolChange;
use control::spend::report::{Order, Whose};
use control::spend::{
    Admission, Caps, Config, Ledger, Money, Origin, Overshoot, Period, Prices, Pricing, Quote, Refusal, Report,
    Reservation, Scope, Setting, Settlement, Size,
};
use control::store::{Config as StoreConfig, PostgresConfig, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::catalog::Catalog;
use wire::messages::Reach;
use wire::usage::Usage;

use crate::support::database::{self, Database, PostgresServer, on_both_databases};

const MODEL: &str = "claude-sonnet-4-6";
/// A thousand input tokens and two hundred output tokens of [`MODEL`]: $0.003 and $0.003.
const USED: Usage = Usage {
    input_tokens: 1_000,
    output_tokens: 200,
    cache_read_input_tokens: 0,
    cache_creation_5m_tokens: 0,
    cache_creation_1h_tokens: 0,
    web_search_requests: 0,
    fast: false,
};
const COST: Money = Money::from_nano(6_000_000);

on_both_databases!(
    a_cap_lets_no_more_through_than_itself_and_one_request,
    a_request_that_does_not_fit_beside_others_waits_for_them_to_settle,
    a_grant_that_its_caller_never_took_is_given_back,
    a_request_that_waited_too_long_is_told_to_come_back,
    every_request_is_counted_once_however_it_ends,
    a_reservation_that_was_forgotten_is_charged_at_its_estimate,
    an_answer_that_costs_more_than_was_set_aside_takes_the_room_of_others,
    a_busy_account_far_from_its_cap_is_admitted_without_asking,
    near_its_cap_a_busy_account_is_asked_for_in_the_database_again,
    in_strict_mode_a_cap_is_never_passed,
    in_strict_mode_what_has_no_bound_or_never_fits_is_refused,
    a_pool_is_spent_by_its_members_together_and_holds,
    the_largest_pool_that_is_not_exhausted_pays,
    what_was_in_flight_when_its_process_died_is_charged_to_its_pool_too,
    a_lease_ends_with_the_caps_and_the_groups_that_it_was_measured_by,
    what_a_dead_process_had_leased_and_not_used_is_given_back,
    what_a_dead_process_left_is_charged_at_its_estimate_and_the_late_truth_replaces_it_once,
    an_entry_that_the_database_refuses_does_not_hold_up_the_others,
    a_changed_cap_counts_for_the_next_request,
    a_blocked_caller_is_known_before_its_body_is_read,
    spend_is_reported_per_principal_and_pages_go_on_where_they_ended,
    caps_are_listed_in_the_order_of_their_creation,
);

#[derive(Clone)]
struct House {
    store: Store,
    clock: Arc<dyn Clock>,
    caps: Caps,
    ledger: Ledger,
    policies: Arc<Policies>,
}

struct Running {
    house: House,
    writer: JoinHandle<()>,
    stop: CancellationToken,
    /// Keeps a database file until the end.
    _database: Option<database::Store>,
}

impl Running {
    /// Ends as the process does: everything entered is written.
    async fn end(self) {
        self.stop.cancel();
        self.writer.await.unwrap();
    }

    /// Ends as a killed process does.
    async fn kill(self) -> Option<database::Store> {
        self.writer.abort();
        assert!(self.writer.await.unwrap_err().is_cancelled());
        self._database
    }
}

fn store_config(database: &database::Store) -> StoreConfig {
    match database {
        database::Store::Sqlite(_) => StoreConfig::Sqlite { path: database.sqlite_path().unwrap() },
        database::Store::Postgres(url) => postgres(url),
    }
}

fn postgres(url: &str) -> StoreConfig {
    StoreConfig::Postgres(PostgresConfig {
        url: url.to_owned().into(),
        username: None,
        password: None,
        max_connections: 5,
        connect_timeout: Duration::from_secs(5),
    })
}

fn config(wait: Duration) -> Config {
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

async fn start(database: Database, wait: Duration) -> Running {
    let database = database.fresh().await;
    let store = store_config(&database);
    run(&store, Some(database), Arc::new(SystemClock), &config(wait)).await
}

async fn run(
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

fn principal(sub: &str) -> Arc<Principal> {
    Arc::new(Principal {
        sub: sub.to_owned(),
        email: Some(format!("{sub}@example.com")),
        name: None,
        groups: vec!["eng".to_owned()],
        session: None,
        billing_group_tag: None,
    })
}

fn admin() -> WriteAccess {
    let key = AdminKey { id: "tests".to_owned(), key: "k".repeat(32).into() };
    let keys = AdminKeys { write: vec![key], read: Vec::new() };
    keys.find(&"k".repeat(32)).unwrap().write_access().unwrap()
}

impl House {
    async fn cap(&self, scope: Scope, period: Period, cents: i64) {
        let wanted = Setting { scope, period, cents: Some(cents), pool: None };
        self.caps.set(&admin(), &wanted).await.unwrap();
    }

    fn admission(who: &Arc<Principal>) -> Admission {
        Admission {
            id: Uuid::new_v4(),
            principal: Arc::clone(who),
            // Bounds what is used, prices of the dearest kind included.
            size: Size { body_bytes: 1_000, max_tokens: Some(200), reach: Some(Ok(Reach::default())) },
            quotes: vec![quote()],
            origin: Origin { session_id: Some("s-1".to_owned()), ..Origin::default() },
        }
    }

    async fn reserve(&self, who: &Arc<Principal>) -> Result<Reservation, Refusal> {
        self.reserve_as(who, Self::admission(who)).await
    }

    async fn reserve_as(&self, who: &Arc<Principal>, admission: Admission) -> Result<Reservation, Refusal> {
        let permit = self.policies.permit(who, MODEL).unwrap();
        self.ledger.reserve(&permit, admission).await
    }

    /// `(settled, reserved)` of a principal this month.
    async fn balance(&self, sub: &str) -> (i64, i64) {
        let sql = "SELECT settled, reserved FROM account WHERE id = $1 AND period = $2";
        let (account, month) = (format!("user:{sub}"), Period::Monthly.key(self.clock.now()));
        let row = self.store.fetch_optional(sql, &[(&account).into(), (&month).into()]).await.unwrap();
        row.map_or((0, 0), |row| (row.int(0).unwrap(), row.int(1).unwrap()))
    }

    async fn number(&self, sql: &str) -> i64 {
        self.store.fetch_optional(sql, &[]).await.unwrap().unwrap().int(0).unwrap()
    }

    /// Counters equal the sum of the rows they count, in every period.
    async fn verify(&self) {
        let wrong = "SELECT COUNT(*) FROM account AS a WHERE a.settled <>
                (SELECT COALESCE(SUM(u.charge), 0) FROM usage AS u
                 WHERE (u.account = a.id AND a.period IN (u.day, u.week, u.month))
                    OR (u.pool = a.id AND a.period = u.month))
             OR a.reserved <> (SELECT COALESCE(SUM(r.amount), 0) FROM
                 (SELECT account, pool, day, week, month, amount FROM reservation
                  UNION ALL SELECT account, NULL, day, week, month, amount FROM lease) AS r
                 WHERE (r.account = a.id AND a.period IN (r.day, r.week, r.month))
                    OR (r.pool = a.id AND a.period = r.month))";
        assert_eq!(self.number(wrong).await, 0, "a counter differs from its rows");
    }
}

fn settlement(usage: Usage) -> Settlement {
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

/// Fifty at once against two cents, each $0.006 and bounded by more: three fit, a fourth may pass the cap by what it
/// costs, and nobody else gets through.
async fn a_cap_lets_no_more_through_than_itself_and_one_request(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Daily, 2).await;
    let alice = principal("alice");
    let tasks = (0..50).map(|_| {
        let (house, alice) = (house.clone(), Arc::clone(&alice));
        tokio::spawn(async move {
            let reservation = house.reserve(&alice).await?;
            // In flight for a while: the others must not fit beside it for that reason alone.
            tokio::task::yield_now().await;
            Ok::<_, Refusal>(reservation.settle(settlement(USED)))
        })
    });
    let mut through = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(charge) => {
                assert_eq!(charge, COST);
                through += 1;
            }
            Err(Refusal::Over(standing)) => assert_eq!(standing.cap.cents, 2),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(through, 4, "two cents and at most one request of $0.006");
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (4 * COST.nano(), 0));
    house.verify().await;
    running.end().await;
}

async fn a_request_that_does_not_fit_beside_others_waits_for_them_to_settle(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 1).await;
    let alice = principal("alice");
    let first = house.reserve(&alice).await.unwrap();
    let mut second = Box::pin(house.reserve(&alice));
    let early = tokio::select! {
        biased;
        answer = &mut second => Some(answer.is_ok()),
        () = house.ledger.flush() => None,
    };
    assert_eq!(early, None, "it does not fit beside the first");
    first.release(502, 1);
    second.await.unwrap().release(502, 1);
    running.end().await;
}

async fn a_grant_that_its_caller_never_took_is_given_back(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 100).await;
    let alice = principal("alice");
    let mut asking = Box::pin(house.reserve(&alice));
    let asked = std::future::poll_fn(|cx| std::task::Poll::Ready(asking.as_mut().poll(cx).is_pending()));
    assert!(asked.await, "it is decided by the writer");
    house.ledger.flush().await;
    // Decided and told, and the client is gone before it is heard.
    drop(asking);
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (0, 0));
    house.verify().await;
    running.end().await;
}

async fn a_request_that_waited_too_long_is_told_to_come_back(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 1).await;
    let alice = principal("alice");
    let first = house.reserve(&alice).await.unwrap();
    let refusal = house.reserve(&alice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::InFlight { .. }), "{refusal:?}");
    first.release(502, 1);
    house.reserve(&alice).await.unwrap().release(502, 1);
    running.end().await;
}

async fn every_request_is_counted_once_however_it_ends(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("capped".to_owned()), Period::Weekly, 100_000).await;
    let tasks = (0..120).map(|turn| {
        let house = house.clone();
        tokio::spawn(async move {
            let who = principal(if turn % 2 == 0 { "capped" } else { "free" });
            let mut reservation = house.reserve(&who).await.unwrap();
            match turn % 6 {
                0 | 1 => drop(reservation.settle(settlement(USED))),
                2 | 3 => reservation.release(503, 3),
                _ => {
                    let many = Usage { output_tokens: 50_000, ..USED };
                    reservation.grow("anthropic", &many);
                    reservation.settle(Settlement { estimated: true, ..settlement(many) });
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    house.ledger.flush().await;
    let each = 20 * COST.nano() + 20 * (3_000_000 + 50_000 * 15_000);
    assert_eq!(house.balance("capped").await.0, each);
    assert_eq!(house.balance("free").await, (each, 0));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 120);
    assert_eq!(house.number("SELECT COUNT(*) FROM usage WHERE estimated = 1").await, 40);
    house.verify().await;
    let house = house.clone();
    running.end().await;
    assert_eq!(house.balance("capped").await, (each, 0));
}

async fn a_reservation_that_was_forgotten_is_charged_at_its_estimate(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 100).await;
    drop(house.reserve(&principal("alice")).await.unwrap());
    house.ledger.flush().await;
    let (settled, reserved) = house.balance("alice").await;
    assert!(settled >= COST.nano(), "{settled}");
    assert_eq!(reserved, 0);
    house.verify().await;
    running.end().await;
}

async fn an_answer_that_costs_more_than_was_set_aside_takes_the_room_of_others(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10).await;
    let alice = principal("alice");
    let mut first = house.reserve(&alice).await.unwrap();
    house.reserve(&alice).await.expect("there is room for two").release(502, 1);
    first.grow("anthropic", &Usage { output_tokens: 6_000, ..USED });
    house.ledger.flush().await;
    let refusal = house.reserve(&alice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::InFlight { .. }), "{refusal:?}");
    first.settle(settlement(USED));
    house.ledger.flush().await;
    house.verify().await;
    running.end().await;
}

/// Ten requests one after the other: enough to be busy.
async fn warm_up(house: &House, who: &Arc<Principal>) {
    for _ in 0..10 {
        house.reserve(who).await.unwrap().settle(settlement(USED));
    }
    house.ledger.flush().await;
}

async fn leased(house: &House) -> i64 {
    house.number("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM lease").await
}

/// Whether a request is admitted before anything else runs: without a word from the database.
fn at_once(asking: impl Future<Output = Result<Reservation, Refusal>>) -> Option<Reservation> {
    let mut asking = Box::pin(asking);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match asking.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer.unwrap()),
        std::task::Poll::Pending => None,
    }
}

async fn a_busy_account_far_from_its_cap_is_admitted_without_asking(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10_000).await;
    let alice = principal("alice");
    assert!(at_once(house.reserve(&alice)).is_none(), "nobody knows yet how it stands");
    warm_up(house, &alice).await;
    assert!(leased(house).await > 0);
    let first = at_once(house.reserve(&alice)).unwrap();
    assert_eq!(first.standing().unwrap().spent, Money::from_nano(10 * COST.nano()));
    let second = at_once(house.reserve(&alice)).unwrap();
    first.settle(settlement(USED));
    house.ledger.flush().await;
    let (settled, reserved) = house.balance("alice").await;
    assert_eq!(settled, 11 * COST.nano());
    assert!(reserved > leased(house).await, "the second is in flight");
    house.verify().await;
    second.release(502, 1);
    let house = house.clone();
    running.end().await;
    house.verify().await;
    assert_eq!((house.balance("alice").await, leased(&house).await), ((11 * COST.nano(), 0), 0));
}

async fn near_its_cap_a_busy_account_is_asked_for_in_the_database_again(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    // A hundred requests.
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 60).await;
    let alice = principal("alice");
    let mut through = 0;
    let refusal = loop {
        match house.reserve(&alice).await {
            Ok(reservation) => drop(reservation.settle(settlement(USED))),
            Err(refusal) => break refusal,
        }
        through += 1;
        let (settled, reserved) = house.balance("alice").await;
        assert!(settled + reserved <= 600_000_000, "{settled} and {reserved} after {through}");
    };
    assert!(matches!(refusal, Refusal::Over(_)), "{refusal:?}");
    assert_eq!(through, 100);
    assert_eq!(leased(house).await, 0);
    house.verify().await;
    running.end().await;
}

async fn a_lease_ends_with_the_caps_and_the_groups_that_it_was_measured_by(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10_000).await;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    let other = Arc::new(Principal { groups: vec!["ops".to_owned()], ..(*alice).clone() });
    assert!(at_once(house.reserve(&other)).is_none(), "other groups may have other caps");
    at_once(house.reserve(&alice)).unwrap().release(502, 1);
    house.cap(Scope::User("alice".to_owned()), Period::Daily, 1).await;
    let refusal = house.reserve(&alice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Over(_)), "{refusal:?}");
    house.ledger.flush().await;
    house.verify().await;
    running.end().await;
}

async fn what_a_dead_process_had_leased_and_not_used_is_given_back(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let dead = run(&store, Some(database), clock.clone(), &config).await;
    dead.house.cap(Scope::User("alice".to_owned()), Period::Monthly, 10_000).await;
    warm_up(&dead.house, &principal("alice")).await;
    assert!(leased(&dead.house).await > 0);
    let embedded = dead.house.store.is_embedded();
    let database = dead.kill().await;
    if !embedded {
        clock.advance(Duration::from_secs(61));
    }
    let running = run(&store, database, clock, &config).await;
    running.house.ledger.flush().await;
    assert_eq!(running.house.balance("alice").await, (10 * COST.nano(), 0));
    assert_eq!(leased(&running.house).await, 0);
    running.house.verify().await;
    running.end().await;
}

fn strict() -> Config {
    Config { overshoot: Overshoot::None, ..config(Duration::from_secs(30)) }
}

async fn start_with(database: Database, config: &Config) -> Running {
    let database = database.fresh().await;
    let store = store_config(&database);
    run(&store, Some(database), Arc::new(SystemClock), config).await
}

/// Fifty at once; gives how many got through.
async fn fifty_at_once(house: &House, who: impl Fn(usize) -> Arc<Principal>) -> usize {
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

/// A request is bounded by 3 000 tokens of $6 and 200 of $15 a million, so by $0.021; $0.006 each are spent of $0.05.
async fn in_strict_mode_a_cap_is_never_passed(database: Database) {
    let running = start_with(database, &strict()).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Daily, 5).await;
    let alice = principal("alice");
    let through = fifty_at_once(house, |_| Arc::clone(&alice)).await;
    assert_eq!(through, 5, "a sixth, bounded by $0.021, does not fit beside $0.030");
    assert_eq!(house.balance("alice").await, (5 * COST.nano(), 0));
    running.end().await;
}

async fn in_strict_mode_what_has_no_bound_or_never_fits_is_refused(database: Database) {
    let running = start_with(database, &strict()).await;
    let house = &running.house;
    let alice = principal("alice");
    let unbounded =
        || Admission { size: Size { max_tokens: None, ..House::admission(&alice).size }, ..House::admission(&alice) };
    house.reserve_as(&alice, unbounded()).await.unwrap().release(502, 1);
    house.cap(Scope::Organization, Period::Daily, 2).await;
    let refusal = house.reserve_as(&alice, unbounded()).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unbounded(_)), "{refusal:?}");
    let refusal = house.reserve(&alice).await.unwrap_err();
    let Refusal::TooDear { standing, bound } = refusal else { panic!("{refusal:?}") };
    assert_eq!((standing.spent, bound), (Money::ZERO, Money::from_nano(21_000_000)));
    let blocked = house.ledger.figures().blocked;
    assert_eq!((blocked.unbounded, blocked.over_limit), (1, 1));
    running.end().await;
}

fn pool(cents: i64) -> PoolChange {
    PoolChange { cents: Some(cents), paused: None }
}

impl House {
    async fn pool(&self, group: &str, cents: i64) {
        let scope = Scope::Group(group.to_owned());
        let setting = Setting { scope, period: Period::Monthly, cents: Some(1_000_000), pool: Some(pool(cents)) };
        self.caps.set(&admin(), &setting).await.unwrap();
    }

    async fn of_pool(&self, group: &str) -> (i64, i64) {
        let sql = "SELECT settled, reserved FROM account WHERE id = $1 AND period = $2";
        let (account, month) = (format!("pool:{group}"), Period::Monthly.key(self.clock.now()));
        let row = self.store.fetch_optional(sql, &[(&account).into(), (&month).into()]).await.unwrap();
        row.map_or((0, 0), |row| (row.int(0).unwrap(), row.int(1).unwrap()))
    }
}

async fn a_pool_is_spent_by_its_members_together_and_holds(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.pool("eng", 2).await;
    let through = fifty_at_once(house, |turn| principal(&format!("p{}", turn % 7))).await;
    assert_eq!(through, 4, "two cents and at most one request of $0.006");
    assert_eq!(house.of_pool("eng").await, (4 * COST.nano(), 0));
    let eve = principal("eve");
    for refusal in [house.reserve(&eve).await.unwrap_err(), house.ledger.check_now(&eve).await.unwrap_err()] {
        let Refusal::Over(standing) = refusal else { panic!("{refusal:?}") };
        assert!(standing.cap.shared);
        assert_eq!((&standing.cap.source, standing.cap.cents), (&Scope::Group("eng".to_owned()), 2));
    }
    assert!(matches!(house.ledger.check(&eve).await, Err(Refusal::Over(_))), "known before the body is read");
    running.end().await;
}

async fn the_largest_pool_that_is_not_exhausted_pays(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    house.pool("contractors", 1).await;
    house.pool("eng", 2).await;
    house.pool("other", 100).await;
    let member = |sub: &str| {
        Arc::new(Principal { groups: vec!["contractors".to_owned(), "eng".to_owned()], ..(*principal(sub)).clone() })
    };
    let mut paid = Vec::new();
    for turn in 0..6 {
        house.reserve(&member(&format!("p{turn}"))).await.unwrap().settle(settlement(USED));
        house.ledger.flush().await;
        paid.push((house.of_pool("eng").await.0 / COST.nano(), house.of_pool("contractors").await.0 / COST.nano()));
    }
    assert_eq!(paid, [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2)]);
    assert!(matches!(house.reserve(&member("p7")).await, Err(Refusal::Over(_))));
    assert_eq!(house.of_pool("other").await, (0, 0));
    house.verify().await;
    running.end().await;
}

async fn what_was_in_flight_when_its_process_died_is_charged_to_its_pool_too(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let dead = run(&store, Some(database), clock.clone(), &config).await;
    dead.house.pool("eng", 1_000).await;
    let left = dead.house.reserve(&principal("alice")).await.unwrap();
    let (_, reserved) = dead.house.of_pool("eng").await;
    let embedded = dead.house.store.is_embedded();
    let database = dead.kill().await;
    drop(left);
    if !embedded {
        clock.advance(Duration::from_secs(61));
    }
    let running = run(&store, database, clock, &config).await;
    running.house.ledger.flush().await;
    assert!(reserved > 0);
    assert_eq!(running.house.of_pool("eng").await, (reserved, 0));
    running.house.verify().await;
    running.end().await;
}

async fn what_a_dead_process_left_is_charged_at_its_estimate_and_the_late_truth_replaces_it_once(database: Database) {
    let database = database.fresh().await;
    let store = store_config(&database);
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let config = config(Duration::ZERO);
    let dead = run(&store, Some(database), clock.clone(), &config).await;
    dead.house.cap(Scope::User("alice".to_owned()), Period::Monthly, 100).await;
    let alice = principal("alice");
    let admission = House::admission(&alice);
    let id = admission.id;
    let left = dead.house.reserve_as(&alice, admission).await.unwrap();
    let (_, reserved) = dead.house.balance("alice").await;
    assert!(reserved > COST.nano());
    let embedded = dead.house.store.is_embedded();
    let database = dead.kill().await;
    // Its settlement can reach no writer any more.
    drop(left);

    if !embedded {
        clock.advance(Duration::from_secs(61));
    }
    let running = run(&store, database, clock.clone(), &config).await;
    let house = &running.house;
    // The first upkeep comes before the first entry.
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (reserved, 0));
    assert_eq!(house.number("SELECT COUNT(*) FROM usage WHERE estimated = 1").await, 1);

    for _ in 0..2 {
        let late = house.reserve_as(&alice, Admission { id, ..House::admission(&alice) }).await.unwrap();
        late.settle(settlement(USED));
        house.ledger.flush().await;
        assert_eq!(house.balance("alice").await, (COST.nano(), 0));
    }
    assert_eq!(house.number("SELECT COUNT(*) FROM usage WHERE estimated = 1").await, 0);
    house.verify().await;
    running.end().await;
}

async fn an_entry_that_the_database_refuses_does_not_hold_up_the_others(database: Database) {
    let running = start(database, Duration::from_secs(30)).await;
    let house = &running.house;
    let nul = principal("n\0l");
    let origin = Origin { session_id: Some("\0".to_owned()), ..Origin::default() };
    let odd = Admission { origin, ..House::admission(&nul) };
    let odd = house.reserve_as(&nul, odd).await.unwrap();
    let alice = house.reserve(&principal("alice")).await.unwrap();
    // More than the column holds, in a sum: what the database itself refuses.
    let sql = "INSERT INTO account (period, id, settled, reserved) VALUES ($1, 'user:full', 9223372036854775807, 0)";
    house.store.execute(sql, &[(&Period::Monthly.key(house.clock.now())).into()]).await.unwrap();
    let full = house.reserve(&principal("full")).await.unwrap();
    odd.settle(settlement(USED));
    full.settle(settlement(USED));
    alice.settle(settlement(USED));
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await.0, COST.nano());
    assert_eq!(house.balance("n\u{fffd}l").await.0, COST.nano());
    running.end().await;
}

async fn a_changed_cap_counts_for_the_next_request(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    let alice = principal("alice");
    house.reserve(&alice).await.unwrap().settle(settlement(USED));
    house.ledger.flush().await;
    house.cap(Scope::Group("eng".to_owned()), Period::Daily, 0).await;
    assert!(matches!(house.reserve(&alice).await, Err(Refusal::Over(_))));
    house.cap(Scope::User("alice".to_owned()), Period::Daily, 100).await;
    let reservation = house.reserve(&alice).await.unwrap();
    let standing = reservation.standing().unwrap();
    assert_eq!((standing.spent, standing.cap.cents), (COST, 100));
    reservation.release(502, 1);
    running.end().await;
}

async fn a_blocked_caller_is_known_before_its_body_is_read(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    let alice = principal("alice");
    house.reserve(&alice).await.unwrap().settle(settlement(Usage { output_tokens: 1_000, ..USED }));
    house.ledger.flush().await;
    house.cap(Scope::User("alice".to_owned()), Period::Daily, 1).await;
    house.cap(Scope::User("alice".to_owned()), Period::Monthly, 1).await;
    house.cap(Scope::User("alice".to_owned()), Period::Weekly, 5_000).await;
    let Err(Refusal::Over(standing)) = house.ledger.check_now(&alice).await else { panic!("not blocked") };
    assert_eq!(standing.cap.period, Period::Monthly, "the one that resets last");
    let Err(Refusal::Over(again)) = house.ledger.check(&alice).await else { panic!("not remembered") };
    assert_eq!(again, standing);
    assert_eq!(house.ledger.check(&principal("bob")).await, Ok(()));
    running.end().await;
}

async fn spend_is_reported_per_principal_and_pages_go_on_where_they_ended(database: Database) {
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    for (sub, times) in [("alice", 1), ("bob", 3), ("carol", 2), ("100%_d", 0)] {
        let who = principal(sub);
        for _ in 0..times {
            house.reserve(&who).await.unwrap().settle(settlement(USED));
        }
        house.reserve(&who).await.unwrap().release(502, 1);
    }
    house.ledger.flush().await;
    house.cap(Scope::User("bob".to_owned()), Period::Monthly, 500).await;
    let report = Report::new(house.store.clone(), house.caps.clone(), Arc::clone(&house.clock));
    let everyone = |q: &str, order| Whose::Everyone { q: q.to_owned(), order, limit: 2 };

    let mut seen = Vec::new();
    let mut order = Some(Order::Spend { period: Period::Monthly, after: None });
    while let Some(from) = order {
        let page = report.effective(&everyone("", from), &[Period::Monthly]).await.unwrap();
        seen.extend(page.rows.iter().map(|row| (row.principal.sub.clone(), row.spent.cents_rounded())));
        order = page.next;
    }
    let expected = [("bob", "1.8"), ("carol", "1.2"), ("alice", "0.6"), ("100%_d", "0")];
    assert_eq!(seen, expected.map(|(sub, spent)| (sub.to_owned(), spent.to_owned())));

    let by_subject = everyone("", Order::Subject { after: Some("alice".to_owned()) });
    let page = report.effective(&by_subject, &Period::ALL).await.unwrap();
    let subs: Vec<&str> = page.rows.iter().map(|row| row.principal.sub.as_str()).collect();
    assert_eq!(subs, ["bob", "bob", "bob", "carol", "carol", "carol"]);
    assert_eq!(page.next, None);

    let found = |q: &str| {
        let (report, whose) = (report.clone(), everyone(q, Order::Subject { after: None }));
        async move {
            let page = report.effective(&whose, &[Period::Daily]).await.unwrap();
            page.rows.into_iter().map(|row| row.principal.sub.clone()).collect::<Vec<_>>()
        }
    };
    assert_eq!(found("%_").await, ["100%_d"], "signs of patterns are plain text");
    assert_eq!(found("CAROL@").await, ["carol"]);

    let named = Whose::Named(vec!["nobody".to_owned(), "bob".to_owned()]);
    let rows = report.effective(&named, &[Period::Monthly]).await.unwrap().rows;
    let shown: Vec<_> = rows.iter().map(control::spend::report::Effective::to_json).collect();
    assert_eq!(shown[0]["actor"]["email_address"], serde_json::Value::Null);
    assert_eq!(shown[1]["amount"], "500");
    assert_eq!(shown[1]["period_to_date_spend"], "1.8");
    assert_eq!(shown[1]["source"]["user_id"], "bob");
    running.end().await;
}

async fn caps_are_listed_in_the_order_of_their_creation(database: Database) {
    use control::spend::cap::From;
    let running = start(database, Duration::ZERO).await;
    let house = &running.house;
    for user in ["c", "a", "b"] {
        house.cap(Scope::User(user.to_owned()), Period::Daily, 1).await;
    }
    house.cap(Scope::Organization, Period::Daily, 9).await;
    house.cap(Scope::User("c".to_owned()), Period::Daily, 2).await;
    let caps = &house.caps;
    let page = caps.page(&From::Start, 3, None).await.unwrap().unwrap();
    let listed: Vec<_> = page.caps.iter().map(|listed| (listed.cap.scope.id().to_owned(), listed.cap.cents)).collect();
    assert_eq!(listed, [("c".to_owned(), Some(2)), ("a".to_owned(), Some(1)), ("b".to_owned(), Some(1))]);
    assert!(page.has_more);
    let last = page.caps[2].cap.id.clone();
    let rest = caps.page(&From::After(last.clone()), 3, None).await.unwrap().unwrap();
    assert_eq!((rest.caps.len(), rest.has_more), (1, false));
    let before = caps.page(&From::Before(last), 1, Some("user")).await.unwrap().unwrap();
    assert_eq!((before.caps[0].cap.scope.id(), before.has_more), ("a", true));
    assert!(caps.page(&From::After("spl_none".to_owned()), 1, None).await.unwrap().is_none());

    assert_eq!(caps.delete(&admin(), "spl_none").await.unwrap(), None);
    let gone = caps.delete(&admin(), &page.caps[0].cap.id).await.unwrap().unwrap();
    assert_eq!(gone.cents, Some(2));
    assert_eq!(caps.find(&gone.id).await.unwrap(), None);
    assert_eq!(house.number("SELECT COUNT(*) FROM admin_audit").await, 6);
    running.end().await;
}

#[tokio::test]
async fn two_replicas_hold_one_cap_together() {
    let url = database::fresh_database().await;
    let start = || async { run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::from_secs(30))).await };
    let (one, two) = (start().await, start().await);
    one.house.cap(Scope::Organization, Period::Monthly, 2).await;
    let alice = principal("alice");
    // The other replica has not heard of the cap; a poll or a notice would tell it soon, and this is sooner.
    two.house.caps.refresh_if_changed().await.unwrap();
    let tasks = (0..40).map(|turn| {
        let house = if turn % 2 == 0 { one.house.clone() } else { two.house.clone() };
        let alice = Arc::clone(&alice);
        tokio::spawn(async move { house.reserve(&alice).await.map(|granted| granted.settle(settlement(USED))) })
    });
    let mut through = 0;
    for task in tasks.collect::<Vec<_>>() {
        through += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(through, 4);
    one.house.ledger.flush().await;
    two.house.ledger.flush().await;
    assert_eq!(one.house.balance("alice").await, (4 * COST.nano(), 0));
    one.house.verify().await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_replica_hears_of_a_cap_that_another_set() {
    let url = database::fresh_database().await;
    let start = || async { run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await };
    let (one, two) = (start().await, start().await);
    let alice = principal("alice");
    let heard = async {
        let followed = two.house.ledger.follow_caps();
        let capped = async {
            while two.house.caps.in_force(&alice).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = followed => {}, () = capped => {} }
    };
    let set = one.house.cap(Scope::Organization, Period::Monthly, 2);
    let both = Box::pin(async { tokio::join!(set, heard) });
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn what_was_settled_while_the_database_was_away_is_counted_when_it_is_back() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    let alice = principal("alice");
    let before = house.reserve(&alice).await.unwrap();
    server.stop();
    // Fails open: nobody is kept from working, and what it costs is remembered.
    let during = house.reserve(&alice).await.unwrap();
    assert_eq!(during.standing(), None);
    before.settle(settlement(USED));
    during.settle(settlement(USED));
    server.start_again();
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (2 * COST.nano(), 0));
    house.verify().await;
    running.end().await;
}

#[tokio::test]
async fn a_database_that_hangs_costs_one_wait_and_is_noticed_when_it_answers_again() {
    let url = database::fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    let alice = principal("alice");
    let locker = database::connect(&url).await;
    locker.batch_execute("BEGIN; LOCK TABLE tollgate.account").await.unwrap();
    let first = house.reserve(&alice).await.unwrap();
    assert!(house.ledger.figures().database_down);
    let second = at_once(house.reserve(&alice)).expect("nobody waits for a database that hangs");
    assert_eq!(at_once_unit(house.ledger.check_now(&alice)), Some(Ok(())));
    first.settle(settlement(USED));
    second.settle(settlement(USED));
    locker.batch_execute("ROLLBACK").await.unwrap();
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await, (2 * COST.nano(), 0));
    let third = house.reserve(&alice).await.unwrap();
    assert!(third.standing().is_some(), "the database decides again");
    third.release(502, 1);
    running.end().await;
}

/// As [`at_once`], for a check.
fn at_once_unit(asking: impl Future<Output = Result<(), Refusal>>) -> Option<Result<(), Refusal>> {
    let mut asking = Box::pin(asking);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match asking.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn leases_admit_with_their_caps_while_the_database_is_away() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 10_000).await;
    let alice = principal("alice");
    warm_up(house, &alice).await;
    server.stop();
    let mut leased = 0;
    while let Some(reservation) = at_once(house.reserve(&alice)).filter(|leased| leased.standing().is_some()) {
        reservation.settle(settlement(USED));
        leased += 1;
    }
    assert!(leased >= 4, "{leased}");
    server.start_again();
    house.ledger.flush().await;
    assert_eq!(house.balance("alice").await.0, (10 + leased) * COST.nano());
    house.verify().await;
    running.end().await;
}

#[tokio::test]
async fn with_fail_closed_nobody_spends_while_the_database_is_away() {
    let server = PostgresServer::start();
    let url = server.fresh_database().await;
    let closed = Config { fail_closed: true, ..config(Duration::ZERO) };
    let running = run(&postgres(&url), None, Arc::new(SystemClock), &closed).await;
    let house = &running.house;
    house.cap(Scope::Organization, Period::Monthly, 100).await;
    server.stop();
    assert_eq!(house.reserve(&principal("alice")).await.unwrap_err(), Refusal::Unavailable);
    assert_eq!(house.ledger.check_now(&principal("alice")).await, Err(Refusal::Unavailable));
    running.end().await;
}

#[tokio::test]
async fn an_end_writes_everything_that_was_settled_before_it() {
    let database = Database::Sqlite.fresh().await;
    let store = store_config(&database);
    let running = run(&store, Some(database), Arc::new(SystemClock), &config(Duration::ZERO)).await;
    let house = running.house.clone();
    for turn in 0..500 {
        house.reserve(&principal(&format!("p{turn}"))).await.unwrap().settle(settlement(USED));
    }
    running.stop.cancel();
    running.writer.await.unwrap();
    assert_eq!(house.number("SELECT COUNT(*) FROM usage").await, 500);
    house.verify().await;
}

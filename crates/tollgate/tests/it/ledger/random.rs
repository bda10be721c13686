//! Whatever happens, in whatever order: every counter is the sum of its rows, and no account passes its bound.

use std::sync::Arc;
use std::time::Duration;

use control::clock::TestClock;
use control::identity::Principal;
use control::spend::{Config, Period, Reservation, Scope};
use control::store::Config as StoreConfig;
use proptest::prelude::*;
use proptest::test_runner::{Config as Proptest, RngAlgorithm, TestRng, TestRunner};
use wire::usage::Usage;

use super::house::{House, Running, USED, config, principal, run, settlement, store_config, strict};
use crate::support::database::{self, Database};

const PEOPLE: [&str; 3] = ["alice", "bob", "carl"];
const CENTS: i64 = 60;

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        replica: usize,
        who: usize,
    },
    Settle {
        which: usize,
        tokens: u64,
    },
    Grow {
        which: usize,
        tokens: u64,
    },
    Release {
        which: usize,
    },
    Forget {
        which: usize,
    },
    /// So many one after the other that the account is leased.
    Burst {
        replica: usize,
        who: usize,
    },
    /// A replica dies and another takes its place, a minute later.
    Crash {
        replica: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (replica, who, which) = (0..2_usize, 0..PEOPLE.len(), any::<usize>());
    prop_oneof![
        6 => (replica.clone(), who.clone()).prop_map(|(replica, who)| Step::Reserve { replica, who }),
        4 => (which, 0..=200_u64).prop_map(|(which, tokens)| Step::Settle { which, tokens }),
        1 => (any::<usize>(), 0..=200_u64).prop_map(|(which, tokens)| Step::Grow { which, tokens }),
        1 => any::<usize>().prop_map(|which| Step::Release { which }),
        1 => any::<usize>().prop_map(|which| Step::Forget { which }),
        2 => (replica.clone(), who).prop_map(|(replica, who)| Step::Burst { replica, who }),
        1 => replica.prop_map(|replica| Step::Crash { replica }),
    ]
}

struct World {
    store: StoreConfig,
    config: Config,
    clock: Arc<TestClock>,
    replicas: Vec<Option<Running>>,
    open: Vec<(usize, Reservation)>,
    database: Option<database::Store>,
}

impl World {
    async fn begin(database: Database, config: Config) -> Self {
        let count = if database == Database::Sqlite { 1 } else { 2 };
        let database = database.fresh().await;
        let store = store_config(&database);
        let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        let mut world = Self { store, config, clock, replicas: Vec::new(), open: Vec::new(), database: Some(database) };
        for _ in 0..count {
            let running = world.start().await;
            world.replicas.push(Some(running));
        }
        world.house(0).cap(Scope::Organization, Period::Monthly, CENTS).await;
        world.house(0).pool("eng", 2 * CENTS).await;
        for replica in 0..count {
            world.house(replica).caps.refresh_if_changed().await.unwrap();
        }
        world
    }

    async fn start(&self) -> Running {
        run(&self.store, None, self.clock.clone(), &self.config).await
    }

    fn house(&self, replica: usize) -> &House {
        &self.replicas[replica % self.replicas.len()].as_ref().unwrap().house
    }

    fn person(who: usize) -> Arc<Principal> {
        // Who has no pool may be leased.
        let groups = if who == 0 { Vec::new() } else { vec!["eng".to_owned()] };
        Arc::new(Principal { groups, ..(*principal(PEOPLE[who])).clone() })
    }

    fn pick(&mut self, which: usize) -> Option<Reservation> {
        let count = self.open.len();
        (count > 0).then(|| self.open.swap_remove(which % count).1)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Reserve { replica, who } => {
                let reserved = self.house(replica).reserve(&Self::person(who)).await;
                self.open.extend(reserved.ok().map(|reservation| (replica % self.replicas.len(), reservation)));
            }
            Step::Settle { which, tokens } => {
                self.pick(which).map(|open| open.settle(settlement(Usage { output_tokens: tokens, ..USED })));
            }
            Step::Grow { which, tokens } => {
                let count = self.open.len().max(1);
                if let Some((_, open)) = self.open.get_mut(which % count) {
                    open.grow("anthropic", &Usage { output_tokens: tokens, ..USED });
                }
            }
            Step::Release { which } => {
                self.pick(which).into_iter().for_each(|open| open.release(502, 1));
            }
            Step::Forget { which } => drop(self.pick(which)),
            Step::Burst { replica, who } => {
                for _ in 0..10 {
                    let Ok(open) = self.house(replica).reserve(&Self::person(who)).await else { return };
                    open.settle(settlement(USED));
                }
            }
            Step::Crash { replica } => self.crash(replica % self.replicas.len()).await,
        }
    }

    async fn crash(&mut self, replica: usize) {
        self.replicas[replica].take().unwrap().kill().await;
        self.open.retain(|(of, _)| *of != replica);
        self.clock.advance(Duration::from_secs(61));
        self.replicas[replica] = Some(self.start().await);
    }

    async fn check(&self, bound: i64) {
        for replica in self.replicas.iter().flatten() {
            replica.house.ledger.flush().await;
        }
        let house = self.house(0);
        house.verify().await;
        let most = "SELECT CAST(COALESCE(MAX(settled), 0) AS BIGINT) FROM account WHERE id LIKE 'user:%'";
        let most = house.number(most).await;
        assert!(most <= CENTS * 10_000_000 + bound, "{most} were spent of {CENTS} cents");
    }
}

fn interleave(database: Database, config: &Config, bound: i64, cases: u32, steps: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proptest = Proptest { cases, failure_persistence: None, max_shrink_iters: 20, ..Proptest::default() };
    let mut runner = TestRunner::new_with_rng(proptest, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&prop::collection::vec(step(), steps), |steps| {
            runtime.block_on(async {
                let mut world = World::begin(database, config.clone()).await;
                for step in steps {
                    world.take(step).await;
                    world.check(bound).await;
                }
                world.open.clear();
                world.check(bound).await;
                for replica in world.replicas.into_iter().flatten() {
                    replica.end().await;
                }
                drop(world.database);
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_interleaving_passes_a_bounded_cap_by_more_than_a_request() {
    // What a forgotten or killed request is charged at is what was set aside for it, which is more than it costs.
    let most_of_one = 21_000_000;
    let config = config(Duration::ZERO);
    interleave(Database::Sqlite, &config, most_of_one, 12, 60);
    interleave(Database::Postgres, &config, most_of_one, 3, 60);
}

#[test]
fn no_interleaving_passes_a_strict_cap_at_all() {
    let config = Config { wait: Duration::ZERO, ..strict() };
    interleave(Database::Sqlite, &config, 0, 12, 60);
    interleave(Database::Postgres, &config, 0, 3, 60);
}

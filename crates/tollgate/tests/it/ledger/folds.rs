//! What reports add up by the hour is what the rows say, whenever rows come, change, get another name or go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock as _, TestClock};
use control::spend::report::usage::{Dimension, Wanted, Width};
use control::spend::{Report, Reservation, Retention, Upkeep};
use control::store::Config as StoreConfig;
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config as Proptest, RngAlgorithm, TestRng, TestRunner};
use wire::usage::Usage;

use super::house::*;
use crate::support::database::{self, Database, on_both_databases};

const PEOPLE: [&str; 3] = ["alice", "bob", "carl"];
const NOON: &str = "2026-11-22T12:00:00Z";

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        replica: usize,
        who: usize,
    },
    Settle {
        which: usize,
        tokens: u64,
        fast: bool,
    },
    /// It is settled at its estimate.
    Forget {
        which: usize,
    },
    /// A replica dies, and what it had in flight is swept by the next.
    Crash {
        replica: usize,
    },
    Wait {
        minutes: u16,
    },
    /// As many hours as there are, or this many.
    Fold {
        hours: usize,
    },
    Sweep,
    Erase {
        who: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (replica, who, which) = (0..2_usize, 0..PEOPLE.len(), any::<usize>());
    let settle = (which, 0..=250_000_u64, any::<bool>());
    prop_oneof![
        6 => (replica.clone(), who.clone()).prop_map(|(replica, who)| Step::Reserve { replica, who }),
        5 => settle.prop_map(|(which, tokens, fast)| Step::Settle { which, tokens, fast }),
        1 => any::<usize>().prop_map(|which| Step::Forget { which }),
        1 => replica.prop_map(|replica| Step::Crash { replica }),
        4 => (1..=400_u16).prop_map(|minutes| Step::Wait { minutes }),
        3 => (1..=9_usize).prop_map(|hours| Step::Fold { hours }),
        1 => Just(Step::Sweep),
        1 => who.prop_map(|who| Step::Erase { who }),
    ]
}

struct World {
    store: StoreConfig,
    clock: Arc<TestClock>,
    replicas: Vec<Option<Running>>,
    open: Vec<(usize, Reservation)>,
    /// Lines of reports that came from hours.
    folded: i64,
    _database: database::Store,
}

impl World {
    async fn begin(kind: Database) -> Self {
        let database = kind.fresh().await;
        let store = store_config(&database);
        let clock = Arc::new(TestClock::at(NOON.parse().unwrap()));
        let first = run(&store, None, clock.clone(), &config(Duration::ZERO)).await;
        let mut replicas = vec![Some(first)];
        if kind == Database::Postgres {
            replicas.push(Some(run(&store, None, clock.clone(), &config(Duration::ZERO)).await));
        }
        Self { store, clock, replicas, open: Vec::new(), folded: 0, _database: database }
    }

    fn house(&self, replica: usize) -> &House {
        &self.replicas[replica % self.replicas.len()].as_ref().unwrap().house
    }

    fn upkeep(&self) -> Upkeep {
        let retention = Retention { usage_days: 2, ..Retention::default() };
        Upkeep::new(self.house(0).store.clone(), self.clock.clone(), retention)
    }

    fn pick(&mut self, which: usize) -> Option<Reservation> {
        let count = self.open.len();
        (count > 0).then(|| self.open.swap_remove(which % count).1)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Reserve { replica, who } => {
                let reserved = self.house(replica).reserve(&principal(PEOPLE[who])).await.unwrap();
                self.open.push((replica % self.replicas.len(), reserved));
            }
            Step::Settle { which, tokens, fast } => {
                let used = Usage { cache_read_input_tokens: tokens, fast, ..USED };
                self.pick(which).map(|open| open.settle(settlement(used)));
            }
            Step::Forget { which } => drop(self.pick(which)),
            Step::Crash { replica } => {
                let replica = replica % self.replicas.len();
                // What nobody has written yet is lost with a killed process that limits nobody.
                self.flush().await;
                self.replicas[replica].take().unwrap().kill().await;
                self.open.retain(|(of, _)| *of != replica);
                self.clock.advance(Duration::from_secs(61));
                let next = run(&self.store, None, self.clock.clone(), &config(Duration::ZERO)).await;
                self.replicas[replica] = Some(next);
            }
            Step::Wait { minutes } => self.clock.advance(Duration::from_secs(u64::from(minutes) * 60)),
            Step::Fold { hours } => {
                for _ in 0..hours {
                    if !self.upkeep().fold_hour().await.unwrap() {
                        break;
                    }
                }
            }
            Step::Sweep => drop(self.upkeep().sweep().await.unwrap()),
            Step::Erase { who } => {
                self.flush().await;
                self.upkeep().erase(&admin(), PEOPLE[who]).await.unwrap();
            }
        }
    }

    async fn flush(&self) {
        for replica in self.replicas.iter().flatten() {
            replica.house.ledger.flush().await;
        }
    }

    async fn check(&mut self) {
        self.flush().await;
        for width in [Width::Hour, Width::Day] {
            assert_eq!(self.reported(width).await, self.rows(width).await, "{width:?}");
        }
        self.folded += self.house(0).number("SELECT COUNT(*) FROM usage_hour").await;
    }

    async fn reported(&self, width: Width) -> BTreeMap<String, Vec<i64>> {
        let now = self.clock.now();
        let wanted = Wanted {
            width,
            from: width.start(now - SignedDuration::from_hours(24 * 8)),
            until: width.later(width.start(now), 1),
            by: vec![Dimension::Account, Dimension::Session, Dimension::Speed, Dimension::ContextWindow],
            only: Vec::new(),
        };
        let house = self.house(0);
        let report = Report::new(house.store.clone(), house.caps.clone(), self.clock.clone());
        let lines = report.usage(&wanted).await.unwrap();
        let read = lines.iter().map(|line| {
            let totals = &line.totals;
            let mut sums = vec![totals.requests, totals.input, totals.output, totals.cache_read, totals.charge.nano()];
            sums.extend(totals.split.amounts().map(|amount| amount.nano()));
            (format!("{} {:?}", line.bucket, line.key), sums)
        });
        let read: Vec<_> = read.collect();
        let count = read.len();
        let lines = BTreeMap::from_iter(read);
        assert_eq!(lines.len(), count, "a line comes twice");
        lines
    }

    /// The same, reckoned here from every row.
    async fn rows(&self, width: Width) -> BTreeMap<String, Vec<i64>> {
        let sql = "SELECT started_at, principal, session_id, fast, input_tokens, output_tokens, cache_read, charge,
            charge_input, charge_cache_read, charge_cache_write_5m, charge_cache_write_1h, charge_output,
            charge_web_search FROM usage";
        let mut sums: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for row in self.house(0).store.fetch(sql, &[]).await.unwrap() {
            let numbers: Vec<i64> = (4..14).map(|column| row.int(column).unwrap()).collect();
            let speed = if row.int(3).unwrap() == 1 { "fast" } else { "standard" };
            let window = if numbers[0] + numbers[2] > 200_000 { "200k-1M" } else { "0-200k" };
            let key = [Some(row.text(1).unwrap()), row.text_or_null(2).unwrap(), Some(speed), Some(window)];
            let bucket = width.start(jiff::Timestamp::from_millisecond(row.int(0).unwrap()).unwrap());
            let sum = sums.entry(format!("{bucket} {key:?}")).or_insert_with(|| vec![0; 11]);
            sum[0] += 1;
            sum[1..].iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        sums
    }
}

fn interleave(kind: Database, cases: u32, steps: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proptest = Proptest { cases, failure_persistence: None, max_shrink_iters: 20, ..Proptest::default() };
    let mut runner = TestRunner::new_with_rng(proptest, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut folded = 0;
    let strategy = prop::collection::vec(step(), steps);
    for _ in 0..cases {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        runtime.block_on(async {
            let mut world = World::begin(kind).await;
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.open.clear();
            world.check().await;
            let proof = world.upkeep().verify().await.unwrap();
            assert!(proof.holds(), "{proof:?}");
            folded += world.folded;
            for replica in world.replicas.into_iter().flatten() {
                replica.end().await;
            }
        });
    }
    assert!(folded > 0, "no hour was ever added up");
}

#[test]
fn hours_add_up_to_their_rows_whatever_happens() {
    interleave(Database::Sqlite, 6, 80);
    interleave(Database::Postgres, 2, 80);
}

on_both_databases!(what_settles_late_is_in_the_next_report_also_while_hours_are_added_up);

async fn what_settles_late_is_in_the_next_report_also_while_hours_are_added_up(kind: Database) {
    let mut world = World::begin(kind).await;
    for turn in 0..60 {
        if turn % 20 == 0 {
            world.take(Step::Wait { minutes: 60 }).await;
        }
        world.take(Step::Reserve { replica: turn, who: 0 }).await;
    }
    world.take(Step::Wait { minutes: 400 }).await;
    world.take(Step::Fold { hours: 100 }).await;
    let upkeep = world.upkeep();
    let folding = tokio::spawn(async move {
        for _ in 0..200 {
            upkeep.fold_hour().await.unwrap();
        }
    });
    for (turn, (_, open)) in std::mem::take(&mut world.open).into_iter().enumerate() {
        open.settle(settlement(USED));
        if turn % 7 == 0 {
            world.flush().await;
        }
    }
    world.check().await;
    folding.await.unwrap();
    world.check().await;
    assert_eq!(world.house(0).number("SELECT COUNT(*) FROM usage_late").await, 0);
    assert_eq!(world.house(0).number("SELECT CAST(SUM(requests) AS BIGINT) FROM usage_hour").await, 60);
    for replica in world.replicas.into_iter().flatten() {
        replica.end().await;
    }
}

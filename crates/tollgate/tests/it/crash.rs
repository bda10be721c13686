//! A gateway that is killed among many requests, again and again: what the upstream has billed is on the books.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control::clock::SystemClock;
use control::spend::{Retention, Upkeep};
use control::store::Store as Books;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::database::{Database, Store, connect, on_both_databases};
use crate::support::gateway::{Caller, PATIENCE, TestGateway};
use crate::support::upstream::{Answer, Gate, Received, Step, message_events};

const MODEL: &str = "claude-sonnet-4-6";
/// Of every user in a day.
const CAP_CENTS: i64 = 10_000;
/// A gateway that lives for less than eight requests of a user has no lease for them.
const REQUESTS_OF_THE_CALM: usize = 7;
/// What one user asks for at once, and how often one after the other.
const BUSY_AT_ONCE: usize = 8;
const BUSY_IN_A_ROW: usize = 6;
/// Far more than the milliseconds after which an admission out of a lease is written, for a machine that does much else.
const WRITTEN_BEHIND: Duration = Duration::from_secs(2);

on_both_databases!(
    a_killed_gateway_owes_a_request_to_nobody_but_the_busy,
    in_strict_mode_a_killed_gateway_owes_nobody_a_request,
);

async fn a_killed_gateway_owes_a_request_to_nobody_but_the_busy(database: Database) {
    Box::pin(crash_and_count(database, "bounded", 3, 10)).await;
}

async fn in_strict_mode_a_killed_gateway_owes_nobody_a_request(database: Database) {
    Box::pin(crash_and_count(database, "none", 3, 10)).await;
}

/// `cargo test -p tollgate --test it -- --ignored --nocapture ten_thousand_requests`
mod ten_thousand_requests {
    use super::{Database, crash_and_count};

    #[tokio::test]
    #[ignore = "takes minutes"]
    async fn and_sixty_crashes_on_sqlite() {
        Box::pin(crash_and_count(Database::Sqlite, "bounded", 60, 17)).await;
    }

    #[tokio::test]
    #[ignore = "takes minutes"]
    async fn and_sixty_crashes_on_postgres() {
        Box::pin(crash_and_count(Database::Postgres, "bounded", 60, 17)).await;
    }

    #[tokio::test]
    #[ignore = "takes minutes"]
    async fn and_sixty_crashes_in_strict_mode_on_postgres() {
        Box::pin(crash_and_count(Database::Postgres, "none", 60, 17)).await;
    }
}

/// One request, as its prompt tells the upstream.
#[derive(Debug, Clone)]
struct Ask {
    id: String,
    round: usize,
    user: String,
    stream: bool,
    /// Never answered to its end.
    held: bool,
    output_tokens: i64,
}

/// What the upstream has billed for a request.
#[derive(Debug, Clone)]
struct Bill {
    ask: Ask,
    /// In nano-dollars.
    cost: i64,
    at: Instant,
}

type Bills = Arc<Mutex<Vec<Bill>>>;

async fn crash_and_count(database: Database, overshoot: &str, rounds: usize, calm: usize) {
    let strict = overshoot == "none";
    let config = json!({ "enforcement": { "overshoot": overshoot } });
    let mut gateway = TestGateway::setup().on(database).config(config).start_process().await;
    let cap = json!({ "scope": { "type": "organization" }, "amount": CAP_CENTS.to_string(), "period": "daily" });
    assert_eq!(gateway.admin().post("/v1/organizations/spend_limits", cap.to_string()).await.status, 200);
    let bills = Bills::default();
    let (billing, gate) = (Arc::clone(&bills), Gate::closed());
    gateway.upstream().answer_otherwise(move |request| answer(request, &billing, &gate));

    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut kills = Vec::new();
    for round in 0..rounds {
        kills.push(crash_among(&mut gateway, &mut random, round, calm).await);
        expire(gateway.store()).await;
        gateway.start_again().await;
    }
    // Whoever is admitted now is admitted after the sweep.
    let id = "last".to_owned();
    let last = Ask { user: id.clone(), id, round: rounds, stream: false, held: false, output_tokens: 1 };
    let caller = gateway.as_user("last").header("x-claude-code-session-id", "last");
    assert_eq!(caller.messages(last.body()).await.status, 200);
    gateway.process().signal("TERM");
    assert_eq!(gateway.process().exit().await.code(), Some(0));

    let bills = bills.lock().unwrap().clone();
    let books = gateway.database().await;
    check(&books, &bills, &kills, strict).await;
}

/// Sends everything that a round has, and kills the gateway at a random point of it. Tells when that was.
async fn crash_among(gateway: &mut TestGateway, random: &mut TestRng, round: usize, calm: usize) -> Instant {
    let mut ask = |user: String, number: usize, may_be_held: bool| {
        let chance = random.next_u64();
        let (stream, held) = (chance & 1 == 0, may_be_held && chance & 6 == 0);
        let output_tokens = i64::try_from(chance >> 8 & 511).unwrap() + 1;
        Ask { id: format!("{round}-{user}-{number}"), round, user, stream, held, output_tokens }
    };
    let mut rows: Vec<Vec<Ask>> = Vec::new();
    for number in 0..calm * REQUESTS_OF_THE_CALM {
        rows.push(vec![ask(format!("calm-{}", number % calm), number, true)]);
    }
    for row in 0..BUSY_AT_ONCE {
        let numbers = row * BUSY_IN_A_ROW..(row + 1) * BUSY_IN_A_ROW;
        rows.push(numbers.map(|number| ask("busy".to_owned(), number, false)).collect());
    }
    let all = rows.iter().map(Vec::len).sum::<usize>();
    let answered = all - rows.iter().flatten().filter(|ask| ask.held).count();
    let so_far = gateway.upstream().requests().len();

    let finished = watch::Sender::new(0);
    let asking: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let caller = gateway.as_user(&row[0].user);
            tokio::spawn(ask_in_a_row(caller, row, finished.clone()))
        })
        .collect();
    let until = |most: usize, chance: u64| usize::try_from(chance).unwrap() % most + 1;
    let point = async {
        if random.next_u32() & 1 == 0 {
            gateway.upstream().request(so_far + until(all, u64::from(random.next_u32())) - 1).await;
        } else {
            let wanted = until(answered, u64::from(random.next_u32()));
            finished.subscribe().wait_for(|finished| *finished >= wanted).await.unwrap();
        }
        tokio::time::sleep(Duration::from_micros(u64::from(random.next_u32() % 3_000))).await;
    };
    timeout(PATIENCE, point).await.expect("requests are refused, or not finished");
    gateway.process().kill();
    let killed_at = Instant::now();
    for row in asking {
        row.await.unwrap();
    }
    killed_at
}

/// Asks one after the other until the gateway is gone.
async fn ask_in_a_row(caller: Caller, row: Vec<Ask>, finished: watch::Sender<usize>) {
    for ask in row {
        let caller = caller.clone().header("x-claude-code-session-id", &ask.id);
        let Ok(answer) = caller.stream(ask.body()).await else { return };
        assert_eq!(answer.status, 200, "{}", ask.id);
        if answer.rest().await.is_err() {
            return;
        }
        finished.send_modify(|finished| *finished += 1);
    }
}

impl Ask {
    fn body(&self) -> String {
        let prompt = format!("{} {} {} {} {}", self.id, self.round, self.user, self.held, self.output_tokens);
        let messages = json!([{ "role": "user", "content": prompt }]);
        json!({ "model": MODEL, "max_tokens": 512, "stream": self.stream, "messages": messages }).to_string()
    }

    fn read(body: &Value) -> Self {
        let prompt: Vec<&str> = body["messages"][0]["content"].as_str().unwrap().split(' ').collect();
        let [id, round, user, held, output_tokens] = prompt[..] else { panic!("{prompt:?}") };
        Self {
            id: id.to_owned(),
            round: round.parse().unwrap(),
            user: user.to_owned(),
            stream: body["stream"] == true,
            held: held == "true",
            output_tokens: output_tokens.parse().unwrap(),
        }
    }
}

/// Bills a request and answers it; one that is held not before its head, or not to its end.
fn answer(request: &Received, bills: &Bills, gate: &Gate) -> Answer {
    let ask = Ask::read(&request.json());
    let cost = 3_000_000 + 15_000 * ask.output_tokens;
    bills.lock().unwrap().push(Bill { ask: ask.clone(), cost, at: Instant::now() });
    let output_tokens = ask.output_tokens.unsigned_abs();
    if ask.stream {
        let events = message_events(MODEL, &["Hello", " there"], 1_000, output_tokens);
        let mut steps: Vec<Step> = events.into_iter().map(Step::from).collect();
        if ask.held {
            steps.insert(4, gate.step());
        }
        return Answer::stream(steps);
    }
    let answer = Answer::message(MODEL, "Hello there", 1_000, output_tokens);
    if ask.held { answer.after(gate) } else { answer }
}

/// What a dead gateway has left on a shared database is swept after a minute: this is that minute.
async fn expire(store: &Store) {
    let Store::Postgres(url) = store else { return };
    let database = connect(url).await;
    // Its last statement may still be at work, and write afterwards.
    let others = "SELECT COUNT(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let gone = async { while database.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {} };
    timeout(PATIENCE, gone).await.expect("its sessions do not end");
    let minute = "UPDATE tollgate.reservation SET expires_at = 0; UPDATE tollgate.lease SET expires_at = 0";
    database.batch_execute(minute).await.unwrap();
}

#[expect(clippy::print_stderr, reason = "the long run is asked for its figures")]
async fn check(books: &Books, bills: &[Bill], kills: &[Instant], strict: bool) {
    let upkeep = Upkeep::new(books.clone(), Arc::new(SystemClock), Retention::default());
    assert_eq!(upkeep.verify().await.unwrap().differences, []);
    let left = "SELECT (SELECT COUNT(*) FROM reservation) + (SELECT COUNT(*) FROM lease) +
                       (SELECT COUNT(*) FROM account WHERE reserved <> 0)";
    assert_eq!(books.fetch(left, &[]).await.unwrap()[0].int(0).unwrap(), 0, "something is still set aside");

    let mut charges: HashMap<String, (i64, bool)> = HashMap::new();
    for row in books.fetch("SELECT session_id, charge, estimated FROM usage", &[]).await.unwrap() {
        let charge = (row.int(1).unwrap(), row.int(2).unwrap() == 1);
        let id = row.text(0).unwrap().to_owned();
        assert!(charges.insert(id.clone(), charge).is_none(), "{id} is on the books twice");
    }
    let (mut lost, mut oldest) = (vec![0; kills.len()], Duration::ZERO);
    for Bill { ask, cost, at } in bills {
        match charges.get(&ask.id) {
            Some((charge, false)) => assert_eq!(charge, cost, "{ask:?}"),
            Some((estimate, true)) => assert!(*estimate > 0 && (!strict || estimate >= cost), "{estimate} for {ask:?}"),
            None => {
                assert!(ask.user == "busy" && !strict, "lost: {ask:?}");
                let waited = kills[ask.round].saturating_duration_since(*at);
                assert!(waited < WRITTEN_BEHIND, "lost, though it could be written for {waited:?}: {ask:?}");
                lost[ask.round] += cost;
                oldest = oldest.max(waited);
            }
        }
    }
    // A lease is a sixteenth of what is left, and never more than that is lost.
    let lease = CAP_CENTS * 10_000_000 / 16;
    assert!(lost.iter().all(|lost| *lost <= lease), "{lost:?}");
    let estimated = charges.values().filter(|(_, estimated)| *estimated).count();
    eprintln!(
        "{} crashes, {} requests billed, {} on the books as estimates, {} nano-dollars of the busy lost, the oldest {:?} before a kill",
        kills.len(),
        bills.len(),
        estimated,
        lost.iter().sum::<i64>(),
        oldest,
    );
    assert!(estimated > 0, "nothing was in flight when the gateway was killed");
}

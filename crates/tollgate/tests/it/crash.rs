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
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::database::{Database, Store, committed_rows, connect, on_both_databases};
use crate::support::gateway::{Caller, PATIENCE, TestGateway};
use crate::support::upstream::{Answer, Fate, Gate, Received, Step, message_events};

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
    Box::pin(crash_and_count(database, "bounded", 6, 6)).await;
}

async fn in_strict_mode_a_killed_gateway_owes_nobody_a_request(database: Database) {
    Box::pin(crash_and_count(database, "none", 6, 6)).await;
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

const EVENTS: [Event; 6] = [Event::Logged, Event::Asked, Event::Answered, Event::Piece, Event::Finished, Event::Booked];

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

/// What a kill may follow. The last two come while requests are being settled.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The upstream has received a request.
    Asked,
    /// The upstream has sent all of an answer.
    Answered,
    /// A client has received a piece of an answer.
    Piece,
    /// A client has received all of an answer.
    Finished,
    /// The gateway has logged the end of a request.
    Logged,
    /// A request's row is committed; only PostgreSQL tells.
    Booked,
}

/// How many requests of a round have got how far.
#[derive(Debug, Clone, Default)]
struct Progress {
    answered: watch::Sender<usize>,
    pieces: watch::Sender<usize>,
    finished: watch::Sender<usize>,
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
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut kills = Vec::new();
    let events = match database {
        Database::Sqlite => &EVENTS[..EVENTS.len() - 1],
        Database::Postgres => &EVENTS[..],
    };
    for (round, event) in events.iter().cycle().take(rounds).enumerate() {
        let asks = asks(&mut random, round, calm, true);
        let chance = random.next_u32();
        kills.push(crash_among(&mut gateway, &bills, asks, *event, chance).await);
        expire(gateway.store()).await;
        gateway.start_again().await;
    }
    // Whoever is admitted now is admitted after the sweep, and a gateway that is asked to end owes nobody anything.
    let asks = asks(&mut random, rounds, calm, false);
    let progress = bill_to(&gateway, &bills);
    for row in ask_all(&gateway, asks, &progress) {
        row.await.unwrap();
    }
    gateway.process().signal("TERM");
    assert_eq!(gateway.process().exit().await.code(), Some(0));

    let bills = bills.lock().unwrap().clone();
    let books = gateway.database().await;
    check(&books, &bills, &kills, strict).await;
}

/// What is asked in a round: each row one after the other, the rows beside each other.
fn asks(random: &mut TestRng, round: usize, calm: usize, may_be_held: bool) -> Vec<Vec<Ask>> {
    let mut ask = |user: String, number: usize, may_be_held: bool| {
        let chance = random.next_u64();
        let (stream, held) = (chance & 1 == 0, may_be_held && chance & 6 == 0);
        let output_tokens = i64::try_from(chance >> 8 & 511).unwrap() + 1;
        Ask { id: format!("{round}-{user}-{number}"), round, user, stream, held, output_tokens }
    };
    let mut rows: Vec<Vec<Ask>> = Vec::new();
    for number in 0..calm * REQUESTS_OF_THE_CALM {
        rows.push(vec![ask(format!("calm-{}", number % calm), number, may_be_held)]);
    }
    for row in 0..BUSY_AT_ONCE {
        let numbers = row * BUSY_IN_A_ROW..(row + 1) * BUSY_IN_A_ROW;
        rows.push(numbers.map(|number| ask("busy".to_owned(), number, false)).collect());
    }
    rows
}

/// From now on the upstream bills what it is asked, and tells when it has answered.
fn bill_to(gateway: &TestGateway, bills: &Bills) -> Progress {
    let progress = Progress::default();
    let (bills, gate, answered) = (Arc::clone(bills), Gate::closed(), progress.answered.clone());
    gateway.upstream().answer_otherwise(move |request| {
        let (request, answered) = (request.clone(), answered.clone());
        let answer = answer(&request, &bills, &gate);
        tokio::spawn(async move {
            if request.fate().await == Fate::Sent {
                answered.send_modify(|answered| *answered += 1);
            }
        });
        answer
    });
    progress
}

fn ask_all(gateway: &TestGateway, rows: Vec<Vec<Ask>>, progress: &Progress) -> Vec<JoinHandle<()>> {
    let ask = |row: Vec<Ask>| tokio::spawn(ask_in_a_row(gateway.as_user(&row[0].user), row, progress.clone()));
    rows.into_iter().map(ask).collect()
}

/// Sends everything that a round has, and kills the gateway at a chance event of this kind. Tells when that was.
async fn crash_among(
    gateway: &mut TestGateway,
    bills: &Bills,
    asks: Vec<Vec<Ask>>,
    event: Event,
    chance: u32,
) -> Instant {
    let all = asks.iter().map(Vec::len).sum::<usize>();
    let answered = all - asks.iter().flatten().filter(|ask| ask.held).count();
    let so_far = gateway.upstream().requests().len();
    let booked = match gateway.store() {
        Store::Postgres(url) => Some(committed_rows(url, "tollgate.usage").await),
        Store::Sqlite(_) => None,
    };
    let progress = bill_to(gateway, bills);
    let asking = ask_all(gateway, asks, &progress);
    // As many as come for certain.
    let most = if matches!(event, Event::Asked) { all } else { answered };
    let number = usize::try_from(chance).unwrap() % most + 1;
    let count = async |counter: &watch::Sender<usize>| {
        counter.subscribe().wait_for(|count| *count >= number).await.unwrap();
    };
    let point = async {
        match event {
            Event::Asked => drop(gateway.upstream().request(so_far + number - 1).await),
            Event::Answered => count(&progress.answered).await,
            Event::Piece => count(&progress.pieces).await,
            Event::Finished => count(&progress.finished).await,
            Event::Logged => drop(gateway.audit().take("inference", number).await),
            Event::Booked => drop(booked.unwrap().1.wait_for(|rows| *rows >= number).await.unwrap()),
        }
    };
    timeout(PATIENCE, point).await.unwrap_or_else(|_| panic!("{event:?} {number} of {most} does not come"));
    gateway.process().kill();
    let killed_at = Instant::now();
    for row in asking {
        row.await.unwrap();
    }
    killed_at
}

/// Asks one after the other until the gateway is gone.
async fn ask_in_a_row(caller: Caller, row: Vec<Ask>, progress: Progress) {
    for ask in row {
        let caller = caller.clone().header("x-claude-code-session-id", &ask.id);
        let Ok(mut answer) = caller.stream(ask.body()).await else { return };
        assert_eq!(answer.status, 200, "{}", ask.id);
        while let Some(piece) = answer.next().await {
            if piece.is_err() {
                return;
            }
            progress.pieces.send_modify(|pieces| *pieces += 1);
        }
        progress.finished.send_modify(|finished| *finished += 1);
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
            Some((_, true)) if ask.round == kills.len() => panic!("no word of how it ended: {ask:?}"),
            Some((estimate, true)) => assert!(*estimate > 0 && (!strict || estimate >= cost), "{estimate} for {ask:?}"),
            None => {
                assert!(ask.user == "busy" && !strict && ask.round < kills.len(), "lost: {ask:?}");
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

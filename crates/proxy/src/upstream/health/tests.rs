use control::clock::TestClock;

use super::*;
use crate::upstream::failure::FailoverOn;
use crate::upstream::{Answer, Failure};

const MODEL: &str = "sonnet";

struct Circuits {
    health: Health,
    clock: Arc<TestClock>,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn silent() -> Failure {
    Failure::Silent(seconds(1))
}

fn answered(status: u16, retry_after: Option<&str>) -> Failure {
    let mut response = http::Response::builder().status(status);
    if let Some(value) = retry_after {
        response = response.header("retry-after", value);
    }
    Failure::judge(Answer::whole(response.body(bytes::Bytes::new()).unwrap()), &FailoverOn::default()).unwrap_err()
}

impl Circuits {
    fn new(breaker: Option<Breaker>) -> Self {
        let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        Self { health: Health::new("a".to_owned(), breaker, clock.clone()), clock }
    }

    fn usual() -> Self {
        Self::new(Some(Breaker::default()))
    }

    fn after(&self, wait: u64) -> &Self {
        self.clock.advance(seconds(wait));
        self
    }

    /// One attempt fails so; says whether there was one.
    fn fails(&self, failure: &Failure) -> bool {
        self.health.enter(MODEL).map(|trial| trial.failed(failure, true)).is_some()
    }

    fn serves(&self) -> bool {
        self.health.enter(MODEL).map(Trial::succeeded).is_some()
    }

    fn open_by_silence(&self) {
        for _ in 0..5 {
            assert!(self.fails(&silent()));
        }
        assert!(!self.health.is_closed(MODEL));
    }

    fn state(&self) -> CircuitState {
        self.health.figures()[0].state
    }
}

#[test]
fn failures_in_a_row_open_it_and_after_a_rest_one_request_finds_out() {
    let circuits = Circuits::usual();
    for _ in 0..4 {
        assert!(circuits.fails(&silent()));
    }
    assert!(circuits.serves(), "a success begins the row anew");
    circuits.open_by_silence();
    assert!(circuits.health.enter(MODEL).is_none() && circuits.after(9).health.enter(MODEL).is_none());
    assert_eq!(circuits.state(), CircuitState::Open);
    let probe = circuits.after(1).health.enter(MODEL).unwrap();
    assert_eq!(circuits.state(), CircuitState::HalfOpen);
    assert!(circuits.health.enter(MODEL).is_none(), "one at a time");
    probe.succeeded();
    assert_eq!(circuits.state(), CircuitState::Closed);
    assert!(circuits.serves());
}

#[test]
fn each_failed_trial_doubles_the_rest_up_to_five_minutes() {
    let circuits = Circuits::usual();
    circuits.open_by_silence();
    for rest in [10, 20, 40, 80, 160, 300, 300] {
        assert!(circuits.after(rest - 1).health.enter(MODEL).is_none(), "{rest}");
        assert!(circuits.after(1).fails(&silent()), "{rest}");
    }
    assert!(circuits.after(300).serves());
    circuits.open_by_silence();
    assert!(circuits.after(10).serves(), "a success begins the rests anew");
}

#[test]
fn a_trial_that_was_abandoned_leaves_the_next_request_to_find_out() {
    let circuits = Circuits::usual();
    circuits.open_by_silence();
    drop(circuits.after(10).health.enter(MODEL).unwrap());
    assert!(circuits.serves());
    assert_eq!(circuits.state(), CircuitState::Closed);
}

#[test]
fn a_share_of_failures_opens_it_although_successes_are_between() {
    let circuits = Circuits::usual();
    for _ in 0..9 {
        assert!(circuits.serves() && circuits.fails(&silent()));
    }
    assert!(circuits.health.is_closed(MODEL), "too few to judge by");
    assert!(circuits.serves() && circuits.fails(&silent()));
    assert!(!circuits.health.is_closed(MODEL));
}

#[test]
fn what_is_long_past_does_not_count() {
    let circuits = Circuits::usual();
    for _ in 0..9 {
        assert!(circuits.serves() && circuits.fails(&silent()));
    }
    circuits.after(60);
    for _ in 0..9 {
        assert!(circuits.serves() && circuits.fails(&silent()));
    }
    assert!(circuits.health.is_closed(MODEL));
}

#[test]
fn an_upstream_that_says_when_to_come_back_is_left_alone_until_then() {
    let circuits = Circuits::usual();
    assert!(circuits.fails(&answered(429, Some("7"))));
    assert!(circuits.after(6).health.enter(MODEL).is_none());
    assert!(circuits.after(1).serves());
    assert!(
        circuits.fails(&answered(429, None)) && circuits.serves(),
        "without a word of it, one refusal is one failure"
    );
    assert!(circuits.fails(&answered(529, Some("86400"))));
    assert!(circuits.after(300).serves(), "nobody is left alone for a day");
    // As a date: the clock has come to 12:05:07.
    assert!(circuits.fails(&answered(503, Some("Sun, 22 Nov 2026 12:06:00 GMT"))));
    assert!(circuits.after(52).health.enter(MODEL).is_none());
    assert!(circuits.after(1).serves());
    for word in ["Sun, 22 Nov 2026 12:00:00 GMT", "soon", "-1", "1.5", ""] {
        assert!(circuits.fails(&answered(503, Some(word))) && circuits.serves(), "{word:?}");
    }
}

#[test]
fn what_one_request_may_have_brought_about_opens_nothing() {
    let circuits = Circuits::usual();
    for status in [404, 403, 501, 404, 404, 404, 404] {
        assert!(circuits.fails(&answered(status, Some("60"))), "{status}");
    }
    for _ in 0..9 {
        assert!(circuits.fails(&Failure::Unsendable("odd header".to_owned())));
    }
}

#[test]
fn what_does_not_lead_on_opens_nothing() {
    let circuits = Circuits::usual();
    for _ in 0..9 {
        circuits.health.enter(MODEL).unwrap().failed(&answered(503, Some("60")), false);
    }
    assert_eq!(circuits.state(), CircuitState::Closed);
}

#[test]
fn models_of_one_upstream_fail_for_themselves() {
    let circuits = Circuits::usual();
    circuits.open_by_silence();
    assert!(circuits.health.enter("haiku").is_some());
}

#[test]
fn a_straggler_neither_closes_nor_prolongs_what_others_have_opened() {
    let circuits = Circuits::usual();
    let stragglers = [(); 2].map(|()| circuits.health.enter(MODEL).unwrap());
    circuits.open_by_silence();
    let [served, failed] = stragglers;
    served.succeeded();
    assert_eq!(circuits.state(), CircuitState::Open);
    failed.failed(&silent(), true);
    assert!(circuits.after(10).serves());
}

#[test]
fn a_last_resort_that_is_served_closes_it() {
    let circuits = Circuits::usual();
    circuits.open_by_silence();
    circuits.health.enter_regardless(MODEL).succeeded();
    assert_eq!(circuits.state(), CircuitState::Closed);
}

#[test]
fn answers_that_break_off_count_as_failures_and_not_as_successes() {
    let circuits = Circuits::usual();
    for _ in 0..20 {
        assert!(circuits.serves());
        circuits.health.broke_off(MODEL);
    }
    assert!(!circuits.health.is_closed(MODEL));
}

#[test]
fn without_a_breaker_nothing_opens() {
    let circuits = Circuits::new(None);
    for _ in 0..50 {
        assert!(circuits.fails(&answered(529, Some("60"))));
    }
    assert_eq!(circuits.state(), CircuitState::Closed);
}

#[test]
fn figures_tell_what_attempts_came_to_and_how_long_they_took() {
    let circuits = Circuits::usual();
    let trial = circuits.health.enter(MODEL).unwrap();
    circuits.after(2);
    trial.failed(&silent(), true);
    circuits.serves();
    drop(circuits.health.enter(MODEL));
    assert!(circuits.fails(&answered(429, Some("60"))));
    let figures = circuits.health.figures();
    assert_eq!((figures[0].upstream.as_str(), figures[0].model.as_str(), figures[0].opened), ("a", MODEL, 1));
    let attempts: Vec<_> =
        figures[0].attempts.iter().map(|(word, (count, took))| (*word, *count, took.as_secs())).collect();
    assert_eq!(attempts, [("abandoned", 1, 0), ("rate_limit", 1, 0), ("served", 1, 0), ("timeout", 1, 2)]);
}

#[tokio::test]
async fn who_waits_hears_that_it_has_opened_even_if_that_was_before_they_listened() {
    let circuits = Circuits::usual();
    let (early, late) = (circuits.health.enter(MODEL).unwrap(), circuits.health.enter(MODEL).unwrap());
    let mut waiting = std::pin::pin!(early.opened());
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    circuits.open_by_silence();
    waiting.await;
    late.opened().await;
}

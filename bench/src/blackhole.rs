//! Black hole: the first of three upstreams stops answering under steady traffic, and later answers again.
//! Knows when requests were begun and how long their first byte took; knows nothing of how a gateway decides.

use crate::client::{self, Plan};
use crate::control;
use crate::lab::{Extra, Lab, Programs};
use crate::load::request_head;
use crate::measure::Tally;
use crate::peer::Peer;
use crate::prompt::Prompt;
use crate::script::Script;
use anyhow::{Context, Result};
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// `bench blackhole`
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Requests begun in each second, evenly, whatever became of those before. With fewer than 100, a second's p99 is its
    /// slowest request; with more than 128, the reference's limit of 256 at once is in its figures too.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds for which the first upstream swallows requests; there are five before, and ten after.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Name of this measurement in its file, DATE-NAME.txt.
    #[arg(long, default_value = "blackhole")]
    what: String,
    /// Folder for that file; left out, the table is only printed.
    #[arg(long)]
    results: Option<PathBuf>,
}

/// `timeouts.upstream_ttfb_ms` of every gateway.
pub(crate) const FIRST_BYTE_MS: u64 = 2000;
const BEFORE: u32 = 5;
const AFTER: u32 = 10;
/// A first byte later than this is not normal on loopback.
const NORMAL_MS: f64 = 250.0;
/// Longer than any measurement: who asks then is not answered.
const FOREVER_MS: u64 = 3_600_000;

/// `upstreams[].breaker.consecutive_failures`, as it is when left out.
const THRESHOLD: u32 = 5;

/// One request: when it was begun, and its first byte, if that came.
struct Sample {
    begun_ms: u32,
    first_byte_ms: Option<f64>,
}

/// What a gateway made of it.
struct Course {
    name: &'static str,
    samples: Vec<Sample>,
}

/// Measures and prints, and keeps what was printed.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let lab = Lab::open(&options.programs, Extra::Hole)?;
    let last = BEFORE + options.seconds;
    let mut text = format!(
        "{} requests a second, streamed, begun evenly; the first of three upstreams accepts requests and answers none of\n\
         them in seconds {BEFORE} to {}. Every gateway: timeouts.upstream_ttfb_ms {FIRST_BYTE_MS}, default breaker.\n\
         ms to the first byte of requests by when they were begun; late: more than {NORMAL_MS} ms, or no answer.\n",
        options.rate,
        last - 1
    );
    for note in &lab.notes {
        _ = writeln!(text, "{note}");
    }
    print!("{text}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut courses = Vec::new();
    for gateway in lab.gateways() {
        eprintln!("measuring {}: {} s", gateway.name, last + AFTER);
        courses.push(Course { name: gateway.name, samples: runtime.block_on(measure(options, &lab, gateway))? });
    }
    let tables = by_phase(&courses, options) + &by_second(&courses, options);
    print!("{tables}");
    text += &tables;
    if let Some(folder) = &options.results {
        fs::create_dir_all(folder)?;
        let date = jiff::Timestamp::now().strftime("%F");
        fs::write(folder.join(format!("{date}-{}.txt", options.what)), text)?;
    }
    Ok(())
}

async fn measure(options: &Options, lab: &Lab, gateway: &Peer) -> Result<Vec<Sample>> {
    let hole = lab.site.hole.context("the upstream that stops answering")?;
    let healthy = Script::default();
    let swallowing = Script { delay_ms: FOREVER_MS, ..healthy.clone() };
    for upstream in [hole, lab.site.upstream] {
        control::set_script(upstream, &healthy)?;
    }
    let message = message(gateway, lab)?;
    let begin = Instant::now();
    let spacing = Duration::from_secs(1) / options.rate;
    let seconds = BEFORE + options.seconds + AFTER;
    let mut asked = JoinSet::new();
    for number in 0..seconds * options.rate {
        tokio::time::sleep_until(begin + spacing * number).await;
        let second = number / options.rate;
        if number % options.rate == 0 {
            if second == BEFORE {
                control::set_script(hole, &swallowing)?;
            } else if second == BEFORE + options.seconds {
                control::set_script(hole, &healthy)?;
            }
        }
        asked.spawn(ask(gateway.address, message.clone(), begun_ms(number, options.rate)));
    }
    Ok(asked.join_all().await)
}

fn begun_ms(number: u32, rate: u32) -> u32 {
    number / rate * 1000 + number % rate * 1000 / rate
}

async fn ask(target: SocketAddr, message: Vec<u8>, begun_ms: u32) -> Sample {
    let now = Instant::now();
    let plan = Arc::new(Plan::new(target, true, (now, now + Duration::from_secs(600)), Some(1)));
    let tally: Arc<Mutex<Tally>> = Arc::default();
    client::run(plan, message, Arc::clone(&tally)).await;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let first_byte_ms = tally.first_bytes.first().map(|&micros| f64::from(micros) / 1000.0);
    Sample { begun_ms, first_byte_ms }
}

fn message(gateway: &Peer, lab: &Lab) -> Result<Vec<u8>> {
    let bearers = fs::read_to_string(gateway.bearers(&lab.site, "hole", 1)?)?;
    let body = Prompt::Code.body(true);
    let mut message = request_head(gateway.address, bearers.trim(), body.len()).into_bytes();
    message.extend_from_slice(&body);
    Ok(message)
}

/// Before the outage; until a breaker can know of it, when as many requests as it takes have waited in vain; the rest of the
/// outage; and after it.
fn by_phase(courses: &[Course], options: &Options) -> String {
    let (begin, end) = (BEFORE * 1000, (BEFORE + options.seconds) * 1000);
    let first_byte_ms = u32::try_from(FIRST_BYTE_MS).unwrap_or(u32::MAX);
    let known = (begin + first_byte_ms + begun_ms(THRESHOLD, options.rate)).min(end);
    let phases = [
        ("before the outage", 0..begin),
        ("until five have failed", begin..known),
        ("the rest of the outage", known..end),
        ("after it", end..u32::MAX),
    ];
    let mut text = format!("\n{:<24}", "");
    for course in courses {
        _ = write!(text, " |{:^32}", course.name);
    }
    _ = write!(text, "\n{:<24}", "begun");
    for _ in courses {
        _ = write!(text, " |{:>8}{:>8}{:>8}{:>8}", "p50", "p99", "late", "of");
    }
    for (name, when) in phases {
        _ = write!(text, "\n{name:<24}");
        for course in courses {
            let Part { p50, p99, late, all } = course.part(&when);
            _ = write!(text, " |{p50:>8.1}{p99:>8.1}{late:>8}{all:>8}");
        }
    }
    text + "\n"
}

/// Side by side; seconds of the outage are marked.
fn by_second(courses: &[Course], options: &Options) -> String {
    let outage = BEFORE..BEFORE + options.seconds;
    let mut text = format!("\n{:<8}", "second");
    for course in courses {
        _ = write!(text, " |{:^24}", course.name);
    }
    _ = write!(text, "\n{:<8}", "");
    for _ in courses {
        _ = write!(text, " |{:>8}{:>8}{:>8}", "p50", "p99", "late");
    }
    for second in 0..outage.end + AFTER {
        let mark = if outage.contains(&second) { "*" } else { "" };
        _ = write!(text, "\n{:<8}", format!("{second}{mark}"));
        for course in courses {
            let Part { p50, p99, late, .. } = course.part(&(second * 1000..(second + 1) * 1000));
            _ = write!(text, " |{p50:>8.1}{p99:>8.1}{late:>8}");
        }
    }
    text + "\n"
}

/// What became of the requests of a while.
struct Part {
    p50: f64,
    p99: f64,
    late: usize,
    all: usize,
}

impl Course {
    /// Who was not answered waited longer than anybody: endlessly, where that is the quantile.
    fn part(&self, begun: &Range<u32>) -> Part {
        let samples = self.samples.iter().filter(|sample| begun.contains(&sample.begun_ms));
        let mut times: Vec<f64> = samples.map(|sample| sample.first_byte_ms.unwrap_or(f64::INFINITY)).collect();
        times.sort_by(f64::total_cmp);
        let late = times.iter().filter(|&&ms| ms > NORMAL_MS).count();
        Part { p50: quantile(&times, 50), p99: quantile(&times, 99), late, all: times.len() }
    }
}

fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_belong_to_when_they_were_begun_and_who_was_not_answered_is_the_last() {
        let at = |begun_ms: u32, first_byte_ms: Option<f64>| Sample { begun_ms, first_byte_ms };
        let quick = (0..99).map(|number| at(begun_ms(number, 100), Some(f64::from(number))));
        let slow = [at(begun_ms(99, 100), Some(2000.0)), at(begun_ms(100, 100), None)];
        let course = Course { name: "one", samples: quick.chain(slow).collect() };
        let first = course.part(&(0..1000));
        assert_eq!((first.p50, first.p99, first.late, first.all), (49.0, 98.0, 1, 100));
        let second = course.part(&(1000..2000));
        assert_eq!((second.p99, second.late, second.all), (f64::INFINITY, 1, 1));
        assert_eq!(course.part(&(2000..3000)).all, 0);
    }
}

//! Black hole: the first of three upstreams stops answering under steady traffic, and later answers again.
//! Knows when requests were begun and how long their first byte took; knows nothing of how a gateway decides.

use crate::client::{self, Plan};
use crate::control;
use crate::lab::{Extra, Lab, Programs};
use crate::load::request_head;
use crate::measure::{Tally, to_f64};
use crate::peer::Peer;
use crate::prompt::Prompt;
use crate::script::Script;
use anyhow::{Context, Result};
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
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
    /// Requests begun in each second, evenly, whatever became of those before.
    #[arg(long, default_value_t = 50)]
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

/// One request: the second in which it was begun, and its first byte, if that came.
struct Sample {
    second: u32,
    first_byte_ms: Option<f64>,
}

/// Measures and prints, and keeps what was printed.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let lab = Lab::open(&options.programs, Extra::Hole)?;
    let last = BEFORE + options.seconds;
    let mut text = format!(
        "{} requests a second, streamed, begun evenly; the first of three upstreams accepts requests and answers none of\n\
         them in seconds {BEFORE} to {}. Every gateway: timeouts.upstream_ttfb_ms {FIRST_BYTE_MS}, default breaker.\n\
         ms to the first byte of requests begun in that second; late: more than {NORMAL_MS} ms; none: no answer.\n",
        options.rate,
        last - 1
    );
    for note in &lab.notes {
        _ = writeln!(text, "{note}");
    }
    print!("{text}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for gateway in lab.gateways() {
        let samples = runtime.block_on(measure(options, &lab, gateway))?;
        let table = table(gateway.name, &samples, last + AFTER);
        print!("{table}");
        text += &table;
    }
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
        asked.spawn(ask(gateway.address, message.clone(), second));
    }
    Ok(asked.join_all().await)
}

async fn ask(target: SocketAddr, message: Vec<u8>, second: u32) -> Sample {
    let now = Instant::now();
    let plan = Arc::new(Plan::new(target, true, (now, now + Duration::from_secs(600)), Some(1)));
    let tally: Arc<Mutex<Tally>> = Arc::default();
    client::run(plan, message, Arc::clone(&tally)).await;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let first_byte_ms = tally.first_bytes.first().map(|&micros| f64::from(micros) / 1000.0);
    Sample { second, first_byte_ms }
}

fn message(gateway: &Peer, lab: &Lab) -> Result<Vec<u8>> {
    let bearers = fs::read_to_string(gateway.bearers(&lab.site, "hole", 1)?)?;
    let body = Prompt::Code.body(true);
    let mut message = request_head(gateway.address, bearers.trim(), body.len()).into_bytes();
    message.extend_from_slice(&body);
    Ok(message)
}

fn table(name: &str, samples: &[Sample], seconds: u32) -> String {
    let mut text =
        format!("\n{name}\n{:>8}{:>10}{:>10}{:>10}{:>8}{:>8}\n", "second", "p50", "p99", "max", "late", "none");
    let (mut late_in_all, mut last_late) = (0, None);
    for second in 0..seconds {
        let of_second = || samples.iter().filter(move |sample| sample.second == second);
        let mut times: Vec<f64> = of_second().filter_map(|sample| sample.first_byte_ms).collect();
        times.sort_by(f64::total_cmp);
        let none = of_second().count() - times.len();
        let late = times.iter().filter(|&&ms| ms > NORMAL_MS).count();
        late_in_all += late + none;
        let p99 = quantile(&times, 99);
        if p99 > NORMAL_MS || none > 0 {
            last_late = Some(second);
        }
        let max = times.last().copied().unwrap_or_default();
        _ = writeln!(text, "{second:>8}{:>10.1}{p99:>10.1}{max:>10.1}{late:>8}{none:>8}", quantile(&times, 50));
    }
    let share = to_f64(late_in_all as u64) * 100.0 / to_f64(samples.len().max(1) as u64);
    let normal = last_late.map_or("never above normal".to_owned(), |second| {
        format!("normal again from second {}", i64::from(second) + 1 - i64::from(BEFORE))
    });
    _ = writeln!(
        text,
        "{name}: {late_in_all} of {} requests late or unanswered ({share:.1} %); p99 {normal} of the outage",
        samples.len()
    );
    text
}

fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

//! Reports: how long finance waits for an answer out of a million requests, and what requests notice of it.
//! Alone of all here it knows a table of the gateway's: a million requests cannot be sent in an afternoon.

use crate::control;
use crate::http1;
use crate::lab::{Extra, Lab, Programs};
use crate::measure::{Report, to_f64};
use crate::peer::{ADMIN_KEY, Cap, Peer};
use crate::run::{FAR_AWAY_CENTS, run_load};
use crate::script::Script;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// `bench reports`
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Requests to fill in, over the last 31 days: as much as one page of a report covers.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How often each report is asked for; the best counts, and the worst is told.
    #[arg(long, default_value_t = 5)]
    times: usize,
    /// Rounds of settlements.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Folder to keep the result in.
    #[arg(long)]
    results: Option<PathBuf>,
}

/// The gateway's database, by the name that the lab gives it.
const DATABASE: &str = "tollgate";
const DAYS: u64 = 31;
const DAY: Duration = Duration::from_secs(86_400);

/// Fills, measures, prints, and keeps what was printed.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let lab = Lab::open(&options.programs.only(DATABASE), Extra::Nothing)?;
    let gateway = lab.gateways().next().context("the gateway is missing")?;
    gateway.cap(Cap::Everyone, FAR_AWAY_CENTS)?;
    control::set_script(lab.site.upstream, &Script::default())?;
    let mut text = introduction(options, &lab);
    print!("{text}");
    let mut say = |line: String| {
        print!("{line}");
        text += &line;
    };

    let before = settle(options, &lab, gateway)?;
    let (filled, folded) = fill(options, &lab)?;
    say(format!(
        "{} rows written in {:.0} s; added up in the background in {:.0} s: {} rows by the hour\n\n",
        options.rows,
        filled.as_secs_f64(),
        folded.as_secs_f64(),
        sql(&lab, "SELECT COUNT(*) FROM tollgate.usage_hour")?,
    ));
    say(format!("{:<54}{:>9}{:>9}{:>9}{:>10}\n", "report", "best ms", "worst ms", "lines", "KiB"));
    for (name, path) in reports()? {
        say(line(&name, &ask_often(gateway.address, &path, options.times)?));
    }
    let (mut alone, mut beside, mut during) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        alone.extend(settle_rounds(options, &lab, gateway, 1)?);
        let (rates, times) = settle_beside_reports(options, &lab, gateway)?;
        beside.extend(rates);
        during.extend(times);
    }
    say("\nsettled requests per second, 64 users at once: best (all rounds)\n".to_owned());
    for (name, rates) in [
        ("without rows", &before),
        ("with the rows", &alone),
        ("with the rows, reports asked for one after the other", &beside),
    ] {
        say(format!("{name:<54}{}\n", shown(rates)));
    }
    let worst = during.iter().max().copied().unwrap_or_default();
    say(format!("reports meanwhile: {} answered, the slowest in {} ms\n", during.len(), worst.as_millis()));
    if let Some(folder) = &options.results {
        fs::create_dir_all(folder)?;
        let date = jiff::Timestamp::now().strftime("%F");
        fs::write(folder.join(format!("{date}-reports.txt")), text)?;
    }
    Ok(())
}

fn introduction(options: &Options, lab: &Lab) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "{} requests of {DAYS} days: sessions of 16 requests in 40 minutes, 1000 people, 3 models, 2 upstreams, 5 billing groups.\n\
         {cores} cores, shared by everything; loopback; each report {} times over HTTP, from the request to the last byte.\n\
         One page of 31 days covers all rows, one of 168 hours a fifth of them.\n",
        options.rows, options.times
    );
    for note in &lab.notes {
        _ = writeln!(text, "{note}");
    }
    text + "\n"
}

fn sql(lab: &Lab, statement: &str) -> Result<String> {
    Ok(lab.postgres.sql_in(DATABASE, statement)?.trim().to_owned())
}

/// Writes the rows as the gateway would have, oldest first, and waits until it has added them up.
fn fill(options: &Options, lab: &Lab) -> Result<(Duration, Duration)> {
    let sessions = options.rows.div_ceil(16);
    let span = (DAY * u32::try_from(DAYS - 1)?).as_millis();
    let began = Instant::now();
    sql(
        lab,
        &format!(
            "WITH session AS (
                SELECT s, (EXTRACT(EPOCH FROM now()) * 1000 - {span} + s * ({span} / {sessions}.0))::bigint AS began,
                       (s * 7919) % 1000 AS person
                FROM generate_series(1, {sessions}) AS s),
             request AS (
                SELECT s, person, began + n * 150000 AS at, n,
                       CASE WHEN n % 4 = 0 THEN 'claude-haiku-4-5' WHEN s % 5 = 0 THEN 'claude-opus-4-6'
                            ELSE 'claude-sonnet-4-6' END AS model,
                       (s * 31 + n * 17) % 4000 AS output, 1000 + (s * 13 + n * 7919) % 60000 AS cached
                FROM session CROSS JOIN generate_series(0, 15) AS n LIMIT {rows})
             INSERT INTO tollgate.usage
                (id, started_at, principal, groups, session_id, model, model_asked, model_sent, upstream, status,
                 input_tokens, output_tokens, cache_read, cache_write_5m, cache_write_1h, web_searches, fast, charge,
                 estimated, ms, ttfb_ms, account, day, week, month, billing_group, charge_input, charge_cache_read,
                 charge_output)
             SELECT gen_random_uuid()::text, at, 'person-' || person, '[\"engineering\",\"everyone\"]',
                    md5(s::text), model, model, model, CASE WHEN s % 9 = 0 THEN 'bedrock' ELSE 'anthropic' END, 200,
                    25, output, cached, 0, 0, 0, 0, 75000 + cached * 300 + output * 15000, 0, 4000, 900,
                    'user:person-' || person, to_char(to_timestamp(at / 1000.0), 'YYYY-MM-DD'), 'w', 'm',
                    'team-' || person % 5, 75000, cached * 300, output * 15000
             FROM request ORDER BY at",
            rows = options.rows
        ),
    )?;
    // As its background tasks would have left it after a month of growing.
    sql(lab, "VACUUM ANALYZE tollgate.usage")?;
    let filled = began.elapsed();
    let began = Instant::now();
    sql(lab, "DELETE FROM tollgate.usage_hour; UPDATE tollgate.usage_fold SET until = 0")?;
    let behind = "SELECT EXTRACT(EPOCH FROM now()) * 1000 - until > 3 * 3600000 FROM tollgate.usage_fold";
    let mut first = None;
    while sql(lab, behind)? == "t" {
        if sql(lab, "SELECT until = 0 FROM tollgate.usage_fold")? == "f" {
            first.get_or_insert_with(Instant::now);
        }
        ensure!(began.elapsed() < Duration::from_secs(600), "the gateway did not add the rows up within ten minutes");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok((filled, first.unwrap_or(began).elapsed()))
}

/// Every grouping of both reports by itself, and what people ask for.
fn reports() -> Result<Vec<(String, String)>> {
    let from = |days: u64| (jiff::Timestamp::now() - DAY * u32::try_from(days).unwrap_or(1)).strftime("%F").to_string();
    let month = format!("starting_at={}T00:00:00Z&limit=31", from(DAYS - 1));
    let week = format!("starting_at={}T00:00:00Z&bucket_width=1h&limit=168", from(6));
    let day = format!("starting_at={}T00:00:00Z&bucket_width=1m&limit=1440", from(1));
    let by = |words: &str| words.split_whitespace().map(|word| format!("&group_by[]={word}")).collect::<String>();
    let (usage, cost) = ("/v1/organizations/usage_report/messages", "/v1/organizations/cost_report");
    let mut all = Vec::new();
    let singles = "account_id api_key_id context_window inference_geo model service_account_id service_tier session_id speed \
                   upstream workspace_id";
    all.push(("usage by day".to_owned(), format!("{usage}?{month}")));
    for words in
        singles.split_whitespace().chain(["account_id model", "workspace_id model upstream speed context_window"])
    {
        all.push((format!("usage by day, {words}"), format!("{usage}?{month}{}", by(words))));
    }
    all.push(("usage by day, of one person".to_owned(), format!("{usage}?{month}&account_ids[]=person-7")));
    for words in ["", "model", "account_id model", "session_id"] {
        all.push((format!("usage by hour of a week, {words}"), format!("{usage}?{week}{}", by(words))));
        all.push((format!("usage by minute of a day, {words}"), format!("{usage}?{day}{}", by(words))));
    }
    for words in [
        "",
        "account_id",
        "description",
        "upstream",
        "workspace_id",
        "account_id description",
        "workspace_id description",
    ] {
        all.push((format!("cost by day, {words}"), format!("{cost}?{month}{}", by(words))));
    }
    for words in ["account_id", "account_id description"] {
        all.push((format!("cost by day, {words}, CSV"), format!("{cost}?{month}{}&format=csv", by(words))));
    }
    let text = "usage by day, account_id model, CSV".to_owned();
    all.push((text, format!("{usage}?{month}{}&format=csv", by("account_id model"))));
    Ok(all)
}

/// An answer, and how long it took.
struct Asked {
    took: Vec<Duration>,
    lines: usize,
    bytes: usize,
}

fn ask_often(gateway: SocketAddr, path: &str, times: usize) -> Result<Asked> {
    let mut asked = Asked { took: Vec::new(), lines: 0, bytes: 0 };
    for _ in 0..times {
        let began = Instant::now();
        let answer = ask(gateway, path)?;
        asked.took.push(began.elapsed());
        asked.bytes = answer.len();
        let results = answer.windows(11).filter(|window| window == b"\"requests\":").count();
        // A CSV says the word in its header only.
        let ends = answer.iter().filter(|byte| **byte == b'\n').count();
        asked.lines = results.max(ends.saturating_sub(1));
    }
    asked.took.sort();
    Ok(asked)
}

fn line(name: &str, asked: &Asked) -> String {
    let ms = |took: Option<&Duration>| took.map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0);
    let (best, worst) = (ms(asked.took.first()), ms(asked.took.last()));
    format!("{name:<54}{best:>9.0}{worst:>9.0}{:>9}{:>10}\n", asked.lines, asked.bytes / 1024)
}

/// The body of a GET that is answered 200.
fn ask(gateway: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut connection = TcpStream::connect(gateway)?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {gateway}\r\nconnection: close\r\nx-api-key: {ADMIN_KEY}\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    connection.read_to_end(&mut received)?;
    let start = http1::end_of_head(&received).context("no answer")?;
    let status = http1::parse_head(&received[..start])?.status()?;
    let body = received.split_off(start);
    match status {
        200 => Ok(body),
        status => bail!("{path} is answered {status}: {}", String::from_utf8_lossy(&body)),
    }
}

fn settle(options: &Options, lab: &Lab, gateway: &Peer) -> Result<Vec<f64>> {
    settle_rounds(options, lab, gateway, options.rounds)
}

/// Requests per second that came to a row, not only to an answer.
fn settle_rounds(options: &Options, lab: &Lab, gateway: &Peer, rounds: usize) -> Result<Vec<f64>> {
    let bearers = gateway.bearers(&lab.site, "developer", 64)?;
    let arguments = ["--connections=64".to_owned(), "--warm-up=1".to_owned(), format!("--seconds={}", options.seconds)];
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let rows =
            || -> Result<f64> { Ok(sql(lab, "SELECT COUNT(*) FROM tollgate.usage WHERE ms IS NOT NULL")?.parse()?) };
        let before = rows()?;
        let report: Report = run_load(gateway, &bearers, &arguments)?;
        ensure!(report.errors.is_empty(), "requests failed: {:?}", report.errors);
        // What is settled is behind by milliseconds.
        std::thread::sleep(Duration::from_millis(500));
        let settled = rows()? - before;
        ensure!(
            settled >= to_f64(report.completed),
            "{} answers and {settled} rows in {:?}",
            report.completed,
            began.elapsed()
        );
        rates.push(report.per_second);
    }
    Ok(rates)
}

fn settle_beside_reports(options: &Options, lab: &Lab, gateway: &Peer) -> Result<(Vec<f64>, Vec<Duration>)> {
    let ended = AtomicBool::new(false);
    let paths = reports()?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| -> Result<Vec<Duration>> {
            let mut times = Vec::new();
            for (_, path) in paths.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                ask(gateway.address, path)?;
                times.push(began.elapsed());
                // Somebody reads it.
                std::thread::sleep(Duration::from_millis(500));
            }
            Ok(times)
        });
        let rates = settle_rounds(options, lab, gateway, 1);
        ended.store(true, Ordering::Relaxed);
        let times = reading.join().unwrap_or_else(|_| bail!("the reader's thread panicked"))?;
        Ok((rates?, times))
    })
}

fn shown(rates: &[f64]) -> String {
    let best = rates.iter().copied().fold(0.0, f64::max);
    let all: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    format!("{best:>9.0}  ({})", all.join(", "))
}

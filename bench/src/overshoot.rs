//! Overshoot: how many dollars get past a cap when requests arrive together.
//! Knows the arithmetic of one case; knows nothing of how a gateway decides.

use crate::control;
use crate::lab::{Extra, Lab, Programs};
use crate::measure::{Report, to_f64};
use crate::peer::{Cap, Peer};
use crate::prompt::CAPPED_MODEL;
use crate::run::run_load;
use crate::script::Script;
use anyhow::{Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `bench overshoot`
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Requests sent at once.
    #[arg(long, default_value_t = 50)]
    requests: usize,
    /// Name of this measurement in its file, DATE-NAME.txt.
    #[arg(long, default_value = "overshoot")]
    what: String,
    /// Folder for that file; left out, the table is only printed.
    #[arg(long)]
    results: Option<PathBuf>,
}

/// The cap: two cents a month, for one user or for a group's pool.
const CAP_CENTS: u64 = 2;
const CAP_MILLIDOLLARS: u64 = 20;
/// One request: 500 input tokens at $1 and 1100 output tokens at $5 a million.
const COST_MILLIDOLLARS: u64 = 6;

/// One way for requests to arrive together.
struct Case {
    /// For people; with dashes for spaces it names the user or the group.
    name: String,
    script: Script,
    stream: bool,
    /// The cap is the pool of a group and its members ask; else it is that of the one user who asks.
    pool: bool,
    replicas: usize,
}

/// Measures and prints, and keeps what was printed.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let lab = Lab::open(&options.programs, Extra::CapsInEveryWay)?;
    let mut text = introduction(options, &lab);
    print!("{text}");
    for gateway in lab.gateways() {
        let cases: Vec<Case> =
            cases().into_iter().filter(|case| case.replicas == 1 || gateway.replica.is_some()).collect();
        for case in &cases {
            gateway.cap(case.cap(&case.account()), CAP_CENTS)?;
        }
        // Time for the other replica to hear of the caps.
        std::thread::sleep(Duration::from_secs(2));
        for case in &cases {
            let line = measure(options, &lab, gateway, case)?;
            print!("{line}");
            text += &line;
        }
    }
    if let Some(folder) = &options.results {
        fs::create_dir_all(folder)?;
        let date = jiff::Timestamp::now().strftime("%F");
        fs::write(folder.join(format!("{date}-{}.txt", options.what)), text)?;
    }
    Ok(())
}

fn introduction(options: &Options, lab: &Lab) -> String {
    let mut text = format!(
        "{} requests of $0.006 at once under a cap of $0.02; bodies of 500 bytes and max_tokens 1100 bound what is billed.\n\
         seat: one user with a cap. pool: members of a group that shares the cap.\n\
         x2: half of the requests to each of two replicas on one database. strict: with enforcement.overshoot: none.\n\
         through: what reached the upstream. past: what of it lies past the cap. ledger: what the gateway says was spent.\n\
         later: what one more request gets after all were settled; it counts too when it gets through.\n",
        options.requests
    );
    for note in &lab.notes {
        _ = writeln!(text, "{note}");
    }
    _ = writeln!(
        text,
        "\n{:<23}{:<24}{:>9}{:>10}{:>10}{:>14}  {:<12}answers",
        "", "", "requests", "through", "past", "ledger cents", "later"
    );
    text
}

fn cases() -> Vec<Case> {
    let instant = Script {
        events: 10,
        input_tokens: 500,
        cache_read_tokens: 0,
        output_tokens: 1100,
        model: CAPPED_MODEL.to_owned(),
        ..Script::default()
    };
    let slow = Script { delay_ms: 500, spacing_ms: 100, ..instant.clone() };
    let mut cases = Vec::new();
    for replicas in [1, 2] {
        for (account, pool) in [("seat", false), ("pool", true)] {
            for (speed, script) in [("instant", &instant), ("slow", &slow)] {
                for (kind, stream) in [("json", false), ("stream", true)] {
                    let name = format!("{account} x{replicas} {speed} {kind}");
                    cases.push(Case { name, script: script.clone(), stream, pool, replicas });
                }
            }
        }
    }
    cases
}

impl Case {
    /// The user or group that is capped.
    fn account(&self) -> String {
        self.name.replace(' ', "-") + if self.pool { "" } else { "0" }
    }

    fn cap<'a>(&self, account: &'a str) -> Cap<'a> {
        if self.pool { Cap::Pool(account) } else { Cap::Seat(account) }
    }
}

/// What the load generators heard: how many times each answer.
type Answers = BTreeMap<String, u64>;

fn measure(options: &Options, lab: &Lab, gateway: &Peer, case: &Case) -> Result<String> {
    control::set_script(lab.site.upstream, &case.script)?;
    let (account, prefix) = (case.account(), case.name.replace(' ', "-"));
    let bearers = if case.pool {
        gateway.bearers_in(&lab.site, &account, &prefix, options.requests)?
    } else {
        gateway.bearers(&lab.site, &prefix, 1)?
    };
    let replicas: Vec<&Peer> = std::iter::once(gateway).chain(gateway.replica.as_deref()).take(case.replicas).collect();

    let before = control::seen(lab.site.upstream)?.requests;
    let answers = send(case, &replicas, &bearers, options.requests)?;
    std::thread::sleep(Duration::from_secs(1)); // Metering is allowed to trail the answer.
    let ledger = gateway.spent(case.cap(&account))?;
    let later = send(case, &replicas[..1], &bearers, 1)?;
    let through = control::seen(lab.site.upstream)?.requests - before;

    let spent = through * COST_MILLIDOLLARS;
    let past = spent.saturating_sub(CAP_MILLIDOLLARS);
    let answers: Vec<String> = answers.iter().map(|(answer, count)| format!("{answer}: {count}")).collect();
    let later: Vec<&str> = later.keys().map(String::as_str).collect();
    Ok(format!(
        "{:<23}{:<24}{through:>9}{:>10}{:>10}{ledger:>14}  {:<12}{}\n",
        gateway.name,
        case.name,
        format!("${:.3}", to_f64(spent) / 1000.0),
        format!("${:.3}", to_f64(past) / 1000.0),
        later.join(", "),
        answers.join(", "),
    ))
}

/// Sends that many requests at once, shared out among the replicas.
fn send(case: &Case, replicas: &[&Peer], bearers: &Path, requests: usize) -> Result<Answers> {
    let count = requests / replicas.len();
    let mut arguments = vec![format!("--connections={count}"), format!("--requests={count}"), "--prompt=capped".into()];
    if case.stream {
        arguments.push("--stream".into());
    }
    let arguments = &arguments;
    let reports: Vec<Result<Report>> = std::thread::scope(|scope| {
        let load = |peer| scope.spawn(move || run_load(peer, bearers, arguments));
        let loads: Vec<_> = replicas.iter().map(|peer| load(*peer)).collect();
        let ended = loads.into_iter().map(|load| load.join());
        ended.map(|report| report.unwrap_or_else(|_| bail!("a load generator's thread panicked"))).collect()
    });
    let mut answers = Answers::new();
    for report in reports {
        let report = report?;
        for (answer, count) in report.errors.into_iter().chain([("status 200".to_owned(), report.completed)]) {
            *answers.entry(answer).or_default() += count;
        }
    }
    answers.retain(|_, count| *count > 0);
    Ok(answers)
}

//! Overshoot: how many dollars get past a cap when requests arrive together.
//! Knows the arithmetic of one case; knows nothing of how a gateway decides.

use crate::control;
use crate::lab::{Lab, Programs};
use crate::measure::{Report, to_f64};
use crate::peer::Peer;
use crate::run::run_load;
use crate::script::Script;
use anyhow::Result;
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
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

/// The cap: two cents a month for every user.
const CAP_CENTS: u64 = 2;
const CAP_MILLIDOLLARS: u64 = 20;
/// One request: 500 input tokens at $3 and 300 output tokens at $15 a million.
const COST_MILLIDOLLARS: u64 = 6;

/// One way for requests to arrive together.
struct Case {
    name: &'static str,
    stream: bool,
    script: Script,
}

/// Measures and prints, and keeps what was printed.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let lab = Lab::open(&options.programs, false, false)?;
    let mut text = format!(
        "{} requests of $0.006 at once by one user whose cap is $0.02; bodies of 2000 bytes and max_tokens 300 bound what is billed.\n\
         through: what reached the upstream. past: what of it lies past the cap. ledger: what the gateway says was spent.\n\
         later: what one more request gets after all were settled; it counts too when it gets through.\n",
        options.requests
    );
    for note in &lab.notes {
        _ = writeln!(text, "{note}");
    }
    _ = writeln!(
        text,
        "\n{:<16} {:<16}{:>9}{:>10}{:>10}{:>14}  {:<12} answers",
        "", "", "requests", "through", "past", "ledger cents", "later"
    );
    print!("{text}");
    for gateway in lab.gateways() {
        gateway.cap(CAP_CENTS)?;
        for case in cases() {
            let line = measure(options, &lab, gateway, &case)?;
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

fn cases() -> [Case; 4] {
    let instant =
        Script { events: 10, input_tokens: 500, cache_read_tokens: 0, output_tokens: 300, ..Script::default() };
    let slow = Script { delay_ms: 500, spacing_ms: 100, ..instant.clone() };
    [
        Case { name: "instant json", stream: false, script: instant.clone() },
        Case { name: "instant stream", stream: true, script: instant },
        Case { name: "slow json", stream: false, script: slow.clone() },
        Case { name: "slow stream", stream: true, script: slow },
    ]
}

fn measure(options: &Options, lab: &Lab, gateway: &Peer, case: &Case) -> Result<String> {
    control::set_script(lab.site.upstream, &case.script)?;
    let user = case.name.replace(' ', "-");
    let bearers = gateway.bearers(&lab.site, &user, 1)?;
    let send = |count: usize| {
        let mut arguments =
            vec![format!("--connections={count}"), format!("--requests={count}"), "--prompt=capped".into()];
        if case.stream {
            arguments.push("--stream".into());
        }
        run_load(gateway, &bearers, &arguments)
    };
    let before = control::seen(lab.site.upstream)?.requests;
    let report = send(options.requests)?;
    std::thread::sleep(Duration::from_secs(1)); // Metering is allowed to trail the answer.
    let ledger = gateway.spent(&format!("{user}0"))?;
    let later = send(1)?;
    let through = control::seen(lab.site.upstream)?.requests - before;

    let spent = through * COST_MILLIDOLLARS;
    let past = spent.saturating_sub(CAP_MILLIDOLLARS);
    let answers = |report: &Report| {
        let mut answers = vec![format!("status 200: {}", report.completed)];
        answers.extend(report.errors.iter().map(|(error, count)| format!("{error}: {count}")));
        answers.retain(|answer| answer != "status 200: 0");
        answers.join(", ")
    };
    Ok(format!(
        "{:<16} {:<16}{through:>9}{:>10}{:>10}{ledger:>14}  {:<12} {}\n",
        gateway.name,
        case.name,
        format!("${:.3}", to_f64(spent) / 1000.0),
        format!("${:.3}", to_f64(past) / 1000.0),
        answers(&later).replace(": 1", ""),
        answers(&report),
    ))
}

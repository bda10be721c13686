//! Reports: measurements as a table of ratios.
//! Knows rows and columns; knows nothing of how they were measured.

use crate::measure::{Report, to_f64};
use std::fmt::Write as _;

/// All rounds of one peer under one load.
pub(crate) struct Row {
    /// The peer.
    pub(crate) peer: &'static str,
    /// One report per round.
    pub(crate) rounds: Vec<Report>,
}

impl Row {
    /// The median over the rounds of one figure.
    pub(crate) fn median(&self, figure: impl Fn(&Report) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn cpu(&self, name: &str) -> f64 {
        self.median(|round| round.used(name).map_or(f64::NAN, |used| used.cpu_micros_per_request))
    }

    fn peak_mib(&self) -> f64 {
        let peaks = self.rounds.iter().filter_map(|round| round.used("peer")).map(|used| used.peak_rss_kib);
        peaks.max().map_or(f64::NAN, |kib| to_f64(kib) / 1024.0)
    }

    fn errors(&self) -> String {
        let mut all = std::collections::BTreeMap::<&str, u64>::new();
        for (error, count) in self.rounds.iter().flat_map(|round| &round.errors) {
            *all.entry(error).or_default() += count;
        }
        all.iter().map(|(error, count)| format!("  {error}: {count}")).collect()
    }
}

/// One line per peer: rates, times and costs.
pub(crate) fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!("{title}\n");
    _ = writeln!(
        text,
        "  {:<16}{:>10} {:>17} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "",
        "per s",
        "(min-max)",
        "p50 ms",
        "p99 ms",
        "ttfb p50",
        "ttfb p99",
        "cpu us",
        "db us",
        "load us",
        "mock us",
        "MiB"
    );
    for row in rows {
        let rates = || row.rounds.iter().map(|round| round.per_second);
        let (low, high) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        _ = writeln!(
            text,
            "  {:<16}{:>10} {:>17} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}{}",
            row.peer,
            number(row.median(|round| round.per_second)),
            format!("({}-{})", number(low), number(high)),
            number(row.median(|round| round.latency.p50)),
            number(row.median(|round| round.latency.p99)),
            number(row.median(|round| round.first_byte.p50)),
            number(row.median(|round| round.first_byte.p99)),
            number(row.cpu("peer")),
            number(row.cpu("database")),
            number(row.cpu("load")),
            number(row.cpu("upstream")),
            number(row.peak_mib()),
            row.errors(),
        );
    }
    text
}

/// One line per gateway: its figures as multiples of nginx's and the reference's.
pub(crate) fn ratios(rows: &[Row], added: bool) -> String {
    let find = |name: &str| rows.iter().find(|row| row.peer == name);
    let floor = find("direct").map_or(0.0, |row| row.median(|round| round.latency.p50));
    let mut text = String::new();
    for against in ["nginx", "reference"] {
        let Some(base) = find(against) else { continue };
        for row in rows.iter().filter(|row| row.peer != against && !matches!(row.peer, "direct" | "nginx")) {
            _ = write!(text, "  {:<16} to {against:<10}", row.peer);
            let mut part = |name: &str, figure: &dyn Fn(&Row) -> f64| {
                _ = write!(text, "  {name} x{}", number(figure(row) / figure(base)));
            };
            if added {
                part("added latency", &|row| row.median(|round| round.latency.p50) - floor);
            } else {
                part("throughput", &|row| row.median(|round| round.per_second));
            }
            part("cpu", &|row| row.cpu("peer"));
            part("cpu with database", &|row| {
                row.cpu("peer") + Some(row.cpu("database")).filter(|us| us.is_finite()).unwrap_or(0.0)
            });
            part("peak memory", &Row::peak_mib);
            part("ttfb p50", &|row| row.median(|round| round.first_byte.p50));
            part("ttfb p99", &|row| row.median(|round| round.first_byte.p99));
            text.push('\n');
        }
    }
    text
}

/// Three significant digits, a dash for what was not measured.
fn number(value: f64) -> String {
    if !value.is_finite() {
        "-".into()
    } else if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else if value.abs() >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

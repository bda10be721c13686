//! Measure: what one load learnt, per connection and in sum.
//! Knows samples and quantiles; knows nothing of connections or gateways.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The samples of one connection. Times are microseconds since the request was begun.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Time to the last byte of each whole answer with status 200.
    pub(crate) latencies: Vec<u32>,
    /// Time to the first byte of the body of each answer with status 200, whole or not.
    pub(crate) first_bytes: Vec<u32>,
    /// What went wrong, by name: `status 429`, `cut`, `refused`, `unfinished`.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Bytes of body received.
    pub(crate) body_bytes: u64,
}

impl Tally {
    /// Adds the samples of another connection.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.first_bytes.extend(other.first_bytes);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.body_bytes += other.body_bytes;
    }

    /// Whole answers.
    pub(crate) fn completed(&self) -> f64 {
        to_f64(self.latencies.len() as u64)
    }

    /// Requests that brought a first byte or failed.
    pub(crate) fn begun_or_failed(&self) -> u64 {
        let failed: u64 = self.errors.iter().filter(|(name, _)| *name != "unfinished").map(|(_, count)| count).sum();
        self.first_bytes.len() as u64 + failed
    }

    /// Counts one failure.
    pub(crate) fn fail(&mut self, error: &str) {
        *self.errors.entry(error.to_owned()).or_default() += 1;
    }
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// Half of the samples are at most this.
    pub(crate) p50: f64,
    /// Nine in ten.
    pub(crate) p90: f64,
    /// Ninety-nine in a hundred.
    pub(crate) p99: f64,
    /// All of them.
    pub(crate) max: f64,
}

impl Quantiles {
    /// The quantiles of samples in microseconds; zeroes when there are none.
    pub(crate) fn of(mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1) - 1;
            samples.get(rank).map_or(0.0, |&micros| f64::from(micros) / 1000.0)
        };
        Self { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// What a watched process and its descendants used during the measured window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Used {
    /// The name given with the process id.
    pub(crate) name: String,
    /// CPU time, user and system, in seconds.
    pub(crate) cpu_seconds: f64,
    /// CPU time per whole answer, in microseconds.
    pub(crate) cpu_micros_per_request: f64,
    /// The highest resident memory of each process since the load began, summed, in KiB.
    pub(crate) peak_rss_kib: u64,
}

/// The result of one load. Printed as JSON by `bench load --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Connections held open at once.
    pub(crate) connections: usize,
    /// Length of the measured window in seconds.
    pub(crate) seconds: f64,
    /// Whole answers with status 200 in the window.
    pub(crate) completed: u64,
    /// The same per second.
    pub(crate) per_second: f64,
    /// Failures by name.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Time to the last byte.
    pub(crate) latency: Quantiles,
    /// Time to the first byte of the body.
    pub(crate) first_byte: Quantiles,
    /// Bytes of body received.
    pub(crate) body_bytes: u64,
    /// CPU and memory of the watched processes, this load generator last.
    pub(crate) used: Vec<Used>,
}

impl Report {
    /// Sums up one load.
    pub(crate) fn new(connections: usize, seconds: f64, sum: Tally, used: Vec<Used>) -> Self {
        Self {
            connections,
            seconds,
            completed: sum.latencies.len() as u64,
            per_second: sum.completed() / seconds,
            errors: sum.errors,
            latency: Quantiles::of(sum.latencies),
            first_byte: Quantiles::of(sum.first_bytes),
            body_bytes: sum.body_bytes,
            used,
        }
    }

    /// What the watched process of that name used.
    pub(crate) fn used(&self, name: &str) -> Option<&Used> {
        self.used.iter().find(|used| used.name == name)
    }

    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let quantiles = |name: &str, q: &Quantiles| {
            format!("{name:<12}p50 {:>9.3}  p90 {:>9.3}  p99 {:>9.3}  max {:>9.3} ms\n", q.p50, q.p90, q.p99, q.max)
        };
        let mut text = format!(
            "{} whole answers in {:.2} s over {} connections: {:.1} per second, {} bytes of body\n",
            self.completed, self.seconds, self.connections, self.per_second, self.body_bytes
        );
        text += &quantiles("latency", &self.latency);
        text += &quantiles("first byte", &self.first_byte);
        for (error, count) in &self.errors {
            text += &format!("error       {error}: {count}\n");
        }
        for used in &self.used {
            text += &format!(
                "{:<12}{:.2} s of CPU, {:.1} us per request, peak {:.1} MiB resident\n",
                used.name,
                used.cpu_seconds,
                used.cpu_micros_per_request,
                to_f64(used.peak_rss_kib) / 1024.0
            );
        }
        text
    }
}

/// A count as a float; counts here stay far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of requests and KiB stay far below 2^52")]
pub(crate) const fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_nearest_rank() {
        let hundred = Quantiles::of((1..=100).rev().map(|millis| millis * 1000).collect());
        assert_eq!((hundred.p50, hundred.p90, hundred.p99, hundred.max), (50.0, 90.0, 99.0, 100.0));
        let one = Quantiles::of(vec![7000]);
        assert_eq!((one.p50, one.p99), (7.0, 7.0));
        assert_eq!(Quantiles::of(Vec::new()).max, 0.0);
    }
}

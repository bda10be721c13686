//! `timeouts`, and what an upstream may say of its own: `timeouts`, `failover_on` and `breaker`.

use std::time::Duration;

use proxy::upstream::{Breaker, Class, FailoverOn, Timeouts, Trigger};

use super::problem::did_you_mean;
use super::read::{Field, Mapping, all};
use super::reference::{Section, key};

pub(super) const TIMEOUTS: Section = Section {
    path: "timeouts",
    about: "Time limits of upstream requests, where an upstream has none of its own.",
    keys: &[
        key(
            "upstream_connect_ms",
            "whole number from 1 to 10000",
            "5000",
            "How long a connection may take, TLS included.",
        ),
        key(
            "upstream_ttfb_ms",
            "whole number above 0",
            "120000",
            "How long an upstream may take to send response headers.",
        ),
        key("upstream_idle_ms", "whole number above 0", "300000", "How long an answer may pause."),
    ],
    later: &[],
};

pub(super) const OWN_TIMEOUTS: Section = Section {
    path: "upstreams[].timeouts",
    about: "Time limits of this upstream.",
    keys: &[
        key("connect_ms", "whole number from 1 to 10000", "`timeouts.upstream_connect_ms`", "As there."),
        key("ttfb_ms", "whole number above 0", "`timeouts.upstream_ttfb_ms`", "As there."),
        key("idle_ms", "whole number above 0", "`timeouts.upstream_idle_ms`", "As there."),
    ],
    later: &[],
};

pub(super) const BREAKER: Section = Section {
    path: "upstreams[].breaker",
    about: "When an upstream that fails is left alone, for each of its models. `docs/upstreams/failover.md` tells more.",
    keys: &[
        key("enabled", "boolean", "true", "`false`: it is asked whatever came of it before."),
        key("consecutive_failures", "whole number above 0", "5", "So many failures in a row, or ..."),
        key("failure_percent", "whole number from 1 to 100", "50", "... such a share of the recent attempts ..."),
        key("minimum_requests", "whole number above 0", "20", "... once there were so many of them ..."),
        key("window_seconds", "whole number from 1 to 3600", "30", "... within this to twice this time."),
        key(
            "open_seconds",
            "whole number from 1 to 300",
            "10",
            "How long it is left alone before one request finds out; twice as long after each failed trial, at most 300.",
        ),
    ],
    later: &[],
};

/// The connector gives up by itself after so long.
const LONGEST_CONNECT_MS: u64 = 10_000;

/// The `timeouts` section, or what stands without it.
pub(super) fn read_timeouts(field: Option<Field<'_>>) -> Option<Timeouts> {
    let Some(field) = field else { return Some(Timeouts::default()) };
    let names = ["upstream_connect_ms", "upstream_ttfb_ms", "upstream_idle_ms"];
    times(&field.mapping(&TIMEOUTS)?, names, Timeouts::default())
}

/// An upstream's own `timeouts`; what it does not say is as in `general`.
pub(super) fn read_own_timeouts(upstream: &Mapping<'_>, general: Timeouts) -> Option<Timeouts> {
    let names = ["connect_ms", "ttfb_ms", "idle_ms"];
    upstream.or("timeouts", general, |field| times(&field.mapping(&OWN_TIMEOUTS)?, names, general))
}

fn times(mapping: &Mapping<'_>, [connect, first_byte, idle]: [&str; 3], default: Timeouts) -> Option<Timeouts> {
    let read =
        |name, default, most| mapping.or(name, default, |field| field.whole(1..=most).map(Duration::from_millis));
    let connect = read(connect, default.connect, LONGEST_CONNECT_MS);
    let first_byte = read(first_byte, default.first_byte, u64::from(u32::MAX));
    let idle = read(idle, default.idle, u64::from(u32::MAX));
    Some(Timeouts { connect: connect?, first_byte: first_byte?, idle: idle? })
}

/// `failover_on`.
pub(super) fn read_failover_on(upstream: &Mapping<'_>) -> Option<FailoverOn> {
    upstream.or("failover_on", FailoverOn::default(), |field| {
        let triggers = all(field.some_items("kind of failure or status")?.iter().map(read_trigger));
        triggers.map(FailoverOn::new)
    })
}

fn read_trigger(field: &Field<'_>) -> Option<Trigger> {
    let written = field.any_string()?;
    if let Ok(status) = written.parse() {
        if (400..=599).contains(&status) {
            return Some(Trigger::Status(status));
        }
        field.refuse("a status must be one of an error, from 400 to 599");
        return None;
    }
    if written == "default" {
        return Some(Trigger::Default);
    }
    let class = Class::LISTED.into_iter().find(|class| class.as_str() == written);
    if class.is_none() {
        let names = || Class::LISTED.into_iter().map(Class::as_str).chain(["default"]);
        match did_you_mean(&written, names()) {
            Some(meant) => field.refuse(format!("unknown kind of failure; did you mean {meant}?")),
            None => field.refuse(format!(
                "unknown kind of failure; write a status, or one of {}",
                names().collect::<Vec<_>>().join(", ")
            )),
        }
    }
    class.map(Trigger::Class)
}

/// `breaker`; `Some(None)` where it is off.
pub(super) fn read_breaker(upstream: &Mapping<'_>) -> Option<Option<Breaker>> {
    upstream.or("breaker", Some(Breaker::default()), |field| {
        let breaker = field.mapping(&BREAKER)?;
        let default = Breaker::default();
        let number = |name, default: u32, most: u32| {
            let read = breaker.or(name, u64::from(default), |field| field.whole(1..=u64::from(most)));
            read.and_then(|number| u32::try_from(number).ok())
        };
        let seconds = |name, default: Duration, most| {
            breaker.or(name, default, |field| field.whole(1..=most).map(Duration::from_secs))
        };
        let enabled = breaker.or("enabled", true, Field::flag);
        let consecutive_failures = number("consecutive_failures", default.consecutive_failures, u32::MAX);
        let failure_percent = number("failure_percent", default.failure_percent, 100);
        let minimum_requests = number("minimum_requests", default.minimum_requests, u32::MAX);
        let window = seconds("window_seconds", default.window, 3600);
        let open_for = seconds("open_seconds", default.open_for, 300);
        let read = Breaker {
            consecutive_failures: consecutive_failures?,
            failure_percent: failure_percent?,
            minimum_requests: minimum_requests?,
            window: window?,
            open_for: open_for?,
        };
        Some(enabled?.then_some(read))
    })
}

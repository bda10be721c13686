//! `access_control`, `limits` and `rate_limits`: who gets in, and how much at once.

use std::time::Duration;

use control::limit::RateLimit;
use ipnet::IpNet;
use proxy::inference::MOST;

use super::listen::read_networks;
use super::read::{Field, Mapping};
use super::reference::{Section, key};

/// The `access_control:` section.
#[derive(Debug, Clone, Default)]
pub struct AccessControl {
    /// `allow_cidrs`; empty: everyone.
    pub allow: Vec<IpNet>,
    /// `deny_cidrs`, which win.
    pub deny: Vec<IpNet>,
}

/// The `limits:` section.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request body in bytes.
    pub max_request_bytes: u64,
    /// Largest request head in bytes; `None`: as large as the server reads.
    pub max_request_header_bytes: Option<usize>,
    /// Longest request target in bytes; `None`: as long as the server reads.
    pub max_url_length: Option<usize>,
    /// Most requests of inference at once.
    pub max_concurrent_requests: usize,
    /// Most of one person; `None`: as many as there may be.
    pub max_concurrent_per_user: Option<usize>,
}

/// The `rate_limits:` section: each for one client address, but for refreshes.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits {
    /// `POST /oauth/device_authorization`.
    pub device_authorization: RateLimit,
    /// `POST /device` and `POST /device/deny`.
    pub device_verify: RateLimit,
    /// Refreshes, for one session.
    pub refresh: RateLimit,
    /// Credentials that the admin API refused.
    pub admin_auth: RateLimit,
}

pub(super) const ACCESS_CONTROL: Section = Section {
    path: "access_control",
    about: "Client addresses that get in, judged after `listen.trusted_proxies`.",
    keys: &[
        key("allow_cidrs", "list of addresses and networks", "[]", "Only these get in, save to the health checks."),
        key("deny_cidrs", "list of addresses and networks", "[]", "These never get in, whatever `allow_cidrs` says."),
    ],
    later: &[],
};

pub(super) const LIMITS: Section = Section {
    path: "limits",
    about: "Largest requests, and how many at once.",
    keys: &[
        key("max_request_bytes", "whole number above 0", "33554432", "Largest body; a larger one gets 413."),
        key("max_request_header_bytes", "whole number above 0", "", "Largest head; a larger one gets 431."),
        key(
            "max_url_length",
            "whole number above 0",
            "",
            "Longest URL; a longer one gets 414. The identity provider's redirect back needs about 1000.",
        ),
        key(
            "max_concurrent_requests",
            "whole number above 0",
            "4096",
            "Most requests of inference that a replica serves at once; one more gets 529 at once.",
        ),
        key(
            "max_concurrent_per_user",
            "whole number above 0",
            "",
            "Most of one person on a replica; one more gets 429 at once.",
        ),
    ],
    later: &[],
};

pub(super) const RATE_LIMITS: Section = Section {
    path: "rate_limits",
    about: "How often one client address, or one session, may ask, counted over all replicas.",
    keys: &[
        key("device_authorization", "mapping", "30 in 600 s", "Sign-ins started."),
        key("device_verify", "mapping", "10 in 600 s", "Codes submitted."),
        key("refresh", "mapping", "60 in 600 s", "Refreshes of one session."),
        key(
            "admin_auth",
            "mapping",
            "30 in 600 s",
            "Wrong keys and bearers sent to the admin API; past it, the address waits whatever it sends.",
        ),
    ],
    later: &[],
};

pub(super) const RATE_LIMIT: Section = Section {
    path: "rate_limits.device_authorization, rate_limits.device_verify, rate_limits.refresh, rate_limits.admin_auth",
    about: "A window begins with its first hit.",
    keys: &[
        key("max", "whole number above 0", "as above", "Hits in a window."),
        key("window_seconds", "whole number above 0", "600", "Length of a window."),
    ],
    later: &[],
};

const DEFAULT_BODY: u64 = 32 << 20;

pub(super) fn read_access_control(field: &Field<'_>) -> Option<AccessControl> {
    let access = field.mapping(&ACCESS_CONTROL)?;
    let allow = access.or("allow_cidrs", Vec::new(), read_networks);
    let deny = access.or("deny_cidrs", Vec::new(), read_networks);
    Some(AccessControl { allow: allow?, deny: deny? })
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: DEFAULT_BODY,
            max_request_header_bytes: None,
            max_url_length: None,
            max_concurrent_requests: MOST,
            max_concurrent_per_user: None,
        }
    }
}

pub(super) fn read_limits(field: &Field<'_>) -> Option<Limits> {
    let limits = field.mapping(&LIMITS)?;
    let bytes = |field: &Field<'_>| field.whole(1..=u64::MAX);
    // A limit beyond the address space is none that anything could reach.
    let size = |field: &Field<'_>| bytes(field).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let body = limits.or("max_request_bytes", DEFAULT_BODY, bytes);
    let head = limits.maybe("max_request_header_bytes", size);
    let url = limits.maybe("max_url_length", size);
    let at_once = limits.or("max_concurrent_requests", MOST, size);
    let each = limits.maybe("max_concurrent_per_user", size);
    Some(Limits {
        max_request_bytes: body?,
        max_request_header_bytes: head?,
        max_url_length: url?,
        max_concurrent_requests: at_once?,
        max_concurrent_per_user: each?,
    })
}

impl Default for RateLimits {
    fn default() -> Self {
        let limit = |max| RateLimit { max, window: Duration::from_secs(600) };
        Self { device_authorization: limit(30), device_verify: limit(10), refresh: limit(60), admin_auth: limit(30) }
    }
}

pub(super) fn read_rate_limits(field: &Field<'_>) -> Option<RateLimits> {
    let limits = field.mapping(&RATE_LIMITS)?;
    let default = RateLimits::default();
    let read = |key, default| limits.or(key, default, |field| read_rate_limit(&field.mapping(&RATE_LIMIT)?, default));
    let device_authorization = read("device_authorization", default.device_authorization);
    let device_verify = read("device_verify", default.device_verify);
    let refresh = read("refresh", default.refresh);
    let admin_auth = read("admin_auth", default.admin_auth);
    Some(RateLimits {
        device_authorization: device_authorization?,
        device_verify: device_verify?,
        refresh: refresh?,
        admin_auth: admin_auth?,
    })
}

fn read_rate_limit(limit: &Mapping<'_>, default: RateLimit) -> Option<RateLimit> {
    let max = limit.or("max", u64::from(default.max), |field| field.whole(1..=u64::from(u32::MAX)));
    let window = limit.or("window_seconds", default.window.as_secs(), |field| field.whole(1..=u64::from(u32::MAX)));
    Some(RateLimit { max: u32::try_from(max?).ok()?, window: Duration::from_secs(window?) })
}

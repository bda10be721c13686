//! `metrics`: where figures for Prometheus are served.

use super::read::{Field, Mapping};
use super::reference::{Section, key};

/// The `metrics:` section.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `metrics.host`: an address without brackets, or a name.
    pub host: String,
    /// `metrics.port`; 0 lets the system choose.
    pub port: u16,
}

pub(super) const SECTION: Section = Section {
    path: "metrics",
    about: "Turns on `GET /metrics` for Prometheus, on a listener of its own that asks for no credentials. An empty mapping \
            will do. The figures are in [metrics.md](metrics.md).",
    keys: &[
        key("host", "address or host name", "127.0.0.1", "Address to bind."),
        key("port", "whole number, 0 to 65535", "9464", "Port to bind; 0 lets the system choose."),
    ],
    later: &[],
};

pub(super) fn read(field: &Field<'_>) -> Option<Metrics> {
    let metrics: Mapping<'_> = field.mapping(&SECTION)?;
    let host = metrics.or("host", "127.0.0.1".to_owned(), Field::string);
    let port = metrics.or("port", 9464, |field| field.whole(0..=65535).and_then(|port| u16::try_from(port).ok()));
    Some(Metrics { host: host?, port: port? })
}

//! `telemetry`: where clients' OpenTelemetry data goes, and what they are told to send.

use std::collections::BTreeMap;

use proxy::otlp::Destination;

use super::headers;
use super::listen::has_loopback_host;
use super::read::{Field, all};
use super::reference::{Section, key, later};

pub(super) const SECTION: Section = Section {
    path: "telemetry",
    about: "Where the OpenTelemetry data of clients goes. With a destination and `listen.public_url`, clients are told to \
            send theirs to the gateway.",
    keys: &[
        key("forward_to", "list", "[]", "Destinations; each gets what was posted, as it came."),
        key(
            "resource_attributes",
            "mapping of texts",
            "{}",
            "Attributes that clients add. Names: letters, digits, `. _ -`, at most 255; values: printable ASCII without \
             space and `, ; = \\ \" %`.",
        ),
    ],
    later: &[later("stamp_identity", "user attributes overwritten with the authenticated ones")],
};

pub(super) const DESTINATION: Section = Section {
    path: "telemetry.forward_to[]",
    about: "One destination, and the signals it gets.",
    keys: &[
        key("url", "https URL; http for loopback only", "required", "`/v1/metrics` and the like are appended to it."),
        key("headers", "mapping of header names to texts", "{}", "Sent with every post."),
        key("metrics", "boolean", "true", "Counters."),
        key("logs", "boolean", "false", "Events; they may hold commands and file paths."),
        key("traces", "boolean", "false", "Spans; they may hold commands and file paths."),
    ],
    later: &[later("auth", "credentials of a cloud for the collector")],
};

/// Who is calling: the client says it by itself, from its bearer.
const RESERVED_ATTRIBUTES: &[&str] = &["user.id", "user.email", "user.groups", "enduser.id", "enduser.sub"];
const RESERVED_HEADERS: &[&str] =
    &["host", "content-type", "content-length", "content-encoding", "connection", "transfer-encoding", "te", "upgrade"];

/// What `telemetry` says.
#[derive(Default)]
pub(super) struct Telemetry {
    pub(super) destinations: Vec<Destination>,
    /// In file order.
    attributes: Vec<(String, String)>,
}

pub(super) fn read(field: &Field<'_>, has_public_url: bool, allow_loopback: bool) -> Option<Telemetry> {
    let telemetry = field.mapping(&SECTION)?;
    let destinations = telemetry.or("forward_to", Vec::new(), |field| {
        all(field.items()?.iter().map(|item| read_destination(item, allow_loopback)))
    });
    let attributes = telemetry.or("resource_attributes", Vec::new(), read_attributes);
    let destinations = destinations?;
    if !destinations.is_empty() && !has_public_url {
        field.warn("listen.public_url is not written, so that clients are not told to send anything; write it");
    }
    Some(Telemetry { destinations, attributes: attributes? })
}

impl Telemetry {
    /// The attributes that Claude Desktop is told to add; `None` when it is told nothing.
    pub(super) fn attributes(&self, public_url: Option<&str>) -> Option<Vec<(String, String)>> {
        public_url.filter(|_| !self.destinations.is_empty()).map(|_| self.attributes.clone())
    }

    /// The environment that clients receive (contract A11); empty when they are told nothing.
    pub(super) fn environment(&self, public_url: Option<&str>) -> BTreeMap<String, String> {
        let Some(public_url) = public_url.filter(|_| !self.destinations.is_empty()) else { return BTreeMap::new() };
        let exporter = |takes: fn(&Destination) -> bool| {
            if self.destinations.iter().any(takes) { "otlp" } else { "none" }
        };
        let mut environment: BTreeMap<String, String> = [
            ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
            ("OTEL_METRICS_EXPORTER", exporter(|destination| destination.metrics)),
            ("OTEL_LOGS_EXPORTER", exporter(|destination| destination.logs)),
            ("OTEL_TRACES_EXPORTER", exporter(|destination| destination.traces)),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", public_url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if !self.attributes.is_empty() {
            let pairs: Vec<String> = self.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            environment.insert("OTEL_RESOURCE_ATTRIBUTES".to_owned(), pairs.join(","));
        }
        environment
    }
}

fn read_destination(item: &Field<'_>, allow_loopback: bool) -> Option<Destination> {
    let destination = item.mapping(&DESTINATION)?;
    let url = destination.required("url", "write the https URL of the collector", |field| {
        let url = field.target_url(allow_loopback)?;
        if url.scheme() != "https" && !has_loopback_host(&url) {
            field.refuse("must be an https URL; plain http is for collectors on loopback");
            return None;
        }
        if url.query().is_some() || url.fragment().is_some() {
            field.refuse("must have no query and no fragment; /v1/metrics and the like are appended to its path");
            return None;
        }
        Some(url)
    });
    let headers =
        destination.or("headers", Vec::new(), |field| headers::read(field, |name| RESERVED_HEADERS.contains(&name)));
    let metrics = destination.or("metrics", true, Field::flag);
    let logs = destination.or("logs", false, Field::flag);
    let traces = destination.or("traces", false, Field::flag);
    Some(Destination { url: url?, headers: headers?, metrics: metrics?, logs: logs?, traces: traces? })
}

fn read_attributes(field: &Field<'_>) -> Option<Vec<(String, String)>> {
    all(field.entries()?.iter().map(|(name, value)| {
        let named = check_attribute_name(name, value);
        let text = value.text()?;
        if !text.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && !b",;=\\\"%".contains(&byte)) {
            value.refuse("must be printable ASCII without space and without , ; = \\ \" %");
            return None;
        }
        named.then(|| ((*name).to_owned(), text.to_owned()))
    }))
}

fn check_attribute_name(name: &str, value: &Field<'_>) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(allowed) {
        value.refuse("the name must be 1 to 255 letters, digits, dots, underscores or hyphens");
        return false;
    }
    if RESERVED_ATTRIBUTES.contains(&name) {
        value.refuse("says who is calling, which clients say by themselves; leave it out");
        return false;
    }
    true
}

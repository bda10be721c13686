//! Our own logs: operational lines for people, `[gateway] <time> <level> <text>`, on stderr beside the audit's JSON.

use std::fmt;

use control::clock::{Clock as _, SystemClock, rfc3339_ms};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;

/// Our crates; what libraries log is for their authors, except when it is bad.
const OURS: [&str; 3] = ["tollgate", "control", "proxy"];

/// Starts writing operational lines of `level` and above. A second call changes nothing.
pub fn init(level: LogLevel) {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let filter = OURS
        .iter()
        .fold(Targets::new().with_default(LevelFilter::ERROR), |filter, name| filter.with_target(*name, level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Line);
    // Fails when a test or an earlier call has set one, which then stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut text = Text::default();
        event.record(&mut text);
        writeln!(writer, "[gateway] {} {level} {}{}", rfc3339_ms(SystemClock.now()), text.message, text.fields)
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: &str) {
        // One event, one line: what came from outside must neither write lines of its own nor speak to a terminal.
        let value = value.replace(char::is_control, " ");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push_str(&format!(" {}={value}", field.name()));
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

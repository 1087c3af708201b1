//! Log lines: to stderr, as text for people or one JSON object per line.
//!
//! What happens to leases is in the events and, at debug level, in the log; the hot path says nothing at info.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::LogFormat;

/// Starts logging at `level`, which is a level or a list of targets with levels.
pub fn start(level: &str, format: LogFormat) {
    let filter: Targets = level.parse().expect("the configuration takes only levels that parse");
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // An embedding program (the Python package) may have a subscriber already; then that one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

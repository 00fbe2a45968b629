//! Log output: `tracing` events to stderr, as text or as one JSON object a line.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why log output could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not understood.
    #[error(
        "log level {level:?} is not understood; use error, warn, info, debug, trace, or target=level pairs such as info,baetyl_node=debug"
    )]
    Level {
        /// What was given.
        level: String,
        /// Why it is not understood.
        source: ParseError,
    },
    /// Another subscriber is installed.
    #[error("log output is already set up in this process")]
    AlreadySet(#[source] TryInitError),
}

/// Sends events at `level` (such as `info,baetyl_node=debug`) to stderr. Once per process.
///
/// # Errors
/// When the level is not understood, or output is already set up.
pub fn init(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(level)?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(false))
            .try_init(),
    }
    .map_err(TelemetryError::AlreadySet)
}

/// Whether a level text is understood, without installing anything.
///
/// # Errors
/// When it is not.
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    filter(level).map(|_| ())
}

/// Targets and levels only: filters by span and field would bring a regular expression engine (0.9 MiB) into every program.
fn filter(level: &str) -> Result<Targets, TelemetryError> {
    level.parse().map_err(|source| TelemetryError::Level {
        level: level.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_a_list_of_targets() {
        check_level("info").unwrap();
        check_level("warn,baetyl_node=debug").unwrap();
        let error = check_level("baetyl_node=loud").unwrap_err();
        assert!(error.to_string().contains("baetyl_node=loud"));
    }
}

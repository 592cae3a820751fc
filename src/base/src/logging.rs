//! Structured logs with levels, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A log filter that is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level {filter:?} is not valid; use error, warn, info, debug, trace, or per target as in info,kontiki_raft=debug"
)]
pub struct FilterError {
    filter: String,
    #[source]
    source: Option<tracing_subscriber::filter::ParseError>,
}

/// Starts logging. A second call in the same process has no effect.
///
/// # Errors
/// The filter cannot be parsed.
pub fn init(filter: &str, format: Format) -> Result<(), FilterError> {
    let refuse = |source| FilterError {
        filter: filter.to_owned(),
        source,
    };
    // A bare word that is no level would be taken for a target, and nothing else would be logged.
    let is_level = |word: &str| {
        !word.is_empty() && word.parse::<tracing::level_filters::LevelFilter>().is_ok()
    };
    if filter
        .split(',')
        .any(|part| !part.contains('=') && !is_level(part.trim()))
    {
        return Err(refuse(None));
    }
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|e| refuse(Some(e)))?;
    let writer = BoxMakeWriter::new(std::io::stderr);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(writer);
    // Only the first subscriber of a process can be installed; tests start several nodes in one.
    let _already_installed = match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_says_what_is_good() {
        for filter in ["kontiki=loud", "loud", "info,loud", ""] {
            let e = init(filter, Format::Text).expect_err("not a level");
            assert!(e.to_string().contains("use error, warn, info"), "{e}");
        }
    }
}

//! Warnings: settings that look like mistakes and do no harm.

use std::fmt;

use entra_redis::env;

/// A setting that looks like a mistake and does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A warning of the library's settings.
    Library(env::Warning),
    /// This variable enables an export without an endpoint.
    NoOtlpEndpoint(&'static str),
    /// `REDIS_COMMAND_TIMEOUT` is not below `REQUEST_TIMEOUT`.
    CommandOutlastsRequest,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(warning) => warning.fmt(f),
            Self::NoOtlpEndpoint(name) => write!(
                f,
                "{name} is otlp but nothing is exported, because OTEL_EXPORTER_OTLP_ENDPOINT is not set"
            ),
            Self::CommandOutlastsRequest => f.write_str(
                "REDIS_COMMAND_TIMEOUT is not below REQUEST_TIMEOUT: requests time out before an unresponsive connection is detected",
            ),
        }
    }
}

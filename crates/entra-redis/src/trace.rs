//! How are our spans for traces told apart, and how do they say that something failed?
//!
//! Every module makes them, with `tracing` alone, under OpenTelemetry's names for fields; `telemetry` exports those of
//! [`TARGET`] where a collector is configured. What always holds: nobody else listens to that target at this level, so
//! without a collector a span costs one load of its call site's state.
//!
//! Fields that begin with `otel.` steer the export (`otel.name`, `otel.kind`, `otel.status_code`: tracing-opentelemetry's
//! documentation). A span that may fail declares [`STATUS`] and [`ERROR_TYPE`] as empty fields.

use tracing::Span;

/// The target of all our spans for traces; their level is `TRACE`.
pub const TARGET: &str = "otel::span";

/// Field of the span's status.
pub const STATUS: &str = "otel.status_code";
/// OpenTelemetry's attribute for the kind of failure: a word of a closed set.
pub const ERROR_TYPE: &str = "error.type";

/// Says that what the span stands for failed.
pub fn failed(span: &Span, error_type: &str) {
    span.record(ERROR_TYPE, error_type);
    span.record(STATUS, "ERROR");
}

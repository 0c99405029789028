//! The target of spans for traces, and the fields that mark a failure.
//!
//! Every module creates its spans with `tracing` alone and OpenTelemetry's field names; `telemetry` exports those of
//! [`TARGET`] where a collector is configured.
//!
//! # Invariants
//! - Nothing else subscribes to that target at this level, so without a collector a span costs one load of its call site's
//!   state.
//!
//! Fields that begin with `otel.` control the export (`otel.name`, `otel.kind`, `otel.status_code`: tracing-opentelemetry's
//! documentation). A span that can fail declares [`STATUS`] and [`ERROR_TYPE`] as empty fields.

use tracing::Span;

/// The target of all spans for traces; their level is `TRACE`.
pub const TARGET: &str = "otel::span";

/// The field of the span's status.
pub const STATUS: &str = "otel.status_code";
/// OpenTelemetry's attribute for the kind of failure: a word of a closed set.
pub const ERROR_TYPE: &str = "error.type";

/// Marks the operation of a span as failed.
pub fn failed(span: &Span, error_type: &str) {
    span.record(ERROR_TYPE, error_type);
    span.record(STATUS, "ERROR");
}

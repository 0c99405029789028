//! A request's span for traces, and the caller's trace (W3C Trace Context).
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for HTTP servers.
//!
//! # Invariants
//! - Of what could contain a caller's secret only the path is an attribute, and it is truncated: no query, no headers.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Version},
};
use opentelemetry::{Context, propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use entra_redis::trace::{self, TARGET};

/// The longest path in an attribute, in characters.
const LONGEST_PATH: usize = 256;

/// Returns the span of a request; disabled, at no cost, where traces are not exported.
pub(super) fn span(request: &Request, method: &'static str, route: Option<&str>) -> Span {
    let span = trace_span!(
        target: TARGET,
        "request",
        otel.name = name(method, route),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = truncated(request.uri().path()),
        url.scheme = "http",
        network.protocol.version = version(request.version()),
        error.type = Empty,
    );
    if !span.is_disabled()
        && let Some(caller) = caller(request.headers())
    {
        // Fails only for a span that has started.
        let _ = span.set_parent(caller);
    }
    span
}

/// Completes the span. Only a server error is an error of the span.
pub(super) fn end(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        trace::failed(span, status.as_str());
    }
}

/// Returns the caller's span, if its headers have one.
pub(super) fn caller(headers: &HeaderMap) -> Option<Context> {
    headers.get("traceparent")?;
    let propagator = TraceContextPropagator::new();
    let context = propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
    context.has_active_span().then_some(context)
}

fn name(method: &'static str, route: Option<&str>) -> String {
    // The conventions use `HTTP` for methods that they do not name.
    let method = if method == "_OTHER" { "HTTP" } else { method };
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

fn truncated(path: &str) -> &str {
    let cut = path.char_indices().nth(LONGEST_PATH);
    &path[..cut.map_or(path.len(), |(at, _)| at)]
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

//! A request's span for traces, and the trace that its caller began (W3C Trace Context).
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for HTTP servers. What always holds: nothing a
//! caller could put a secret into is an attribute but the path, which is cut: no query, no headers.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Version},
};
use opentelemetry::{Context, propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::trace::{self, TARGET};

/// A path is repeated up to here.
const LONGEST_PATH: usize = 256;

/// The span of one request; disabled, at no cost, where traces are not exported.
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
        url.path = beginning(request.uri().path()),
        url.scheme = "http",
        network.protocol.version = version(request.version()),
        error.type = Empty,
    );
    if !span.is_disabled()
        && let Some(caller) = caller(request.headers())
    {
        // Fails only for a span that has begun.
        let _ = span.set_parent(caller);
    }
    span
}

/// Completes the span. Only what is the server's fault is an error of the server's.
pub(super) fn end(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        trace::failed(span, status.as_str());
    }
}

/// The caller's place in a trace, if there is one.
pub(super) fn caller(headers: &HeaderMap) -> Option<Context> {
    headers.get("traceparent")?;
    let propagator = TraceContextPropagator::new();
    let context = propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
    context.has_active_span().then_some(context)
}

fn name(method: &'static str, route: Option<&str>) -> String {
    // The conventions have `HTTP` for methods they do not name.
    let method = if method == "_OTHER" { "HTTP" } else { method };
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

fn beginning(path: &str) -> &str {
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

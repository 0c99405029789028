//! `GET` and `PUT /log-level`: the log filter, changed while the service runs.
//!
//! # Invariants
//! - Only processes on this machine are served, and only on the admin port. In a pod these are `kubectl port-forward`,
//!   `kubectl debug` and the other containers of the pod.
//! - A proxy beside the service connects from loopback, too: a request with a proxy's headers is rejected.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, Request, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::warn;
use utoipa::ToSchema;

use super::{Context, error::Problem};
use crate::{config::log_filter, telemetry::LogFilter};

/// The largest filter; longer than any that a person writes.
pub(super) const LARGEST_FILTER_BYTES: usize = 4 * 1024;

/// One level for all, or levels for targets; tracing's other forms are accepted, too.
#[derive(ToSchema)]
#[schema(
    min_length = 3,
    max_length = 4096,
    pattern = "^(([A-Za-z_:]+=)?(off|error|warn|info|debug|trace),)*([A-Za-z_:]+=)?(off|error|warn|info|debug|trace)$"
)]
pub(super) struct Directives(#[expect(dead_code, reason = "only its schema is used")] String);

/// Log level
///
/// Returns the log filter in force, as tracing directives. Only for processes on this machine.
#[utoipa::path(
    get,
    path = "/log-level",
    tag = "operations",
    responses(
        (status = 200, description = "The filter in force", body = String, content_type = "text/plain", example = "info"),
        (status = 403, description = "The request comes from another machine, or through a proxy", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(context): State<Arc<Context>>) -> Response {
    match &context.log_filter {
        Some(filter) => shown(filter),
        None => Problem::NOT_FOUND.into_response(),
    }
}

/// Set log level
///
/// Sets the log filter until the process exits. Only for processes on this machine.
#[utoipa::path(
    put,
    path = "/log-level",
    tag = "operations",
    request_body(content = inline(Directives), content_type = "text/plain", description = "Tracing directives, as in RUST_LOG", example = "info,entra_redis=debug"),
    responses(
        (status = 200, description = "The filter in force", body = String, content_type = "text/plain", example = "info,entra_redis=debug"),
        (status = 400, description = "The body is not a valid filter; the detail describes the expected form", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The request comes from another machine, or through a proxy", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Longer than 4 KiB", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn set(
    State(context): State<Arc<Context>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(filter) = &context.log_filter else {
        return Problem::NOT_FOUND.into_response();
    };
    let body = match body {
        Ok(body) => body,
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Problem::BODY_TOO_LARGE.into_response();
        }
        Err(_) => return Problem::log_filter("it could not be read").into_response(),
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return Problem::log_filter("it is not UTF-8 text").into_response();
    };
    let text = text.trim();
    if let Err(expected) = log_filter(text) {
        return Problem::log_filter(&format!("{}; expected {expected}", invalid(text)))
            .into_response();
    }
    // Before the change, so that the last line of a log that is turned off explains it.
    warn!(log.filter = text, "changing log filter");
    match filter.set(text) {
        Ok(()) => shown(filter),
        Err(expected) => Problem::log_filter(expected).into_response(),
    }
}

/// Returns the reason for which a text is not a filter: its first invalid directive.
fn invalid(text: &str) -> String {
    let mut directives = text.split(',').map(str::trim);
    match directives.find(|directive| log_filter(directive).is_err()) {
        None | Some("") => "a directive is empty".to_owned(),
        Some(directive) => format!("{directive:?} is not a valid directive"),
    }
}

fn shown(filter: &LogFilter) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (headers, format!("{}\n", filter.text())).into_response()
}

/// Rejects requests that do not come from this machine. The server must provide [`ConnectInfo`].
pub(super) async fn require_loopback(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let is_local = peer.is_some_and(|ConnectInfo(peer)| is_loopback(*peer));
    if is_local && !is_forwarded(request.headers()) {
        next.run(request).await
    } else {
        Problem::NOT_FROM_THIS_MACHINE.into_response()
    }
}

/// Returns whether the address is 127.0.0.1 or ::1. Not all of 127.0.0.0/8: Istio's sidecar connects from 127.0.0.6 on behalf
/// of others.
fn is_loopback(peer: SocketAddr) -> bool {
    let ip = peer.ip().to_canonical();
    ip == std::net::Ipv4Addr::LOCALHOST || ip == std::net::Ipv6Addr::LOCALHOST
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    let is_of_proxy = |name: &str| {
        name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "via" | "x-real-ip")
    };
    headers.keys().any(|name| is_of_proxy(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for near in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_loopback(near.parse().expect("an address")), "{near}");
        }
        for far in ["127.0.0.6:1", "10.0.0.4:1", "[fe80::1]:1", "0.0.0.0:1"] {
            assert!(!is_loopback(far.parse().expect("an address")), "{far}");
        }
    }

    proptest::proptest! {
        /// A body that the document allows is accepted.
        #[test]
        fn documented_directives_are_accepted(text in documented()) {
            proptest::prop_assert_eq!(log_filter(&text), Ok(text));
        }
    }

    fn documented() -> impl proptest::strategy::Strategy<Value = String> {
        use utoipa::PartialSchema;
        let schema = serde_json::to_value(Directives::schema()).expect("it is JSON");
        let pattern = schema["pattern"].as_str().expect("it has one");
        let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
        proptest::string::string_regex(pattern).expect("it is an expression")
    }
}

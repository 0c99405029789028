//! The layers of every request, outermost first:
//!
//! 1. any letter case of `/sample` (outside the router: layers run after matching),
//! 2. request id, spans, duration and count, the line in the access log ([`observe`]),
//! 3. panics become a 500 that affects no other request,
//! 4. on public routes: limits of concurrency, body and time ([`limit`]),
//! 5. the handler.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, uri::PathAndQuery},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use metrics::{Gauge, counter, gauge, histogram};
use opentelemetry::trace::FutureExt;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, debug, error_span, info, warn};

use super::{error::Problem, instruments, sample, trace};
use crate::lifecycle::{Lifecycle, Phase};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id of a caller's own that is kept.
const LONGEST_REQUEST_ID: usize = 128;

/// Target of the access log, so that `RUST_LOG` can select it.
const ACCESS: &str = "access";
/// Routes that are requested every few seconds by machines: successes are logged at `debug`.
const PROBE_ROUTES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The largest request body. No route of ours reads one; routes of a caller's own are bounded by their extractors as well.
const LARGEST_BODY_BYTES: u64 = 64 * 1024;

/// The fields that a handler adds, as a response extension, to its request's line in the access log. The names of a line's
/// fields are fixed at compile time, so each field has its place here.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessFields {
    /// `sample.previous_visit`.
    pub(super) previous_visit: Option<String>,
}

/// Limits of requests on the public listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Timeout of a request as a whole.
    pub(crate) timeout: Duration,
    /// Requests in progress above which the next is rejected.
    pub(crate) concurrency: usize,
}

/// Adds layers 2 and 3.
pub(super) fn outer(router: Router, lifecycle: &Lifecycle) -> Router {
    router
        .layer(CatchPanicLayer::custom(|_| {
            Problem::PANICKED.into_response()
        }))
        .layer(from_fn_with_state(
            Arc::new(Observer {
                lifecycle: lifecycle.clone(),
                active: gauge!(instruments::ACTIVE),
            }),
            observe,
        ))
}

/// Adds layer 4.
pub(super) fn limited(router: Router, limits: &Limits) -> Router {
    let limiter = Arc::new(Limiter {
        timeout: limits.timeout,
        permits: Semaphore::new(limits.concurrency),
    });
    router.route_layer(from_fn_with_state(limiter, limit))
}

/// Applies layer 1: ASP.NET, whose sample this service replaces, matches paths in any letter case and with or without a
/// final slash. The metric's route stays `/sample`.
pub(super) fn fold_case<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let path = request.uri().path();
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if path != sample::PATH && trimmed.eq_ignore_ascii_case(sample::PATH) {
        let mut parts = request.uri().clone().into_parts();
        let path_and_query = match request.uri().query() {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", sample::PATH)),
            None => Ok(PathAndQuery::from_static(sample::PATH)),
        };
        parts.path_and_query = path_and_query.ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

struct Observer {
    lifecycle: Lifecycle,
    active: Gauge,
}

async fn observe(
    State(observer): State<Arc<Observer>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let version = request.version();
    let id = request_id(request.headers().get(&REQUEST_ID));
    let matched = route.as_ref().map(MatchedPath::as_str);
    let traced = trace::span(&request, method, matched);
    // Where traces are not exported, log lines carry the caller's trace id.
    let caller = if traced.is_disabled() {
        trace::caller(request.headers())
    } else {
        None
    };
    // At `error`, so that the id is in every line about a request, whatever the log filter.
    let span = error_span!(
        "request",
        http.request.method = method,
        http.route = matched,
        http.request.id = id.to_str().unwrap_or_default(),
    );
    let active = Active::new(&observer.active);
    let handled = async {
        let response = next.run(request).await;
        log_access(method, matched, &response, started.elapsed());
        response
    };
    let handled = pin!(handled.instrument(span).instrument(traced.clone()));
    let mut response = match caller {
        Some(caller) => handled.with_context(caller).await,
        None => handled.await,
    };
    drop(active);
    trace::end(&traced, response.status());

    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // HTTP/2 has GOAWAY instead.
    if version < Version::HTTP_2 && observer.lifecycle.phase() == Phase::Draining {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A path without a route has no route label, as OpenTelemetry requires: paths are unbounded.
    let route = matched.map_or(String::new(), str::to_owned);
    histogram!(
        instruments::DURATION,
        "http_request_method" => method,
        "http_route" => route,
        "http_response_status_code" => status_label(response.status())
    )
    .record(started.elapsed());
    response
}

/// Logs one line for each request; the request id is in its span.
fn log_access(method: &str, route: Option<&str>, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    let is_probe = route.is_some_and(|route| PROBE_ROUTES.contains(&route));
    // Method and route are in the span, too, but exported records have no span.
    if is_probe && status < 400 {
        debug!(
            target: ACCESS,
            {
                http.request.method = method,
                http.route = route,
                http.response.status_code = status,
                duration_s = took.as_secs_f64(),
            },
            "request completed"
        );
        return;
    }
    let fields = response.extensions().get::<AccessFields>();
    let previous_visit = fields.and_then(|fields| fields.previous_visit.as_deref());
    info!(
        target: ACCESS,
        {
            http.request.method = method,
            http.route = route,
            http.response.status_code = status,
            duration_s = took.as_secs_f64(),
            sample.previous_visit = previous_visit,
        },
        "request completed"
    );
}

/// Counts a request as active until dropped, so that one abandoned by its client is not counted forever.
struct Active<'a>(&'a Gauge);

impl<'a> Active<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Returns the caller's request id if it is short and printable, else a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let usable = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=LONGEST_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    given.filter(usable).cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", fastrand::u128(..));
        HeaderValue::try_from(id).expect("hexadecimal digits are fine in a header")
    })
}

/// Returns the method as OpenTelemetry's closed set has it: those of RFC 9110 and PATCH, `_OTHER` for the rest.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

/// Returns the status as a label; the usual ones without an allocation.
fn status_label(status: StatusCode) -> metrics::SharedString {
    match status.as_u16() {
        200 => "200".into(),
        503 => "503".into(),
        404 => "404".into(),
        other => other.to_string().into(),
    }
}

struct Limiter {
    timeout: Duration,
    permits: Semaphore,
}

async fn limit(State(limiter): State<Arc<Limiter>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = limiter.permits.try_acquire() else {
        counter!(instruments::SHED).increment(1);
        return Problem::OVERLOADED.into_response();
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST_BODY_BYTES) {
        return Problem::BODY_TOO_LARGE.into_response();
    }
    match tokio::time::timeout(limiter.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            warn!(
                timeout_s = limiter.timeout.as_secs_f64(),
                "request timed out"
            );
            Problem::TIMED_OUT.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(uri: &str) -> String {
        let request = axum::http::Request::builder()
            .uri(uri)
            .body(())
            .expect("a valid URI");
        fold_case(request).uri().to_string()
    }

    #[test]
    fn sample_is_found_in_any_letter_case_and_nothing_else_is_touched() {
        for same in ["/Sample", "/SAMPLE", "/sample", "/sample/", "/sAmPlE/"] {
            assert_eq!(folded(same), "/sample");
        }
        assert_eq!(folded("/Sample?a=B"), "/sample?a=B");
        assert_eq!(
            folded("http://Host/Sample"),
            "http://host/sample".replace("host", "Host")
        );
        for other in ["/Healthz", "/Sample/x", "/Samples", "/", "//sample"] {
            assert_eq!(folded(other), other);
        }
    }

    #[test]
    fn a_callers_request_id_is_kept_only_if_it_is_short_and_printable() {
        let kept = HeaderValue::from_static("abc-123");
        assert_eq!(request_id(Some(&kept)), kept);
        let long = HeaderValue::try_from("x".repeat(129)).expect("printable");
        for not in [
            &long,
            &HeaderValue::from_static(""),
            &HeaderValue::from_static("a b"),
        ] {
            assert_eq!(request_id(Some(not)).len(), 32);
        }
        assert_ne!(request_id(None), request_id(None));
    }
}

//! What every request passes through, outermost first:
//!
//! 1. any letter case of `/sample` (outside the router: layers run after matching),
//! 2. request id, spans, duration and count, the line in the access log ([`observe`]),
//! 3. panics become a 500 that hurts no other request,
//! 4. on public routes: bounded concurrency, bounded body, bounded time ([`limit`]),
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

use super::{
    error::Problem,
    instruments,
    sample::{self, PreviousVisit},
    trace,
};
use crate::lifecycle::{Lifecycle, Phase};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A caller's own request id is kept up to this length.
const LONGEST_REQUEST_ID: usize = 128;

/// Target of the line that each request leaves in the log, to be left out or let in by itself (`RUST_LOG`).
const ACCESS: &str = "access";
/// Asked every few seconds by machines, whose good answers are logged at `debug`.
const MACHINES_ROUTES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// No route of ours takes a body; what a caller's own route takes is bounded by its extractor as well.
const LARGEST_BODY_BYTES: u64 = 64 * 1024;

/// What bounds requests on the public listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A request's whole deadline.
    pub(crate) timeout: Duration,
    /// Requests in progress above which the next is refused.
    pub(crate) concurrency: usize,
}

/// Layers 2 and 3, and the answers for paths and methods that do not exist.
pub(super) fn outer(router: Router, lifecycle: &Lifecycle) -> Router {
    router
        .fallback(async || Problem::NOT_FOUND)
        .method_not_allowed_fallback(method_not_allowed)
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

/// axum names the methods that there are, but for `/sample`, where it would think HEAD one of them.
async fn method_not_allowed(route: Option<MatchedPath>) -> Response {
    match route {
        Some(route) if route.as_str() == sample::PATH => sample::refuse().await.into_response(),
        _ => Problem::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// Layer 4.
pub(super) fn limited(router: Router, limits: &Limits) -> Router {
    let limiter = Arc::new(Limiter {
        timeout: limits.timeout,
        permits: Semaphore::new(limits.concurrency),
    });
    router.route_layer(from_fn_with_state(limiter, limit))
}

/// Layer 1: ASP.NET, whose sample this service stands in for, matches paths in any letter case and with or without a
/// slash at the end. The metric's route stays `/sample`.
pub(super) fn fold_case<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let path = request.uri().path();
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if path != "/sample" && trimmed.eq_ignore_ascii_case("/sample") {
        let mut parts = request.uri().clone().into_parts();
        let path_and_query = match request.uri().query() {
            Some(query) => PathAndQuery::try_from(format!("/sample?{query}")),
            None => Ok(PathAndQuery::from_static("/sample")),
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
    // Where traces are not exported, log lines name the caller's.
    let caller = match traced.is_disabled() {
        true => trace::caller(request.headers()),
        false => None,
    };
    // At `error`, so that the id is in every line about a request, whatever is logged.
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
    // HTTP/2 has GOAWAY for this.
    if version < Version::HTTP_2 && observer.lifecycle.phase() == Phase::Draining {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A path that matched nothing has no route label, as OpenTelemetry has it: paths are unbounded.
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

/// One line a request: what was asked, what was answered, how long it took and, for `/sample`, what it told.
fn log_access(method: &str, route: Option<&str>, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    let duration_s = took.as_secs_f64();
    if route.is_some_and(|route| MACHINES_ROUTES.contains(&route)) && status < 400 {
        debug!(
            target: ACCESS,
            { http.response.status_code = status, duration_s },
            "{method} {} answered {status}",
            route.unwrap_or_default()
        );
        return;
    }
    match response.extensions().get::<PreviousVisit>() {
        Some(PreviousVisit { previous_visit }) => info!(
            target: ACCESS,
            {
                http.response.status_code = status,
                duration_s,
                sample.previous_visit = previous_visit.as_deref(),
            },
            "{method} {} answered {status}, previous visit time: {}",
            route.unwrap_or_default(),
            previous_visit.as_deref().unwrap_or_default()
        ),
        None => info!(
            target: ACCESS,
            { http.response.status_code = status, duration_s },
            "{method} {} answered {status}",
            route.unwrap_or("(no route)")
        ),
    }
}

/// Counts a request as active until dropped, so that one given up by its client is not counted for ever.
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

/// The caller's id where it is short and printable, a new one elsewhere.
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

/// OpenTelemetry's closed set: the methods of RFC 9110 and PATCH, `_OTHER` for the rest.
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

/// The usual statuses without an allocation.
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
                "a request was not answered within its deadline"
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

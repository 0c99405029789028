//! The HTTP interface: routes, their layers, their errors, and the server.
//!
//! `app` makes the two routers (public and admin) and serves them.
//!
//! # Invariants
//! - Every route is registered through the OpenAPI router, so the document cannot lag behind.
//! - Every response of a router carries `x-request-id`.
//! - Every error is a problem document without an inner error's text.
//! - No token is in reach of this module.
//!
//! Nothing that outlives a request belongs here, except the background check of Redis that `/readyz` reads.

mod checks;
mod error;
mod layers;
mod log_level;
mod metrics;
mod openapi;
mod probes;
mod redis_check;
mod sample;
mod server;
mod status;
mod trace;
mod unread;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath},
    middleware::from_fn,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::error::Problem;
pub(crate) use self::{
    layers::Limits,
    redis_check::{Readiness, RedisCheck},
    server::Server,
};
use crate::{
    config::ClusteringPolicy,
    lifecycle::Lifecycle,
    telemetry::{LogFilter, Metrics},
};
use entra_redis::pool::Pool;

/// The state of the handlers.
#[derive(Debug)]
pub(crate) struct Context {
    /// The pool of connections to Redis.
    pub(crate) pool: Pool,
    /// The key that `/sample` reads and writes.
    pub(crate) sample_key: String,
    /// The clustering policy as configured.
    pub(crate) clustering_policy: ClusteringPolicy,
    /// The phase of the process.
    pub(crate) lifecycle: Lifecycle,
    /// The findings of the background check of Redis.
    pub(crate) redis: Readiness,
    /// The metrics to be scraped.
    pub(crate) metrics: Metrics,
    /// Requests for `/sample` answered so far.
    pub(crate) visits: AtomicU64,
    /// The start of the service.
    pub(crate) started: Instant,
    /// The log filter in force; `None` where another subscriber than ours decides.
    pub(crate) log_filter: Option<LogFilter>,
}

/// The routers of the two listeners.
#[derive(Debug)]
pub(crate) struct Routers {
    /// The public port's.
    pub(crate) public: Router,
    /// The admin port's: probes and metrics. `None` where they are on the public port.
    pub(crate) admin: Option<Router>,
}

/// Builds the routers. `more` are routes of the caller's own: they get the same limits, layers and errors.
pub(crate) fn routers(
    context: Arc<Context>,
    limits: &Limits,
    separate_admin: bool,
    more: Router,
) -> Routers {
    let lifecycle = context.lifecycle.clone();
    let mut documented = public_routes();
    let mut links = status::PUBLIC_LINKS.to_vec();
    if !separate_admin {
        documented = documented.merge(admin_routes());
        links.extend(status::ADMIN_LINKS);
    }
    let document = openapi::document(documented.into_openapi());
    let public = Router::from(public_routes())
        .with_state(context.clone())
        .merge(openapi::routes(document))
        .merge(status::page(&links))
        .merge(more);
    let public = layers::limited(public, limits);
    let admin = Router::from(admin_routes()).with_state(context.clone());
    if separate_admin {
        let admin = admin
            .merge(status::page(status::ADMIN_LINKS))
            .merge(Router::from(admin_only_routes()).with_state(context.clone()))
            .merge(Router::from(loopback_routes()).with_state(context));
        Routers {
            public: layers::outer(with_fallbacks(public), &lifecycle),
            admin: Some(layers::outer(with_fallbacks(admin), &lifecycle)),
        }
    } else {
        // Merged after the limits: probes and scrapes must not be shed with the load that they report.
        Routers {
            public: layers::outer(with_fallbacks(public.merge(admin)), &lifecycle),
            admin: None,
        }
    }
}

/// Adds the responses for paths and methods that do not exist.
fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async || Problem::NOT_FOUND)
        .method_not_allowed_fallback(method_not_allowed)
}

/// axum lists the methods of the route, but for `/sample`, where it would add HEAD.
async fn method_not_allowed(route: Option<MatchedPath>) -> Response {
    match route {
        Some(route) if route.as_str() == sample::PATH => sample::refuse().await.into_response(),
        _ => Problem::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// Returns the OpenAPI document of all routes.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let routes = public_routes().merge(admin_routes());
    openapi::document(routes.merge(loopback_routes()).into_openapi())
}

fn public_routes() -> OpenApiRouter<Arc<Context>> {
    let (schemas, paths, sample) = routes!(sample::sample);
    let sample = sample.head(sample::refuse);
    let mut routes = OpenApiRouter::new()
        .routes((schemas, paths, sample))
        .routes(routes!(status::status));
    openapi::limited(routes.get_openapi_mut());
    routes
}

/// Routes of the admin port only: the public one does not disclose the identity.
fn admin_only_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new().routes(routes!(status::whole_status))
}

fn admin_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(metrics::metrics))
}

/// Routes of the admin port only, and for processes of this machine: on the public port one check of an address would be all
/// that protects them.
fn loopback_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(log_level::show, log_level::set))
        .layer(DefaultBodyLimit::max(log_level::LARGEST_FILTER_BYTES))
        .route_layer(from_fn(log_level::require_loopback))
}

/// The instruments of this module. Their names are an interface.
pub(crate) mod instruments {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    pub(crate) const DURATION: &str = "http_server_request_duration_seconds";
    pub(crate) const ACTIVE: &str = "http_server_active_requests";
    pub(crate) const SHED: &str = "http_server_requests_shed_total";

    /// Bounds of histograms: those that OpenTelemetry's semantic conventions advise for HTTP, and three finer ones.
    pub(crate) const BUCKETS: &[(&str, &[f64])] = &[(
        DURATION,
        &[
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5,
            5.0,
        ],
    )];

    /// Names of metrics and labels, each with the name that OpenTelemetry's semantic conventions have.
    pub(crate) const CONVENTIONS: &[(&str, &str)] = &[
        (DURATION, "http.server.request.duration"),
        (ACTIVE, "http.server.active_requests"),
        ("http_request_method", "http.request.method"),
        ("http_route", "http.route"),
        ("http_response_status_code", "http.response.status_code"),
    ];

    /// Gives the recorder the help texts. Called once, after a recorder is installed.
    pub(crate) fn describe() {
        describe_histogram!(
            DURATION,
            Unit::Seconds,
            "Duration of requests by method, matched route and status"
        );
        describe_gauge!(ACTIVE, Unit::Count, "Requests in progress");
        describe_counter!(
            SHED,
            Unit::Count,
            "Requests rejected with 503 because MAX_CONCURRENT_REQUESTS were in progress"
        );
    }
}

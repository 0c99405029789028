//! What do callers see? Routes, their layers, their errors, and the server that speaks HTTP.
//!
//! `app` makes the two routers (public and admin) and serves them. What always holds: every route is registered through
//! the OpenAPI router, so the document cannot lag behind; every answer of a router carries `x-request-id`; every error
//! is a problem document without an inner error's text; no token is in reach of this module.
//!
//! What does not belong here: anything that outlives a request, but for the background check of Redis that `/readyz`
//! reads.

mod error;
mod layers;
mod log_level;
mod metrics;
mod openapi;
mod probes;
mod sample;
mod server;
mod status;
mod trace;
mod unread;

use std::sync::{Arc, atomic::AtomicU64};

use axum::{Router, extract::DefaultBodyLimit, middleware::from_fn};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::error::Problem;
pub(crate) use self::{
    layers::Limits,
    probes::{Readiness, RedisCheck},
    server::Server,
};
use crate::{
    lifecycle::Lifecycle,
    redis::Pool,
    telemetry::{LogFilter, Metrics},
};

/// What handlers can reach.
pub(crate) struct Context {
    /// The way to Redis.
    pub(crate) pool: Pool,
    /// What `/sample` reads and writes.
    pub(crate) sample_key: String,
    /// Where the process stands.
    pub(crate) lifecycle: Lifecycle,
    /// What the background check of Redis found.
    pub(crate) redis: Readiness,
    /// What was measured.
    pub(crate) metrics: Metrics,
    /// Answers of `/sample` so far.
    pub(crate) visits: AtomicU64,
    /// What is logged; `None` where somebody else's subscriber decides.
    pub(crate) log_filter: Option<LogFilter>,
}

/// The routers of the two listeners.
pub(crate) struct Routers {
    /// For everybody.
    pub(crate) public: Router,
    /// For the cluster: probes and metrics. `None` where they are on the public one.
    pub(crate) admin: Option<Router>,
}

/// Puts the routers together. `more` are routes of the caller's own: they get the same limits, layers and errors.
pub(crate) fn routers(
    context: Arc<Context>,
    limits: &Limits,
    separate_admin: bool,
    more: Router,
) -> Routers {
    status::started();
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
        Routers {
            public: layers::outer(public, &lifecycle),
            admin: Some(layers::outer(
                admin
                    .merge(status::page(status::ADMIN_LINKS))
                    .merge(Router::from(admin_only_routes()).with_state(context.clone()))
                    .merge(Router::from(this_machines_routes()).with_state(context)),
                &lifecycle,
            )),
        }
    } else {
        // Merged after the limits: probes and scrapes must not be shed with the load they report on.
        Routers {
            public: layers::outer(public.merge(admin), &lifecycle),
            admin: None,
        }
    }
}

/// The OpenAPI document of all routes.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let routes = public_routes().merge(admin_routes());
    openapi::document(routes.merge(this_machines_routes()).into_openapi())
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

/// On the admin port only: the public one tells nobody who this is.
fn admin_only_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new().routes(routes!(status::whole_status))
}

fn admin_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(metrics::metrics))
}

/// On the admin port only: without one, callers of the public port would be a guess at an address away from them.
fn this_machines_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new()
        .routes(routes!(log_level::show, log_level::set))
        .layer(DefaultBodyLimit::max(log_level::LARGEST_FILTER_BYTES))
        .route_layer(from_fn(log_level::from_this_machine))
}

/// The instruments of this module; names are an interface.
pub(crate) mod instruments {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    pub(crate) const DURATION: &str = "http_server_request_duration_seconds";
    pub(crate) const ACTIVE: &str = "http_server_active_requests";
    pub(crate) const SHED: &str = "http_server_requests_shed_total";

    /// As OpenTelemetry's semantic conventions advise for HTTP, with three finer ones in front.
    pub(crate) const BUCKETS: &[(&str, &[f64])] = &[(
        DURATION,
        &[
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5,
            5.0,
        ],
    )];

    /// Gives the recorder the help texts. Called once, after a recorder is installed.
    pub(crate) fn describe() {
        describe_histogram!(
            DURATION,
            Unit::Seconds,
            "How long requests took, by method, matched route and status"
        );
        describe_gauge!(ACTIVE, Unit::Count, "Requests in progress");
        describe_counter!(
            SHED,
            Unit::Count,
            "Requests answered 503 at once because MAX_CONCURRENT_REQUESTS were in progress"
        );
    }
}

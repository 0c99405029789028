//! `GET /healthz` and `GET /readyz`.
//!
//! The two mean different things: `/healthz` is about the process alone, since a restart does not fix Redis; `/readyz`
//! reports whether the replica can serve requests.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, checks::Checks};

/// The answer of `/readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Report {
    /// True if the replica can serve requests: no check failed.
    ready: bool,
    checks: Checks,
}

/// Liveness
///
/// 200 while the process runs. It checks nothing else.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "The process runs", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

/// Readiness
///
/// 200 when the replica is serving, has a live token and Redis answers. The body has the result of each check: a status,
/// a sentence for people and fields for programs.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "The replica can serve requests", body = Report),
        (status = 503, description = "The replica cannot serve requests; the failed checks contain the reason", body = Report)
    )
)]
pub(super) async fn readyz(State(context): State<Arc<Context>>) -> Response {
    let checks = Checks::now(&context);
    let ready = checks.is_ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, Json(Report { ready, checks })).into_response()
}

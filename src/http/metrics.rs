//! `GET /metrics`: all metrics, in Prometheus' text format.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::Context;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics
///
/// All metrics since the start, in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "Prometheus text", body = String, content_type = CONTENT_TYPE))
)]
pub(super) async fn metrics(State(context): State<Arc<Context>>) -> Response {
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        context.metrics.render(),
    )
        .into_response()
}

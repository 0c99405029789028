//! `GET /`: a status page for people, and `GET /status.json`, which it requests every two seconds.
//!
//! Page, style and script come from the binary and load nothing else; their content security policy forbids it. Identity,
//! credential and nodes are shown on the admin port alone: the public one is open to everyone.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, checks::Checks};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's links on the public port, and on the admin port: each leads to a route of the same port.
pub(super) const PUBLIC_LINKS: &[&str] = &["sample", "swagger"];
pub(super) const ADMIN_LINKS: &[&str] = &["readyz", "metrics"];

/// The state of this replica, without its identity.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// As in `/readyz`.
    ready: bool,
    /// As in `/readyz`.
    checks: Checks,
    /// Time until the token expires; 0 once it has, `null` without one.
    #[schema(required = true)]
    token_expires_in_seconds: Option<u64>,
    /// Connections to Redis that are open and authenticated.
    connections_open: usize,
    /// Connections that the pool keeps open.
    connections_wanted: usize,
    /// Requests for `/sample` that this replica answered.
    visits: u64,
    uptime_seconds: u64,
    version: &'static str,
}

/// The state and the identity of this replica.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WholeStatus {
    #[serde(flatten)]
    status: Status,
    /// The credential in use, by Azure's name; `null` where the service authenticates without a token.
    credential: Option<&'static str>,
    /// The object id that it authenticates as; `null` before the first token.
    object_id: Option<String>,
    /// The endpoint, or each primary of the cluster.
    nodes: Vec<Node>,
}

/// A node of Redis.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    address: String,
    connections_open: usize,
}

impl Status {
    fn now(context: &Context) -> Self {
        let checks = Checks::now(context);
        let connections = context.pool.status();
        Self {
            ready: checks.is_ready(),
            token_expires_in_seconds: checks.token_expires_in_seconds(),
            checks,
            connections_open: connections.open,
            connections_wanted: connections.size,
            visits: context.visits.load(Ordering::Relaxed),
            uptime_seconds: context.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Status
///
/// The data of the page at `/`. On the admin port it also has `credential`, `objectId` and `nodes`.
#[utoipa::path(
    get,
    path = "/status.json",
    tag = "operations",
    responses((status = 200, description = "The state of this replica, ready or not", body = Status))
)]
pub(super) async fn status(State(context): State<Arc<Context>>) -> Response {
    answer(Json(Status::now(&context)))
}

/// Status
///
/// The same as on the public port, and the identity of this replica.
#[utoipa::path(
    get,
    path = "/status.json",
    tag = "operations",
    responses((status = 200, description = "The state of this replica, ready or not", body = WholeStatus))
)]
pub(super) async fn whole_status(State(context): State<Arc<Context>>) -> Response {
    let identity = context.pool.identity();
    let nodes = context.pool.nodes().into_iter();
    answer(Json(WholeStatus {
        status: Status::now(&context),
        credential: identity.as_ref().map(|identity| identity.credential),
        object_id: identity.and_then(|identity| Some(identity.token?.username)),
        nodes: nodes
            .map(|(address, connections_open)| Node {
                address: address.to_string(),
                connections_open,
            })
            .collect(),
    }))
}

fn answer(status: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], status).into_response()
}

/// Returns the page with its style and script, and with links to these routes of the same port.
pub(super) fn page<S: Clone + Send + Sync + 'static>(links: &[&str]) -> Router<S> {
    let links: Vec<_> = links
        .iter()
        .map(|link| format!(r#"<a href="{link}">{link}</a>"#))
        .collect();
    let page = include_str!("status/page.html").replace("{links}", &links.join(" "));
    let style = Bytes::from_static(include_bytes!("status/status.css"));
    let script = Bytes::from_static(include_bytes!("status/status.js"));
    let file = |kind: &'static str, text: Bytes| {
        get(async move || {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, text)
        })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", page.into()))
        .route("/status.css", file("text/css; charset=utf-8", style))
        .route("/status.js", file("text/javascript; charset=utf-8", script))
}

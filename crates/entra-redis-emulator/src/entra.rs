//! The emulated Entra ID: its token endpoints.
//!
//! `Emulator::run` serves two routers from here: [`identities()`] over HTTP for managed identities (App Service and
//! Container Apps, and the metadata service of a virtual machine), and [`authority`] over TLS for applications (secret,
//! certificate and federated assertion). Responses and errors have the format of the real ones, because SDKs depend on it.
//!
//! # Invariants
//!
//! - No response and no log line repeats a secret, an assertion or a token of a request; a token is only in the response
//!   that grants it.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio_util::io::ReaderStream;

use crate::control::{Controls, EntraFault};
use client_certificate::ClientCertificate;
use errors::{EntraError, Reason};
use issuer::TrustedIssuer;
use token::{Identity, Issued, Signer};

mod assertion;
pub(crate) mod client_certificate;
mod errors;
mod identities;
pub(crate) mod issuer;
mod jwt;
pub(crate) mod token;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The tenant: its identities, and what their requests are checked against.
pub(super) struct Tenant {
    pub(super) signer: Arc<Signer>,
    pub(super) controls: Controls,
    /// The registered application, which is also the user-assigned managed identity.
    pub(super) application: Identity,
    /// The system-assigned managed identity, for requests that name none.
    pub(super) system: Identity,
    pub(super) client_secret: String,
    pub(super) identity_header: String,
    /// `https://host:port/`.
    pub(super) authority: String,
    /// The issuer of the assertions that are exchanged for a token.
    pub(super) issuer: TrustedIssuer,
    /// The certificate by which the application signs its own assertions.
    pub(super) certificate: Option<ClientCertificate>,
    /// The last token issued to each client id, for [`EntraFault::SameToken`].
    pub(super) last: Mutex<HashMap<String, Issued>>,
}

type Shared = Arc<Tenant>;

/// Returns the routes of the managed identity endpoints.
pub(super) fn identities(tenant: Shared) -> Router {
    Router::new()
        .route("/msi/token", get(identities::app_service))
        .route(
            "/metadata/identity/oauth2/token",
            get(identities::metadata_service),
        )
        .route_layer(middleware::from_fn_with_state(tenant.clone(), inject_fault))
        .with_state(tenant)
}

/// Returns the routes of the tenant's own endpoints.
pub(super) fn authority(tenant: Shared) -> Router {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(exchange))
        .route_layer(middleware::from_fn_with_state(tenant.clone(), inject_fault))
        .route(
            "/{tenant}/v2.0/.well-known/openid-configuration",
            get(configuration),
        )
        .route("/{tenant}/discovery/v2.0/keys", get(keys))
        .with_state(tenant)
}

/// Injects the current fault, before the request is looked at.
async fn inject_fault(State(tenant): State<Shared>, request: Request, next: Next) -> Response {
    match tenant.controls.entra() {
        EntraFault::Status(status) => tenant.failure(status),
        EntraFault::RetryAfter(status, delay) => {
            let seconds = delay.as_secs_f64().ceil().to_string();
            ([(header::RETRY_AFTER, seconds)], tenant.failure(status)).into_response()
        }
        EntraFault::Hang => std::future::pending().await,
        EntraFault::Slow(delay) => {
            tokio::time::sleep(delay).await;
            next.run(request).await
        }
        EntraFault::Garbage => {
            Html("<!DOCTYPE html><title>Sign in to the network</title>").into_response()
        }
        EntraFault::CutOff => cut_off(next.run(request).await).await,
        EntraFault::None | EntraFault::SameToken => next.run(request).await,
    }
}

/// Returns the first half of a response; then the connection breaks.
async fn cut_off(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await;
    let body = body.unwrap_or_default();
    let half = std::io::Cursor::new(body.slice(..body.len() / 2)).chain(Broken);
    Response::from_parts(parts, Body::from_stream(ReaderStream::new(half)))
}

/// A reader that returns an error.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

impl Tenant {
    /// Returns a token for `identity` and the time at which it is issued.
    pub(super) fn issue(&self, identity: &Identity) -> (Issued, u64) {
        // The current second counts as over: a token must not expire before `expires_in`.
        let now = token::now() + 1;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.controls.entra() == EntraFault::SameToken
            && let Some(issued) = last.get(&identity.client_id)
            && now < issued.expires_at
        {
            return (issued.clone(), now);
        }
        let issued = self
            .signer
            .issue(identity, now, self.controls.token_lifetime());
        last.insert(identity.client_id.clone(), issued.clone());
        self.controls.counters().tokens_issued.add();
        tracing::info!(
            token.oid = identity.object_id,
            token.lifetime_s = issued.expires_at - now,
            "token issued"
        );
        (issued, now)
    }

    fn failure(&self, status: u16) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        errors::failure(&self.signer, status)
    }
}

/// Returns true if the resource of a request is Redis.
fn is_redis(resource: &str) -> bool {
    resource.trim_end_matches('/') == token::REDIS_RESOURCE || resource == token::REDIS_APPLICATION
}

#[derive(Deserialize)]
struct Exchange {
    grant_type: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    client_secret: Option<String>,
    client_assertion_type: Option<String>,
    client_assertion: Option<String>,
}

/// `POST /{tenant}/oauth2/v2.0/token`: exchanges a secret or an assertion for a token.
async fn exchange(
    State(tenant): State<Shared>,
    Path(asked): Path<String>,
    form: Result<Form<Exchange>, FormRejection>,
) -> Response {
    let checked = match form {
        Ok(Form(form)) => tenant.check(&asked, &form).await,
        Err(_) => Err(Reason::MissingParameter.with("grant_type")),
    };
    if let Err(error) = checked {
        return error.response(&tenant.signer);
    }
    let (issued, now) = tenant.issue(&tenant.application);
    let left = issued.expires_at - now;
    grant(json!({
        "token_type": "Bearer",
        "expires_in": left,
        "ext_expires_in": left,
        "access_token": issued.text,
    }))
}

impl Tenant {
    /// Checks that a request authenticates the application, for Redis.
    async fn check(&self, asked: &str, form: &Exchange) -> Result<(), EntraError> {
        if !asked.eq_ignore_ascii_case(&self.signer.tenant) {
            return Err(Reason::UnknownTenant.with(asked));
        }
        let given = |value: &Option<String>, name| match value {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            _ => Err(Reason::MissingParameter.with(name)),
        };
        let grant_type = given(&form.grant_type, "grant_type")?;
        if grant_type != "client_credentials" {
            return Err(Reason::UnsupportedGrant.with(&grant_type));
        }
        let client_id = given(&form.client_id, "client_id")?;
        let scope = given(&form.scope, "scope")?;
        let Some(resource) = scope.strip_suffix("/.default") else {
            return Err(Reason::InvalidScope.with(&scope));
        };
        if !is_redis(resource) {
            return Err(Reason::UnknownResource.with(resource));
        }
        if !client_id.eq_ignore_ascii_case(&self.application.client_id) {
            return Err(Reason::UnknownApplication.with(&client_id));
        }
        match (&form.client_secret, &form.client_assertion) {
            (_, Some(assertion)) => {
                if form.client_assertion_type.as_deref() != Some(ASSERTION_TYPE) {
                    return Err(Reason::MissingParameter.with("client_assertion_type"));
                }
                self.check_assertion(assertion.as_bytes()).await
            }
            (Some(secret), None) if *secret == self.client_secret => Ok(()),
            (Some(_), None) => Err(Reason::InvalidSecret.into()),
            (None, None) => Err(Reason::NoCredential.into()),
        }
    }
}

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`.
async fn configuration(State(tenant): State<Shared>, Path(asked): Path<String>) -> Response {
    if !asked.eq_ignore_ascii_case(&tenant.signer.tenant) {
        return Reason::UnknownTenant.with(&asked).response(&tenant.signer);
    }
    let base = format!("{}{}", tenant.authority, tenant.signer.tenant);
    Json(json!({
        "issuer": format!("{base}/v2.0"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
    .into_response()
}

/// `GET /{tenant}/discovery/v2.0/keys`.
async fn keys(State(tenant): State<Shared>) -> Json<Value> {
    Json(tenant.signer.key_set())
}

/// Returns a response with a token, which must not be stored (RFC 6749).
fn grant(body: Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

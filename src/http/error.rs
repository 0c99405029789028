//! Errors as callers see them: problem documents (RFC 9457). The one place that chooses status codes.
//!
//! # Invariants
//! - The body states what happened and what to do, and contains no inner error's text.
//! - An inner error is logged once, when it is answered.

use std::{borrow::Cow, sync::Arc};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::warn;
use utoipa::ToSchema;

use entra_redis::{error_chain::ErrorChain, pool};

/// A problem document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// The kind of problem, for programs: a URN that never changes.
    #[serde(rename = "type")]
    #[schema(rename = "type", example = "urn:entra-redis:problem:no-token")]
    kind: &'static str,
    /// The kind of problem, for people.
    #[schema(example = "No token")]
    title: &'static str,
    /// The HTTP status of this response.
    #[schema(example = 503)]
    status: u16,
    /// The cause, and what to do.
    detail: Cow<'static, str>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
    /// The error to be logged.
    #[serde(skip)]
    source: Option<Arc<pool::Error>>,
}

/// Seconds within which service resumes after Redis' or Entra's return.
const RESUMES_WITHIN_SECONDS: u32 = 5;

impl Problem {
    pub(super) const NOT_FOUND: Self = Self::new(
        "urn:entra-redis:problem:not-found",
        StatusCode::NOT_FOUND,
        "Not found",
        "No resource has this path. /swagger lists the paths.",
    );
    pub(super) const METHOD_NOT_ALLOWED: Self = Self::new(
        "urn:entra-redis:problem:method-not-allowed",
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed",
        "This path does not support the method. The Allow header lists those that it supports.",
    );
    pub(super) const BODY_TOO_LARGE: Self = Self::new(
        "urn:entra-redis:problem:body-too-large",
        StatusCode::PAYLOAD_TOO_LARGE,
        "Body too large",
        "The request body exceeds this service's limit.",
    );
    pub(super) const NOT_FROM_THIS_MACHINE: Self = Self::new(
        "urn:entra-redis:problem:not-from-this-machine",
        StatusCode::FORBIDDEN,
        "Not from this machine",
        "Only processes on the service's machine or in its pod may use this path, and not through a proxy.",
    );
    const LOG_FILTER: Self = Self::new(
        "urn:entra-redis:problem:log-filter",
        StatusCode::BAD_REQUEST,
        "Invalid log filter",
        "",
    );
    pub(super) const OVERLOADED: Self = Self::new(
        "urn:entra-redis:problem:overloaded",
        StatusCode::SERVICE_UNAVAILABLE,
        "Overloaded",
        "This replica has reached its request limit. Try again shortly.",
    )
    .retry_after(1);
    pub(super) const TIMED_OUT: Self = Self::new(
        "urn:entra-redis:problem:timed-out",
        StatusCode::GATEWAY_TIMEOUT,
        "Timed out",
        "The request exceeded its deadline. It may or may not have had an effect.",
    );
    pub(super) const PANICKED: Self = Self::new(
        "urn:entra-redis:problem:internal-error",
        StatusCode::INTERNAL_SERVER_ERROR,
        "Internal error",
        "Internal error. See the service's log for this request id.",
    );
    const NO_TOKEN: Self = Self::new(
        "urn:entra-redis:problem:no-token",
        StatusCode::SERVICE_UNAVAILABLE,
        "No token",
        "The service has no valid token from Microsoft Entra ID to authenticate to Redis. It keeps requesting one.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);
    const REDIS_UNAVAILABLE: Self = Self::new(
        "urn:entra-redis:problem:redis-unavailable",
        StatusCode::SERVICE_UNAVAILABLE,
        "Redis unavailable",
        "The service has no connection to Redis. It keeps retrying.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);
    const CONNECTION_LOST: Self = Self::new(
        "urn:entra-redis:problem:connection-lost",
        StatusCode::SERVICE_UNAVAILABLE,
        "Connection lost",
        "The connection to Redis was lost before the response. The request may or may not have had an effect.",
    )
    .retry_after(1);
    const AUTHENTICATION_REFUSED: Self = Self::new(
        "urn:entra-redis:problem:authentication-refused",
        StatusCode::SERVICE_UNAVAILABLE,
        "Authentication refused",
        "Redis refuses to authenticate the service. Check that its identity is a user of the cache. The service keeps retrying.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);
    const REDIS_REFUSED: Self = Self::new(
        "urn:entra-redis:problem:redis-refused",
        StatusCode::SERVICE_UNAVAILABLE,
        "Redis error",
        "Redis returned an error. See the service's log for this request id.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);

    /// Returns the problem of a body that is not a log filter.
    pub(super) fn log_filter(why: &str) -> Self {
        Self {
            detail: format!("The body is not a valid log filter: {why}.").into(),
            ..Self::LOG_FILTER
        }
    }

    const fn new(
        kind: &'static str,
        status: StatusCode,
        title: &'static str,
        detail: &'static str,
    ) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: Cow::Borrowed(detail),
            retry_after_seconds: None,
            source: None,
        }
    }

    const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Some(source) = &self.source {
            warn!(error = %ErrorChain(source.as_ref()), "request failed at Redis");
        }
        let status = StatusCode::from_u16(self.status).expect("built from a status code");
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// For `?` in a handler.
impl From<pool::Error> for Problem {
    fn from(error: pool::Error) -> Self {
        let problem = match &error {
            pool::Error::NoToken => Self::NO_TOKEN,
            pool::Error::Unavailable(_) if error.is_authentication_refused() => {
                Self::AUTHENTICATION_REFUSED
            }
            pool::Error::Unavailable(_) => Self::REDIS_UNAVAILABLE,
            pool::Error::Opening | pool::Error::Closed => Self::REDIS_UNAVAILABLE,
            pool::Error::OutcomeUnknown(_) => Self::CONNECTION_LOST,
            pool::Error::TimedOut(_) => Self::TIMED_OUT,
            pool::Error::Command(_) => Self::REDIS_REFUSED,
            _ => Self::REDIS_UNAVAILABLE,
        };
        Self {
            source: Some(Arc::new(error)),
            ..problem
        }
    }
}

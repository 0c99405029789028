//! Errors as callers see them: problem documents (RFC 9457). The one place that knows status codes.
//!
//! What always holds: the body says what happened and what to do, and repeats no inner error's text.

use std::borrow::Cow;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::warn;
use utoipa::ToSchema;

use crate::{redis, report::ErrorChain};

/// A problem document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: a URN that never changes, for programs.
    #[serde(rename = "type")]
    #[schema(rename = "type", example = "urn:entra-redis:problem:no-token")]
    kind: &'static str,
    /// The same for a person.
    #[schema(example = "No token")]
    title: &'static str,
    /// HTTP status of this answer.
    #[schema(example = 503)]
    status: u16,
    /// What happened and what to do.
    detail: Cow<'static, str>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
}

/// The service resumes within 5 s of Redis' or Entra's return.
const RESUMES_WITHIN_SECONDS: u32 = 5;

impl Problem {
    pub(super) const NOT_FOUND: Self = Self::new(
        "urn:entra-redis:problem:not-found",
        StatusCode::NOT_FOUND,
        "Not found",
        "There is nothing at this path. /swagger lists what there is.",
    );
    pub(super) const METHOD_NOT_ALLOWED: Self = Self::new(
        "urn:entra-redis:problem:method-not-allowed",
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed",
        "This path exists, but not for this method. The Allow header names those that do.",
    );
    pub(super) const BODY_TOO_LARGE: Self = Self::new(
        "urn:entra-redis:problem:body-too-large",
        StatusCode::PAYLOAD_TOO_LARGE,
        "Body too large",
        "The request's body is larger than this service accepts.",
    );
    pub(super) const NOT_FROM_THIS_MACHINE: Self = Self::new(
        "urn:entra-redis:problem:not-from-this-machine",
        StatusCode::FORBIDDEN,
        "Not from this machine",
        "Only a process on the service's own machine or in its pod may ask this, without a proxy.",
    );
    const LOG_FILTER: Self = Self::new(
        "urn:entra-redis:problem:log-filter",
        StatusCode::BAD_REQUEST,
        "Not a log filter",
        "",
    );
    pub(super) const OVERLOADED: Self = Self::new(
        "urn:entra-redis:problem:overloaded",
        StatusCode::SERVICE_UNAVAILABLE,
        "Overloaded",
        "As many requests are in progress as this replica takes. Try again shortly.",
    )
    .retry_after(1);
    pub(super) const TIMED_OUT: Self = Self::new(
        "urn:entra-redis:problem:timed-out",
        StatusCode::GATEWAY_TIMEOUT,
        "Timed out",
        "The request was not answered within its deadline. Whether it had an effect is unknown.",
    );
    pub(super) const PANICKED: Self = Self::new(
        "urn:entra-redis:problem:internal-error",
        StatusCode::INTERNAL_SERVER_ERROR,
        "Internal error",
        "The service met a fault of its own and logged it under this request's id.",
    );
    const NO_TOKEN: Self = Self::new(
        "urn:entra-redis:problem:no-token",
        StatusCode::SERVICE_UNAVAILABLE,
        "No token",
        "The service has no live token from Microsoft Entra ID to sign in to Redis with. It keeps asking for one.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);
    const REDIS_UNAVAILABLE: Self = Self::new(
        "urn:entra-redis:problem:redis-unavailable",
        StatusCode::SERVICE_UNAVAILABLE,
        "Redis unavailable",
        "The service has no connection to Redis. It keeps trying to open one.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);
    const CONNECTION_LOST: Self = Self::new(
        "urn:entra-redis:problem:connection-lost",
        StatusCode::SERVICE_UNAVAILABLE,
        "Connection lost",
        "The connection to Redis ended before the answer. Whether the request had an effect is unknown.",
    )
    .retry_after(1);
    const SIGN_IN_REFUSED: Self = Self::new(
        "urn:entra-redis:problem:sign-in-refused",
        StatusCode::SERVICE_UNAVAILABLE,
        "Sign-in refused",
        "Redis refused the service's sign-in. Is the identity a user of the cache? The service keeps trying.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);
    const REDIS_REFUSED: Self = Self::new(
        "urn:entra-redis:problem:redis-refused",
        StatusCode::SERVICE_UNAVAILABLE,
        "Redis refused",
        "Redis answered with an error, which the service logged under this request's id.",
    )
    .retry_after(RESUMES_WITHIN_SECONDS);

    /// What was sent is no log filter, and why.
    pub(super) fn log_filter(why: &str) -> Self {
        Self {
            detail: format!("The body is not a log filter: {why}.").into(),
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
        }
    }

    const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("it came from a status code");
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

/// For `?` in a handler. The error ends here, so here it is logged.
impl From<redis::Error> for Problem {
    fn from(error: redis::Error) -> Self {
        warn!(error = %ErrorChain(&error), "a request failed at Redis");
        Self::from(&error)
    }
}

impl From<&redis::Error> for Problem {
    fn from(error: &redis::Error) -> Self {
        match error {
            redis::Error::NoToken => Self::NO_TOKEN,
            redis::Error::Unavailable(_) if error.is_authentication_refused() => {
                Self::SIGN_IN_REFUSED
            }
            redis::Error::Unavailable(_) => Self::REDIS_UNAVAILABLE,
            redis::Error::Opening | redis::Error::Closed => Self::REDIS_UNAVAILABLE,
            redis::Error::OutcomeUnknown(_) => Self::CONNECTION_LOST,
            redis::Error::TimedOut(_) => Self::TIMED_OUT,
            redis::Error::Command(_) => Self::REDIS_REFUSED,
            _ => Self::REDIS_UNAVAILABLE,
        }
    }
}

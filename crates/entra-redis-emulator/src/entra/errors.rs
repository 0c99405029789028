//! Entra ID's errors: what a refused caller is told, in the words and the shape that SDKs and people search for.
//!
//! `entra` chooses the variant; this file knows code, status and text. A text may repeat a name that the caller sent
//! (an application, a subject), cut to a sane length; never a secret, an assertion or a token, which no variant holds.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use rcgen::date_time_ymd;
use serde_json::json;

use super::token::{self, Signer};

/// Why no token is issued.
#[derive(Debug)]
pub(super) enum EntraError {
    AssertionNotInTime {
        not_before: u64,
        expires_at: u64,
    },
    BadSignature,
    CertificateNotFound {
        thumbprint: Option<String>,
        application: String,
    },
    InvalidScope(String),
    InvalidSecret,
    IssuerUnavailable,
    KeyNotFound,
    MalformedAssertion,
    MissingParameter(&'static str),
    NoCredential,
    UnknownApplication(String),
    UnknownResource(String),
    UnknownTenant(String),
    UnsupportedGrant(String),
    WrongApplication,
    WrongAudience(String),
    WrongIssuer(String),
    WrongRealm,
    WrongSubject(String),
}

impl EntraError {
    /// The answer that carries this error.
    pub(super) fn answer(&self, signer: &Signer) -> Response {
        let (status, error, code, text) = self.parts();
        answer(signer, status, error, code, &text)
    }

    fn parts(&self) -> (StatusCode, &'static str, u32, String) {
        use EntraError::*;
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;
        let federated = |what: &str, value: &str| {
            format!(
                "No matching federated identity record found for presented assertion {what} '{value:.200}'. Check \
                 your federated identity credential Subject, Audience and Issuer against the presented assertion. \
                 https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
            )
        };
        match self {
            AssertionNotInTime { not_before, expires_at } => (
                UNAUTHORIZED,
                "invalid_client",
                700024,
                format!(
                    "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, \
                     expiry time of assertion {}.",
                    utc(token::now()),
                    utc(*not_before),
                    utc(*expires_at)
                ),
            ),
            BadSignature => (
                UNAUTHORIZED,
                "invalid_client",
                700027,
                "Client assertion failed signature validation. [Reason - The provided signature value did not match \
                 the expected signature value.]"
                    .into(),
            ),
            CertificateNotFound { thumbprint, application } => {
                let named = thumbprint.as_ref().map(|thumbprint| {
                    format!("Thumbprint of key used by client: '{thumbprint}', ")
                });
                (
                    UNAUTHORIZED,
                    "invalid_client",
                    700027,
                    format!(
                        "The certificate with identifier used to sign the client assertion is not registered on \
                         application. [Reason - The key was not found., {}Please visit the Azure Portal, Graph \
                         Explorer or directly use MS Graph to see configured keys for app Id '{application}'.]",
                        named.unwrap_or_default()
                    ),
                )
            }
            InvalidScope(scope) => (
                BAD,
                "invalid_scope",
                70011,
                format!(
                    "The provided request must include a 'scope' input parameter. The provided value for the input \
                     parameter 'scope' is not valid. The scope {scope:.200} is not valid."
                ),
            ),
            InvalidSecret => (
                UNAUTHORIZED,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                 value, not the client secret ID, for a secret added to the app."
                    .into(),
            ),
            IssuerUnavailable => (
                BAD,
                "invalid_request",
                50166,
                "Request to External OIDC endpoint failed.".into(),
            ),
            KeyNotFound => (
                UNAUTHORIZED,
                "invalid_client",
                700027,
                "Client assertion failed signature validation. [Reason - The key was not found.]".into(),
            ),
            MalformedAssertion => (
                BAD,
                "invalid_request",
                50027,
                "JWT token is invalid or malformed.".into(),
            ),
            MissingParameter(name) => (
                BAD,
                "invalid_request",
                900144,
                format!("The request body must contain the following parameter: '{name}'."),
            ),
            NoCredential => (
                UNAUTHORIZED,
                "invalid_client",
                7000216,
                "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."
                    .into(),
            ),
            UnknownApplication(id) => (
                BAD,
                "unauthorized_client",
                700016,
                format!(
                    "Application with identifier '{id:.200}' was not found in the directory 'entra-redis emulator'. \
                     This can happen if the application has not been installed by the administrator of the tenant or \
                     consented to by any user in the tenant. You may have sent your authentication request to the \
                     wrong tenant."
                ),
            ),
            UnknownResource(resource) => (
                BAD,
                "invalid_resource",
                500011,
                format!(
                    "The resource principal named {resource:.200} was not found in the tenant named entra-redis \
                     emulator."
                ),
            ),
            UnknownTenant(tenant) => (
                BAD,
                "invalid_request",
                90002,
                format!(
                    "Tenant '{tenant:.200}' not found. Check to make sure you have the correct tenant ID and are \
                     signing into the correct cloud."
                ),
            ),
            UnsupportedGrant(grant) => (
                BAD,
                "unsupported_grant_type",
                70003,
                format!("The app requested an unsupported grant type '{grant:.200}'."),
            ),
            WrongApplication => (
                UNAUTHORIZED,
                "invalid_client",
                700021,
                "Client assertion application identifier doesn't match 'client_id' parameter. Review the \
                 documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."
                    .into(),
            ),
            WrongAudience(audience) => {
                (UNAUTHORIZED, "invalid_client", 700212, federated("audience", audience))
            }
            WrongIssuer(issuer) => {
                (UNAUTHORIZED, "invalid_client", 700211, federated("issuer", issuer))
            }
            WrongRealm => (
                UNAUTHORIZED,
                "invalid_client",
                700023,
                "Client assertion audience claim does not match Realm issuer. Review the documentation at \
                 https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."
                    .into(),
            ),
            WrongSubject(subject) => {
                (UNAUTHORIZED, "invalid_client", 700213, federated("subject", subject))
            }
        }
    }
}

/// The answer of a service that is out of order: what `Controls` asked for.
pub(super) fn failure(signer: &Signer, status: StatusCode) -> Response {
    let (error, code) = match status {
        StatusCode::TOO_MANY_REQUESTS => ("temporarily_unavailable", 90055),
        status if status.is_server_error() => ("temporarily_unavailable", 90033),
        _ => ("invalid_request", 90014),
    };
    answer(
        signer,
        status,
        error,
        code,
        "The emulator was told to fail.",
    )
}

fn answer(signer: &Signer, status: StatusCode, error: &str, code: u32, text: &str) -> Response {
    let (trace, correlation) = (signer.guid(), signer.guid());
    let timestamp = utc(token::now());
    let body = json!({
        "error": error,
        "error_description": format!(
            "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
        ),
        "error_codes": [code],
        "timestamp": timestamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    (status, Json(body)).into_response()
}

/// A time as Entra ID writes it. The certificate library's calendar does: one of our own would be the larger part.
fn utc(seconds: u64) -> String {
    // Past this the calendar ends; only a forged assertion gets here.
    let seconds = seconds.min(200_000_000_000);
    let time = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_written_as_entra_id_writes_it() {
        assert_eq!(super::utc(1_769_783_025), "2026-01-30 14:23:45Z");
        assert_eq!(super::utc(u64::MAX).len(), 20);
    }
}

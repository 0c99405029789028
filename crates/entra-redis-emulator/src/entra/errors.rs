//! Entra ID's errors, in the words and the shape that SDKs and people search for.
//!
//! The token endpoint chooses a [`Reason`]; the table here has its code, status and text.
//!
//! # Invariants
//!
//! - A text may repeat a name that the client sent (an application, a subject), cut to [`DETAIL_LENGTH`]; never a secret,
//!   an assertion or a token.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use rcgen::date_time_ymd;
use serde_json::json;

use super::token::{self, Signer};

/// Characters of a name that a text repeats.
const DETAIL_LENGTH: usize = 200;

/// A reason for not issuing a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    AssertionNotInTime,
    BadSignature,
    CertificateNotFound,
    InvalidScope,
    InvalidSecret,
    IssuerUnavailable,
    KeyNotFound,
    MalformedAssertion,
    MissingParameter,
    NoCredential,
    UnknownApplication,
    UnknownResource,
    UnknownTenant,
    UnsupportedGrant,
    WrongApplication,
    WrongAudience,
    WrongIssuer,
    WrongRealm,
    WrongSubject,
}

/// A refused token request: the reason, and the names that its text repeats.
#[derive(Debug)]
pub(super) struct EntraError {
    reason: Reason,
    details: Vec<String>,
}

/// The answer for one reason. Each `{}` in the text stands for one detail.
struct Row {
    reason: Reason,
    status: StatusCode,
    error: &'static str,
    code: u32,
    text: &'static str,
}

const fn bad_request(reason: Reason, error: &'static str, code: u32, text: &'static str) -> Row {
    Row {
        reason,
        status: StatusCode::BAD_REQUEST,
        error,
        code,
        text,
    }
}

const fn invalid_client(reason: Reason, code: u32, text: &'static str) -> Row {
    Row {
        reason,
        status: StatusCode::UNAUTHORIZED,
        error: "invalid_client",
        code,
        text,
    }
}

macro_rules! no_federated_identity {
    ($claim:literal) => {
        concat!(
            "No matching federated identity record found for presented assertion ",
            $claim,
            " '{}'. Check your federated identity credential Subject, Audience and Issuer against the presented \
             assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        )
    };
}

const ROWS: &[Row] = &[
    invalid_client(
        Reason::AssertionNotInTime,
        700024,
        "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry time of \
         assertion {}.",
    ),
    invalid_client(
        Reason::BadSignature,
        700027,
        "Client assertion failed signature validation. [Reason - The provided signature value did not match the \
         expected signature value.]",
    ),
    invalid_client(
        Reason::CertificateNotFound,
        700027,
        "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - \
         The key was not found., {}Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see \
         configured keys for app Id '{}'.]",
    ),
    bad_request(
        Reason::InvalidScope,
        "invalid_scope",
        70011,
        "The provided request must include a 'scope' input parameter. The provided value for the input parameter \
         'scope' is not valid. The scope {} is not valid.",
    ),
    invalid_client(
        Reason::InvalidSecret,
        7000215,
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not \
         the client secret ID, for a secret added to the app.",
    ),
    bad_request(
        Reason::IssuerUnavailable,
        "invalid_request",
        50166,
        "Request to External OIDC endpoint failed.",
    ),
    invalid_client(
        Reason::KeyNotFound,
        700027,
        "Client assertion failed signature validation. [Reason - The key was not found.]",
    ),
    bad_request(
        Reason::MalformedAssertion,
        "invalid_request",
        50027,
        "JWT token is invalid or malformed.",
    ),
    bad_request(
        Reason::MissingParameter,
        "invalid_request",
        900144,
        "The request body must contain the following parameter: '{}'.",
    ),
    invalid_client(
        Reason::NoCredential,
        7000216,
        "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
    ),
    bad_request(
        Reason::UnknownApplication,
        "unauthorized_client",
        700016,
        "Application with identifier '{}' was not found in the directory 'entra-redis emulator'. This can happen if \
         the application has not been installed by the administrator of the tenant or consented to by any user in the \
         tenant. You may have sent your authentication request to the wrong tenant.",
    ),
    bad_request(
        Reason::UnknownResource,
        "invalid_resource",
        500011,
        "The resource principal named {} was not found in the tenant named entra-redis emulator.",
    ),
    bad_request(
        Reason::UnknownTenant,
        "invalid_request",
        90002,
        "Tenant '{}' not found. Check to make sure you have the correct tenant ID and are signing into the correct \
         cloud.",
    ),
    bad_request(
        Reason::UnsupportedGrant,
        "unsupported_grant_type",
        70003,
        "The app requested an unsupported grant type '{}'.",
    ),
    invalid_client(
        Reason::WrongApplication,
        700021,
        "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at \
         https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
    ),
    invalid_client(
        Reason::WrongAudience,
        700212,
        no_federated_identity!("audience"),
    ),
    invalid_client(
        Reason::WrongIssuer,
        700211,
        no_federated_identity!("issuer"),
    ),
    invalid_client(
        Reason::WrongRealm,
        700023,
        "Client assertion audience claim does not match Realm issuer. Review the documentation at \
         https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
    ),
    invalid_client(
        Reason::WrongSubject,
        700213,
        no_federated_identity!("subject"),
    ),
];

impl From<Reason> for EntraError {
    /// An error whose text has no details.
    fn from(reason: Reason) -> Self {
        let details = Vec::new();
        Self { reason, details }
    }
}

impl Reason {
    /// Returns the error with the one detail of its text.
    pub(super) fn with(self, detail: &str) -> EntraError {
        let details = vec![detail.to_owned()];
        EntraError {
            reason: self,
            details,
        }
    }

    fn row(self) -> &'static Row {
        let mut rows = ROWS.iter();
        rows.find(|row| row.reason == self)
            .expect("every reason has a row")
    }
}

impl EntraError {
    /// An assertion that is valid at other times than now.
    pub(super) fn not_in_time(not_before: u64, expires_at: u64) -> Self {
        Self {
            reason: Reason::AssertionNotInTime,
            details: [token::now(), not_before, expires_at].map(utc).into(),
        }
    }

    /// An assertion signed by another certificate than the one registered for `application`.
    pub(super) fn certificate_not_found(thumbprint: Option<&str>, application: &str) -> Self {
        let named = thumbprint
            .map(|thumbprint| format!("Thumbprint of key used by client: '{thumbprint}', "));
        Self {
            reason: Reason::CertificateNotFound,
            details: vec![named.unwrap_or_default(), application.to_owned()],
        }
    }

    /// Returns the response that carries this error.
    pub(super) fn response(&self, signer: &Signer) -> Response {
        let row = self.reason.row();
        response(signer, row.status, row.error, row.code, &self.text())
    }

    fn text(&self) -> String {
        let mut details = self.details.iter();
        let mut pieces = self.reason.row().text.split("{}");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let detail = details.next().map(String::as_str).unwrap_or_default();
            text.extend(detail.chars().take(DETAIL_LENGTH));
            text.push_str(piece);
        }
        text
    }
}

/// Returns the response of a service that is out of order, for [`EntraFault`](crate::EntraFault).
pub(super) fn failure(signer: &Signer, status: StatusCode) -> Response {
    let (error, code) = match status {
        StatusCode::TOO_MANY_REQUESTS => ("temporarily_unavailable", 90055),
        status if status.is_server_error() => ("temporarily_unavailable", 90033),
        _ => ("invalid_request", 90014),
    };
    let text = "A fault injected into the emulator.";
    response(signer, status, error, code, text)
}

fn response(signer: &Signer, status: StatusCode, error: &str, code: u32, text: &str) -> Response {
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

/// Formats a time as Entra ID does, with the calendar of the certificate library: one of our own would be longer than this
/// file.
fn utc(seconds: u64) -> String {
    // The calendar's last second; only a forged assertion has a later one.
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
    use super::*;

    #[test]
    fn every_reason_has_one_row() {
        // The last variant's number is one less than their count.
        assert_eq!(ROWS.len(), Reason::WrongSubject as usize + 1);
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.reason as usize, index, "{:?}", row.reason);
        }
    }

    #[test]
    fn details_stand_where_the_text_names_them() {
        for (error, expected) in [
            (
                Reason::MissingParameter.with("scope"),
                "must contain the following parameter: 'scope'.",
            ),
            (
                EntraError::not_in_time(0, 1_769_783_025),
                "valid from 1970-01-01 00:00:00Z, expiry time of assertion 2026-01-30 14:23:45Z.",
            ),
            (
                EntraError::certificate_not_found(Some("AB"), "{}"),
                "found., Thumbprint of key used by client: 'AB', Please visit the Azure Portal, Graph Explorer or \
                 directly use MS Graph to see configured keys for app Id '{}'.]",
            ),
            (
                EntraError::certificate_not_found(None, "id"),
                "The key was not found., Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see \
                 configured keys for app Id 'id'.]",
            ),
        ] {
            let text = error.text();
            assert!(text.ends_with(expected), "{text}");
        }
        let long = Reason::InvalidScope.with(&"é".repeat(1000)).text();
        assert_eq!(long.matches('é').count(), DETAIL_LENGTH);
    }

    #[test]
    fn a_time_is_written_as_entra_id_writes_it() {
        assert_eq!(utc(1_769_783_025), "2026-01-30 14:23:45Z");
        assert_eq!(utc(u64::MAX).len(), 20);
    }
}

//! `GET /sample`: the time of the previous visit. The route of Microsoft's ASP.NET sample.
//!
//! One atomic round trip: `SET key now GET` (Redis command SET) writes this visit and returns the one before.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, error::Problem, layers::AccessFields};

pub(super) const PATH: &str = "/sample";

/// The response as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreviousVisit {
    /// UTC, to the second, without a zone, as in .NET's format `s`; `null` on the first visit.
    #[schema(example = "2026-01-30T14:23:45", required = true)]
    previous_visit: Option<String>,
}

/// Previous visit
///
/// Returns the time of the previous visit and stores this one's. After a lost connection it may be the time that this visit
/// stored.
#[utoipa::path(
    get,
    path = "/sample",
    tag = "sample",
    responses(
        (status = 200, description = "The time of the previous visit; nothing after the colon and one space on the first", content(
            (String = "text/plain", example = "Previous visit was at: 2026-01-30T14:23:45"),
            (PreviousVisit = "application/json")
        )),
        (status = 503, description = "Redis or the token is unavailable, or too many requests are in progress", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Redis did not respond in time", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn sample(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut command = redis::cmd("SET");
    command
        .arg(&context.sample_key)
        .arg(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string())
        .arg("GET");
    let previous: Option<Vec<u8>> = context.pool.query_idempotent(&command).await?;
    context.visits.fetch_add(1, Ordering::Relaxed);
    // Another value under the key is returned as it is: the ASP.NET sample does the same.
    let previous_visit = previous.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let fields = AccessFields {
        previous_visit: previous_visit.clone(),
    };
    let mut response = if prefers_json(&headers) {
        Json(PreviousVisit { previous_visit }).into_response()
    } else {
        let time = previous_visit.unwrap_or_default();
        format!("Previous visit was at: {time}").into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response.extensions_mut().insert(fields);
    Ok(response)
}

/// Answers every method but GET. `/sample` writes, so HEAD, which axum would answer through GET, is refused too.
pub(super) async fn refuse() -> (StatusCode, [(HeaderName, &'static str); 1], Problem) {
    let allow = [(header::ALLOW, "GET")];
    (
        StatusCode::METHOD_NOT_ALLOWED,
        allow,
        Problem::METHOD_NOT_ALLOWED,
    )
}

/// Returns whether the caller accepts JSON by name and prefers it no less than text (RFC 9110, section 12.5.1).
fn prefers_json(headers: &HeaderMap) -> bool {
    let (mut json, mut text) = (0.0_f32, 0.0_f32);
    let accepted = headers.get_all(header::ACCEPT).iter();
    for range in accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
            .map_or(1.0, |quality| quality.parse().unwrap_or(0.0_f32));
        let quality = if (0.0..=1.0).contains(&quality) {
            quality
        } else {
            0.0
        };
        if name.eq_ignore_ascii_case("application/json") {
            json = quality;
        } else if name.eq_ignore_ascii_case("text/plain") || name.eq_ignore_ascii_case("text/*") {
            text = text.max(quality);
        }
    }
    json > 0.0 && json >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accept: &str) -> bool {
        let value = HeaderValue::from_str(accept).expect("printable");
        prefers_json(&HeaderMap::from_iter([(header::ACCEPT, value)]))
    }

    #[test]
    fn json_is_returned_when_accepted_by_name() {
        for json in [
            "application/json",
            "APPLICATION/JSON;q=0.5",
            "text/html, application/json, */*",
        ] {
            assert!(prefers(json), "{json}");
        }
        assert!(!prefers("application/json; Q=0"));
        assert!(!prefers("application/json;q=inf"));
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for text in [
            "*/*",
            "",
            browser,
            "application/json;q=0",
            "text/plain, application/json;q=0.9",
        ] {
            assert!(!prefers(text), "{text}");
        }
        assert!(!prefers_json(&HeaderMap::new()));
    }
}

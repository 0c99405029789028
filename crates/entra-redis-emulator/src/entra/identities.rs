//! Managed identities: [`app_service`] for App Service and Container Apps, [`metadata_service`] for virtual machines.
//!
//! Each has an error format of its own.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;

use super::token::Identity;
use super::{Shared, Tenant, grant, is_redis};

/// The query of both endpoints.
#[derive(Deserialize)]
pub(super) struct IdentityQuery {
    resource: Option<String>,
    #[serde(rename = "api-version")]
    api_version: Option<String>,
    client_id: Option<String>,
    principal_id: Option<String>,
    object_id: Option<String>,
    mi_res_id: Option<String>,
    /// The metadata service's name of it.
    msi_res_id: Option<String>,
}

/// `GET /msi/token`, as on App Service and Container Apps.
pub(super) async fn app_service(
    State(tenant): State<Shared>,
    Query(query): Query<IdentityQuery>,
    headers: HeaderMap,
) -> Response {
    let refuse = |status: StatusCode, message: &str| {
        (
            status,
            Json(json!({"statusCode": status.as_u16(), "message": message})),
        )
            .into_response()
    };
    let header = headers
        .get("x-identity-header")
        .map(|value| value.as_bytes());
    if header != Some(tenant.identity_header.as_bytes()) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "The X-IDENTITY-HEADER is missing or wrong.",
        );
    }
    if query.api_version.as_deref() != Some("2019-08-01") {
        return refuse(
            StatusCode::BAD_REQUEST,
            "The api-version is missing or not supported.",
        );
    }
    let Some(resource) = query.resource.as_deref() else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "The resource parameter is missing.",
        );
    };
    if !is_redis(resource) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "AADSTS500011: The resource principal was not found in the tenant.",
        );
    }
    let Some(identity) = tenant.identity(&query) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
        );
    };
    let (issued, _) = tenant.issue(identity);
    grant(json!({
        "access_token": issued.text,
        "expires_on": issued.expires_at.to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": identity.client_id,
    }))
}

/// `GET /metadata/identity/oauth2/token`, as on a virtual machine.
pub(super) async fn metadata_service(
    State(tenant): State<Shared>,
    Query(query): Query<IdentityQuery>,
    headers: HeaderMap,
) -> Response {
    let refuse = |error: &str, description: &str| {
        let body = json!({"error": error, "error_description": description});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    let metadata = headers.get("metadata").map(|value| value.as_bytes());
    if !metadata.is_some_and(|value| value.eq_ignore_ascii_case(b"true")) {
        return refuse("invalid_request", "Required metadata header not specified");
    }
    if query.api_version.is_none() {
        return refuse(
            "invalid_request",
            "Required query variable 'api-version' is missing",
        );
    }
    let Some(resource) = query.resource.as_deref() else {
        return refuse(
            "invalid_request",
            "Required query variable 'resource' is missing",
        );
    };
    if !is_redis(resource) {
        return refuse(
            "invalid_resource",
            "AADSTS500011: The resource principal was not found in the tenant.",
        );
    }
    let Some(identity) = tenant.identity(&query) else {
        return refuse("invalid_request", "Identity not found");
    };
    let (issued, now) = tenant.issue(identity);
    let left = (issued.expires_at - now).to_string();
    grant(json!({
        "access_token": issued.text,
        "client_id": identity.client_id,
        "expires_in": left,
        "expires_on": issued.expires_at.to_string(),
        "ext_expires_in": left,
        "not_before": issued.not_before.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    }))
}

impl Tenant {
    /// Returns the managed identity of a query; `None` if it is unknown, or named twice.
    fn identity(&self, query: &IdentityQuery) -> Option<&Identity> {
        let named = [
            (&query.client_id, &self.application.client_id),
            (&query.principal_id, &self.application.object_id),
            (&query.object_id, &self.application.object_id),
            (&query.mi_res_id, &self.application.resource_id),
            (&query.msi_res_id, &self.application.resource_id),
        ];
        let mut named = named
            .into_iter()
            .filter_map(|(asked, known)| Some((asked.as_ref()?, known)));
        match (named.next(), named.next()) {
            (None, _) => Some(&self.system),
            (Some((asked, known)), None) => asked
                .eq_ignore_ascii_case(known)
                .then_some(&self.application),
            (Some(_), Some(_)) => None,
        }
    }
}

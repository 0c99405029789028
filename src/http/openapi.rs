//! The OpenAPI document and Swagger UI, both served from the binary.

use axum::Router;
use utoipa::openapi::{OpenApi, info::LicenseBuilder};
use utoipa_swagger_ui::SwaggerUi;

const DOCUMENT_PATH: &str = "/openapi.json";

/// Completes what the routes say of themselves.
pub(super) fn document(mut routes: OpenApi) -> OpenApi {
    routes.info.title = "entra-redis".to_owned();
    routes.info.version = env!("CARGO_PKG_VERSION").to_owned();
    routes.info.description = Some(
        "The time of the previous visit, kept in Azure Managed Redis and reached with Microsoft Entra ID.".to_owned(),
    );
    routes.info.contact = None;
    routes.info.license = Some(
        LicenseBuilder::new()
            .name("MIT")
            .identifier(Some("MIT"))
            .build(),
    );
    routes
}

/// `/openapi.json` and `/swagger`.
pub(super) fn routes(document: OpenApi) -> Router {
    SwaggerUi::new("/swagger")
        .url(DOCUMENT_PATH, document)
        .into()
}

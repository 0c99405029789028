//! The OpenAPI document and Swagger UI, both served from the binary.

use axum::{
    Router,
    middleware::map_response,
    response::{IntoResponse, Response},
};
use utoipa::openapi::{
    self, Content, Object, OpenApi, Ref, RefOr, ResponseBuilder, Type,
    header::Header,
    info::LicenseBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
};
use utoipa_swagger_ui::SwaggerUi;

use super::{error::Problem, layers::REQUEST_ID};

const DOCUMENT_PATH: &str = "/openapi.json";

/// Adds the responses of the public port's limits.
pub(super) fn limited(routes: &mut OpenApi) {
    for operation in operations(routes) {
        for (status, description) in [
            ("413", "The request body is larger than 64 KiB"),
            ("503", "This replica has reached its request limit"),
            ("504", "The request exceeded its deadline"),
        ] {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            let answer = ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", problem);
            let answers = &mut operation.responses.responses;
            let answer = answers.entry(status.to_owned()).or_insert(answer.into());
            if status == "503" {
                let description = "Seconds to wait before a retry";
                add_header(answer, "retry-after", Type::Integer, description);
            }
        }
    }
}

/// Completes the document of the routes.
pub(super) fn document(mut routes: OpenApi) -> OpenApi {
    routes.info.title = "entra-redis".to_owned();
    routes.info.version = env!("CARGO_PKG_VERSION").to_owned();
    routes.info.description = Some(
        "The time of the previous visit, kept in Azure Managed Redis with Microsoft Entra ID authentication.".to_owned(),
    );
    routes.info.contact = None;
    routes.info.license = Some(
        LicenseBuilder::new()
            .name("MIT")
            .identifier(Some("MIT"))
            .build(),
    );
    for operation in operations(&mut routes) {
        let id = ParameterBuilder::new()
            .name(REQUEST_ID.as_str())
            .parameter_in(ParameterIn::Header)
            .description(Some("A request id of the caller's own; kept if it is printable and has at most 128 characters"))
            .schema(Some(Object::with_type(Type::String)));
        let parameters = operation.parameters.get_or_insert_default();
        parameters.push(id.build().into());
        for answer in operation.responses.responses.values_mut() {
            let description = "The request id, as in the log";
            add_header(answer, REQUEST_ID.as_str(), Type::String, description);
        }
    }
    routes
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    let paths = document.paths.paths.values_mut();
    paths.flat_map(|path| [&mut path.get, &mut path.put].into_iter().flatten())
}

/// Adds a header that each of these responses has.
fn add_header(answer: &mut RefOr<openapi::Response>, name: &str, kind: Type, description: &str) {
    if let RefOr::T(answer) = answer {
        let mut header = Header::new(Object::with_type(kind));
        header.description = Some(description.to_owned());
        // OpenAPI has this field and utoipa does not; its extensions are written beside the rest.
        header.extensions = Some([("required", true)].into_iter().collect());
        answer.headers.insert(name.to_owned(), header.into());
    }
}

/// Returns the routes `/openapi.json` and `/swagger`.
pub(super) fn routes(document: OpenApi) -> Router {
    let routes = Router::from(SwaggerUi::new("/swagger").url(DOCUMENT_PATH, document));
    // Swagger UI has an error response of its own.
    routes.layer(map_response(async |response: Response| {
        if response.status().is_client_error() {
            Problem::NOT_FOUND.into_response()
        } else {
            response
        }
    }))
}

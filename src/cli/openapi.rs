//! The command `openapi`.

use anyhow::Context;

use super::output::print;
use crate::http;

/// Prints the OpenAPI document of all routes.
pub(super) fn print_document() -> anyhow::Result<()> {
    let document = http::document().to_pretty_json();
    print(&document.context("cannot write the OpenAPI document")?)
}

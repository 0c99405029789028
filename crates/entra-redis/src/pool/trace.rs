//! Spans: one per command, its retries included, one per AUTH, and one for each wait for a connection.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for database clients. `server.address` is the
//! cache's endpoint as configured; only spans of AUTH have the address of the node.
//!
//! # Invariants
//! - A span contains only a command's name, never an argument: no key, value or token leaves the process in a span.

use redis::{Arg, Cmd, RedisError};
use tracing::{Instrument, Span, field::Empty, trace_span};

use super::error::Error;
use crate::{
    env::Endpoint,
    trace::{self, TARGET},
};

/// Azure Managed Redis and clusters have no other database.
const NAMESPACE: &str = "0";
/// The length of the longest command name of Redis and its modules, rounded up.
const LONGEST_NAME: usize = 32;

macro_rules! span {
    ($endpoint:expr, $name:expr, $($attributes:tt)*) => {
        trace_span!(
            target: TARGET,
            "redis",
            otel.name = $name,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "redis",
            db.namespace = NAMESPACE,
            server.address = $endpoint.host(),
            server.port = $endpoint.port(),
            error.type = Empty,
            $($attributes)*
        )
    };
}

/// Returns the span of one command.
pub(super) fn command(endpoint: &Endpoint, command: &Cmd) -> Span {
    span!(
        endpoint,
        name(command),
        db.operation.name = name(command),
        db.response.status_code = Empty,
    )
}

/// Returns the span of one AUTH; `kind` is `connect` or `reauth`.
pub(super) fn auth(endpoint: &Endpoint, kind: &'static str) -> Span {
    span!(
        endpoint,
        "AUTH",
        db.operation.name = "AUTH",
        db.response.status_code = Empty,
        redis.auth.kind = kind,
    )
}

/// Waits for a connection in a span of its own. Called only if no connection is open.
pub(super) async fn waiting<T>(
    endpoint: &Endpoint,
    connection: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let span = span!(endpoint, "wait for connection",);
    let result = connection.instrument(span.clone()).await;
    if let Err(error) = &result {
        trace::failed(&span, error.label());
    }
    result
}

/// Records the code of an error reply.
pub(super) fn record_code(span: &Span, error: &RedisError) {
    span.record("db.response.status_code", error.code());
}

/// Returns a command's name in capitals. Unlike a label's values, these need not be a closed set.
fn name(command: &Cmd) -> String {
    let is_name = |word: &[u8]| {
        word.len() <= LONGEST_NAME
            && word
                .iter()
                .all(|letter| letter.is_ascii_alphanumeric() || *letter == b'.')
    };
    match command.args_iter().next() {
        Some(Arg::Simple(word)) if is_name(word) => {
            String::from_utf8_lossy(word).to_ascii_uppercase()
        }
        _ => "_OTHER".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_after_the_command_and_never_after_an_argument() {
        for (sent, named) in [
            ("set", "SET"),
            ("JSON.GET", "JSON.GET"),
            ("SET key", "_OTHER"),
            ("", ""),
        ] {
            let mut command = redis::cmd(sent);
            command.arg("secret");
            assert_eq!(name(&command), named);
        }
        let long = "X".repeat(LONGEST_NAME + 1);
        assert_eq!(name(&redis::cmd(&long)), "_OTHER");
    }
}

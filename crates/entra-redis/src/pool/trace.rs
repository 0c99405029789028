//! What does a trace show of Redis? One span a command, its retries included, one for each sign-in, and one where a
//! caller had to wait for a connection.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for database clients. What always holds: of a
//! command only its name is told, never an argument, so that no key, value or token leaves by a span.
//!
//! What does not belong here: a node's own address. `server.address` is the cache's endpoint, as `REDIS_ENDPOINT` has it,
//! but for sign-ins, which are each node's own.

use redis::{Arg, Cmd, RedisError};
use tracing::{Instrument, Span, field::Empty, trace_span};

use super::error::Error;
use crate::{
    config::Endpoint,
    trace::{self, TARGET},
};

/// Azure Managed Redis and clusters have no other database.
const NAMESPACE: &str = "0";
/// No command of Redis' or its modules' has a longer name.
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

/// The span of one command.
pub(super) fn command(endpoint: &Endpoint, command: &Cmd) -> Span {
    span!(
        endpoint,
        name(command),
        db.operation.name = name(command),
        db.response.status_code = Empty,
    )
}

/// The span of one AUTH, at `connect` or `reauth`.
pub(super) fn sign_in(endpoint: &Endpoint, kind: &'static str) -> Span {
    span!(
        endpoint,
        "AUTH",
        db.operation.name = "AUTH",
        db.response.status_code = Empty,
        redis.auth.kind = kind,
    )
}

/// Waits for a connection, in a span of its own. Callers come here only where none is at hand.
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

/// Says what code Redis answered with, where that is what failed.
pub(super) fn answered(span: &Span, error: &RedisError) {
    span.record("db.response.status_code", error.code());
}

/// A command's name as it was sent, in capitals. Labels keep to a closed set; spans need not.
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
    fn a_span_is_named_by_the_command_and_by_nothing_that_cannot_be_one() {
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

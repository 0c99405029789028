//! The AUTH command: its arguments, its span and its counter.

use std::time::Duration;

use metrics::counter;
use redis::{Cmd, RedisResult, aio::MultiplexedConnection};
use tracing::Instrument;

use super::super::{
    error::Error,
    instruments,
    trace::{auth as auth_span, record_code},
};
use crate::{env::Endpoint, identity::Token, secret::Secret, trace};

/// Returns AUTH with the user name and the token.
pub(super) fn auth_with_token(token: &Token) -> Cmd {
    let mut auth = redis::cmd("AUTH");
    auth.arg(&token.username).arg(token.secret.expose());
    auth
}

/// Returns AUTH with an access key, as the default user.
pub(super) fn auth_with_key(key: &Secret) -> Cmd {
    let mut auth = redis::cmd("AUTH");
    auth.arg(key.expose());
    auth
}

/// Sends AUTH and counts its outcome. An answer after the timeout counts as a failure.
pub(super) async fn authenticate(
    mut session: MultiplexedConnection,
    address: &Endpoint,
    auth: &Cmd,
    kind: &'static str,
    timeout: Duration,
) -> RedisResult<()> {
    session.set_response_timeout(timeout);
    let span = auth_span(address, kind);
    let answer: RedisResult<()> = auth
        .query_async(&mut session)
        .instrument(span.clone())
        .await;
    let outcome = match &answer {
        Ok(()) => "success",
        Err(error) => {
            record_code(&span, error);
            trace::failed(&span, Error::of(error.clone()).label());
            "failure"
        }
    };
    counter!(instruments::AUTH, "kind" => kind, "outcome" => outcome).increment(1);
    answer
}

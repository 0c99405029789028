//! Keeps one connection signed in: AUTH in place with each new token, idle or busy.
//!
//! One such task lives beside each connection. A failed AUTH leaves the earlier sign-in in force (Redis command AUTH),
//! so it is tried again until the connection's own token ends; then the connection is taken out of use.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use metrics::counter;
use redis::{Cmd, RedisResult, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument, debug, warn};

use super::{
    super::{
        error::Error,
        instruments,
        trace::{answered, sign_in},
    },
    connection::{Closing, Life, SignedIn},
};
use crate::{
    config::Endpoint,
    identity::{Token, Tokens},
    secret::Secret,
    trace,
};

/// Azure asks that AUTHs be staggered: each connection waits a random time up to this share of what is left of its own
/// token, and never longer than the limit, so that it is signed in again long before the 3 minutes that Azure asks for.
const STAGGER_SHARE: f64 = 0.05;
const STAGGER_LIMIT: Duration = Duration::from_secs(5);

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Signs `session` in with each token that `tokens` publishes, until the connection ends or its own token does.
/// `tokens` must have been read when the connection signed in, so that a token is used once and none is missed.
pub(super) async fn keep_signed_in(
    session: MultiplexedConnection,
    life: Arc<Life>,
    mut tokens: Tokens,
    address: Endpoint,
    limit: Duration,
) {
    // The task must not keep the connection's life alive: its end is what ends the task.
    let weak = Arc::downgrade(&life);
    drop(life);
    loop {
        let Some(ends) = end_of(&weak) else { return };
        tokio::select! {
            () = tokens.changed() => {}
            () = sleep_until(ends) => return expire(&weak),
        }
        sleep(stagger(ends, fastrand::f64())).await;
        let mut pause = FIRST_RETRY;
        // Always the newest token: one that came while an earlier was being refused takes its place.
        while let Some(token) = tokens.newest() {
            // No longer than the earlier sign-in holds: past its end the connection must not be used.
            let limit = limit.min(ends.saturating_duration_since(Instant::now()));
            let auth = with_token(&token);
            let answer = authenticate(session.clone(), &address, &auth, "reauth", limit).await;
            let Some(life) = weak.upgrade() else { return };
            match answer {
                Ok(()) => {
                    life.sign_in(SignedIn::from(&*token));
                    debug!(
                        token.version = token.version,
                        "a connection signed in again"
                    );
                    break;
                }
                Err(error) if error.is_connection_dropped() => return life.close(Closing::Lost),
                Err(error) if error.is_timeout() => {
                    warn!(
                        token.version = token.version,
                        "Redis did not answer AUTH, the earlier sign-in stays in force"
                    );
                    life.unanswered();
                }
                Err(error) => warn!(
                    redis.code = error.code().unwrap_or("none"),
                    token.version = token.version,
                    "Redis did not take the new token, the earlier sign-in stays in force"
                ),
            }
            drop(life);
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
                () = sleep_until(ends) => return expire(&weak),
            }
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }
}

/// AUTH with the user name and the token.
pub(super) fn with_token(token: &Token) -> Cmd {
    let mut auth = redis::cmd("AUTH");
    auth.arg(&token.username).arg(token.secret.expose());
    auth
}

/// AUTH with an access key, as the default user.
pub(super) fn with_key(key: &Secret) -> Cmd {
    let mut auth = redis::cmd("AUTH");
    auth.arg(key.expose());
    auth
}

/// Sends an AUTH and counts its outcome. A late answer counts as a failure: it changes nothing that was in force.
pub(super) async fn authenticate(
    mut session: MultiplexedConnection,
    address: &Endpoint,
    auth: &Cmd,
    kind: &'static str,
    limit: Duration,
) -> RedisResult<()> {
    session.set_response_timeout(limit);
    let span = sign_in(address, kind);
    let answer: RedisResult<()> = auth
        .query_async(&mut session)
        .instrument(span.clone())
        .await;
    let outcome = match &answer {
        Ok(()) => "success",
        Err(error) => {
            answered(&span, error);
            trace::failed(&span, Error::of(error.clone()).label());
            "failure"
        }
    };
    counter!(instruments::AUTH, "kind" => kind, "outcome" => outcome).increment(1);
    answer
}

/// When the token that the connection is signed in with ends; `None` once nobody uses the connection.
fn end_of(life: &Weak<Life>) -> Option<Instant> {
    Some(life.upgrade()?.signed_in()?.ends)
}

fn expire(life: &Weak<Life>) {
    if let Some(life) = life.upgrade() {
        life.close(Closing::Expired);
    }
}

fn stagger(ends: Instant, random: f64) -> Duration {
    let left = ends.saturating_duration_since(Instant::now());
    left.mul_f64(STAGGER_SHARE)
        .min(STAGGER_LIMIT)
        .mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn auths_are_spread_over_a_small_part_of_what_is_left() {
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(stagger(after(1000), 0.5), Duration::from_millis(2500));
        assert_eq!(stagger(after(10), 1.0), Duration::from_millis(500));
        assert_eq!(stagger(after(0), 1.0), Duration::ZERO);
    }
}

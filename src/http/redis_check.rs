//! The background check of Redis that `/readyz` reads.

use std::{convert::Infallible, time::Duration};

use tokio::{sync::watch, time::sleep, time::timeout};
use tracing::{info, warn};

use entra_redis::pool::{Answering, Error, Pool};

/// Time between two checks while Redis answers.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time to the next check while Redis does not answer though connections are open.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Timeout of one check: the time between two.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive failures that make the replica not ready: a single one must not empty the Service.
const FAILURE_LIMIT: u32 = 3;

/// The read side of [`RedisCheck`].
#[derive(Debug, Clone)]
pub(crate) struct Readiness(watch::Receiver<Option<RedisState>>);

impl Readiness {
    /// Returns the latest finding; `None` before the first.
    pub(super) fn state(&self) -> Option<RedisState> {
        *self.0.borrow()
    }
}

/// The finding of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RedisState {
    /// At least one primary answers. With a cluster no replica of the service reaches the other primaries either, so that
    /// taking this one out of service would help no request.
    Answers(Answering),
    NoAnswer,
    AuthenticationRefused,
}

impl RedisState {
    fn is_good(self) -> bool {
        matches!(self, Self::Answers(_))
    }

    fn as_label(self) -> &'static str {
        match self {
            Self::Answers(_) => "answers",
            Self::NoAnswer => "no_answer",
            Self::AuthenticationRefused => "authentication_refused",
        }
    }
}

/// Checks in the background whether Redis answers.
#[derive(Debug)]
pub(crate) struct RedisCheck {
    pool: Pool,
    /// `None` before the first finding.
    state: watch::Sender<Option<RedisState>>,
}

impl RedisCheck {
    /// Makes a check and its read side; nothing is sent to Redis until [`RedisCheck::run`].
    pub(crate) fn new(pool: Pool) -> (Self, Readiness) {
        let (state, reader) = watch::channel(None);
        (Self { pool, state }, Readiness(reader))
    }

    /// Checks until dropped.
    pub(crate) async fn run(self) -> Infallible {
        let mut failures = 0_u32;
        loop {
            let found = match timeout(TIMEOUT, self.pool.ping()).await {
                Ok(result) => state(result),
                Err(_) => RedisState::NoAnswer,
            };
            failures = if found.is_good() {
                0
            } else {
                failures.saturating_add(1)
            };
            let published = *self.state.borrow();
            if is_published(published, found, failures) {
                log_change(published, found, failures);
                self.state.send_replace(Some(found));
            }
            if self.state.borrow().is_some_and(RedisState::is_good) {
                sleep(INTERVAL).await;
            } else {
                // As soon as there is a connection to ask on, so that traffic comes back soon.
                sleep(RETRY_AFTER).await;
                let _ = timeout(INTERVAL, self.pool.wait_connected()).await;
            }
        }
    }
}

/// Interprets the result of one check.
fn state(result: Result<Answering, Error>) -> RedisState {
    match result {
        Ok(answering) if answering.primaries_answering > 0 => RedisState::Answers(answering),
        Err(error) if error.is_authentication_refused() => RedisState::AuthenticationRefused,
        Ok(_) | Err(_) => RedisState::NoAnswer,
    }
}

/// Decides whether a finding replaces the published one: always, unless it is one of the first failures after success.
fn is_published(published: Option<RedisState>, found: RedisState, failures: u32) -> bool {
    let was_good = published.is_some_and(RedisState::is_good);
    found.is_good() || !was_good || failures >= FAILURE_LIMIT
}

fn log_change(published: Option<RedisState>, found: RedisState, failures: u32) {
    let was_good = published.is_some_and(RedisState::is_good);
    if found.is_good() && !was_good {
        info!("Redis answers");
    } else if was_good && !found.is_good() {
        warn!(reason = found.as_label(), failures, "Redis check failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_blip_is_not_published() {
        let good = RedisState::Answers(Answering {
            primaries: 1,
            primaries_answering: 1,
        });
        let bad = RedisState::NoAnswer;
        for (published, found, failures, expected) in [
            (None, good, 0, true),
            (None, bad, 1, true),
            (Some(good), good, 0, true),
            (Some(good), bad, 1, false),
            (Some(good), bad, 2, false),
            (Some(good), bad, 3, true),
            (Some(bad), bad, 4, true),
            (Some(bad), RedisState::AuthenticationRefused, 5, true),
            (Some(bad), good, 0, true),
        ] {
            let is = is_published(published, found, failures);
            assert_eq!(is, expected, "{published:?}, {found:?}, {failures}");
        }
    }
}

//! Re-authenticates one connection in place, with AUTH for each new token, idle or busy.
//!
//! # Invariants
//! - A refused AUTH leaves the earlier authentication in effect (Redis command AUTH), so it is retried until the
//!   connection's own token expires; then the connection is closed.
//! - Connections of a node re-authenticate one at a time; one whose AUTH times out is replaced before the next starts. An
//!   unanswered AUTH delays the replies to all commands after it, since replies keep their order, so callers get the
//!   other connections meanwhile.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{super::error::Error, connection::NodeConnection};
use super::{
    auth::{auth_with_token, authenticate},
    connection::{Authenticated, CloseReason, ConnectionState},
};
use crate::{env::Endpoint, identity::Tokens};

/// Azure asks clients to stagger AUTH: each connection waits a random time up to this share of its own token's remaining
/// life, and up to the limit, so that it is re-authenticated long before the 3 minutes before expiry that Azure asks for.
const STAGGER_SHARE: f64 = 0.05;
const STAGGER_LIMIT: Duration = Duration::from_secs(5);

/// The backoff between attempts, doubled with each refusal; the jitter leaves 50 % to 100 % of it.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// The longest backoff as a share of the remaining life of the connection's own token.
const RETRY_SHARE: f64 = 0.25;

/// The longest wait for the other connections as a share of the remaining life of the connection's own token.
const QUEUE_SHARE: f64 = 0.5;

/// Admits one of a node's connections at a time to re-authentication.
pub(super) struct ReauthQueue {
    permits: Semaphore,
    /// The permit was lost with a connection whose AUTH was not answered; its replacement restores it.
    is_lost: AtomicBool,
}

impl Default for ReauthQueue {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(1),
            is_lost: AtomicBool::new(false),
        }
    }
}

impl ReauthQueue {
    /// Waits for the permit, and does without after `longest`: the connection must try before its token expires.
    async fn acquire(&self, longest: Duration) -> ReauthPermit<'_> {
        let permit = timeout(longest, self.permits.acquire()).await;
        ReauthPermit {
            queue: self,
            permit: permit.ok().and_then(Result::ok),
        }
    }

    /// Restores a lost permit, since a connection was opened.
    pub(super) fn restore(&self) {
        if self.is_lost.swap(false, Ordering::Relaxed) {
            self.permits.add_permits(1);
        }
    }
}

/// The permit to re-authenticate. It passes to the next connection when released after AUTH was answered; dropped without
/// an answer it is lost.
struct ReauthPermit<'a> {
    queue: &'a ReauthQueue,
    permit: Option<SemaphorePermit<'a>>,
}

impl ReauthPermit<'_> {
    fn release(mut self) {
        self.permit = None;
    }
}

impl Drop for ReauthPermit<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.forget();
            self.queue.is_lost.store(true, Ordering::Relaxed);
        }
    }
}

/// The task that keeps one connection authenticated.
pub(super) struct Reauthenticator {
    pub(super) session: MultiplexedConnection,
    /// Weak: the task ends with the connection's last user.
    pub(super) state: Weak<ConnectionState>,
    /// Read when the connection authenticated, so that each later token is used once and none is missed.
    pub(super) tokens: Tokens,
    pub(super) address: Endpoint,
    /// The longest wait for the answer to one AUTH.
    pub(super) timeout: Duration,
    pub(super) queue: Arc<ReauthQueue>,
}

impl Reauthenticator {
    /// Re-authenticates the connection with each new token, until it closes or its own token expires.
    pub(super) async fn run(mut self) {
        let Err(reason) = self.follow_tokens().await else {
            return;
        };
        if let Some(state) = self.state.upgrade() {
            state.close(reason);
        }
    }

    /// Returns the reason to close the connection, or `Ok` once it has no users.
    async fn follow_tokens(&mut self) -> Result<(), CloseReason> {
        while let Some(expires) = self.expires() {
            self.wait_for_newer_token(expires).await?;
            sleep(stagger(left(expires), fastrand::f64())).await;
            self.reauthenticate(expires).await?;
        }
        Ok(())
    }

    /// Returns the expiry of the token that the connection is authenticated with; `None` once it has no users.
    fn expires(&self) -> Option<Instant> {
        Some(self.state.upgrade()?.authenticated()?.expires)
    }

    async fn wait_for_newer_token(&mut self, expires: Instant) -> Result<(), CloseReason> {
        tokio::select! {
            () = self.tokens.changed() => Ok(()),
            () = sleep_until(expires) => Err(CloseReason::Expired),
        }
    }

    /// Re-authenticates, with as many attempts as it takes.
    async fn reauthenticate(&mut self, expires: Instant) -> Result<(), CloseReason> {
        let mut refusals: u32 = 0;
        loop {
            match self.reauthenticate_once(expires, refusals).await {
                Next::Done => return Ok(()),
                Next::Close(reason) => return Err(reason),
                Next::Retry { after } => tokio::select! {
                    () = sleep(after) => {}
                    () = sleep_until(expires) => return Err(CloseReason::Expired),
                },
            }
            refusals = refusals.saturating_add(1);
        }
    }

    async fn reauthenticate_once(&mut self, expires: Instant, refusals: u32) -> Next {
        let permit = self.queue.acquire(left(expires).mul_f64(QUEUE_SHARE)).await;
        // Always the newest token: one that arrived while an earlier one was being refused takes its place.
        let Some(token) = self.tokens.newest() else {
            permit.release();
            return Next::Done; // until the next token arrives
        };
        // No longer than the earlier authentication is valid: after that the connection must not be used.
        let timeout = self.timeout.min(left(expires));
        let auth = auth_with_token(&token);
        self.set_auth_pending(true);
        let answer = authenticate(
            self.session.clone(),
            &self.address,
            &auth,
            "reauth",
            timeout,
        )
        .await;
        self.set_auth_pending(false);
        let Some(state) = self.state.upgrade() else {
            return Next::Close(CloseReason::Lost); // without users there is nothing left to close
        };
        let outcome = AuthOutcome::of(&answer);
        match outcome {
            AuthOutcome::Accepted => {
                permit.release();
                state.set_authenticated(Authenticated::from(&*token));
                debug!(
                    server.address = %self.address,
                    token.version = token.version,
                    "Redis connection re-authenticated"
                );
            }
            AuthOutcome::Refused => {
                permit.release();
                let code = answer.as_ref().err().and_then(RedisError::code);
                warn!(
                    server.address = %self.address,
                    db.response.status_code = code.unwrap_or("none"),
                    token.version = token.version,
                    "re-authentication rejected; previous token stays in effect"
                );
            }
            AuthOutcome::TimedOut => warn!(
                server.address = %self.address,
                token.version = token.version,
                "AUTH timed out; replacing connection"
            ),
            AuthOutcome::ConnectionLost => {}
        }
        judge(outcome, refusals, left(expires), fastrand::f64())
    }

    fn set_auth_pending(&self, awaits: bool) {
        if let Some(state) = self.state.upgrade() {
            state.auth_pending.store(awaits, Ordering::Relaxed);
        }
    }
}

/// The outcome of one AUTH.
#[derive(Debug, Clone, Copy)]
enum AuthOutcome {
    Accepted,
    Refused,
    ConnectionLost,
    TimedOut,
}

impl AuthOutcome {
    fn of(answer: &RedisResult<()>) -> Self {
        match answer {
            Ok(()) => Self::Accepted,
            Err(error) if error.is_connection_dropped() => Self::ConnectionLost,
            Err(error) if error.is_timeout() => Self::TimedOut,
            Err(_) => Self::Refused,
        }
    }
}

/// The next step after an AUTH.
#[derive(Debug, PartialEq)]
enum Next {
    /// Wait for a newer token.
    Done,
    /// Try again: the earlier authentication stays in effect.
    Retry { after: Duration },
    /// Close the connection.
    Close(CloseReason),
}

/// Returns the next step after an AUTH that followed so many refused ones. `remaining` is the remaining life of the
/// connection's own token, `jitter` a random number from 0 to 1.
fn judge(outcome: AuthOutcome, refusals: u32, remaining: Duration, jitter: f64) -> Next {
    match outcome {
        AuthOutcome::Accepted => Next::Done,
        AuthOutcome::Refused => Next::Retry {
            after: backoff(refusals, remaining).mul_f64(0.5 + 0.5 * jitter),
        },
        AuthOutcome::TimedOut if remaining.is_zero() => Next::Close(CloseReason::Expired),
        AuthOutcome::TimedOut | AuthOutcome::ConnectionLost => Next::Close(CloseReason::Lost),
    }
}

fn backoff(refusals: u32, remaining: Duration) -> Duration {
    let share = remaining.mul_f64(RETRY_SHARE).max(FIRST_RETRY);
    FIRST_RETRY
        .saturating_mul(2_u32.saturating_pow(refusals))
        .min(LONGEST_RETRY)
        .min(share)
}

fn stagger(remaining: Duration, jitter: f64) -> Duration {
    remaining
        .mul_f64(STAGGER_SHARE)
        .min(STAGGER_LIMIT)
        .mul_f64(jitter)
}

fn left(expires: Instant) -> Duration {
    expires.saturating_duration_since(Instant::now())
}

/// Re-authenticates an open connection with `token`, as [`Reauthenticator`] does with each new one; for `doctor`.
pub(in crate::pool) async fn reauthenticate(
    connection: &NodeConnection,
    address: &Endpoint,
    token: &crate::identity::Token,
    timeout: Duration,
) -> Result<(), Error> {
    let auth = auth_with_token(token);
    let session = connection.session.clone();
    let answer = authenticate(session, address, &auth, "reauth", timeout).await;
    answer.map_err(Error::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_from_the_outcome_of_auth() {
        use AuthOutcome::{Accepted, ConnectionLost, Refused, TimedOut};
        use Next::{Close, Done};
        let millis = Duration::from_millis;
        let retry = |after| Next::Retry {
            after: millis(after),
        };
        let (hour, none) = (millis(3_600_000), Duration::ZERO);
        #[rustfmt::skip]
        let table = [
            (Accepted, 0, hour, 1.0, Done),
            (Accepted, 9, none, 1.0, Done),
            (ConnectionLost, 0, hour, 1.0, Close(CloseReason::Lost)),
            (ConnectionLost, 0, none, 1.0, Close(CloseReason::Lost)),
            (TimedOut, 0, hour, 1.0, Close(CloseReason::Lost)),
            (TimedOut, 0, none, 1.0, Close(CloseReason::Expired)),
            // Doubled with each refusal, up to the limit; the jitter leaves at least half.
            (Refused, 0, hour, 1.0, retry(20)),
            (Refused, 0, hour, 0.0, retry(10)),
            (Refused, 3, hour, 1.0, retry(160)),
            (Refused, 7, hour, 1.0, retry(2560)),
            (Refused, 8, hour, 1.0, retry(5000)),
            (Refused, 8, hour, 0.5, retry(3750)),
            (Refused, 80, hour, 1.0, retry(5000)),
            (Refused, u32::MAX, hour, 1.0, retry(5000)),
            // Never more than a quarter of the remaining life, and never less than the first.
            (Refused, 8, millis(8_000), 1.0, retry(2000)),
            (Refused, 8, millis(100), 1.0, retry(25)),
            (Refused, 8, millis(10), 1.0, retry(20)),
            (Refused, 8, none, 1.0, retry(20)),
        ];
        for (outcome, refusals, remaining, jitter, next) in table {
            assert_eq!(
                judge(outcome, refusals, remaining, jitter),
                next,
                "{outcome:?} after {refusals} refusals, {remaining:?} remaining, jitter {jitter}"
            );
        }
    }

    #[test]
    fn auths_are_spread_over_a_small_part_of_the_remaining_life() {
        let seconds = Duration::from_secs;
        assert_eq!(stagger(seconds(1000), 0.5), Duration::from_millis(2500));
        assert_eq!(stagger(seconds(10), 1.0), Duration::from_millis(500));
        assert_eq!(stagger(seconds(0), 1.0), Duration::ZERO);
    }
}

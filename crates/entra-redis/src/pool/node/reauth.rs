//! Keeps one connection signed in: AUTH in place with each new token, idle or busy.
//!
//! One such task lives beside each connection. A failed AUTH leaves the earlier sign-in in force (Redis command AUTH),
//! so it is tried again until the connection's own token ends; then the connection is taken out of use.
//!
//! An AUTH that is not answered holds up whatever its connection sends after it, since replies keep their order. So a node's
//! connections sign in again one after the other, callers are given the others meanwhile, and who gets no answer is
//! replaced before the next one dares.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::counter;
use redis::{Cmd, RedisResult, aio::MultiplexedConnection};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until, timeout},
};
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
/// Nor is more than this share of what is left of the connection's own token waited between two attempts.
const RETRY_SHARE: f64 = 0.25;

/// No connection waits longer for its turn than this share of what is left of its own token.
const TURN_SHARE: f64 = 0.5;

/// Whose turn it is, of one node's connections, to sign in again.
pub(super) struct Turns {
    turn: Semaphore,
    /// The turn went down with a connection that got no answer; its replacement brings it back.
    is_lost: AtomicBool,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            turn: Semaphore::new(1),
            is_lost: AtomicBool::new(false),
        }
    }
}

impl Turns {
    /// Waits for the turn, but no longer than the limit: then it must be tried all the same.
    async fn take(&self, limit: Duration) -> Turn<'_> {
        let permit = timeout(limit, self.turn.acquire()).await;
        Turn {
            turns: self,
            permit: permit.ok().and_then(Result::ok),
        }
    }

    /// A connection is open and signed in: a lost turn is there again.
    pub(super) fn renew(&self) {
        if self.is_lost.swap(false, Ordering::Relaxed) {
            self.turn.add_permits(1);
        }
    }
}

/// Passes to the next connection once AUTH is answered, and is lost without an answer.
struct Turn<'a> {
    turns: &'a Turns,
    permit: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    fn answered(mut self) {
        self.permit = None;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.forget();
            self.turns.is_lost.store(true, Ordering::Relaxed);
        }
    }
}

/// Signs `session` in with each token that `tokens` publishes, until the connection ends or its own token does.
/// `tokens` must have been read when the connection signed in, so that a token is used once and none is missed.
pub(super) async fn keep_signed_in(
    session: MultiplexedConnection,
    // The task must not keep the connection's life alive: its end is what ends the task.
    life: Weak<Life>,
    mut tokens: Tokens,
    address: Endpoint,
    limit: Duration,
    turns: Arc<Turns>,
) {
    loop {
        let Some(ends) = end_of(&life) else { return };
        tokio::select! {
            () = tokens.changed() => {}
            () = sleep_until(ends) => return expire(&life),
        }
        sleep(stagger(ends, fastrand::f64())).await;
        let mut pause = FIRST_RETRY;
        loop {
            let turn = turns.take(left(ends).mul_f64(TURN_SHARE)).await;
            // Always the newest token: one that came while an earlier was being refused takes its place.
            let Some(token) = tokens.newest() else {
                turn.answered();
                break;
            };
            // No longer than the earlier sign-in holds: past its end the connection must not be used.
            let limit = limit.min(left(ends));
            let auth = with_token(&token);
            awaits_auth(&life, true);
            let answer = authenticate(session.clone(), &address, &auth, "reauth", limit).await;
            awaits_auth(&life, false);
            let Some(life_now) = life.upgrade() else {
                return;
            };
            match answer {
                Ok(()) => {
                    turn.answered();
                    life_now.sign_in(SignedIn::from(&*token));
                    debug!(
                        token.version = token.version,
                        "a connection signed in again"
                    );
                    break;
                }
                Err(error) if error.is_connection_dropped() => {
                    return life_now.close(Closing::Lost);
                }
                Err(error) if error.is_timeout() => {
                    warn!(
                        token.version = token.version,
                        "Redis did not answer AUTH, nor what its connection sent after it: the connection is replaced"
                    );
                    return life_now.close(match left(ends).is_zero() {
                        true => Closing::Expired,
                        false => Closing::Lost,
                    });
                }
                Err(error) => {
                    turn.answered();
                    warn!(
                        redis.code = error.code().unwrap_or("none"),
                        token.version = token.version,
                        "Redis did not take the new token, the earlier sign-in stays in force"
                    );
                }
            }
            drop(life_now);
            let share = left(ends).mul_f64(RETRY_SHARE).max(FIRST_RETRY);
            let longest = LONGEST_RETRY.min(share);
            tokio::select! {
                () = sleep(pause.min(longest).mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
                () = sleep_until(ends) => return expire(&life),
            }
            pause *= 2;
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

fn awaits_auth(life: &Weak<Life>, waits: bool) {
    if let Some(life) = life.upgrade() {
        life.awaits_auth.store(waits, Ordering::Relaxed);
    }
}

fn left(ends: Instant) -> Duration {
    ends.saturating_duration_since(Instant::now())
}

fn stagger(ends: Instant, random: f64) -> Duration {
    left(ends)
        .mul_f64(STAGGER_SHARE)
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

//! The task that requests tokens and publishes them.
//!
//! # Invariants
//! - It never gives up.
//! - A token stays published until it expires; only a different token replaces it.
//!
//! While there is no live token, an attempt that hangs gets a second request beside it.

mod schedule;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{counter, gauge, histogram};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{Instrument, field::Empty, info, trace_span, warn};

use self::schedule::{
    MAX_LIFETIME, MAX_REQUEST_TIMEOUT, MIN_DELAY, attempt_timeout, delay_after_failure,
    delay_after_rejection, delay_after_same_token, delay_before_refresh, requested_delay,
    short_timeout,
};
use super::{
    instruments,
    source::{AccessToken, Error, TokenSource},
    token::{Token, TokenInfo, TokenStatus, Tokens},
};
use crate::{
    error_chain::ErrorChain,
    trace::{self, TARGET},
};

/// A task that keeps a valid token published: made by [`Refresher::new`], driven by [`Refresher::run`].
pub struct Refresher {
    source: Arc<dyn TokenSource>,
    token: watch::Sender<Option<Arc<Token>>>,
    status: watch::Sender<TokenStatus>,
    rejected: Arc<Notify>,
}

impl Refresher {
    /// Returns a refresher and its read side; nothing is requested until it runs.
    pub fn new(source: Arc<dyn TokenSource>) -> (Self, Tokens) {
        let (token, token_reader) = watch::channel(None);
        let (status, status_reader) = watch::channel(TokenStatus {
            credential: source.name(),
            token: None,
            failure: None,
        });
        let rejected = Arc::new(Notify::new());
        let refresher = Self {
            source,
            token,
            status,
            rejected: rejected.clone(),
        };
        let tokens = Tokens {
            token: token_reader,
            status: status_reader,
            rejected,
        };
        (refresher, tokens)
    }

    /// Requests tokens until dropped. Dropping it abandons the request in flight; readers keep the newest token until it
    /// expires.
    pub async fn run(self) -> Infallible {
        let (mut failures, mut rejections) = (0_u32, 0_u32);
        loop {
            let delay = match self.attempt(failures).await {
                Ok(Outcome::New(token)) => {
                    failures = 0;
                    let delay = delay_before_refresh(token.remaining(), fastrand::f64());
                    self.publish(token);
                    delay
                }
                Ok(Outcome::Unchanged(remaining)) => {
                    failures = 0;
                    self.status.send_modify(|status| status.failure = None);
                    delay_after_same_token(remaining)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.status
                        .send_modify(|status| status.failure = Some(error.kind()));
                    let live = self.live();
                    let delay = delay_after_failure(failures, live, fastrand::f64())
                        .max(requested_delay(error.retry_after(), live));
                    self.report_failure(&error, delay);
                    delay
                }
            };
            let finished = Instant::now();
            tokio::select! {
                () = sleep(delay) => rejections = 0,
                // Redis may reject a token for a moment after it was issued, and always rejects one of an identity that
                // is no user of the cache: so the next is not requested at once, and less and less often.
                () = self.rejected.notified() => {
                    sleep_until(finished + delay.min(delay_after_rejection(rejections))).await;
                    rejections = rejections.saturating_add(1);
                }
            }
        }
    }

    /// Returns the remaining life of the current token; `None` without a live one.
    fn live(&self) -> Option<Duration> {
        let token = self.token.borrow();
        token
            .as_ref()
            .map(|t| t.remaining())
            .filter(|r| !r.is_zero())
    }

    async fn attempt(&self, failures: u32) -> Result<Outcome, Error> {
        let limit = attempt_timeout(self.source.attempt_timeout(), self.live(), failures);
        let started = Instant::now();
        let span = trace_span!(
            target: TARGET,
            "get token",
            otel.kind = "client",
            otel.status_code = Empty,
            credential.name = self.source.name(),
            entra.token.outcome = Empty,
            token.expires_in_s = Empty,
            error.type = Empty,
        );
        let first = async {
            let result = timeout(limit, self.source.fetch()).await;
            result.unwrap_or(Err(Error::TimedOut(limit)))
        };
        let either = async {
            tokio::select! {
                result = first => result,
                result = self.fetch_in_parallel(limit) => result,
            }
        };
        let fetched = either.instrument(span.clone()).await;
        let outcome = fetched.and_then(|token| self.classify(token));
        let label = match &outcome {
            Ok(Outcome::New(_)) => "success",
            Ok(Outcome::Unchanged(_)) => "unchanged",
            Err(_) => "failure",
        };
        span.record("entra.token.outcome", label);
        match &outcome {
            Ok(Outcome::New(token)) => {
                span.record("token.expires_in_s", token.remaining().as_secs());
            }
            Ok(Outcome::Unchanged(remaining)) => {
                span.record("token.expires_in_s", remaining.as_secs());
            }
            Err(error) => trace::failed(&span, error.kind().as_label()),
        }
        counter!(instruments::REFRESHES, "source" => self.source.name(), "outcome" => label)
            .increment(1);
        histogram!(instruments::REFRESH_DURATION).record(started.elapsed());
        outcome
    }

    /// Sends further requests beside an attempt with the longer timeout, which is used while there is no token: the end of
    /// a hang is found by new requests, not by the one that hangs. The first result counts, an error too. Sources with a
    /// timeout above that of a request start programs, which must not run in parallel.
    async fn fetch_in_parallel(&self, limit: Duration) -> Result<AccessToken, Error> {
        let short = short_timeout(self.source.attempt_timeout());
        if self.live().is_some() || limit <= short || limit > MAX_REQUEST_TIMEOUT {
            return std::future::pending().await;
        }
        let mut delay = short;
        loop {
            sleep(delay).await;
            if let Ok(result) = timeout(short, self.source.fetch()).await {
                return result;
            }
            delay = MIN_DELAY;
        }
    }

    /// Compares a token that was received with the current one.
    fn classify(&self, token: AccessToken) -> Result<Outcome, Error> {
        let now = SystemTime::now();
        let remaining = token
            .expires_at
            .duration_since(now)
            .map_err(|error| Error::Expired(error.duration()))?
            .min(MAX_LIFETIME);
        let current = self.token.borrow();
        let version = match current.as_deref() {
            // An expired token that is received again has a new expiry if the clock was set meanwhile: publish it again.
            Some(current) if current.secret == token.secret && current.is_live() => {
                return Ok(Outcome::Unchanged(current.remaining()));
            }
            Some(current) => current.version + 1,
            None => 1,
        };
        Ok(Outcome::New(Token {
            username: token.username,
            secret: token.secret,
            expires_at: token.expires_at,
            valid_until: Instant::now() + remaining,
            version,
        }))
    }

    fn publish(&self, token: Token) {
        info!(
            credential.name = self.source.name(),
            entra.object_id = token.username,
            token.expires_in_s = token.remaining().as_secs(),
            token.version = token.version,
            "token refreshed"
        );
        let expires_at = token.expires_at.duration_since(UNIX_EPOCH);
        gauge!(instruments::EXPIRY).set(expires_at.unwrap_or_default().as_secs_f64());
        self.status.send_modify(|status| {
            status.credential = self.source.name();
            status.failure = None;
            status.token = Some(TokenInfo {
                username: token.username.clone(),
                expires_at: token.expires_at,
                valid_until: token.valid_until,
            });
        });
        self.token.send_replace(Some(Arc::new(token)));
    }

    fn report_failure(&self, error: &Error, delay: Duration) {
        let live = self.live();
        warn!(
            credential.name = self.source.name(),
            error = %ErrorChain(error),
            token.valid = live.is_some(),
            token.expires_in_s = live.map(|remaining| remaining.as_secs()),
            retry.in_s = delay.as_secs_f64(),
            "token refresh failed"
        );
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher")
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

/// The result of one attempt.
enum Outcome {
    New(Token),
    /// The source returned the current token, which has this much life left.
    Unchanged(Duration),
}

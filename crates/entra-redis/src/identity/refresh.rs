//! The one task that asks for tokens: when it asks, and how it waits.
//!
//! It never gives up. The token held stays published while it lives; only a different token replaces it. Where there is none
//! and an attempt hangs, it asks a second time beside it.

mod schedule;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
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
    report::ErrorChain,
    trace::{self, TARGET},
};

/// Keeps a token in force. Made by [`Refresher::new`], driven by [`Refresher::run`].
pub struct Refresher {
    source: Arc<dyn TokenSource>,
    token: watch::Sender<Option<Arc<Token>>>,
    status: watch::Sender<TokenStatus>,
    rejected: Arc<Notify>,
}

impl Refresher {
    /// Puts a refresher and its read side together; nothing is asked until it runs.
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

    /// Asks for tokens until dropped. Dropping it abandons what is in flight; the token held stays with the readers
    /// until it ends.
    pub async fn run(self) -> Infallible {
        let (mut failures, mut rejections) = (0_u32, 0_u32);
        loop {
            let wait = match self.attempt(failures).await {
                Ok(Outcome::New(token)) => {
                    failures = 0;
                    let wait = delay_before_refresh(token.remaining(), fastrand::f64());
                    self.publish(token);
                    wait
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
                    let wait = delay_after_failure(failures, live, fastrand::f64())
                        .max(requested_delay(error.retry_after(), live));
                    self.report_failure(&error, wait);
                    wait
                }
            };
            let asked = Instant::now();
            tokio::select! {
                () = sleep(wait) => rejections = 0,
                // A token just issued may be refused for a moment, until Redis knows of it, and one of an identity that
                // is no user of the cache always is: not asked for at once, and ever less often.
                () = self.rejected.notified() => {
                    sleep_until(asked + wait.min(delay_after_rejection(rejections))).await;
                    rejections = rejections.saturating_add(1);
                }
            }
        }
    }

    /// How long the token held will live; `None` without a live one.
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
            entra.credential = self.source.name(),
            entra.token.outcome = Empty,
            token.expires_in_s = Empty,
            error.type = Empty,
        );
        let patient = async {
            let answer = timeout(limit, self.source.fetch()).await;
            answer.unwrap_or(Err(Error::TimedOut(limit)))
        };
        let fetched = async {
            tokio::select! {
                answer = patient => answer,
                answer = self.fetch_in_parallel(limit) => answer,
            }
        };
        let answer = fetched.instrument(span.clone()).await;
        let outcome = answer.and_then(|token| self.classify(token));
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

    /// Asks again beside an attempt that is given more time because there is no token: the end of a hang is found by new
    /// requests, not by one that hangs. Any answer will do. Sources that take longer than a request start programs, which
    /// are not to run side by side.
    async fn fetch_in_parallel(&self, patience: Duration) -> Result<AccessToken, Error> {
        let quick = short_timeout(self.source.attempt_timeout());
        if self.live().is_some() || patience <= quick || patience > MAX_REQUEST_TIMEOUT {
            return std::future::pending().await;
        }
        let mut wait = quick;
        loop {
            sleep(wait).await;
            if let Ok(answer) = timeout(quick, self.source.fetch()).await {
                return answer;
            }
            wait = MIN_DELAY;
        }
    }

    fn classify(&self, token: AccessToken) -> Result<Outcome, Error> {
        let now = SystemTime::now();
        let remaining = token
            .expires_at
            .duration_since(now)
            .map_err(|error| Error::Expired(error.duration()))?
            .min(MAX_LIFETIME);
        let held = self.token.borrow();
        let version = match held.as_deref() {
            // A token held past its end may be the same one judged by a clock that was set since: take it again.
            Some(held) if held.secret == token.secret && held.is_live() => {
                return Ok(Outcome::Unchanged(held.remaining()));
            }
            Some(held) => held.version + 1,
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
            entra.credential = self.source.name(),
            entra.object_id = token.username,
            token.expires_in_s = token.remaining().as_secs(),
            token.version = token.version,
            "Entra ID issued a token"
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

    fn report_failure(&self, error: &Error, wait: Duration) {
        let left = self.live();
        warn!(
            entra.credential = self.source.name(),
            error = %ErrorChain(error),
            token.expires_in_s = left.map(|left| left.as_secs()),
            retry.in_s = wait.as_secs_f64(),
            "getting a token failed, {}",
            match left {
                Some(_) => "the one held still serves",
                None => "there is none to serve with",
            }
        );
    }
}

enum Outcome {
    New(Token),
    Unchanged(Duration),
}

//! The one task that asks for tokens: when it asks, and how it waits.
//!
//! It never gives up. The token held stays published while it lives; only a different token replaces it. Where there is none
//! and an attempt hangs, it asks a second time beside it.

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

use super::{
    instruments,
    source::{AccessToken, Error, TokenSource},
    token::{Held, Status, Token, Tokens},
};
use crate::{
    report::Chain,
    trace::{self, TARGET},
};

/// A new token is asked for when this share of the remaining life has passed, less up to [`REFRESH_SPREAD`] of it, so
/// that replicas started together do not ask together. The peers use 0.7 to 0.75; azure_identity's own 5 minutes before
/// the end leave no room for the 3 minutes that Azure asks for between AUTH and expiry.
const REFRESH_SHARE: f64 = 0.75;
const REFRESH_SPREAD: f64 = 0.10;

/// While a token lives, an attempt takes no more than half of what is left of it, so that a hanging endpoint can be asked
/// again, and no less than this.
const ATTEMPT_LIMIT_FLOOR: Duration = Duration::from_secs(1);
/// Without one, three attempts of four take no longer than this (or a quarter of what the source may take).
const ATTEMPT_LIMIT_WITHOUT_TOKEN: Duration = Duration::from_secs(3);

/// What one request may take at the longest; a source that may take longer does more than that.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

/// Entra ID's longest lives are 28 hours (continuous access evaluation). A token said to live longer is asked for anew
/// as if it lived this long: somebody's clock is wrong.
const LONGEST_LIFE: Duration = Duration::from_secs(48 * 60 * 60);

/// Longest wait between attempts while the token held lives.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest wait without a live token: service must resume within 5 s of Entra's return.
const LONGEST_WAIT_WITHOUT_TOKEN: Duration = Duration::from_millis(1500);
/// Wait after Redis refused the token held; doubles with each new token that is refused too.
const WAIT_IN_DOUBT: Duration = Duration::from_secs(5);
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Keeps a token in force. Made by [`Refresher::new`], driven by [`Refresher::run`].
pub struct Refresher {
    source: Arc<dyn TokenSource>,
    token: watch::Sender<Option<Arc<Token>>>,
    status: watch::Sender<Status>,
    doubt: Arc<Notify>,
}

impl Refresher {
    /// Puts a refresher and its read side together; nothing is asked until it runs.
    pub fn new(source: Arc<dyn TokenSource>) -> (Self, Tokens) {
        let (token, token_reader) = watch::channel(None);
        let (status, status_reader) = watch::channel(Status {
            credential: source.name(),
            held: None,
            failure: None,
        });
        let doubt = Arc::new(Notify::new());
        let refresher = Self {
            source,
            token,
            status,
            doubt: doubt.clone(),
        };
        let tokens = Tokens {
            token: token_reader,
            status: status_reader,
            doubt,
        };
        (refresher, tokens)
    }

    /// Asks for tokens until dropped. Dropping it abandons what is in flight; the token held stays with the readers
    /// until it ends.
    pub async fn run(self) -> Infallible {
        let (mut failures, mut doubts) = (0_u32, 0_u32);
        loop {
            let wait = match self.attempt(failures).await {
                Ok(Outcome::New(token)) => {
                    failures = 0;
                    let wait = wait_before_refresh(token.remaining(), fastrand::f64());
                    self.publish(token);
                    wait
                }
                Ok(Outcome::Unchanged(remaining)) => {
                    failures = 0;
                    self.status.send_modify(|status| status.failure = None);
                    wait_after_same_token(remaining)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.status
                        .send_modify(|status| status.failure = Some(error.kind()));
                    let live = self.live();
                    let wait = wait_after_failure(failures, live, fastrand::f64())
                        .max(asked_to_wait(error.retry_after(), live));
                    self.report_failure(&error, wait);
                    wait
                }
            };
            let asked = Instant::now();
            tokio::select! {
                () = sleep(wait) => doubts = 0,
                // A token just issued may be refused for a moment, until Redis knows of it, and one of an identity that
                // is no user of the cache always is: not asked for at once, and ever less often.
                () = self.doubt.notified() => {
                    sleep_until(asked + wait.min(wait_in_doubt(doubts))).await;
                    doubts = doubts.saturating_add(1);
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
        let limit = attempt_limit(self.source.attempt_limit(), self.live(), failures);
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
                answer = self.ask_beside(limit) => answer,
            }
        };
        let answer = fetched.instrument(span.clone()).await;
        let outcome = answer.and_then(|token| self.judge(token));
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
            Err(error) => trace::failed(&span, error.kind().as_word()),
        }
        counter!(instruments::REFRESHES, "source" => self.source.name(), "outcome" => label)
            .increment(1);
        histogram!(instruments::REFRESH_DURATION).record(started.elapsed());
        outcome
    }

    /// Asks again beside an attempt that is given more time because there is no token: the end of a hang is found by new
    /// requests, not by one that hangs. Any answer will do. Sources that take longer than a request start programs, which
    /// are not to run side by side.
    async fn ask_beside(&self, patience: Duration) -> Result<AccessToken, Error> {
        let quick = quick_limit(self.source.attempt_limit());
        if self.live().is_some() || patience <= quick || patience > LONGEST_REQUEST {
            return std::future::pending().await;
        }
        let mut wait = quick;
        loop {
            sleep(wait).await;
            if let Ok(answer) = timeout(quick, self.source.fetch()).await {
                return answer;
            }
            wait = SHORTEST_WAIT;
        }
    }

    fn judge(&self, token: AccessToken) -> Result<Outcome, Error> {
        let now = SystemTime::now();
        let remaining = token
            .expires_at
            .duration_since(now)
            .map_err(|error| Error::Expired(error.duration()))?
            .min(LONGEST_LIFE);
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
            ends: Instant::now() + remaining,
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
            status.held = Some(Held {
                username: token.username.clone(),
                expires_at: token.expires_at,
                ends: token.ends,
            });
        });
        self.token.send_replace(Some(Arc::new(token)));
    }

    fn report_failure(&self, error: &Error, wait: Duration) {
        let left = self.live();
        warn!(
            entra.credential = self.source.name(),
            error = %Chain(error),
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

/// How long one attempt may take, after so many failures in a row.
fn attempt_limit(longest: Duration, live: Option<Duration>, failures: u32) -> Duration {
    match live {
        Some(remaining) => (remaining / 2).max(ATTEMPT_LIMIT_FLOOR).min(longest),
        // An endpoint that hangs must be left soon, or its return is found late; one that is slow must be given time.
        None if failures % 4 == 3 => longest,
        None => quick_limit(longest),
    }
}

/// The limit of attempts without a token, but for each fourth.
fn quick_limit(longest: Duration) -> Duration {
    longest.min(ATTEMPT_LIMIT_WITHOUT_TOKEN.max(longest / 4))
}

/// When to ask for the next token, after a new one with this much life left. `random` is uniform in 0..1.
fn wait_before_refresh(remaining: Duration, random: f64) -> Duration {
    remaining.mul_f64(REFRESH_SHARE - REFRESH_SPREAD * random)
}

/// When to ask again after "the same token again": the source has a cache of its own (managed identity's back end keeps
/// tokens for hours), so asking often is useless until the end comes near.
fn wait_after_same_token(remaining: Duration) -> Duration {
    let least = (remaining / 10).min(LONGEST_WAIT).max(SHORTEST_WAIT);
    (remaining / 2).max(least)
}

/// Full jitter over a doubling bound. While the token held lives, never more than a quarter of what is left of it.
fn wait_after_failure(failures: u32, live: Option<Duration>, random: f64) -> Duration {
    let bound = Duration::from_millis(250)
        .saturating_mul(1 << failures.min(10))
        .min(longest_wait(live));
    bound.mul_f64(random).max(SHORTEST_WAIT)
}

/// How long the other side's `Retry-After` is heeded: no longer than any failure is waited after, because the promise to
/// callers comes first.
fn asked_to_wait(retry_after: Option<Duration>, live: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(longest_wait(live))
}

fn wait_in_doubt(doubts: u32) -> Duration {
    WAIT_IN_DOUBT * (1 << doubts.min(6))
}

fn longest_wait(live: Option<Duration>) -> Duration {
    match live {
        Some(remaining) => LONGEST_WAIT.min(remaining / 4),
        None => LONGEST_WAIT_WITHOUT_TOKEN,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;

    use super::*;
    use crate::secret::Secret;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_refresh_comes_at_three_quarters_of_life_or_up_to_a_tenth_earlier() {
        assert_eq!(wait_before_refresh(HOUR, 0.0), HOUR.mul_f64(0.75));
        assert_eq!(wait_before_refresh(HOUR, 1.0), HOUR.mul_f64(0.65));
        assert!(wait_before_refresh(24 * HOUR, 0.0) <= 18 * HOUR);
    }

    #[test]
    fn replicas_started_together_do_not_ask_together() {
        let waits: Vec<_> = (0..100)
            .map(|_| wait_before_refresh(24 * HOUR, fastrand::f64()))
            .collect();
        let (first, last) = (waits.iter().min(), waits.iter().max());
        let spread = *last.expect("a hundred") - *first.expect("a hundred");
        assert!(spread > HOUR, "{spread:?} of a possible 2.4 hours");
    }

    #[test]
    fn waiting_after_failures_grows_to_a_ceiling_and_shrinks_with_the_tokens_life() {
        let wait = |failures, live| wait_after_failure(failures, live, 1.0);
        assert_eq!(wait(1, Some(HOUR)), Duration::from_millis(500));
        assert_eq!(wait(30, Some(HOUR)), LONGEST_WAIT);
        assert_eq!(wait(u32::MAX, None), LONGEST_WAIT_WITHOUT_TOKEN);
        assert_eq!(
            wait(30, Some(Duration::from_secs(8))),
            Duration::from_secs(2)
        );
        assert_eq!(wait_after_failure(9, Some(HOUR), 0.0), SHORTEST_WAIT);
    }

    #[test]
    fn the_same_token_again_is_asked_for_less_and_less_early() {
        assert_eq!(wait_after_same_token(HOUR), HOUR / 2);
        assert_eq!(wait_after_same_token(Duration::ZERO), SHORTEST_WAIT);
    }

    #[test]
    fn an_attempt_never_takes_more_than_half_of_what_is_left() {
        let limit = |live, failures| attempt_limit(Duration::from_secs(10), live, failures);
        assert_eq!(limit(Some(HOUR), 0), Duration::from_secs(10));
        assert_eq!(
            limit(Some(Duration::from_secs(10)), 7),
            Duration::from_secs(5)
        );
        assert_eq!(
            limit(Some(Duration::from_millis(10)), 0),
            ATTEMPT_LIMIT_FLOOR
        );
        let without: Vec<_> = (0..5)
            .map(|failures| limit(None, failures).as_secs())
            .collect();
        assert_eq!(without, [3, 3, 3, 10, 3]);
    }

    /// Hands out what the script says, one entry a call; the last entry repeats.
    struct Script {
        answers: Mutex<Vec<Answer>>,
        calls: AtomicUsize,
    }

    #[derive(Clone, Copy)]
    enum Answer {
        Token(&'static str, Duration),
        /// A different one each time.
        Fresh(Duration),
        Fail,
        Hang,
    }

    impl Script {
        fn new(answers: &[Answer]) -> Arc<Self> {
            Arc::new(Self {
                answers: Mutex::new(answers.to_vec()),
                calls: AtomicUsize::new(0),
            })
        }
    }

    #[async_trait]
    impl TokenSource for Script {
        fn name(&self) -> &'static str {
            "Script"
        }

        async fn fetch(&self) -> Result<AccessToken, Error> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let answer = {
                let mut answers = self.answers.lock().expect("no panic while held");
                match answers.len() {
                    1 => answers[0],
                    _ => answers.remove(0),
                }
            };
            match answer {
                Answer::Token(text, life) => Ok(AccessToken {
                    username: "user".to_owned(),
                    secret: Secret::new(text),
                    expires_at: SystemTime::now() + life,
                }),
                Answer::Fresh(life) => Ok(AccessToken {
                    username: "user".to_owned(),
                    secret: Secret::new(format!("{:?}", fastrand::u128(..))),
                    expires_at: SystemTime::now() + life,
                }),
                Answer::Fail => Err(Error::other(&std::fmt::Error)),
                Answer::Hang => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_source_costs_nothing_while_the_token_lives_and_is_never_given_up() {
        let source = Script::new(&[
            Answer::Token("a", HOUR),
            Answer::Fail,
            Answer::Hang,
            Answer::Fail,
            Answer::Token("b", HOUR),
        ]);
        let (refresher, mut tokens) = Refresher::new(source.clone());
        let task = tokio::spawn(refresher.run());
        tokens.changed().await;
        let first = tokens.newest().expect("it lives");
        assert_eq!(first.version, 1);
        tokens.changed().await;
        let second = tokens.newest().expect("it lives");
        assert!(first.is_live(), "the second came before the first ended");
        assert_eq!((second.version, second.secret.expose()), (2, "b"));
        assert_eq!(source.calls.load(Ordering::SeqCst), 5);
        assert_eq!(tokens.status().failure, None);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_live_token_the_next_attempt_is_seconds_away_for_ever() {
        let source = Script::new(&[Answer::Fail]);
        let (refresher, tokens) = Refresher::new(source.clone());
        let task = tokio::spawn(refresher.run());
        sleep(HOUR).await;
        let calls = source.calls.load(Ordering::SeqCst);
        assert!(calls >= 1200, "{calls} attempts in an hour");
        assert!(!tokens.status().is_live());
        assert!(tokens.status().failure.is_some());
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_token_again_is_not_published_again() {
        let source = Script::new(&[Answer::Token("a", HOUR)]);
        let (refresher, mut tokens) = Refresher::new(source.clone());
        let task = tokio::spawn(refresher.run());
        tokens.changed().await;
        assert_eq!(tokens.newest().expect("it lives").version, 1);
        let again = timeout(HOUR, tokens.changed()).await;
        assert!(again.is_err(), "nothing new was published");
        assert!(source.calls.load(Ordering::SeqCst) > 3, "it was asked for");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_redis_refused_is_asked_for_anew_within_seconds() {
        let source = Script::new(&[Answer::Token("a", HOUR), Answer::Token("b", HOUR)]);
        let (refresher, mut tokens) = Refresher::new(source.clone());
        let task = tokio::spawn(refresher.run());
        tokens.changed().await;
        tokens.newest();
        let refused = Instant::now();
        tokens.doubt();
        tokens.changed().await;
        assert!(
            refused.elapsed() <= WAIT_IN_DOUBT,
            "{:?}",
            refused.elapsed()
        );
        assert_eq!(tokens.newest().expect("it lives").secret.expose(), "b");
        task.abort();
    }

    /// A day of an hour's tokens, and one of a day's: asked for as often as needed and no more, and never without one.
    #[tokio::test(start_paused = true)]
    async fn tokens_of_an_hour_and_of_a_day_follow_one_another() {
        for (life, least, most) in [(HOUR, 31, 40), (24 * HOUR, 1, 3)] {
            let source = Script::new(&[Answer::Fresh(life)]);
            let (refresher, mut tokens) = Refresher::new(source.clone());
            let task = tokio::spawn(refresher.run());
            tokens.changed().await;
            let end = Instant::now() + 24 * HOUR;
            while Instant::now() < end {
                assert!(tokens.newest().is_some(), "there is always one that lives");
                sleep(Duration::from_secs(60)).await;
            }
            let asked = source.calls.load(Ordering::SeqCst);
            assert!(
                (least..=most).contains(&asked),
                "{asked} requests in a day of {life:?}"
            );
            task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_all_refused_are_asked_for_ever_less_often() {
        let source = Script::new(&[Answer::Fresh(HOUR)]);
        let (refresher, tokens) = Refresher::new(source.clone());
        let task = tokio::spawn(refresher.run());
        for _ in 0..3600 {
            tokens.doubt();
            sleep(Duration::from_secs(1)).await;
        }
        let asked = source.calls.load(Ordering::SeqCst);
        assert!(
            (8..20).contains(&asked),
            "{asked} requests in an hour of refusals"
        );
        task.abort();
    }

    #[tokio::test]
    async fn a_token_said_to_live_for_years_is_asked_for_anew_within_days() {
        let (refresher, _tokens) = Refresher::new(Script::new(&[Answer::Fail]));
        let far = AccessToken {
            username: "user".to_owned(),
            secret: Secret::new("far"),
            expires_at: SystemTime::now() + 24 * 3650 * HOUR,
        };
        match refresher.judge(far) {
            Ok(Outcome::New(token)) => assert!(token.remaining() <= LONGEST_LIFE),
            _ => panic!("it can be used"),
        }
    }

    #[tokio::test]
    async fn a_token_that_came_too_late_is_an_error_that_says_so() {
        let (refresher, _tokens) = Refresher::new(Script::new(&[Answer::Fail]));
        let late = AccessToken {
            username: "user".to_owned(),
            secret: Secret::new("late"),
            expires_at: SystemTime::now() - Duration::from_secs(90),
        };
        match refresher.judge(late) {
            Err(error @ Error::Expired(_)) => assert!(error.to_string().contains("90.0 s")),
            _ => panic!("it had ended"),
        }
    }
}

//! The times of requests for tokens, as functions of what is known: when to ask next, and how long to wait for an answer.

use std::time::Duration;

/// A new token is asked for when this share of the remaining life has passed, less up to [`REFRESH_JITTER`] of it, so
/// that replicas started together do not ask together. The peers use 0.7 to 0.75; azure_identity's own 5 minutes before
/// the end leave no room for the 3 minutes that Azure asks for between AUTH and expiry.
const REFRESH_FRACTION: f64 = 0.75;
const REFRESH_JITTER: f64 = 0.10;

/// While a token lives, an attempt takes no more than half of what is left of it, so that a hanging endpoint can be asked
/// again, and no less than this.
const MIN_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Without one, three attempts of four take no longer than this (or a quarter of what the source may take).
const SHORT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// What one request may take at the longest; a source that may take longer does more than that.
pub(super) const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Entra ID's longest lives are 28 hours (continuous access evaluation). A token said to live longer is asked for anew
/// as if it lived this long: somebody's clock is wrong.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);

/// Longest wait between attempts while the token held lives.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Longest wait without a live token: service must resume within 5 s of Entra's return.
const MAX_DELAY_WITHOUT_TOKEN: Duration = Duration::from_millis(1500);
/// Wait after Redis refused the token held; doubles with each new token that is refused too.
pub(super) const MIN_DELAY_AFTER_REJECTION: Duration = Duration::from_secs(5);
pub(super) const MIN_DELAY: Duration = Duration::from_millis(100);

/// How long one attempt may take, after so many failures in a row.
pub(super) fn attempt_timeout(
    longest: Duration,
    live: Option<Duration>,
    failures: u32,
) -> Duration {
    match live {
        Some(remaining) => (remaining / 2).max(MIN_ATTEMPT_TIMEOUT).min(longest),
        // An endpoint that hangs must be left soon, or its return is found late; one that is slow must be given time.
        None if failures % 4 == 3 => longest,
        None => short_timeout(longest),
    }
}

/// The limit of attempts without a token, but for each fourth.
pub(super) fn short_timeout(longest: Duration) -> Duration {
    longest.min(SHORT_ATTEMPT_TIMEOUT.max(longest / 4))
}

/// When to ask for the next token, after a new one with this much life left. `random` is uniform in 0..1.
pub(super) fn delay_before_refresh(remaining: Duration, random: f64) -> Duration {
    remaining.mul_f64(REFRESH_FRACTION - REFRESH_JITTER * random)
}

/// When to ask again after "the same token again": the source has a cache of its own (managed identity's back end keeps
/// tokens for hours), so asking often is useless until the end comes near.
pub(super) fn delay_after_same_token(remaining: Duration) -> Duration {
    let least = (remaining / 10).min(MAX_DELAY).max(MIN_DELAY);
    (remaining / 2).max(least)
}

/// Full jitter over a doubling bound. While the token held lives, never more than a quarter of what is left of it.
pub(super) fn delay_after_failure(failures: u32, live: Option<Duration>, random: f64) -> Duration {
    let bound = Duration::from_millis(250)
        .saturating_mul(1 << failures.min(10))
        .min(max_delay(live));
    bound.mul_f64(random).max(MIN_DELAY)
}

/// How long the other side's `Retry-After` is heeded: no longer than any failure is waited after, because the promise to
/// callers comes first.
pub(super) fn requested_delay(retry_after: Option<Duration>, live: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(max_delay(live))
}

pub(super) fn delay_after_rejection(rejections: u32) -> Duration {
    MIN_DELAY_AFTER_REJECTION * (1 << rejections.min(6))
}

pub(super) fn max_delay(live: Option<Duration>) -> Duration {
    match live {
        Some(remaining) => MAX_DELAY.min(remaining / 4),
        None => MAX_DELAY_WITHOUT_TOKEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_refresh_comes_at_three_quarters_of_life_or_up_to_a_tenth_earlier() {
        assert_eq!(delay_before_refresh(HOUR, 0.0), HOUR.mul_f64(0.75));
        assert_eq!(delay_before_refresh(HOUR, 1.0), HOUR.mul_f64(0.65));
        assert!(delay_before_refresh(24 * HOUR, 0.0) <= 18 * HOUR);
    }

    #[test]
    fn replicas_started_together_do_not_ask_together() {
        let waits: Vec<_> = (0..100)
            .map(|_| delay_before_refresh(24 * HOUR, fastrand::f64()))
            .collect();
        let (first, last) = (waits.iter().min(), waits.iter().max());
        let spread = *last.expect("a hundred") - *first.expect("a hundred");
        assert!(spread > HOUR, "{spread:?} of a possible 2.4 hours");
    }

    #[test]
    fn waiting_after_failures_grows_to_a_ceiling_and_shrinks_with_the_tokens_life() {
        let wait = |failures, live| delay_after_failure(failures, live, 1.0);
        assert_eq!(wait(1, Some(HOUR)), Duration::from_millis(500));
        assert_eq!(wait(30, Some(HOUR)), MAX_DELAY);
        assert_eq!(wait(u32::MAX, None), MAX_DELAY_WITHOUT_TOKEN);
        assert_eq!(
            wait(30, Some(Duration::from_secs(8))),
            Duration::from_secs(2)
        );
        assert_eq!(delay_after_failure(9, Some(HOUR), 0.0), MIN_DELAY);
    }

    #[test]
    fn the_same_token_again_is_asked_for_less_and_less_early() {
        assert_eq!(delay_after_same_token(HOUR), HOUR / 2);
        assert_eq!(delay_after_same_token(Duration::ZERO), MIN_DELAY);
    }

    #[test]
    fn an_attempt_never_takes_more_than_half_of_what_is_left() {
        let limit = |live, failures| attempt_timeout(Duration::from_secs(10), live, failures);
        assert_eq!(limit(Some(HOUR), 0), Duration::from_secs(10));
        assert_eq!(
            limit(Some(Duration::from_secs(10)), 7),
            Duration::from_secs(5)
        );
        assert_eq!(
            limit(Some(Duration::from_millis(10)), 0),
            MIN_ATTEMPT_TIMEOUT
        );
        let without: Vec<_> = (0..5)
            .map(|failures| limit(None, failures).as_secs())
            .collect();
        assert_eq!(without, [3, 3, 3, 10, 3]);
    }
}

//! The schedule of requests for tokens: the delay before the next one and the timeout of each, as pure functions.

use std::time::Duration;

/// The fraction of the remaining life after which a new token is requested, less up to [`REFRESH_JITTER`], so that
/// replicas started together do not request together. Other clients use 0.7 to 0.75; azure_identity's own 5 minutes before
/// expiry leave no room for the 3 minutes that Azure asks for between AUTH and expiry.
const REFRESH_FRACTION: f64 = 0.75;
const REFRESH_JITTER: f64 = 0.10;

/// The shortest timeout of an attempt while there is a live token; the longest is half of its remaining life, so that a
/// hanging endpoint gets another request.
const MIN_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// The timeout of three attempts of four without a live token, or a quarter of the source's own if that is longer.
const SHORT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest timeout of a source that sends a request; one with a longer timeout starts a program.
pub(super) const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest life that is believed. Entra ID's longest is 28 hours (continuous access evaluation); with more, a clock is
/// wrong, and the token is refreshed as if it lived this long.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);

/// The longest delay between attempts while there is a live token.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// The longest delay without a live token: service must resume within 5 s of Entra ID's return.
const MAX_DELAY_WITHOUT_TOKEN: Duration = Duration::from_millis(1500);
/// The delay after Redis rejected the current token; doubles with each new token that is rejected too.
pub(super) const MIN_DELAY_AFTER_REJECTION: Duration = Duration::from_secs(5);
/// The shortest delay between attempts.
pub(super) const MIN_DELAY: Duration = Duration::from_millis(100);

/// Returns the timeout of the next attempt after this number of failures in a row.
pub(super) fn attempt_timeout(
    longest: Duration,
    live: Option<Duration>,
    failures: u32,
) -> Duration {
    match live {
        Some(remaining) => (remaining / 2).max(MIN_ATTEMPT_TIMEOUT).min(longest),
        // A hanging endpoint must be abandoned soon, or its return is found late; a slow one must get its time.
        None if failures % 4 == 3 => longest,
        None => short_timeout(longest),
    }
}

/// Returns the timeout of attempts without a live token, except for every fourth.
pub(super) fn short_timeout(longest: Duration) -> Duration {
    longest.min(SHORT_ATTEMPT_TIMEOUT.max(longest / 4))
}

/// Returns the delay after a new token with this much life left. `random` is uniform in 0..1.
pub(super) fn delay_before_refresh(remaining: Duration, random: f64) -> Duration {
    remaining.mul_f64(REFRESH_FRACTION - REFRESH_JITTER * random)
}

/// Returns the delay after the same token again: the source has a cache of its own (managed identity's back end keeps
/// tokens for hours), so frequent requests are useless until expiry is near.
pub(super) fn delay_after_same_token(remaining: Duration) -> Duration {
    let least = (remaining / 10).min(MAX_DELAY).max(MIN_DELAY);
    (remaining / 2).max(least)
}

/// Returns the delay after a failure: full jitter over a doubling bound, and at most a quarter of a live token's remaining
/// life.
pub(super) fn delay_after_failure(failures: u32, live: Option<Duration>, random: f64) -> Duration {
    let bound = Duration::from_millis(250)
        .saturating_mul(1 << failures.min(10))
        .min(max_delay(live));
    bound.mul_f64(random).max(MIN_DELAY)
}

/// Returns the delay that a response's `Retry-After` causes: at most that after any failure, because the promise to callers
/// comes first.
pub(super) fn requested_delay(retry_after: Option<Duration>, live: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(max_delay(live))
}

/// Returns the delay after Redis rejected this number of tokens in a row before the current one.
pub(super) fn delay_after_rejection(rejections: u32) -> Duration {
    MIN_DELAY_AFTER_REJECTION * (1 << rejections.min(6))
}

fn max_delay(live: Option<Duration>) -> Duration {
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
    fn refresh_starts_at_three_quarters_of_life_or_up_to_a_tenth_earlier() {
        assert_eq!(delay_before_refresh(HOUR, 0.0), HOUR.mul_f64(0.75));
        assert_eq!(delay_before_refresh(HOUR, 1.0), HOUR.mul_f64(0.65));
        assert!(delay_before_refresh(24 * HOUR, 0.0) <= 18 * HOUR);
    }

    #[test]
    fn replicas_started_together_do_not_request_together() {
        let delays: Vec<_> = (0..100)
            .map(|_| delay_before_refresh(24 * HOUR, fastrand::f64()))
            .collect();
        let (first, last) = (delays.iter().min(), delays.iter().max());
        let spread = *last.expect("a hundred samples") - *first.expect("a hundred samples");
        assert!(spread > HOUR, "{spread:?} of a possible 2.4 hours");
    }

    #[test]
    fn delay_after_failures_grows_to_a_maximum_and_shrinks_with_the_tokens_life() {
        let delay = |failures, live| delay_after_failure(failures, live, 1.0);
        assert_eq!(delay(1, Some(HOUR)), Duration::from_millis(500));
        assert_eq!(delay(30, Some(HOUR)), MAX_DELAY);
        assert_eq!(delay(u32::MAX, None), MAX_DELAY_WITHOUT_TOKEN);
        assert_eq!(
            delay(30, Some(Duration::from_secs(8))),
            Duration::from_secs(2)
        );
        assert_eq!(delay_after_failure(9, Some(HOUR), 0.0), MIN_DELAY);
    }

    #[test]
    fn delay_after_the_same_token_is_half_of_its_remaining_life() {
        assert_eq!(delay_after_same_token(HOUR), HOUR / 2);
        assert_eq!(delay_after_same_token(Duration::ZERO), MIN_DELAY);
    }

    #[test]
    fn an_attempt_takes_at_most_half_of_the_remaining_life() {
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

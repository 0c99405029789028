//! The schedule of a node: the time of its next connection, and the advice to callers meanwhile.
//!
//! # Invariants
//! - No I/O, no clock and no randomness: events, the time and the jitter are arguments, so each rule is
//!   a row of a table test.
//! - While any connection is open, callers use it: failed attempts to open a further one do not affect them.

use std::time::Duration;

use tokio::time::Instant;

use super::super::error::Error;

/// The backoff between attempts to open a connection, doubled with each failure, the first included; the jitter leaves
/// 10 % to 100 % of it. Service must resume within 5 s of Redis' return, so the longest stays well below that.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Callers wait for the attempt that follows the first failed one, unless that took longer than this: then they have
/// waited already.
const SHORT_ATTEMPT: Duration = Duration::from_millis(500);

/// The pause before a further connection while one is open, give or take half of it: Azure limits the rate of new
/// connections, and many replicas lose theirs at the same moment.
const OPENING_PAUSE: Duration = Duration::from_millis(20);

/// A connection that closes sooner after it was opened was useless, such as one to a load balancer with no backend:
/// the second in a row counts as a failed attempt, so that the next is delayed.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// The advice to a caller that needs a connection.
#[derive(Debug, Clone)]
pub(in crate::pool) enum Availability {
    /// Wait: a connection is being opened, or will be in a moment.
    Opening,
    /// Take one of those that are open.
    Open,
    /// Fail at once: attempts fail, the next is some time away.
    Failing(Error),
    /// Fail at once: the node is closed and stays closed.
    Closed,
}

/// The state of a node's maintainer.
#[derive(Debug, Default)]
pub(super) struct State {
    open: usize,
    failures: Option<Failures>,
    losses: Losses,
    /// The earliest time to open a further connection while one is open.
    next_opening: Option<Instant>,
}

/// Failed attempts in a row.
#[derive(Debug)]
struct Failures {
    count: u32,
    /// The latest error, as callers get it.
    error: Error,
    /// The first in a row, such as a connection cut during authentication: the next attempt is too near to turn callers
    /// away.
    is_momentary: bool,
    /// The time of the next attempt; `None`: when a token arrives, since without one there is nothing to try.
    retry_at: Option<Instant>,
}

/// Connections that closed while they were wanted.
#[derive(Debug, Default)]
struct Losses {
    /// Short-lived ones in a row, each opened after the one before had closed: several that close together, for one
    /// reason, count once.
    short_lived: u32,
    latest: Option<Instant>,
}

/// A change that the maintainer observed.
pub(super) enum Event {
    /// A connection was opened.
    Opened,
    /// A connection closed at this age.
    Lost { age: Duration },
    /// An attempt to open a connection failed after this time.
    Failed { error: Error, took: Duration },
    /// [`State::is_flapping`] returned true; callers get this error.
    Flapping { error: Error },
    /// A token was published that no attempt has used yet.
    NewToken,
}

/// The maintainer's next step. A wake-up also ends each wait.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Wait: all wanted connections are open.
    Wait,
    /// Wait until this time, or for a new token; `None`: for a new token alone.
    BackOff { until: Option<Instant> },
    /// Wait until this time, to limit the rate of new connections.
    Pace { until: Instant },
    /// Open a connection.
    Open,
}

impl State {
    /// Applies an event. `jitter` is a random number from 0 to 1.
    pub(super) fn record(&mut self, event: Event, now: Instant, jitter: f64) {
        match event {
            Event::Opened => {
                self.open += 1;
                self.failures = None;
                self.next_opening = Some(now + OPENING_PAUSE.mul_f64(0.5 + jitter));
            }
            Event::Lost { age } => {
                self.losses.record(age, now);
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    // A failure to open a further connection is no evidence about the first.
                    self.failures = None;
                }
            }
            Event::Failed { error, took } => {
                let earlier = self.failures.as_ref().map_or(0, |failures| failures.count);
                let count = earlier.saturating_add(1);
                self.failures = Some(match error {
                    Error::NoToken => Failures {
                        count,
                        error,
                        is_momentary: false,
                        retry_at: None,
                    },
                    error => Failures {
                        count,
                        error,
                        is_momentary: count == 1 && took < SHORT_ATTEMPT,
                        retry_at: Some(now + backoff(count, jitter)),
                    },
                });
            }
            Event::Flapping { error } => {
                let count = self.losses.short_lived;
                self.failures = Some(Failures {
                    count,
                    error,
                    is_momentary: false,
                    retry_at: Some(now + backoff(count, jitter)),
                });
            }
            Event::NewToken => {
                // Earlier failures may have been the earlier token's.
                self.failures = None;
                self.losses.short_lived = 0;
            }
        }
    }

    /// Returns the next step of a node that is to have `wanted` connections.
    pub(super) fn next(&self, wanted: usize, now: Instant) -> Action {
        if self.open >= wanted {
            return Action::Wait;
        }
        if let Some(failures) = &self.failures
            && failures.retry_at.is_none_or(|at| now < at)
        {
            return Action::BackOff {
                until: failures.retry_at,
            };
        }
        match self.next_opening {
            Some(until) if self.open > 0 && now < until => Action::Pace { until },
            _ => Action::Open,
        }
    }

    /// Returns true if connections close as soon as they are open. The caller then records [`Event::Flapping`].
    pub(super) fn is_flapping(&self, wanted: usize) -> bool {
        self.open < wanted && self.failures.is_none() && self.losses.short_lived > 1
    }

    /// Returns the advice to callers.
    pub(super) fn availability(&self) -> Availability {
        match &self.failures {
            _ if self.open > 0 => Availability::Open,
            Some(failures) if !failures.is_momentary => {
                Availability::Failing(failures.error.clone())
            }
            _ => Availability::Opening,
        }
    }

    /// Returns the time of the next attempt after a failed one.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failures.as_ref()?.retry_at
    }
}

impl Losses {
    fn record(&mut self, age: Duration, now: Instant) {
        let since_latest = self.latest.map(|latest| now.duration_since(latest));
        if age >= SHORT_LIFE {
            self.short_lived = 0;
        } else if since_latest.is_none_or(|since| age < since) {
            self.short_lived = self.short_lived.saturating_add(1);
        }
        self.latest = Some(now);
    }
}

fn backoff(failures: u32, jitter: f64) -> Duration {
    let longest = FIRST_BACKOFF
        .saturating_mul(1 << failures.min(10))
        .min(LONGEST_BACKOFF);
    longest.mul_f64(0.1 + 0.9 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a backoff 55 % of its longest and a pause as long as its constant.
    const JITTER: f64 = 0.5;

    /// The expected step; times in milliseconds from the start.
    #[derive(Debug, PartialEq)]
    enum Expected {
        Wait,
        BackOff(Option<u64>),
        Pace(u64),
        Open,
    }
    use Expected::{BackOff, Open, Pace, Wait};

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn lost(age: u64) -> Event {
        Event::Lost { age: millis(age) }
    }

    fn failed(took: u64) -> Event {
        Event::Failed {
            error: Error::Closed,
            took: millis(took),
        }
    }

    fn no_token() -> Event {
        Event::Failed {
            error: Error::NoToken,
            took: Duration::ZERO,
        }
    }

    /// Applies events, each at its time, to the state of a node that wants this many connections. Returns the step at `now` and the
    /// advice to callers.
    fn play(wanted: usize, events: Vec<(u64, Event)>, now: u64) -> (Expected, &'static str) {
        let start = Instant::now();
        let mut state = State::default();
        for (at, event) in events {
            let at = start + millis(at);
            state.record(event, at, JITTER);
            if state.is_flapping(wanted) {
                let error = Error::Closed;
                state.record(Event::Flapping { error }, at, JITTER);
            }
        }
        let since_start =
            |at: Instant| u64::try_from((at - start).as_millis()).expect("a few seconds");
        let action = match state.next(wanted, start + millis(now)) {
            Action::Wait => Wait,
            Action::BackOff { until } => BackOff(until.map(since_start)),
            Action::Pace { until } => Pace(since_start(until)),
            Action::Open => Open,
        };
        let availability = match state.availability() {
            Availability::Opening => "opening",
            Availability::Open => "open",
            Availability::Failing(Error::NoToken) => "no token",
            Availability::Failing(_) => "failing",
            Availability::Closed => "closed",
        };
        (action, availability)
    }

    #[test]
    fn the_next_step_follows_from_what_happened() {
        use Event::{NewToken, Opened};
        let many_failures = || (0..100).map(|_| (0, failed(1))).collect();
        #[rustfmt::skip]
        let table = [
            // Full, and the pace of further connections.
            ("at the start", 1, vec![], 0, Open, "opening"),
            ("all are open", 1, vec![(0, Opened)], 0, Wait, "open"),
            ("fewer are wanted", 1, vec![(0, Opened), (0, Opened)], 0, Wait, "open"),
            ("a further one is paced", 2, vec![(0, Opened)], 19, Pace(20), "open"),
            ("then opened", 2, vec![(0, Opened)], 20, Open, "open"),
            ("the first is not paced", 2, vec![(0, Opened), (1000, Opened), (1001, lost(1001)), (1001, lost(1))], 1001, Open, "opening"),
            // Failures.
            ("first failure, short", 1, vec![(0, failed(499))], 109, BackOff(Some(110)), "opening"),
            ("first failure, long", 1, vec![(0, failed(500))], 109, BackOff(Some(110)), "failing"),
            ("retry is due", 1, vec![(0, failed(500))], 110, Open, "failing"),
            ("second failure", 1, vec![(0, failed(1)), (110, failed(1))], 110, BackOff(Some(330)), "failing"),
            ("backoff is bounded", 1, many_failures(), 0, BackOff(Some(1100)), "failing"),
            ("success resets the count", 1, vec![(0, failed(1)), (0, failed(1)), (110, Opened), (900, lost(790)), (900, failed(1))], 900, BackOff(Some(1010)), "opening"),
            ("success ends the backoff", 2, vec![(0, failed(1)), (50, Opened)], 50, Pace(70), "open"),
            ("a further one fails", 2, vec![(0, Opened), (20, failed(600))], 30, BackOff(Some(130)), "open"),
            ("then the first is lost", 2, vec![(0, Opened), (20, failed(600)), (500, lost(500))], 500, Open, "opening"),
            ("one of two is lost", 3, vec![(0, Opened), (20, Opened), (40, failed(1)), (500, lost(500))], 40, BackOff(Some(150)), "open"),
            // Tokens.
            ("no token", 1, vec![(0, no_token())], 100_000, BackOff(None), "no token"),
            ("no token after failures", 1, vec![(0, failed(1)), (0, no_token())], 100_000, BackOff(None), "no token"),
            ("a token arrives", 1, vec![(0, no_token()), (5, NewToken)], 5, Open, "opening"),
            ("a token resets the count", 1, vec![(0, failed(1)), (0, failed(1)), (5, NewToken), (5, failed(1))], 5, BackOff(Some(115)), "opening"),
            // Short-lived connections.
            ("one is short-lived", 1, vec![(0, Opened), (99, lost(99))], 99, Open, "opening"),
            ("two in a row", 1, vec![(0, Opened), (99, lost(99)), (100, Opened), (110, lost(10))], 110, BackOff(Some(330)), "failing"),
            ("retried", 1, vec![(0, Opened), (99, lost(99)), (100, Opened), (110, lost(10))], 330, Open, "failing"),
            ("three in a row", 1, vec![(0, Opened), (9, lost(9)), (10, Opened), (19, lost(9)), (300, Opened), (310, lost(10))], 310, BackOff(Some(750)), "failing"),
            ("then an attempt fails", 1, vec![(0, Opened), (99, lost(99)), (100, Opened), (110, lost(10)), (330, failed(1))], 330, BackOff(Some(770)), "failing"),
            ("two at once count once", 2, vec![(0, Opened), (20, Opened), (50, lost(50)), (50, lost(30))], 50, Open, "opening"),
            ("two that overlap count once", 2, vec![(0, Opened), (20, Opened), (50, lost(50)), (60, lost(40))], 60, Open, "opening"),
            ("a long life resets the count", 1, vec![(0, Opened), (50, lost(50)), (60, Opened), (160, lost(100)), (170, Opened), (180, lost(10))], 180, Open, "opening"),
            ("a token resets that count too", 1, vec![(0, Opened), (50, lost(50)), (51, NewToken), (60, Opened), (70, lost(10))], 70, Open, "opening"),
        ];
        for (case, wanted, events, now, action, availability) in table {
            assert_eq!(play(wanted, events, now), (action, availability), "{case}");
        }
    }

    #[test]
    fn jitter_leaves_at_least_a_tenth_of_a_backoff_and_half_of_a_pause() {
        let now = Instant::now();
        for (jitter, backoff, pause) in [(0.0, 20, 10), (0.5, 110, 20), (1.0, 200, 30)] {
            assert_eq!(
                super::backoff(1, jitter),
                millis(backoff),
                "jitter {jitter}"
            );
            let mut state = State::default();
            state.record(Event::Opened, now, jitter);
            let until = now + millis(pause);
            assert_eq!(
                state.next(2, now),
                Action::Pace { until },
                "jitter {jitter}"
            );
        }
    }

    #[test]
    fn a_node_flaps_only_while_it_lacks_connections_and_has_no_failure() {
        let now = Instant::now();
        let mut state = State::default();
        for lost_at in [10, 20] {
            state.record(Event::Opened, now, JITTER);
            state.record(lost(1), now + millis(lost_at), JITTER);
        }
        assert!(state.is_flapping(1));
        assert!(!state.is_flapping(0), "none is wanted");
        state.record(failed(1), now + millis(20), JITTER);
        assert!(!state.is_flapping(1), "an attempt has failed already");
    }
}

//! Delivery of a request: to which node it goes, and after each reply whether it is done, redirected or sent again.
//!
//! # Invariants
//! - A request is sent again only if Redis did not run it. [`not_run`] has the list of replies that report this.
//! - [`next`] decides and has no side effects; [`Cluster::deliver`] acts and leaves the decision to it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use metrics::counter;
use redis::{Cmd, RedisResult, ServerError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use super::{
    super::{error::Error, instruments, node::Node, trace::waiting},
    Cluster,
    request::{Reply, Request},
    slots,
};
use crate::env::Endpoint;

/// Pauses before a command that Redis could not run just now is sent again.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Redirections in a row that are followed without a pause. A slot that is being migrated usually causes two.
const REDIRECTIONS_AT_ONCE: u32 = 4;

/// The destination of a request.
#[derive(Clone, Copy)]
pub(super) enum Destination<'a> {
    /// The primary of this slot.
    Slot(u16),
    /// Any primary.
    Any,
    /// This node and no other.
    Node(&'a Arc<Node>),
}

/// The node that a reply points to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Redirection {
    pub(super) address: Endpoint,
    /// The slot is being migrated there: the node serves it only behind ASKING.
    pub(super) asking: bool,
}

/// A reply which reports that Redis did not run the command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NotRun {
    Redirected(Redirection),
    /// The slot map is old, or the node is not ready.
    NotReady,
    /// The connection is not authenticated, and has taken itself out of use.
    Unauthenticated,
}

/// The progress of one delivery.
#[derive(Debug)]
struct Progress {
    redirections: u32,
    /// The pause before the next repetition that needs one, without jitter.
    pause: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            redirections: 0,
            pause: FIRST_PAUSE,
        }
    }
}

/// The next step of a delivery.
#[derive(Debug, PartialEq)]
enum Next {
    /// The result goes to the caller.
    Finish,
    /// The request is sent again, after a pause, to the redirection's node or else to the owner of its slot.
    Repeat {
        redirection: Option<Redirection>,
        pause: Option<Duration>,
    },
}

/// Decides the next step after an attempt, and whether the slot map may be old.
fn next(
    progress: &mut Progress,
    not_run: Option<NotRun>,
    may_have_run: bool,
    is_expired: bool,
) -> (Next, bool) {
    let Some(not_run) = not_run else {
        // A lost connection: its node may be gone.
        return (Next::Finish, may_have_run);
    };
    if is_expired {
        return (Next::Finish, false);
    }
    let (redirection, needs_pause, is_map_old) = match not_run {
        NotRun::Unauthenticated => (None, false, false),
        NotRun::NotReady => (None, true, true),
        NotRun::Redirected(redirection) => {
            progress.redirections += 1;
            let is_map_old = !redirection.asking;
            let needs_pause = progress.redirections > REDIRECTIONS_AT_ONCE;
            (Some(redirection), needs_pause, is_map_old)
        }
    };
    let pause = needs_pause.then_some(progress.pause);
    if needs_pause {
        progress.pause = (progress.pause * 2).min(LONGEST_PAUSE);
    }
    (Next::Repeat { redirection, pause }, is_map_old)
}

impl Cluster {
    /// Runs one command at most once; an error reply is an `Ok` value.
    pub(super) async fn run(
        &self,
        destination: Destination<'_>,
        command: &Cmd,
        redirection: Option<Redirection>,
    ) -> Result<Value, Error> {
        let request = Request::Command(command);
        match self.deliver(destination, request, redirection).await? {
            Reply::One(value) => Ok(value),
            Reply::Many(values) => Ok(Value::Array(values)),
        }
    }

    /// Sends `request` to its destination, or first to `redirection`, until Redis runs it or the timeout has passed.
    pub(super) async fn deliver(
        &self,
        destination: Destination<'_>,
        request: Request<'_>,
        mut redirection: Option<Redirection>,
    ) -> Result<Reply, Error> {
        let mut deadline = None; // the clock is not read for a command that is served at once
        let mut progress = Progress::default();
        loop {
            let (node, asking) = match redirection.take() {
                Some(Redirection { address, asking }) => (Some(self.node(&address)), asking),
                None => (self.owner(destination), false),
            };
            let connection = match node.as_ref().and_then(|node| node.pick()) {
                Some(connection) => Some(connection),
                None => {
                    let deadline =
                        *deadline.get_or_insert_with(|| Instant::now() + self.acquire_timeout);
                    let connected = self.wait_for(destination, node.as_deref(), deadline);
                    waiting(&self.seed.address, connected).await?
                }
            };
            let (Some(mut connection), Some(node)) = (connection, node) else {
                continue; // there is a new slot map
            };
            let result = request.send(&mut connection, asking).await;
            let not_run = reported_by(&result, request, &node.address);
            let is_expired = not_run.is_some()
                && *deadline.get_or_insert_with(|| Instant::now() + self.acquire_timeout)
                    <= Instant::now();
            let result = result.map_err(Error::of);
            let may_have_run = result.as_ref().is_err_and(Error::may_have_run);
            let (next, is_map_old) = next(&mut progress, not_run, may_have_run, is_expired);
            if is_map_old {
                self.slots_are_old.notify_one();
            }
            match next {
                Next::Finish => return result,
                Next::Repeat {
                    redirection: to,
                    pause,
                } => {
                    counter!(instruments::RETRIES).increment(1);
                    redirection = to;
                    if let Some(pause) = pause {
                        sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
                    }
                }
            }
        }
    }

    /// Returns the node that serves `destination`; for any primary, the next one in turn that has an open connection.
    fn owner(&self, destination: Destination<'_>) -> Option<Arc<Node>> {
        match destination {
            Destination::Slot(slot) => self.map.load().owner(slot).cloned(),
            Destination::Node(node) => Some(node.clone()),
            Destination::Any => {
                let nodes = &self.map.load().nodes;
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                let mut nodes =
                    (0..nodes.len()).map(|offset| &nodes[turn.wrapping_add(offset) % nodes.len()]);
                let first = nodes.clone().next();
                nodes.find(|node| node.is_open()).or(first).cloned()
            }
        }
    }
}

/// Returns the reason why Redis did not run the request, if the result has one; `asked` is the node that replied.
fn reported_by(
    result: &RedisResult<Reply>,
    request: Request<'_>,
    asked: &Endpoint,
) -> Option<NotRun> {
    match result {
        Ok(reply) => not_run(request.error(reply)?, asked),
        Err(error) => {
            // A transaction that Redis discarded because of one of its commands, before any of them ran.
            let errors = error.clone().into_server_errors()?;
            errors.iter().find_map(|(_, error)| not_run(error, asked))
        }
    }
}

/// Returns the reason why Redis did not run the command, if the error reply reports one.
pub(super) fn not_run(error: &ServerError, asked: &Endpoint) -> Option<NotRun> {
    let redirection = |asking| {
        let address = slots::redirected(error.details()?, asked)?;
        Some(NotRun::Redirected(Redirection { address, asking }))
    };
    match error.kind() {
        Some(ServerErrorKind::Moved) => redirection(false),
        Some(ServerErrorKind::Ask) => redirection(true),
        Some(
            ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly,
        ) => Some(NotRun::NotReady),
        _ if error.code() == "NOAUTH" => Some(NotRun::Unauthenticated),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirection(asking: bool) -> Redirection {
        Redirection {
            address: Endpoint::announced("10.0.0.5", 8502),
            asking,
        }
    }

    fn repeat(redirection: Option<Redirection>, pause_ms: Option<u64>) -> Next {
        Next::Repeat {
            redirection,
            pause: pause_ms.map(Duration::from_millis),
        }
    }

    /// Each row: the reason why the request did not run, whether it may have run, whether the deadline has passed; the
    /// step, and whether the slot map may be old.
    #[test]
    fn the_next_step_follows_from_the_reply() {
        let moved = || Some(NotRun::Redirected(redirection(false)));
        let ask = || Some(NotRun::Redirected(redirection(true)));
        for (not_run, may_have_run, is_expired, step, is_map_old) in [
            (None, false, false, Next::Finish, false),
            (None, true, false, Next::Finish, true),
            (None, true, true, Next::Finish, true),
            (moved(), false, true, Next::Finish, false),
            (ask(), false, true, Next::Finish, false),
            (Some(NotRun::NotReady), false, true, Next::Finish, false),
            (
                Some(NotRun::Unauthenticated),
                false,
                true,
                Next::Finish,
                false,
            ),
            (
                Some(NotRun::Unauthenticated),
                false,
                false,
                repeat(None, None),
                false,
            ),
            (
                Some(NotRun::NotReady),
                false,
                false,
                repeat(None, Some(2)),
                true,
            ),
            (
                moved(),
                false,
                false,
                repeat(Some(redirection(false)), None),
                true,
            ),
            (
                ask(),
                false,
                false,
                repeat(Some(redirection(true)), None),
                false,
            ),
        ] {
            let row = format!("{not_run:?}, may have run {may_have_run}, expired {is_expired}");
            let found = next(&mut Progress::default(), not_run, may_have_run, is_expired);
            assert_eq!(found, (step, is_map_old), "{row}");
        }
    }

    /// Returns the pauses after these replies to one request, in milliseconds.
    fn pauses(replies: impl IntoIterator<Item = NotRun>) -> Vec<Option<u128>> {
        let mut progress = Progress::default();
        let replies = replies.into_iter();
        let pauses = replies.map(|not_run| {
            let is_map_old = !matches!(
                not_run,
                NotRun::Unauthenticated | NotRun::Redirected(Redirection { asking: true, .. })
            );
            let (step, found) = next(&mut progress, Some(not_run), false, false);
            assert_eq!(found, is_map_old, "after {progress:?}");
            match step {
                Next::Repeat { pause, .. } => pause.map(|pause| pause.as_millis()),
                Next::Finish => panic!("the deadline has not passed"),
            }
        });
        pauses.collect()
    }

    #[test]
    fn redirections_in_a_row_and_repetitions_get_growing_pauses() {
        let growing = [2, 4, 8, 16, 32, 64, 100, 100].map(Some);
        assert_eq!(pauses(vec![NotRun::NotReady; 8]), growing);
        for asking in [false, true] {
            let found = pauses(vec![NotRun::Redirected(redirection(asking)); 12]);
            assert_eq!(found[..4], [None; 4], "asking {asking}");
            assert_eq!(found[4..], growing, "asking {asking}");
        }
    }

    #[test]
    fn a_delivery_counts_redirections_and_pauses_across_other_replies() {
        use NotRun::{NotReady, Unauthenticated};
        let moved = || NotRun::Redirected(redirection(false));
        let ask = || NotRun::Redirected(redirection(true));
        let replies = [
            moved(),
            ask(),
            NotReady,
            Unauthenticated,
            moved(),
            ask(),
            Unauthenticated,
            moved(),
            NotReady,
        ];
        let expected = [
            None,
            None,
            Some(2),
            None,
            None,
            None,
            None,
            Some(4),
            Some(8),
        ];
        assert_eq!(pauses(replies), expected);
    }

    #[test]
    fn replies_that_report_a_command_as_not_run() {
        let asked = Endpoint::announced("10.0.0.4", 8501);
        let reason = |text: &str| {
            let value = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
            match value.expect("an error reply") {
                Value::ServerError(error) => not_run(&error, &asked),
                other => panic!("{other:?} is not an error"),
            }
        };
        let redirected = |asking| Some(NotRun::Redirected(redirection(asking)));
        for (text, expected) in [
            ("MOVED 3999 10.0.0.5:8502", redirected(false)),
            ("ASK 3999 10.0.0.5:8502", redirected(true)),
            ("MOVED 3999", None),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Some(NotRun::NotReady),
            ),
            ("CLUSTERDOWN Hash slot not served", Some(NotRun::NotReady)),
            (
                "LOADING Redis is loading the dataset in memory",
                Some(NotRun::NotReady),
            ),
            (
                "MASTERDOWN Link with MASTER is down",
                Some(NotRun::NotReady),
            ),
            (
                "READONLY You can't write against a read only replica.",
                Some(NotRun::NotReady),
            ),
            (
                "NOAUTH Authentication required.",
                Some(NotRun::Unauthenticated),
            ),
            ("WRONGTYPE Operation against a key", None),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                None,
            ),
            ("ERR unknown command", None),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }
}

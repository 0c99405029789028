//! Keeps a node's connections open: the one task that opens them, and tells callers what is open.
//!
//! It holds deadpool's objects for as long as their connections live and shares clones of them. So a caller never
//! waits for a connection to be opened while another one is open, and a storm of callers opens nothing: Azure limits
//! the rate of new connections.
//!
//! Beside it, [`keep_in_use`] sends what keeps idle connections open.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use deadpool::managed::PoolError;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::{
    super::error::{ConnectError, Error},
    Census, Node,
    connection::{Closing, NodeConnection},
    manager::{Object, Objects},
};
use crate::{identity::Tokens, report::ErrorChain};

/// Waits between attempts to open a connection, with jitter up to the bound. Service must resume within 5 s of Redis'
/// return, so the bound stays well below that.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Callers wait for the attempt that follows the first in a row that failed, unless that took longer than this: then they
/// have waited already.
const SHORT_ATTEMPT: Duration = Duration::from_millis(500);

/// While one connection is open, the next is opened after this, more or less: Azure limits the rate, and many replicas lose
/// theirs at the same moment.
const OPENING_PAUSE: Duration = Duration::from_millis(20);

/// A connection that ends sooner after it was opened was of no use, such as one to a load balancer with nothing behind
/// it: the second in a row counts as a failed attempt, so that the next waits.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// Azure closes connections that were idle for 10 minutes, its load balancers forget them after 4 by default, and neither
/// counts the kernel's probes as use in every case: a PING does.
const PING_EVERY: Duration = Duration::from_secs(60);

/// What a caller who finds no open connection should do.
#[derive(Debug, Clone)]
pub(in crate::pool) enum Availability {
    /// Wait: a connection is being opened, or will be in a moment.
    Opening,
    /// Take one of those that are open.
    Open,
    /// Fail at once: attempts fail, the next is some time away.
    Failing(Error),
    /// Fail at once and for good.
    Closed,
}

/// Tells callers that it is over, and closes what is open. Dropped after the maintainer has ended, however it ended, so
/// that nothing is published after it.
pub(super) struct Ending {
    pub(super) node: Arc<Node>,
    pub(super) objects: Objects,
    pub(super) census: Arc<Census>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.node.availability.send_replace(Availability::Closed);
        for connection in self.node.open.swap(Arc::default()).iter() {
            connection.life.close(Closing::Shutdown);
        }
        self.objects.close();
        self.census.report();
    }
}

pub(super) struct Maintainer {
    pub(super) node: Arc<Node>,
    pub(super) objects: Objects,
    /// `None` where no token is needed.
    pub(super) tokens: Option<Tokens>,
    pub(super) census: Arc<Census>,
}

impl Maintainer {
    /// Keeps the node's connections open until dropped. What it held is closed by whoever drops it.
    pub(super) async fn run(mut self) {
        let mut held: Vec<Object> = Vec::new();
        let mut failures: Option<Failures> = None;
        let mut losses = Losses::default();
        let mut next_opening = Instant::now();
        loop {
            losses.look(&mut held, &mut failures);
            let size = self.node.size.load(Ordering::Relaxed);
            if losses.short_lived > 1 && failures.is_none() && held.len() < size {
                let endpoint = self.node.address.clone();
                failures = Some(Failures::new(
                    ConnectError::Flapping { endpoint },
                    losses.short_lived,
                    Duration::ZERO,
                ));
            }
            self.publish(&held, failures.as_ref());
            if held.len() >= size {
                self.node.attention.notified().await;
                continue;
            }
            if let Some(waiting) = &failures
                && !waiting.is_due()
            {
                tokio::select! {
                    () = waiting.due() => {}
                    // Nothing is known against it.
                    () = new_token(&mut self.tokens) => {
                        failures = None;
                        losses.short_lived = 0;
                    }
                    () = self.node.attention.notified() => {}
                }
                continue;
            }
            if !held.is_empty() && Instant::now() < next_opening {
                tokio::select! {
                    () = sleep_until(next_opening) => {}
                    () = self.node.attention.notified() => {}
                }
                continue;
            }
            // One that comes from here on is news.
            self.tokens.as_mut().map(Tokens::newest);
            let began = Instant::now();
            let objects = self.objects.clone();
            let attempt = objects.get();
            tokio::pin!(attempt);
            let opened = loop {
                tokio::select! {
                    opened = &mut attempt => break opened,
                    // An attempt may take seconds, in which another connection may end.
                    () = self.node.attention.notified() => {
                        losses.look(&mut held, &mut failures);
                        self.publish(&held, failures.as_ref());
                    }
                }
            };
            match opened {
                Ok(object) => {
                    held.push(object);
                    failures = None;
                    next_opening = Instant::now() + OPENING_PAUSE.mul_f64(0.5 + fastrand::f64());
                }
                Err(PoolError::Backend(error)) => {
                    let count = failures.map_or(0, |failures| failures.count);
                    failures = Some(Failures::new(
                        error,
                        count.saturating_add(1),
                        began.elapsed(),
                    ));
                }
                // Closed: nothing more to do. The others cannot happen, as the pool has no wait limit and no hooks.
                Err(
                    PoolError::Closed
                    | PoolError::Timeout(_)
                    | PoolError::NoRuntimeSpecified
                    | PoolError::PostCreateHook(_),
                ) => return,
            }
        }
    }

    /// Tells callers what is open.
    fn publish(&self, held: &[Object], failures: Option<&Failures>) {
        let open: Vec<NodeConnection> = held
            .iter()
            .map(|object| NodeConnection::clone(object))
            .collect();
        let availability = match (open.is_empty(), failures) {
            (false, _) => Availability::Open,
            (true, Some(failures)) if !failures.is_of_the_moment => {
                Availability::Failing(failures.error.clone())
            }
            (true, _) => Availability::Opening,
        };
        self.node.open.store(Arc::new(open));
        self.node.availability.send_replace(availability);
        self.census.report();
    }
}

/// Connections that ended by themselves.
#[derive(Default)]
struct Losses {
    /// Those in a row that ended as soon as they were open, each opened after the one before had ended: what ends them all
    /// at once is no row.
    short_lived: u32,
    latest: Option<Instant>,
}

impl Losses {
    /// Drops those that have ended; deadpool finds them closed and forgets them.
    fn look(&mut self, held: &mut Vec<Object>, failures: &mut Option<Failures>) {
        let had_some = !held.is_empty();
        for lost in held.extract_if(.., |object| !object.is_open()) {
            let age = lost.life.age();
            if age >= SHORT_LIFE {
                self.short_lived = 0;
            } else if self.latest.is_none_or(|end| age < end.elapsed()) {
                self.short_lived = self.short_lived.saturating_add(1);
            }
            self.latest = Some(Instant::now());
        }
        // That a further one could not be opened says nothing of the first.
        if had_some && held.is_empty() {
            *failures = None;
        }
    }
}

/// Attempts that failed in a row.
struct Failures {
    count: u32,
    /// The latest, as callers are told.
    error: Error,
    /// The first in a row, such as a connection cut during its sign-in: the next attempt is too near to turn callers away.
    is_of_the_moment: bool,
    /// When the next attempt is due; `None`: when a token comes, since without one there is nothing to try.
    next: Option<Instant>,
}

impl Failures {
    fn new(error: ConnectError, count: u32, took: Duration) -> Self {
        if let ConnectError::NoToken = error {
            // Not logged: the refresher reports why there is none.
            return Self {
                count,
                error: Error::NoToken,
                is_of_the_moment: false,
                next: None,
            };
        }
        let bound = FIRST_WAIT
            .saturating_mul(1 << count.min(10))
            .min(LONGEST_WAIT);
        let wait = bound.mul_f64(0.1 + 0.9 * fastrand::f64());
        warn!(
            error = %ErrorChain(&error),
            retry.in_s = wait.as_secs_f64(),
            "opening a connection to Redis failed"
        );
        Self {
            count,
            is_of_the_moment: count == 1 && took < SHORT_ATTEMPT,
            error: Error::Unavailable(Arc::new(error)),
            next: Some(Instant::now() + wait),
        }
    }

    fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= Instant::now())
    }

    async fn due(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }
}

/// Sends PING on each open connection now and then, for ever; what comes of it is noted as for any command, so that one whose
/// peer is gone is found without a caller's help.
pub(super) async fn keep_in_use(node: &Node) {
    let ping = redis::cmd("PING");
    loop {
        sleep(PING_EVERY).await;
        let mut open = node.open.load().to_vec();
        join_all(open.iter_mut().map(|connection| connection.send(&ping))).await;
    }
}

/// Waits for a token that was not seen yet; for ever where none is needed.
async fn new_token(tokens: &mut Option<Tokens>) {
    match tokens {
        Some(tokens) => {
            tokens.changed().await;
            tokens.newest();
        }
        None => std::future::pending().await,
    }
}

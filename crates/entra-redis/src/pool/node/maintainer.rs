//! The task that opens a node's connections and publishes the open ones to callers. `schedule` decides when.
//!
//! It owns deadpool's objects for as long as their connections live and shares clones of them. So a caller never waits for
//! a connection to be opened while another one is open, and a burst of callers opens none: Azure limits the rate of new
//! connections.
//!
//! Beside it, [`keep_alive`] keeps idle connections in use.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use deadpool::managed::PoolError;
use futures_util::future::{OptionFuture, join_all};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::{
    super::error::{ConnectError, Error},
    Node, NodeRegistry,
    connection::{CloseReason, NodeConnection},
    manager::{Object, Objects},
    schedule::{Action, Event, State},
};
use crate::{error_chain::ErrorChain, identity::Tokens};

pub(in crate::pool) use super::schedule::Availability;

/// Azure closes connections that were idle for 10 minutes, its load balancers forget them after 4 by default, and neither
/// counts the kernel's probes as use in every case: a PING does.
const PING_EVERY: Duration = Duration::from_secs(60);

/// A guard that closes the node and its connections. Dropped after the maintainer, also after a panic, so that
/// nothing is published later.
pub(super) struct Cleanup {
    pub(super) node: Arc<Node>,
    pub(super) objects: Objects,
    pub(super) registry: Arc<NodeRegistry>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        self.node.availability.send_replace(Availability::Closed);
        for connection in self.node.open.swap(Arc::default()).iter() {
            connection.state.close(CloseReason::Shutdown);
        }
        self.objects.close();
        self.registry.report();
    }
}

/// The task that keeps a node's connections open.
pub(super) struct Maintainer {
    node: Arc<Node>,
    objects: Objects,
    /// `None` if no token is needed.
    tokens: Option<Tokens>,
    registry: Arc<NodeRegistry>,
    connections: Vec<Object>,
    state: State,
}

impl Maintainer {
    /// A maintainer of a node without connections.
    pub(super) fn new(
        node: Arc<Node>,
        objects: Objects,
        tokens: Option<Tokens>,
        registry: Arc<NodeRegistry>,
    ) -> Self {
        Self {
            node,
            objects,
            tokens,
            registry,
            connections: Vec::new(),
            state: State::default(),
        }
    }

    /// Keeps the node's connections open until dropped; [`Cleanup`] then closes them.
    pub(super) async fn run(mut self) {
        let wake_maintainer = self.node.wake_maintainer.clone();
        loop {
            match self.decide() {
                Action::Wait => wake_maintainer.notified().await,
                Action::Pace { until } => {
                    tokio::select! {
                        () = sleep_until(until) => {}
                        () = wake_maintainer.notified() => {}
                    }
                }
                Action::BackOff { until } => {
                    tokio::select! {
                        Some(()) = OptionFuture::from(until.map(sleep_until)) => {}
                        () = new_token(&mut self.tokens) => self.record(Event::NewToken),
                        () = wake_maintainer.notified() => {}
                    }
                }
                Action::Open => {
                    if let Err(PoolClosed) = self.open_connection().await {
                        return;
                    }
                }
            }
        }
    }

    /// Applies changes, publishes them and returns the next step.
    fn decide(&mut self) -> Action {
        self.drop_closed();
        let wanted = self.node.size.load(Ordering::Relaxed);
        if self.state.is_flapping(wanted) {
            let endpoint = self.node.address.clone();
            let error = Arc::new(ConnectError::Flapping { endpoint });
            self.record(Event::Flapping {
                error: Error::Unavailable(error.clone()),
            });
            self.log_failure(&error);
        }
        self.publish();
        self.state.next(wanted, Instant::now())
    }

    /// Opens a connection. Meanwhile keeps publishing changes of the others.
    async fn open_connection(&mut self) -> Result<(), PoolClosed> {
        // A token that arrives from here on is a new one.
        self.tokens.as_mut().map(Tokens::newest);
        let started = Instant::now();
        let objects = self.objects.clone();
        let attempt = objects.get();
        tokio::pin!(attempt);
        let opened = loop {
            tokio::select! {
                opened = &mut attempt => break opened,
                // An attempt may take seconds, in which another connection may close.
                () = self.node.wake_maintainer.notified() => {
                    self.drop_closed();
                    self.publish();
                }
            }
        };
        match opened {
            Ok(object) => {
                self.connections.push(object);
                self.record(Event::Opened);
            }
            Err(PoolError::Backend(error)) => self.record_failure(error, started.elapsed()),
            // Only `Closed` can happen, as the pool has no wait limit and no hooks.
            Err(
                PoolError::Closed
                | PoolError::Timeout(_)
                | PoolError::NoRuntimeSpecified
                | PoolError::PostCreateHook(_),
            ) => return Err(PoolClosed),
        }
        Ok(())
    }

    fn record_failure(&mut self, error: ConnectError, took: Duration) {
        if let ConnectError::NoToken = error {
            // Not logged: the refresher reports why there is none.
            let error = Error::NoToken;
            return self.record(Event::Failed { error, took });
        }
        let error = Arc::new(error);
        self.record(Event::Failed {
            error: Error::Unavailable(error.clone()),
            took,
        });
        self.log_failure(&error);
    }

    fn log_failure(&self, error: &ConnectError) {
        let retry_at = self.state.retry_at();
        warn!(
            server.address = %self.node.address,
            error = %ErrorChain(error),
            retry.in_s = retry_at.map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64()),
            "could not open a Redis connection"
        );
    }

    fn record(&mut self, event: Event) {
        self.state.record(event, Instant::now(), fastrand::f64());
    }

    /// Drops connections that have closed; deadpool finds them closed and forgets them.
    fn drop_closed(&mut self) {
        for lost in self.connections.extract_if(.., |object| !object.is_open()) {
            // The age is read before the clock: one opened after the latest loss must appear younger than that loss.
            let age = lost.state.age();
            let now = Instant::now();
            self.state.record(Event::Lost { age }, now, fastrand::f64());
        }
    }

    /// Publishes the open connections and the advice to callers.
    fn publish(&self) {
        let connections = self.connections.iter();
        let open: Vec<NodeConnection> = connections
            .map(|object| NodeConnection::clone(object))
            .collect();
        self.node.open.store(Arc::new(open));
        self.node
            .availability
            .send_replace(self.state.availability());
        self.registry.report();
    }
}

/// deadpool's pool is closed: there is nothing left to maintain.
struct PoolClosed;

/// Sends PING on each open connection every minute. The result changes the connection's state as any command's does, so a
/// lost peer is detected without a caller's command.
pub(super) async fn keep_alive(node: &Node) {
    let ping = redis::cmd("PING");
    loop {
        sleep(PING_EVERY).await;
        let mut open = node.open.load().to_vec();
        join_all(open.iter_mut().map(|connection| connection.send(&ping))).await;
    }
}

/// Waits for a token that no attempt has used yet; forever if none is needed.
async fn new_token(tokens: &mut Option<Tokens>) {
    match tokens {
        Some(tokens) => {
            tokens.changed().await;
            tokens.newest();
        }
        None => std::future::pending().await,
    }
}

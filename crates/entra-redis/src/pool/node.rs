//! How is one node kept at hand? A few shared connections to one address, opened again when they end and signed in
//! again in place.
//!
//! A node is the cache's endpoint itself, or one node of a cluster. [`Node`] is the read side, which callers share;
//! behind each stands a `maintainer` that keeps its connections open. [`NodeFactory`] starts them; [`NodeRegistry`] counts what all
//! of them have open. Which node a command belongs to is not known here: that is `cluster`'s.

pub(super) mod connection;
pub(super) mod connector;
pub(super) mod maintainer;
mod manager;
pub(super) mod reauth;
mod schedule;
mod silence;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use metrics::gauge;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    connection::NodeConnection,
    connector::{Access, Connector, Credentials},
    maintainer::{Availability, Cleanup, Maintainer, keep_alive},
    manager::{Manager, Objects},
};
use super::{error::Error, instruments};
use crate::config::Endpoint;

/// One node, as callers see it.
pub(super) struct Node {
    pub(super) address: Endpoint,
    /// How many connections are wanted.
    size: AtomicUsize,
    /// Open connections; callers take turns on them.
    open: ArcSwap<Vec<NodeConnection>>,
    /// Whose turn it is.
    next_pick: AtomicUsize,
    pub(super) availability: watch::Sender<Availability>,
    /// Rung when a connection's state changes, or another number is wanted.
    wake_maintainer: Arc<Notify>,
}

impl Node {
    /// An open connection, if there is one; one that answers before one that does not. Does not wait.
    pub(super) fn pick(&self) -> Option<NodeConnection> {
        let open = self.open.load();
        let turn = self.next_pick.fetch_add(1, Ordering::Relaxed);
        let mut in_turn =
            (0..open.len()).map(|offset| &open[turn.wrapping_add(offset) % open.len()]);
        let at_hand = in_turn.clone().find(|connection| connection.is_ready());
        // One that does not answer now may do so within the caller's time.
        at_hand
            .or_else(|| in_turn.find(|connection| connection.is_open()))
            .cloned()
    }

    /// An open connection; waits while one is being opened and fails at once when two attempts in a row have failed, or one for
    /// lack of time or of a token.
    pub(super) async fn connection(&self) -> Result<NodeConnection, Error> {
        let mut availability = self.availability.subscribe();
        loop {
            let now = availability.borrow_and_update().clone();
            match now {
                Availability::Open => {
                    if let Some(connection) = self.pick() {
                        return Ok(connection);
                    }
                    // All have just ended and the maintainer has not seen it yet: it will say so.
                }
                Availability::Opening => {}
                Availability::Failing(error) => return Err(error),
                Availability::Closed => return Err(Error::Closed),
            }
            if availability.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Waits until a connection is open, through failing attempts; for ever if none ever is.
    pub(super) async fn wait_connected(&self) {
        let mut availability = self.availability.subscribe();
        while !matches!(*availability.borrow_and_update(), Availability::Open) {
            if availability.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Wants this many connections from now on; only ever more than before.
    pub(super) fn grow(&self, size: usize) {
        self.size.fetch_max(size, Ordering::Relaxed);
        self.wake_maintainer.notify_one();
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        let open = self.open.load();
        open.iter().filter(|one| one.is_open()).count()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load().iter().any(NodeConnection::is_open)
    }
}

/// Starts nodes: what all nodes of one pool have in common.
pub(super) struct NodeFactory {
    pub(super) access: Arc<Access>,
    /// The most connections a node may have.
    pub(super) size: usize,
    /// Ends them all.
    pub(super) stop: CancellationToken,
    /// Cancelled when a maintainer ends that was not told to.
    pub(super) ended: CancellationToken,
    pub(super) registry: Arc<NodeRegistry>,
}

/// A node whose connections end when this is dropped.
pub(super) struct NodeHandle {
    pub(super) node: Arc<Node>,
    _stop: DropGuard,
}

impl NodeFactory {
    /// Starts to open `size` connections to `address` in the background.
    pub(super) fn start(&self, address: Endpoint, size: usize) -> NodeHandle {
        let wake_maintainer = Arc::new(Notify::new());
        let objects = Objects::builder(Manager(Connector {
            access: self.access.clone(),
            address: address.clone(),
            wake_maintainer: wake_maintainer.clone(),
            reauth_queue: Arc::default(),
        }))
        .max_size(self.size)
        .build()
        .expect("deadpool refuses time-outs without a runtime, and none is set");
        let node = Arc::new(Node {
            address,
            size: AtomicUsize::new(size),
            open: ArcSwap::default(),
            next_pick: AtomicUsize::new(0),
            availability: watch::Sender::new(Availability::Opening),
            wake_maintainer,
        });
        self.registry.add(&node);
        let tokens = match &self.access.credentials {
            Credentials::Entra(tokens) => Some(tokens.clone()),
            Credentials::Key(_) | Credentials::None => None,
        };
        let maintainer =
            Maintainer::new(node.clone(), objects.clone(), tokens, self.registry.clone());
        let cleanup = Cleanup {
            node: node.clone(),
            objects,
            registry: self.registry.clone(),
        };
        let stop = self.stop.child_token();
        let guard = self.ended.clone().drop_guard();
        let cancelled = stop.clone();
        let used = node.clone();
        self.access.tasks.spawn(async move {
            // In this order: first the maintainer ends, then what it published.
            let _cleanup = cleanup;
            let kept = async {
                tokio::select! {
                    () = maintainer.run() => {}
                    () = keep_alive(&used) => {}
                }
            };
            if cancelled.run_until_cancelled(kept).await.is_none() {
                guard.disarm();
            }
        });
        NodeHandle {
            node,
            _stop: stop.drop_guard(),
        }
    }
}

/// All nodes of a pool, to count what they have open.
#[derive(Default)]
pub(super) struct NodeRegistry(Mutex<Vec<Weak<Node>>>);

impl NodeRegistry {
    fn add(&self, node: &Arc<Node>) {
        self.lock().push(Arc::downgrade(node));
    }

    /// Connections that are open, and that are wanted.
    pub(super) fn count(&self) -> (usize, usize) {
        let (mut open, mut size) = (0, 0);
        for node in self.lock().iter().filter_map(Weak::upgrade) {
            if matches!(*node.availability.borrow(), Availability::Closed) {
                continue;
            }
            let connections = node.open.load();
            open += connections.iter().filter(|one| one.is_open()).count();
            size += node.size.load(Ordering::Relaxed);
        }
        (open, size)
    }

    /// Sets the gauges.
    fn report(&self) {
        let mut count = 0_usize;
        let mut earliest: Option<SystemTime> = None;
        let mut nodes = self.lock();
        nodes.retain(|node| {
            let Some(node) = node.upgrade() else {
                return false;
            };
            let connections = node.open.load();
            count += connections.len();
            let ends = connections
                .iter()
                .filter_map(|connection| connection.state.authenticated())
                .map(|authenticated| authenticated.expires_at);
            earliest = ends.chain(earliest).min();
            true
        });
        // Set while the lock is held: what is reported last is what was counted last.
        if let Some(earliest) = earliest {
            let earliest = earliest.duration_since(UNIX_EPOCH).unwrap_or_default();
            gauge!(instruments::EXPIRY).set(earliest.as_secs_f64());
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a pod's connections are counted in hundreds"
        )]
        gauge!(instruments::CONNECTION_COUNT, "db_client_connection_state" => "used")
            .set(count as f64);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Node>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

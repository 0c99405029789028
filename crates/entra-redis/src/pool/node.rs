//! A few shared connections to one address, reopened when they close and re-authenticated in place.
//!
//! A node is the cache's endpoint itself, or one node of a cluster. [`Node`] is the read side, which callers share;
//! each has a `maintainer` that keeps its connections open. [`NodeFactory`] starts nodes; [`NodeRegistry`] counts their
//! open connections. The choice of a node for a command is `cluster`'s.

mod auth;
pub(super) mod connection;
pub(super) mod connector;
pub(super) mod maintainer;
mod manager;
pub(super) mod reauth;
mod schedule;
mod silence;
pub(super) mod transport;

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
use crate::env::Endpoint;

/// The read side of one node, shared by callers.
pub(super) struct Node {
    pub(super) address: Endpoint,
    /// The wanted number of connections.
    size: AtomicUsize,
    /// Open connections; callers take turns on them.
    open: ArcSwap<Vec<NodeConnection>>,
    /// Counts picks, so that callers take turns.
    next_pick: AtomicUsize,
    pub(super) availability: watch::Sender<Availability>,
    /// Notified when a connection's state changes, or another number is wanted.
    wake_maintainer: Arc<Notify>,
}

impl Node {
    /// Returns an open connection, if there is one, and prefers responsive ones. Does not wait.
    pub(super) fn pick(&self) -> Option<NodeConnection> {
        let open = self.open.load();
        let turn = self.next_pick.fetch_add(1, Ordering::Relaxed);
        let mut in_turn =
            (0..open.len()).map(|offset| &open[turn.wrapping_add(offset) % open.len()]);
        let ready = in_turn.clone().find(|connection| connection.is_ready());
        // A connection that does not respond now may do so within the caller's timeout.
        ready
            .or_else(|| in_turn.find(|connection| connection.is_open()))
            .cloned()
    }

    /// Returns an open connection. Waits while one is being opened.
    ///
    /// # Errors
    /// At once, when two attempts in a row have failed, or one that took long or had no token.
    pub(super) async fn connection(&self) -> Result<NodeConnection, Error> {
        let mut availability = self.availability.subscribe();
        loop {
            let now = availability.borrow_and_update().clone();
            match now {
                Availability::Open => {
                    if let Some(connection) = self.pick() {
                        return Ok(connection);
                    }
                    // All have just closed and the maintainer has not seen it yet: a change follows.
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

    /// Waits until a connection is open, also through failed attempts; forever if none ever is.
    pub(super) async fn wait_connected(&self) {
        let mut availability = self.availability.subscribe();
        while !matches!(*availability.borrow_and_update(), Availability::Open) {
            if availability.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Raises the wanted number of connections; a lower number changes nothing.
    pub(super) fn grow(&self, size: usize) {
        self.size.fetch_max(size, Ordering::Relaxed);
        self.wake_maintainer.notify_one();
    }

    /// Returns the number of open connections.
    pub(super) fn open(&self) -> usize {
        let open = self.open.load();
        open.iter().filter(|one| one.is_open()).count()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load().iter().any(NodeConnection::is_open)
    }
}

/// Starts nodes, with the settings that all nodes of one pool share.
pub(super) struct NodeFactory {
    pub(super) access: Arc<Access>,
    /// The maximum number of connections of a node.
    pub(super) size: usize,
    /// Stops all nodes.
    pub(super) stop: CancellationToken,
    /// Cancelled when a maintainer exits without having been stopped.
    pub(super) ended: CancellationToken,
    pub(super) registry: Arc<NodeRegistry>,
}

/// The owner of a node; dropping it stops the node and closes its connections.
pub(super) struct NodeHandle {
    pub(super) node: Arc<Node>,
    _stop: DropGuard,
}

impl NodeFactory {
    /// Starts a node, which opens `size` connections to `address` in the background.
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
        .expect("deadpool refuses only timeouts without a runtime, and none is set");
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
        let pinged = node.clone();
        self.access.tasks.spawn(async move {
            // Dropped last: what the maintainer published is withdrawn after its end.
            let _cleanup = cleanup;
            let work = async {
                tokio::select! {
                    () = maintainer.run() => {}
                    () = keep_alive(&pinged) => {}
                }
            };
            if cancelled.run_until_cancelled(work).await.is_none() {
                guard.disarm();
            }
        });
        NodeHandle {
            node,
            _stop: stop.drop_guard(),
        }
    }
}

/// All nodes of a pool, to count their connections.
#[derive(Default)]
pub(super) struct NodeRegistry(Mutex<Vec<Weak<Node>>>);

impl NodeRegistry {
    fn add(&self, node: &Arc<Node>) {
        self.lock().push(Arc::downgrade(node));
    }

    /// Returns the numbers of open and of wanted connections.
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
            let expiries = connections
                .iter()
                .filter_map(|connection| connection.state.authenticated())
                .map(|authenticated| authenticated.expires_at);
            earliest = expiries.chain(earliest).min();
            true
        });
        // Set under the lock, so that the latest count is the one that stays.
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

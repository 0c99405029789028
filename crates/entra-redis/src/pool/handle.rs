//! The pool: get, query, probe, close.

use std::{fmt, sync::Arc, time::Duration};

use metrics::counter;
use redis::{Cmd, FromRedisValue, Value};
use tokio::{task::coop::consume_budget, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument;

use super::{
    builder::Builder,
    connection::{Connection, Route},
    error::{ConnectError, Error},
    instruments,
    measure::{Durations, Measure},
    node::{NodeHandle, NodeRegistry, connection::is_unauthenticated, maintainer::Availability},
    policy::Clustering,
    topology::Topology,
    trace::{record_code, waiting},
};
use crate::{
    env::{self, Endpoint},
    identity::{self, Tokens},
};

/// A pool of a few shared connections that stay authenticated.
///
/// Cloning it is cheap. Its tasks (the token refresher, a maintainer for each node, one driver and one re-authentication
/// task for each connection) end when the last clone is dropped, or in order with [`Pool::close`].
#[derive(Clone)]
pub struct Pool(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) topology: Arc<Topology>,
    pub(super) _seed: NodeHandle,
    pub(super) size: usize,
    pub(super) registry: Arc<NodeRegistry>,
    /// The longest time for which a caller waits for a connection that is being opened.
    pub(super) acquire_timeout: Duration,
    pub(super) tokens: Option<Tokens>,
    pub(super) durations: Durations,
    pub(super) tasks: TaskTracker,
    /// Cancelled when a task exits that must not.
    pub(super) ended: CancellationToken,
    pub(super) stop: CancellationToken,
    /// Cancels `stop` when the last handle is dropped.
    pub(super) _stop: DropGuard,
}

/// Numbers of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Open and authenticated connections.
    pub open: usize,
    /// Wanted connections: in a cluster, those to all primaries together and one to the endpoint.
    pub size: usize,
}

/// Numbers of Redis' primaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// All primaries; 1 if Redis is one endpoint.
    pub primaries: usize,
    /// Primaries that answered PING; a refusal with NOPERM is an answer.
    pub primaries_answering: usize,
}

impl Pool {
    /// Returns a builder of a pool for `endpoint`: TLS, and tokens from a source that the builder still needs.
    pub fn builder(endpoint: Endpoint) -> Builder {
        Builder::from(env::Redis::new(endpoint))
    }

    /// Returns a live connection, shared with other callers.
    ///
    /// Does not wait while a connection is open. Otherwise waits for the attempt in progress, and for the next one if the
    /// first in a row failed quickly, at most the command timeout. In a cluster it never waits: the node that is needed
    /// follows from the command. Dropping the future has no effect.
    ///
    /// # Errors
    /// At once and with the reason, if there is no live token or attempts to connect fail; [`Error::Opening`] if no connection was
    /// open in time.
    pub async fn get(&self) -> Result<Connection, Error> {
        self.route().await.map(Connection)
    }

    async fn route(&self) -> Result<Route, Error> {
        let topology = &self.0.topology;
        match topology.resolved.get() {
            Some((_, None)) => {
                if let Some(connection) = topology.seed.pick() {
                    return Ok(Route::Node(connection));
                }
            }
            Some((_, Some(_))) if self.0.stop.is_cancelled() => return Err(Error::Closed),
            Some((_, Some(cluster))) => return Ok(Route::Cluster(cluster.clone())),
            None => {}
        }
        // Yield, so that a caller that retries in a tight loop cannot starve the tasks that open connections.
        consume_budget().await;
        waiting(&topology.seed.address, async {
            let next = timeout(self.0.acquire_timeout, self.next_route()).await;
            next.unwrap_or_else(|_| {
                Err(self
                    .topology_error()
                    .map_or(Error::Opening, Error::Unavailable))
            })
        })
        .await
    }

    /// Waits for a route, or for the reason why there is none.
    async fn next_route(&self) -> Result<Route, Error> {
        let topology = &self.0.topology;
        let mut unresolved = topology.unresolved.subscribe();
        let mut availability = topology.seed.availability.subscribe();
        loop {
            let error = unresolved.borrow_and_update().clone();
            match topology.resolved.get() {
                Some((_, None)) => return topology.seed.connection().await.map(Route::Node),
                Some((_, Some(cluster))) => return Ok(Route::Cluster(cluster.clone())),
                None => {}
            }
            match (availability.borrow_and_update().clone(), error) {
                (Availability::Failing(error), _) => return Err(error),
                (Availability::Closed, _) => return Err(Error::Closed),
                (Availability::Open, Some(error))
                    if !matches!(*error, ConnectError::Undecided { .. }) =>
                {
                    return Err(Error::Unavailable(error));
                }
                (Availability::Open | Availability::Opening, _) => {}
            }
            tokio::select! {
                _ = unresolved.changed() => {}
                _ = availability.changed() => {}
            }
        }
    }

    /// Waits until a connection is open, through failed attempts; forever if none ever is or the pool is closed.
    ///
    /// For start-up and probes; requests use [`Pool::get`], which fails fast. Dropping the future has no effect.
    pub async fn wait_connected(&self) {
        let topology = &self.0.topology;
        let mut unresolved = topology.unresolved.subscribe();
        loop {
            match topology.resolved.get() {
                Some((_, None)) => return topology.seed.wait_connected().await,
                Some((_, Some(cluster))) => return cluster.wait_connected().await,
                None => _ = unresolved.changed().await,
            }
        }
    }

    /// Runs a command at most once.
    ///
    /// It is sent again only if Redis reported that it did not run it (NOAUTH). Dropping the future does not recall what was
    /// sent.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] and [`Error::TimedOut`] if it may or may not have run.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.measured(command, false).await
    }

    /// Runs a command that is idempotent: running it again does no harm.
    ///
    /// After a lost connection or a timeout it is sent again, on another connection if there is one, in up to the pool's size
    /// + 1 attempts. Put your own deadline around it: each attempt may take the command timeout.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn query_idempotent<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.measured(command, true).await
    }

    async fn measured<T: FromRedisValue>(
        &self,
        command: &Cmd,
        idempotent: bool,
    ) -> Result<T, Error> {
        let endpoint = &self.0.topology.seed.address;
        let measure = Measure::start(&self.0.durations, endpoint, command);
        let executed = self.execute(command, idempotent);
        let result = match executed.instrument(measure.span.clone()).await {
            Ok(value) => T::from_redis_value(value).map_err(|e| Error::Command(e.into())),
            Err(error) => Err(error),
        };
        if let Err(Error::Command(error)) = &result {
            record_code(&measure.span, error);
        }
        measure.end(result.as_ref().err().map(Error::label));
        result
    }

    async fn execute(&self, command: &Cmd, idempotent: bool) -> Result<Value, Error> {
        let mut attempts = self.0.size + 1;
        loop {
            let result = match self.route().await? {
                Route::Node(mut connection) => connection.send(command).await.map_err(Error::of),
                Route::Cluster(cluster) => cluster.query(command).await,
            };
            attempts -= 1;
            let may_run_again = match &result {
                // It did not run; the connection has taken itself out of use.
                Ok(Value::ServerError(error)) => is_unauthenticated(error.code()),
                Ok(_) => false,
                Err(error) => idempotent && error.may_have_run(),
            };
            if !may_run_again || attempts == 0 {
                return match result? {
                    Value::ServerError(error) => Err(Error::Command(error.into())),
                    value => Ok(value),
                };
            }
            counter!(instruments::RETRIES).increment(1);
        }
    }

    /// Sends PING to each of Redis' primaries; for probes. Dropping the future has no effect.
    ///
    /// # Errors
    /// The single endpoint does not answer, or the clustering policy is not known yet.
    pub async fn ping(&self) -> Result<Answering, Error> {
        if let Route::Cluster(cluster) = self.route().await? {
            let (primaries_answering, primaries) = cluster.ping().await;
            return Ok(Answering {
                primaries,
                primaries_answering,
            });
        }
        match self.query_idempotent::<()>(&redis::cmd("PING")).await {
            // A refusal is an answer: an access policy may leave out PING.
            Err(Error::Command(error)) if error.code() == Some("NOPERM") => {}
            result => result?,
        }
        Ok(Answering {
            primaries: 1,
            primaries_answering: 1,
        })
    }

    /// Re-authenticates one open connection to the endpoint with the current token; for diagnosis. Does nothing without a
    /// token or an open connection. Dropping the future abandons the reply.
    ///
    /// # Errors
    /// Redis refused the AUTH, or did not reply within `limit`.
    pub(crate) async fn reauthenticate(&self, limit: Duration) -> Result<(), Error> {
        let token = self.0.tokens.clone().and_then(|mut tokens| tokens.newest());
        match (self.0.topology.seed.pick(), token) {
            (Some(connection), Some(token)) => {
                let address = &self.0.topology.seed.address;
                super::node::reauth::reauthenticate(&connection, address, &token, limit).await
            }
            _ => Ok(()),
        }
    }

    /// Returns the primaries of a cluster that do not answer PING, each with the reason; for diagnosis. Dropping the future
    /// has no effect.
    pub(crate) async fn unreachable_primaries(&self) -> Vec<(Endpoint, Error)> {
        match self.0.topology.resolved.get() {
            Some((_, Some(cluster))) => cluster.unreachable_primaries().await,
            _ => Vec::new(),
        }
    }

    /// Returns the clustering policy that the pool follows, and the reason; `None` until it is known.
    pub fn clustering(&self) -> Option<&Clustering> {
        Some(&self.0.topology.resolved.get()?.0)
    }

    /// Returns the reason why the clustering policy is not known yet, if Redis gave one.
    pub fn topology_error(&self) -> Option<Arc<ConnectError>> {
        self.0.topology.unresolved.borrow().clone()
    }

    /// Returns the nodes that commands go to (the endpoint, or each primary of a cluster) with the number of open connections.
    pub fn nodes(&self) -> Vec<(Endpoint, usize)> {
        let nodes = match self.0.topology.resolved.get() {
            Some((_, Some(cluster))) => cluster.nodes(),
            _ => vec![self.0.topology.seed.clone()],
        };
        let nodes = nodes.iter();
        nodes
            .map(|node| (node.address.clone(), node.open()))
            .collect()
    }

    /// Returns the numbers of connections.
    pub fn status(&self) -> PoolStatus {
        let (open, size) = self.0.registry.count();
        PoolStatus { open, size }
    }

    /// Returns the status of the credential, without the token; `None` if the pool authenticates without tokens.
    pub fn identity(&self) -> Option<identity::TokenStatus> {
        self.0.tokens.as_ref().map(Tokens::status)
    }

    /// Waits until the pool's tasks have exited: after [`Pool::close`], or because of a bug in this library, after which the
    /// pool cannot be used. Dropping the future has no effect.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.0.ended.cancelled() => {}
            () = self.0.tasks.wait() => {}
        }
    }

    /// Closes the pool for all its clones: it hands out no more connections, its tasks stop, and each connection closes when
    /// its last user drops it. Waits for that; put a deadline around it. Dropping the future does not stop the closing.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

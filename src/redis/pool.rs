//! The pool as callers see it: build, get, query, close.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Histogram, counter, histogram};
use redis::{Arg, Cmd, FromRedisValue, Value};
use tokio::{
    sync::watch,
    task::coop::consume_budget,
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{Instrument, Span, info};

use super::{
    builder::Builder,
    cluster::Cluster,
    connection::{Connection, Way},
    error::{ConnectError, Error},
    instruments,
    node::{
        Census, Node, Nodes, RunningNode, connection::is_not_signed_in, maintainer::Availability,
    },
    policy::{self, Clustering, Decision},
    trace::{answered, command as command_span, waiting},
};
use crate::{
    config::{self, ClusteringPolicy, Endpoint},
    identity::{self, Tokens},
    trace,
};

/// A pool of few shared connections that keep themselves signed in.
///
/// Cloning it is cheap. Its tasks (the refresher of the token, a maintainer for each node, one driver and one
/// re-authentication task a connection) end when the last clone goes, or in order by [`Pool::close`].
#[derive(Clone)]
pub struct Pool(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) site: Arc<Site>,
    pub(super) _seed: RunningNode,
    pub(super) size: usize,
    pub(super) census: Arc<Census>,
    /// How long a caller waits for a connection that is being opened.
    pub(super) patience: Duration,
    pub(super) tokens: Option<Tokens>,
    pub(super) durations: [OnceLock<Histogram>; OPERATIONS.len()],
    pub(super) tasks: TaskTracker,
    /// Cancelled when a task ends that should not have.
    pub(super) ended: CancellationToken,
    pub(super) stop: CancellationToken,
    /// Cancels `stop` when the last handle goes.
    pub(super) _stop: DropGuard,
}

/// Where commands go, once that is known.
pub(super) struct Site {
    /// The cache's endpoint.
    seed: Arc<Node>,
    settled: OnceLock<(Clustering, Option<Arc<Cluster>>)>,
    /// Why it is not settled yet, where there is a reason; changes when it is.
    trouble: watch::Sender<Option<Arc<ConnectError>>>,
}

impl Site {
    pub(super) fn new(seed: Arc<Node>) -> Self {
        Self {
            seed,
            settled: OnceLock::new(),
            trouble: watch::Sender::new(None),
        }
    }

    pub(super) fn settle(&self, clustering: Clustering, cluster: Option<Arc<Cluster>>) {
        info!(redis.clustering = %clustering, "the clustering policy is settled");
        self.settled.get_or_init(|| (clustering, cluster));
        self.trouble.send_replace(None);
    }

    /// Asks the endpoint who it is; then, if it is a cluster, keeps the map of its slots for ever.
    pub(super) async fn settling(self: Arc<Self>, policy: ClusteringPolicy, nodes: Nodes) {
        let trouble = |error| {
            self.trouble.send_replace(error);
        };
        match policy::decide(policy, &self.seed, trouble).await {
            Decision::OneEndpoint(clustering) => {
                self.seed.grow(nodes.size);
                self.settle(clustering, None);
            }
            Decision::Cluster(clustering, ranges) => {
                let cluster = Arc::new(Cluster::new(self.seed.clone(), nodes, &ranges));
                self.settle(clustering, Some(cluster.clone()));
                match cluster.survey().await {}
            }
        }
    }
}

/// How many connections there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Open and signed in.
    pub open: usize,
    /// Wanted: with a cluster, to all its masters together and one to the endpoint.
    pub size: usize,
}

/// How many of Redis' masters answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// All of them; 1 where Redis is one endpoint.
    pub masters: usize,
    /// Those that answered PING, if only to say that this user may not send it.
    pub masters_answering: usize,
}

impl Pool {
    /// A pool for `endpoint`, with the defaults of the service's variables: TLS, and tokens from a source still to be
    /// named.
    pub fn builder(endpoint: Endpoint) -> Builder {
        Builder::new(config::Redis::new(endpoint))
    }

    /// A pool as the environment configures it; where that is by token, the source is still to be named.
    pub fn from_config(config: config::Redis) -> Builder {
        Builder::new(config)
    }

    /// A live connection, shared with other callers.
    ///
    /// While one is open this does not wait. Otherwise it waits for the attempt in progress, and for the next where the
    /// first in a row failed at once, at most the command time-out. Dropping the future leaves nothing behind. With a
    /// cluster it never waits: which node is needed is known only from the command.
    ///
    /// # Errors
    /// At once and named, when there is no live token or attempts to connect fail; [`Error::Opening`] when none was open in
    /// time.
    pub async fn get(&self) -> Result<Connection, Error> {
        self.way().await.map(Connection)
    }

    async fn way(&self) -> Result<Way, Error> {
        match self.0.site.settled.get() {
            Some((_, None)) => {
                if let Some(connection) = self.0.site.seed.pick() {
                    return Ok(Way::Node(connection));
                }
            }
            Some((_, Some(_))) if self.0.stop.is_cancelled() => return Err(Error::Closed),
            Some((_, Some(cluster))) => return Ok(Way::Cluster(cluster.clone())),
            None => {}
        }
        // Failing at once is no reason for a caller who asks again at once to keep the runtime from what would help him.
        consume_budget().await;
        waiting(&self.0.site.seed.address, async {
            let next = timeout(self.0.patience, self.next_way()).await;
            next.unwrap_or_else(|_| {
                Err(self.undecided().map_or(Error::Opening, Error::Unavailable))
            })
        })
        .await
    }

    async fn next_way(&self) -> Result<Way, Error> {
        let site = &self.0.site;
        let mut trouble = site.trouble.subscribe();
        let mut availability = site.seed.availability.subscribe();
        loop {
            let error = trouble.borrow_and_update().clone();
            match site.settled.get() {
                Some((_, None)) => return site.seed.connection().await.map(Way::Node),
                Some((_, Some(cluster))) => return Ok(Way::Cluster(cluster.clone())),
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
                _ = trouble.changed() => {}
                _ = availability.changed() => {}
            }
        }
    }

    /// Waits until a connection is open, through failing attempts; for ever if none ever is or the pool is closed.
    ///
    /// For start-up and probes; requests use [`Pool::get`], which fails fast. Dropping the future leaves nothing behind.
    pub async fn opened(&self) {
        let site = &self.0.site;
        let mut trouble = site.trouble.subscribe();
        loop {
            match site.settled.get() {
                Some((_, None)) => return site.seed.opened().await,
                Some((_, Some(cluster))) => return cluster.opened().await,
                None => _ = trouble.changed().await,
            }
        }
    }

    /// Runs a command at most once.
    ///
    /// It is sent again only if Redis said that it did not run it (NOAUTH). Dropping the future does not take back what
    /// was sent.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] and [`Error::TimedOut`] when it may or may not have run.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.measured(command, false).await
    }

    /// Runs a command that may run twice, because running it again does no harm.
    ///
    /// After a lost connection or a time-out it is sent again, on another connection where there is one, up to the pool's size + 1 attempts.
    /// Put your own deadline around it: each attempt may take the command time-out.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn query_idempotent<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.measured(command, true).await
    }

    async fn measured<T: FromRedisValue>(
        &self,
        command: &Cmd,
        idempotent: bool,
    ) -> Result<T, Error> {
        let measure = Measure {
            inner: &self.0,
            operation: operation(command),
            started: Instant::now(),
            span: command_span(&self.0.site.seed.address, command),
            error_type: Some("cancelled"),
        };
        let executed = self.execute(command, idempotent);
        let result = match executed.instrument(measure.span.clone()).await {
            Ok(value) => T::from_redis_value(value).map_err(|e| Error::Command(e.into())),
            Err(error) => Err(error),
        };
        if let Err(Error::Command(error)) = &result {
            answered(&measure.span, error);
        }
        measure.end(result.as_ref().err().map(Error::label));
        result
    }

    async fn execute(&self, command: &Cmd, idempotent: bool) -> Result<Value, Error> {
        let mut attempts = self.0.size + 1;
        loop {
            let result = match self.way().await? {
                Way::Node(mut connection) => connection.send(command).await.map_err(Error::of),
                Way::Cluster(cluster) => cluster.query(command).await,
            };
            attempts -= 1;
            let may_run_again = match &result {
                // Not run; the connection has taken itself out of use.
                Ok(Value::ServerError(error)) => is_not_signed_in(error.code()),
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

    /// Asks each of Redis' masters whether it answers; for probes. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// The one endpoint does not answer, or it is not known yet whether it is one.
    pub async fn ping(&self) -> Result<Answering, Error> {
        if let Way::Cluster(cluster) = self.way().await? {
            let (masters_answering, masters) = cluster.ping().await;
            return Ok(Answering {
                masters,
                masters_answering,
            });
        }
        match self.query_idempotent::<()>(&redis::cmd("PING")).await {
            // A refusal is an answer: a user's rules may leave out PING.
            Err(Error::Command(error)) if error.code() == Some("NOPERM") => {}
            result => result?,
        }
        Ok(Answering {
            masters: 1,
            masters_answering: 1,
        })
    }

    /// Signs in once more on an open connection to the endpoint, with the token held; for `diagnostics`. Without a token or
    /// an open connection there is nothing to do.
    pub(crate) async fn sign_in_again(&self, limit: Duration) -> Result<(), Error> {
        let token = self.0.tokens.clone().and_then(|mut tokens| tokens.newest());
        match (self.0.site.seed.pick(), token) {
            (Some(connection), Some(token)) => {
                connection
                    .sign_in_again(&self.0.site.seed.address, &token, limit)
                    .await
            }
            _ => Ok(()),
        }
    }

    /// The masters that do not answer, each with the reason; for `diagnostics`.
    pub(crate) async fn masters_in_trouble(&self) -> Vec<(Endpoint, Error)> {
        match self.0.site.settled.get() {
            Some((_, Some(cluster))) => cluster.in_trouble().await,
            _ => Vec::new(),
        }
    }

    /// Whether Redis is one endpoint or a cluster, and on what ground; `None` until that is settled.
    pub fn clustering(&self) -> Option<&Clustering> {
        Some(&self.0.site.settled.get()?.0)
    }

    /// Why it is not settled yet, where Redis gives a reason.
    pub(crate) fn undecided(&self) -> Option<Arc<ConnectError>> {
        self.0.site.trouble.borrow().clone()
    }

    /// The nodes that commands go to, the endpoint or each of a cluster's masters, with their open connections.
    #[cfg(feature = "service")]
    pub(crate) fn nodes(&self) -> Vec<(Endpoint, usize)> {
        let nodes = match self.0.site.settled.get() {
            Some((_, Some(cluster))) => cluster.nodes(),
            _ => vec![self.0.site.seed.clone()],
        };
        let told = nodes.iter().map(|node| (node.address.clone(), node.open()));
        told.collect()
    }

    /// How many connections there are.
    pub fn status(&self) -> Status {
        let (open, size) = self.0.census.count();
        Status { open, size }
    }

    /// The credential as it may be shown; `None` where the pool signs in without tokens.
    pub fn identity(&self) -> Option<identity::Status> {
        self.0.tokens.as_ref().map(Tokens::status)
    }

    /// Waits until the pool's tasks have ended: after [`Pool::close`], or because of a fault in this library, after which
    /// the pool is of no use.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.0.ended.cancelled() => {}
            () = self.0.tasks.wait() => {}
        }
    }

    /// Ends the pool for all its clones: no connection is handed out any more, the tasks stop, and each connection closes
    /// when the last caller who holds it lets go. Waits for that; put a deadline around it. Dropping the future leaves
    /// the rest to happen by itself.
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

/// Records how long a command took and ends its span, also when its caller gives up.
struct Measure<'a> {
    inner: &'a Inner,
    operation: usize,
    started: Instant,
    span: Span,
    error_type: Option<&'static str>,
}

impl Measure<'_> {
    fn end(mut self, error_type: Option<&'static str>) {
        self.error_type = error_type;
    }
}

impl Drop for Measure<'_> {
    fn drop(&mut self) {
        let name = OPERATIONS[self.operation];
        match self.error_type {
            None => self.inner.durations[self.operation]
                .get_or_init(
                    || histogram!(instruments::OPERATION_DURATION, "db_operation_name" => name),
                )
                .record(self.started.elapsed()),
            Some(error_type) => {
                trace::failed(&self.span, error_type);
                histogram!(
                    instruments::OPERATION_DURATION,
                    "db_operation_name" => name,
                    "error_type" => error_type
                )
                .record(self.started.elapsed());
            }
        }
    }
}

/// Values of the `db_operation_name` label, a closed set: the usual commands, and one name for the rest.
pub(super) const OPERATIONS: [&str; 17] = [
    "SET", "GET", "PING", "DEL", "EXISTS", "EXPIRE", "INCR", "MGET", "MSET", "HGET", "HSET",
    "HGETALL", "LPUSH", "RPOP", "XADD", "EVAL", "_OTHER",
];

/// Which of [`OPERATIONS`] a command is.
fn operation(command: &Cmd) -> usize {
    let other = OPERATIONS.len() - 1;
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => OPERATIONS
            .iter()
            .position(|known| known.as_bytes().eq_ignore_ascii_case(name))
            .unwrap_or(other),
        _ => other,
    }
}

//! The pool as callers see it: build, get, query, close.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::{Histogram, counter, histogram};
use redis::{Arg, Cmd, FromRedisValue, RedisError, Value, aio::ConnectionLike};
use tokio::time::{Instant, timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    builder::Builder,
    connection::{Connection, is_not_signed_in},
    error::Error,
    instruments,
    maintainer::{Availability, Shared},
};
use crate::{
    config::{self, Endpoint},
    identity::{self, Tokens},
};

/// A pool of few shared connections that keep themselves signed in.
///
/// Cloning it is cheap. Its tasks (the refresher of the token, the maintainer, one driver and one re-authentication task
/// a connection) end when the last clone goes, or in order by [`Pool::close`].
#[derive(Clone)]
pub struct Pool(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) size: usize,
    /// How long a caller waits for a connection that is being opened.
    pub(super) patience: Duration,
    /// Whose turn it is.
    pub(super) next: AtomicUsize,
    pub(super) tokens: Option<Tokens>,
    pub(super) durations: [OnceLock<Histogram>; OPERATIONS.len()],
    pub(super) tasks: TaskTracker,
    /// Cancelled when the refresher or the maintainer ends, for whatever reason.
    pub(super) ended: CancellationToken,
    pub(super) stop: CancellationToken,
    /// Cancels `stop` when the last handle goes.
    pub(super) _stop: DropGuard,
}

/// How many connections there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Open and signed in.
    pub open: usize,
    /// Wanted.
    pub size: usize,
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
    /// While one is open this does not wait. Otherwise it waits for the attempt in progress, at most the command
    /// time-out. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// At once and named, when there is no live token or the latest attempt to connect failed.
    pub async fn get(&self) -> Result<Connection, Error> {
        if let Some(connection) = self.pick() {
            return Ok(connection);
        }
        let waiting = timeout(self.0.patience, self.next_open()).await;
        waiting.unwrap_or(Err(Error::Opening))
    }

    async fn next_open(&self) -> Result<Connection, Error> {
        let mut availability = self.0.shared.availability.subscribe();
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

    /// Waits until a connection is open, through failing attempts; for ever if none ever is or the pool is closed.
    ///
    /// For start-up and probes; requests use [`Pool::get`], which fails fast. Dropping the future leaves nothing behind.
    pub async fn opened(&self) {
        let mut availability = self.0.shared.availability.subscribe();
        while !matches!(*availability.borrow_and_update(), Availability::Open) {
            if availability.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn pick(&self) -> Option<Connection> {
        let open = self.0.shared.open.load();
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        (0..open.len())
            .map(|offset| &open[turn.wrapping_add(offset) % open.len()])
            .find(|connection| connection.is_open())
            .cloned()
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
            error_type: Some("cancelled"),
        };
        let result = match self.execute(command, idempotent).await {
            Ok(value) => T::from_redis_value(value).map_err(|e| Error::Command(e.into())),
            Err(error) => Err(error),
        };
        measure.end(result.as_ref().err().map(Error::label));
        result
    }

    async fn execute(&self, command: &Cmd, idempotent: bool) -> Result<Value, Error> {
        let mut attempts = self.0.size + 1;
        loop {
            let mut connection = self.get().await?;
            let (may_run_again, error) = match connection.req_packed_command(command).await {
                // Not run; the connection has taken itself out of use.
                Ok(Value::ServerError(error)) if is_not_signed_in(error.code()) => {
                    (true, Error::Command(error.into()))
                }
                Ok(Value::ServerError(error)) => (false, Error::Command(error.into())),
                Ok(value) => return Ok(value),
                Err(error) => judge(error, idempotent),
            };
            attempts -= 1;
            if !may_run_again || attempts == 0 {
                return Err(error);
            }
            counter!(instruments::RETRIES).increment(1);
        }
    }

    /// How many connections there are.
    pub fn status(&self) -> Status {
        let open = self.0.shared.open.load();
        Status {
            open: open
                .iter()
                .filter(|connection| connection.is_open())
                .count(),
            size: self.0.size,
        }
    }

    /// The credential as it may be shown; `None` where the pool signs in without tokens.
    pub fn identity(&self) -> Option<identity::Status> {
        self.0.tokens.as_ref().map(Tokens::status)
    }

    /// Waits until the pool's tasks have ended: after [`Pool::close`], or because of a fault in this library, after which
    /// the pool is of no use.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
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

/// Records how long a command took, also when its caller gives up.
struct Measure<'a> {
    inner: &'a Inner,
    operation: usize,
    started: Instant,
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
            Some(error_type) => histogram!(
                instruments::OPERATION_DURATION,
                "db_operation_name" => name,
                "error_type" => error_type
            )
            .record(self.started.elapsed()),
        }
    }
}

/// Whether a command that ended so may be sent again, and the error if it is not.
fn judge(error: RedisError, idempotent: bool) -> (bool, Error) {
    if error.is_timeout() {
        (idempotent, Error::TimedOut(error))
    } else if error.is_connection_dropped() || error.is_unrecoverable_error() {
        (idempotent, Error::OutcomeUnknown(error))
    } else {
        (false, Error::Command(error))
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

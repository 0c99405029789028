//! One authenticated connection to one node, shared by cloning, and its state.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use metrics::counter;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{sync::Notify, task::AbortHandle, time::Instant};
use tracing::info;

use super::super::instruments;
use crate::{env::Endpoint, identity::Token};

/// A connection to one node that keeps itself authenticated. Cloning it is cheap; all clones share one socket.
#[derive(Clone)]
pub(in crate::pool) struct NodeConnection {
    pub(super) session: MultiplexedConnection,
    pub(super) state: Arc<ConnectionState>,
}

/// The reason why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::pool) enum CloseReason {
    /// The socket was closed, or its replies are out of step.
    Lost,
    /// A command timed out, and Redis did not respond afterwards either.
    Silent,
    /// Redis reports that it is not authenticated (NOAUTH).
    Refused,
    /// Its own token expired before a newer one was accepted.
    Expired,
    /// The pool is closing.
    Shutdown,
}

impl CloseReason {
    fn label(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The token that a connection is authenticated with, as far as others need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authenticated {
    pub(super) version: u64,
    pub(super) expires: Instant,
    pub(super) expires_at: SystemTime,
}

impl From<&Token> for Authenticated {
    fn from(token: &Token) -> Self {
        Self {
            version: token.version,
            expires: token.valid_until,
            expires_at: token.expires_at,
        }
    }
}

/// The state of one connection, shared by its clones and its task.
pub(super) struct ConnectionState {
    /// The node's address, for logs.
    address: Endpoint,
    opened: AtomicBool,
    closed: AtomicBool,
    /// `None` for a connection that authenticates without a token.
    authenticated: Mutex<Option<Authenticated>>,
    /// A command timed out, and no reply arrived since.
    is_unresponsive: AtomicBool,
    /// Notified when `is_unresponsive` becomes true.
    pub(super) unresponsive: Arc<Notify>,
    /// AUTH is sent and not answered. Replies keep their order: commands sent after it wait for it.
    pub(super) auth_pending: AtomicBool,
    created_at: Instant,
    /// Notified when the connection closes or re-authenticates.
    wake_maintainer: Arc<Notify>,
    /// Aborted when the last user of the connection drops it.
    task: OnceLock<AbortHandle>,
}

impl ConnectionState {
    pub(super) fn new(
        address: Endpoint,
        token: Option<&Token>,
        wake_maintainer: Arc<Notify>,
    ) -> Self {
        Self {
            address,
            opened: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            authenticated: Mutex::new(token.map(Authenticated::from)),
            is_unresponsive: AtomicBool::new(false),
            unresponsive: Arc::default(),
            auth_pending: AtomicBool::new(false),
            created_at: Instant::now(),
            wake_maintainer,
            task: OnceLock::new(),
        }
    }

    /// Counts the connection as opened. The closing of one that never was is not counted either.
    pub(super) fn mark_opened(&self) {
        self.opened.store(true, Ordering::Release);
        counter!(instruments::OPENED).increment(1);
    }

    /// Sets the task that ends with the last user of the connection.
    pub(super) fn set_task(&self, task: AbortHandle) {
        if let Err(second) = self.task.set(task) {
            second.abort(); // a connection has one such task, spawned where it is created
        }
    }

    pub(super) fn authenticated(&self) -> Option<Authenticated> {
        *lock(&self.authenticated)
    }

    pub(super) fn set_authenticated(&self, authenticated: Authenticated) {
        *lock(&self.authenticated) = Some(authenticated);
        self.wake_maintainer.notify_one();
    }

    /// Returns the remaining life of the token that it is authenticated with; `None` without one.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let authenticated = self.authenticated()?;
        Some(
            authenticated
                .expires
                .saturating_duration_since(Instant::now()),
        )
    }

    /// Returns the time since the connection was created.
    pub(super) fn age(&self) -> Duration {
        self.created_at.elapsed()
    }

    /// Records a reply.
    pub(super) fn mark_responsive(&self) {
        if self.is_unresponsive() {
            self.is_unresponsive.store(false, Ordering::Relaxed);
        }
    }

    /// Records a command that timed out: callers prefer other connections, and `silence` probes this one.
    pub(super) fn mark_unresponsive(&self) {
        if !self.is_unresponsive.swap(true, Ordering::Relaxed) {
            self.unresponsive.notify_one();
        }
    }

    pub(super) fn is_unresponsive(&self) -> bool {
        self.is_unresponsive.load(Ordering::Relaxed)
    }

    /// Returns true if a command sent now may wait long for its reply.
    fn is_delayed(&self) -> bool {
        self.is_unresponsive() || self.auth_pending.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes the connection out of use. Only the first reason is counted.
    pub(super) fn close(&self, reason: CloseReason) {
        if !self.closed.swap(true, Ordering::AcqRel) && self.opened.load(Ordering::Acquire) {
            counter!(instruments::CLOSED, "reason" => reason.label()).increment(1);
            info!(
                server.address = %self.address,
                redis.reason = reason.label(),
                "Redis connection closed"
            );
            self.wake_maintainer.notify_one();
        }
    }
}

/// Locks a mutex, also after a panic: the values here are set in one assignment, and so never half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl NodeConnection {
    /// Returns true while the connection can be used.
    pub(in crate::pool) fn is_open(&self) -> bool {
        !self.state.is_closed()
    }

    /// Returns true if the connection can be used and is responsive, as far as is known. Callers take these first.
    pub(super) fn is_ready(&self) -> bool {
        self.is_open() && !self.state.is_delayed()
    }

    /// Runs a command at most once. An error reply is an `Ok` value.
    pub(in crate::pool) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let result = self.session.send_packed_command(command).await;
        match &result {
            Ok(value) => self.observe_reply(value),
            Err(error) => self.observe_error(error),
        }
        result
    }

    /// Runs a pipeline at most once and returns `count` of its replies, from `offset` on.
    pub(in crate::pool) async fn send_all(
        &mut self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let result = self
            .session
            .send_packed_commands(pipeline, offset, count)
            .await;
        match &result {
            Ok(values) => values.iter().for_each(|value| self.observe_reply(value)),
            Err(error) => self.observe_error(error),
        }
        result
    }

    /// Closes the connection before its caller can ask for another one: the driver's task may notice the loss only after
    /// the callers.
    fn observe_error(&self, error: &RedisError) {
        if error.is_unrecoverable_error() {
            self.state.close(CloseReason::Lost);
        } else if error.is_timeout() {
            self.state.mark_unresponsive();
        }
    }

    /// Records that the connection works, unless the reply is NOAUTH.
    fn observe_reply(&self, value: &Value) {
        self.state.mark_responsive();
        if let Value::ServerError(error) = value
            && is_unauthenticated(error.code())
        {
            self.state.close(CloseReason::Refused);
        }
    }
}

/// Returns true for NOAUTH: Redis did not run the command, since its connection is not authenticated.
pub(in crate::pool) fn is_unauthenticated(code: &str) -> bool {
    code == "NOAUTH"
}

impl fmt::Debug for NodeConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConnection")
            .field("open", &self.is_open())
            .field(
                "token_version",
                &self.state.authenticated().map(|s| s.version),
            )
            .finish_non_exhaustive()
    }
}

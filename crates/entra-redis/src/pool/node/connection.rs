//! One signed-in connection to one node, shared by cloning, and what is known of its life.

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
use crate::{config::Endpoint, identity::Token};

/// A connection to one node that keeps itself signed in. Cloning it is cheap; all clones share one socket.
#[derive(Clone)]
pub(in crate::pool) struct NodeConnection {
    pub(super) session: MultiplexedConnection,
    pub(super) state: Arc<ConnectionState>,
}

/// Why a connection is no longer used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::pool) enum CloseReason {
    /// The socket ended or is out of step.
    Lost,
    /// It let a command's time-out pass, and answered nothing afterwards.
    Silent,
    /// Redis says that it is not signed in.
    Refused,
    /// Its own token ended before a newer one could be put in its place.
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

/// The token a connection is signed in with, as far as others need it.
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

/// What is known of one connection, by all who share it.
pub(super) struct ConnectionState {
    /// For logs.
    address: Endpoint,
    opened: AtomicBool,
    closed: AtomicBool,
    /// `None` for a connection that signs in without a token.
    authenticated: Mutex<Option<Authenticated>>,
    /// A command was given up unanswered, and none was answered since.
    is_unresponsive: AtomicBool,
    /// Rung when that begins.
    pub(super) unresponsive: Arc<Notify>,
    /// AUTH is sent and not answered. Replies keep their order: what is sent after it waits for it.
    pub(super) auth_pending: AtomicBool,
    created_at: Instant,
    /// Rung when something here changes, for the maintainer.
    wake_maintainer: Arc<Notify>,
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

    /// Counts the connection as opened: only from here on is its closing counted too.
    pub(super) fn mark_opened(&self) {
        self.opened.store(true, Ordering::Release);
        counter!(instruments::OPENED).increment(1);
    }

    /// Gives it the task to end when the last user of the connection goes.
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

    /// How long the token it is signed in with will live; `None` without one.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let authenticated = self.authenticated()?;
        Some(
            authenticated
                .expires
                .saturating_duration_since(Instant::now()),
        )
    }

    /// How long ago the connection was made.
    pub(super) fn age(&self) -> Duration {
        self.created_at.elapsed()
    }

    pub(super) fn mark_responsive(&self) {
        if self.is_unresponsive() {
            self.is_unresponsive.store(false, Ordering::Relaxed);
        }
    }

    /// A command was not answered in time: the connection is passed over and asked whether it lives (see `silence`).
    pub(super) fn mark_unresponsive(&self) {
        if !self.is_unresponsive.swap(true, Ordering::Relaxed) {
            self.unresponsive.notify_one();
        }
    }

    /// Whether it owes an answer.
    pub(super) fn is_unresponsive(&self) -> bool {
        self.is_unresponsive.load(Ordering::Relaxed)
    }

    /// Whether what is sent now may wait long for its answer.
    fn is_delayed(&self) -> bool {
        self.is_unresponsive() || self.auth_pending.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes the connection out of use; only the first reason counts.
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

/// A panic while one of these is held cannot leave it half written: each is set in one go.
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
    /// Whether it can still be used.
    pub(in crate::pool) fn is_open(&self) -> bool {
        !self.state.is_closed()
    }

    /// Whether it can be used and answers, as far as is known: what callers take first.
    pub(super) fn is_ready(&self) -> bool {
        self.is_open() && !self.state.is_delayed()
    }

    /// Runs a command at most once. A server's error is a value here.
    pub(in crate::pool) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let result = self.session.send_packed_command(command).await;
        match &result {
            Ok(value) => self.observe_reply(value),
            Err(error) => self.observe_error(error),
        }
        result
    }

    /// Runs a pipeline at most once and answers `count` of its replies, from `offset` on.
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

    /// Whoever sees the end of a connection marks it before it can ask for another: the driver's own mark may come
    /// later than the waiters' wake-up.
    fn observe_error(&self, error: &RedisError) {
        if error.is_unrecoverable_error() {
            self.state.close(CloseReason::Lost);
        } else if error.is_timeout() {
            self.state.mark_unresponsive();
        }
    }

    /// An answer shows that the connection works, unless it says that it is not signed in.
    fn observe_reply(&self, value: &Value) {
        self.state.mark_responsive();
        if let Value::ServerError(error) = value
            && is_unauthenticated(error.code())
        {
            self.state.close(CloseReason::Refused);
        }
    }
}

/// NOAUTH: Redis did not run the command. (redis-rs hands a server's error over as a value.)
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

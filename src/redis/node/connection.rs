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

use super::{
    super::{error::Error, instruments},
    reauth,
};
use crate::{config::Endpoint, identity::Token};

/// A connection to one node that keeps itself signed in. Cloning it is cheap; all clones share one socket.
#[derive(Clone)]
pub(in crate::redis) struct NodeConnection {
    pub(super) session: MultiplexedConnection,
    pub(super) life: Arc<Life>,
}

/// Why a connection is no longer used.
#[derive(Debug, Clone, Copy)]
pub(in crate::redis) enum Closing {
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

impl Closing {
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
pub(super) struct SignedIn {
    pub(super) version: u64,
    pub(super) ends: Instant,
    pub(super) expires_at: SystemTime,
}

impl From<&Token> for SignedIn {
    fn from(token: &Token) -> Self {
        Self {
            version: token.version,
            ends: token.ends,
            expires_at: token.expires_at,
        }
    }
}

/// What is known of one connection, by all who share it.
pub(super) struct Life {
    opened: AtomicBool,
    closed: AtomicBool,
    /// `None` for a connection that signs in without a token.
    signed_in: Mutex<Option<SignedIn>>,
    /// A command was given up unanswered, and none was answered since.
    is_silent: AtomicBool,
    /// Rung when that begins.
    pub(super) silence: Arc<Notify>,
    /// AUTH is sent and not answered. Replies keep their order: what is sent after it waits for it.
    pub(super) awaits_auth: AtomicBool,
    made: Instant,
    /// Rung when something here changes, for the maintainer.
    attention: Arc<Notify>,
    keeper: OnceLock<AbortHandle>,
}

impl Life {
    pub(super) fn new(token: Option<&Token>, attention: Arc<Notify>) -> Self {
        Self {
            opened: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            signed_in: Mutex::new(token.map(SignedIn::from)),
            is_silent: AtomicBool::new(false),
            silence: Arc::default(),
            awaits_auth: AtomicBool::new(false),
            made: Instant::now(),
            attention,
            keeper: OnceLock::new(),
        }
    }

    /// Counts the connection as opened: only from here on is its closing counted too.
    pub(super) fn opened(&self) {
        self.opened.store(true, Ordering::Release);
        counter!(instruments::OPENED).increment(1);
    }

    /// Gives it the task to end when the last user of the connection goes.
    pub(super) fn owns(&self, keeper: AbortHandle) {
        if let Err(second) = self.keeper.set(keeper) {
            second.abort(); // a connection has one such task, made where the connection is made
        }
    }

    pub(super) fn signed_in(&self) -> Option<SignedIn> {
        *lock(&self.signed_in)
    }

    pub(super) fn sign_in(&self, signed_in: SignedIn) {
        *lock(&self.signed_in) = Some(signed_in);
        self.attention.notify_one();
    }

    /// How long the token it is signed in with will live; `None` without one.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let signed_in = self.signed_in()?;
        Some(signed_in.ends.saturating_duration_since(Instant::now()))
    }

    /// How long ago the connection was made.
    pub(super) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    pub(super) fn answered(&self) {
        if self.is_silent() {
            self.is_silent.store(false, Ordering::Relaxed);
        }
    }

    /// A command was not answered in time: the connection is passed over and asked whether it lives (see `silence`).
    pub(super) fn unanswered(&self) {
        if !self.is_silent.swap(true, Ordering::Relaxed) {
            self.silence.notify_one();
        }
    }

    /// Whether it owes an answer.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    /// Whether what is sent now may wait long for its answer.
    fn is_held_up(&self) -> bool {
        self.is_silent() || self.awaits_auth.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes the connection out of use; only the first reason counts.
    pub(super) fn close(&self, closing: Closing) {
        if !self.closed.swap(true, Ordering::AcqRel) && self.opened.load(Ordering::Acquire) {
            counter!(instruments::CLOSED, "reason" => closing.label()).increment(1);
            info!(
                redis.reason = closing.label(),
                "a connection to Redis is closed"
            );
            self.attention.notify_one();
        }
    }
}

/// A panic while one of these is held cannot leave it half written: each is set in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }
}

impl NodeConnection {
    /// Whether it can still be used.
    pub(in crate::redis) fn is_open(&self) -> bool {
        !self.life.is_closed()
    }

    /// Whether it can be used and answers, as far as is known: what callers take first.
    pub(super) fn is_at_hand(&self) -> bool {
        self.is_open() && !self.life.is_held_up()
    }

    /// Runs a command at most once. A server's error is a value here.
    pub(in crate::redis) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let result = self.session.send_packed_command(command).await;
        match &result {
            Ok(value) => self.note_answer(value),
            Err(error) => self.note(error),
        }
        result
    }

    /// Runs a pipeline at most once and answers `count` of its replies, from `offset` on.
    pub(in crate::redis) async fn send_all(
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
            Ok(values) => values.iter().for_each(|value| self.note_answer(value)),
            Err(error) => self.note(error),
        }
        result
    }

    /// Sends AUTH as with a new token, and waits as long as for a command.
    pub(in crate::redis) async fn sign_in_again(
        &self,
        address: &Endpoint,
        token: &Token,
        limit: Duration,
    ) -> Result<(), Error> {
        let auth = reauth::with_token(token);
        let answer =
            reauth::authenticate(self.session.clone(), address, &auth, "reauth", limit).await;
        answer.map_err(Error::of)
    }

    /// Whoever sees the end of a connection marks it before it can ask for another: the driver's own mark may come
    /// later than the waiters' wake-up.
    fn note(&self, error: &RedisError) {
        if error.is_unrecoverable_error() {
            self.life.close(Closing::Lost);
        } else if error.is_timeout() {
            self.life.unanswered();
        }
    }

    /// An answer shows that the connection works, unless it says that it is not signed in.
    fn note_answer(&self, value: &Value) {
        self.life.answered();
        if let Value::ServerError(error) = value
            && is_not_signed_in(error.code())
        {
            self.life.close(Closing::Refused);
        }
    }
}

/// NOAUTH: Redis did not run the command. (redis-rs hands a server's error over as a value.)
pub(in crate::redis) fn is_not_signed_in(code: &str) -> bool {
    code == "NOAUTH"
}

impl fmt::Debug for NodeConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConnection")
            .field("open", &self.is_open())
            .field("token_version", &self.life.signed_in().map(|s| s.version))
            .finish_non_exhaustive()
    }
}

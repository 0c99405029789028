//! Errors between a caller and Redis, by what the caller can do about them.

use std::{fmt, io, sync::Arc, time::Duration};

use redis::RedisError;

use crate::env::Endpoint;

/// A failure to run a command.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no valid token to authenticate with, and no open connection with an earlier token.
    #[error("no valid token to authenticate with")]
    NoToken,
    /// No connection was open in time; one is being opened.
    #[error("no connection to Redis yet: still connecting")]
    Opening,
    /// No connection is open and the latest attempt to open one failed.
    #[error("no connection to Redis")]
    Unavailable(#[source] Arc<ConnectError>),
    /// The command was sent and the connection was lost before its reply: it may or may not have run.
    #[error("connection lost before the reply; the command may or may not have run")]
    OutcomeUnknown(#[source] RedisError),
    /// The command was sent and got no reply within the command timeout: it may or may not have run.
    #[error("no reply from Redis within the timeout; the command may or may not have run")]
    TimedOut(#[source] RedisError),
    /// Redis replied with an error, or with a value that the caller did not expect.
    #[error("Redis refused the command")]
    Command(#[source] RedisError),
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}

/// A failure to open a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The pool has no valid token.
    #[error("no valid token to authenticate with")]
    NoToken,
    /// The name has no address.
    #[error("cannot resolve {endpoint}")]
    Resolve {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No address accepts the connection.
    #[error("cannot connect to {endpoint}")]
    Dial {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// The cause, for the last address.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed; `source` has the reason, such as a certificate for another name.
    #[error("TLS handshake with {endpoint} failed{}", tls_hint(source))]
    Tls {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Redis refused the authentication, or the connection was lost during it.
    #[error("authentication with {endpoint} failed")]
    Authenticate {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// Redis' reply, without the arguments that were sent.
        #[source]
        source: Refusal,
    },
    /// `REDIS_CLUSTERING_POLICY` is OSSCluster, and the server is not a cluster.
    #[error(
        "REDIS_CLUSTERING_POLICY is OSSCluster, but {endpoint} is not a cluster: it refuses CLUSTER SLOTS"
    )]
    NotACluster {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// Redis' reply.
        #[source]
        source: Refusal,
    },
    /// The server cannot report yet whether it is a cluster; it is asked again.
    #[error("{endpoint} does not report yet whether it is a cluster")]
    Undecided {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// Redis' reply.
        #[source]
        source: Refusal,
    },
    /// The cluster has no primary for a slot or, if `slot` is `None`, for any slot.
    #[error("the cluster at {endpoint} has no primary for {}", slot_name(*slot))]
    NoPrimary {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// 0 to 16383.
        slot: Option<u16>,
    },
    /// Connections close again as soon as they are open.
    #[error("connections to {endpoint} close as soon as they are open")]
    Flapping {
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
    },
    /// The connect timeout passed.
    #[error("{step} {endpoint} took longer than {}s", limit.as_secs_f64())]
    TimedOut {
        /// The step in progress.
        step: ConnectStep,
        /// The address: the configured endpoint, or the one that a node of the cluster announces.
        endpoint: Endpoint,
        /// The timeout for all steps together.
        limit: Duration,
    },
}

/// The steps of opening a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectStep {
    /// Name resolution.
    Resolve,
    /// The TCP connection.
    Dial,
    /// The TLS handshake.
    Tls,
    /// AUTH and the first commands.
    Authenticate,
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving",
            Self::Dial => "connecting to",
            Self::Tls => "the TLS handshake with",
            Self::Authenticate => "authenticating with",
        })
    }
}

fn slot_name(slot: Option<u16>) -> String {
    match slot {
        Some(slot) => format!("slot {slot}"),
        None => "any slot".to_owned(),
    }
}

/// The reply of Redis that refused AUTH or CLUSTER SLOTS, or the reason why there was none.
///
/// Servers repeat the arguments of commands that they do not know, and redis-rs repeats replies that it does not expect:
/// neither is included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(Answer);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// An error reply: its code, and its text without arguments.
    Error(Box<str>, Option<Box<str>>),
    Unexpected,
    TimedOut,
    ConnectionLost,
}

impl Refusal {
    /// Returns the error's code as Redis writes it, such as `WRONGPASS`; `None` if Redis sent no error reply.
    pub fn code(&self) -> Option<&str> {
        match &self.0 {
            Answer::Error(code, _) => Some(code),
            Answer::Unexpected | Answer::TimedOut | Answer::ConnectionLost => None,
        }
    }

    /// Returns true if Redis did not reply in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Answer::TimedOut)
    }

    /// Returns true if Redis has reached its connection limit, which is not a statement about the credential. The reply
    /// has the code ERR, so that only its text tells it from others.
    pub fn is_connection_limit(&self) -> bool {
        matches!(&self.0, Answer::Error(_, Some(text)) if text.contains("max number of clients"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(code, Some(text)) => write!(f, "{code} {text}"),
            Self::Error(code, None) => f.write_str(code),
            Self::Unexpected => f.write_str("unexpected reply"),
            Self::TimedOut => f.write_str("no reply in time"),
            Self::ConnectionLost => f.write_str("connection lost"),
        }
    }
}

impl From<&RedisError> for Refusal {
    fn from(error: &RedisError) -> Self {
        let without_arguments = |text: &str| text.split(", with args").next().map(Into::into);
        Self(match error.code() {
            Some(code) => Answer::Error(code.into(), error.detail().and_then(without_arguments)),
            None if error.is_timeout() => Answer::TimedOut,
            None if error.is_connection_dropped() => Answer::ConnectionLost,
            None => Answer::Unexpected,
        })
    }
}

/// Returns the hint for failed negotiations. rustls and Azure have only TLS 1.3 in common: Azure Managed Redis' TLS 1.2
/// suites use CBC, which rustls does not support.
fn tls_hint(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(
            Error::PeerIncompatible(_)
            | Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion,
            ),
        ) => " (TLS 1.3 is required: check for a middlebox that allows only 1.2)",
        _ => "",
    }
}

impl Error {
    /// Returns the error of a command that was sent.
    pub(super) fn of(error: RedisError) -> Self {
        if error.is_timeout() {
            Self::TimedOut(error)
        } else if error.is_connection_dropped() || error.is_unrecoverable_error() {
            Self::OutcomeUnknown(error)
        } else {
            Self::Command(error)
        }
    }

    /// Returns true if the command was sent and may or may not have run.
    pub(super) fn may_have_run(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::OutcomeUnknown(_))
    }

    /// Returns true if Redis was reached and refused the authentication. Without an error reply it was not refused.
    pub fn is_authentication_refused(&self) -> bool {
        let Self::Unavailable(error) = self else {
            return false;
        };
        matches!(**error, ConnectError::Authenticate { ref source, .. } if source.code().is_some() && !source.is_connection_limit())
    }

    /// Returns the value of the `error_type` label, which is one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Opening => "opening",
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) => "outcome_unknown",
            Self::TimedOut(_) => "timeout",
            Self::Command(_) => "command",
            Self::Closed => "closed",
        }
    }
}

/// For callers that run commands on a [`super::Connection`] themselves: the driver's errors are passed on unchanged; for a
/// command that was never sent it is an I/O error of the kind `NotConnected` with this error as its source.
impl From<Error> for RedisError {
    fn from(error: Error) -> Self {
        match error {
            Error::OutcomeUnknown(error) | Error::TimedOut(error) | Error::Command(error) => error,
            Error::NoToken | Error::Opening | Error::Unavailable(_) | Error::Closed => {
                io::Error::new(io::ErrorKind::NotConnected, error).into()
            }
        }
    }
}

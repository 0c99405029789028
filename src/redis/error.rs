//! What can go wrong between a caller and Redis, in the words a caller needs to decide.

use std::{fmt, io, sync::Arc, time::Duration};

use redis::RedisError;

use crate::config::Endpoint;

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no live token to sign in with, and no connection that still lives on an earlier one.
    #[error("there is no live token to sign in with")]
    NoToken,
    /// No connection is open yet; one is being opened and that takes long.
    #[error("no connection to Redis yet: one is being opened")]
    Opening,
    /// No connection is open and the latest attempt to open one failed.
    #[error("no connection to Redis")]
    Unavailable(#[source] Arc<ConnectError>),
    /// The command was sent and the connection ended before its answer: it may or may not have run.
    #[error("the connection ended before the answer: whether the command ran is unknown")]
    OutcomeUnknown(#[source] RedisError),
    /// The command was sent and not answered within the command time-out: it may or may not have run.
    #[error("Redis did not answer in time: whether the command ran is unknown")]
    TimedOut(#[source] RedisError),
    /// Redis answered with an error, or with something the caller did not expect.
    #[error("Redis refused the command")]
    Command(#[source] RedisError),
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The pool has no token that lives.
    #[error("there is no live token to sign in with")]
    NoToken,
    /// The name has no address.
    #[error("cannot resolve {endpoint}")]
    Resolve {
        /// The endpoint as configured, or what a node of the cluster announced.
        endpoint: Endpoint,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No address accepts the connection.
    #[error("cannot connect to {endpoint}")]
    Dial {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Why the last address failed.
        #[source]
        source: io::Error,
    },
    /// The handshake failed; `source` names the certificate's fault where it was one.
    #[error("TLS with {endpoint} failed{}", tls_hint(source))]
    Tls {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Redis refused the sign-in, or the connection ended during it.
    #[error("signing in to {endpoint} failed")]
    SignIn {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Redis' own words, without what was sent.
        #[source]
        source: Refusal,
    },
    /// `REDIS_CLUSTERING_POLICY` is OSSCluster and the server says that it is no cluster.
    #[error(
        "REDIS_CLUSTERING_POLICY is OSSCluster, but {endpoint} is no cluster: it refuses CLUSTER SLOTS"
    )]
    NotACluster {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Redis' own words.
        #[source]
        source: Refusal,
    },
    /// The server does not say now whether it is a cluster, and is asked again.
    #[error("{endpoint} does not say yet whether it is a cluster")]
    Undecided {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Redis' own words.
        #[source]
        source: Refusal,
    },
    /// The cluster has no master for a slot, or, without one, for any.
    #[error("the cluster at {endpoint} has no master for {}", slot_name(*slot))]
    NoMaster {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// 0 to 16383.
        slot: Option<u16>,
    },
    /// Connections open and end again at once.
    #[error("connections to {endpoint} end as soon as they are open")]
    Flapping {
        /// The endpoint as configured.
        endpoint: Endpoint,
    },
    /// The whole did not end within the connect time-out.
    #[error("{step} {endpoint} took longer than {}s", limit.as_secs_f64())]
    TimedOut {
        /// The step that was under way.
        step: Step,
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// The time-out for all steps together.
        limit: Duration,
    },
}

/// The steps of opening a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Asking DNS for addresses.
    Resolve,
    /// Opening the TCP connection.
    Dial,
    /// The TLS handshake.
    Tls,
    /// AUTH and the first commands.
    SignIn,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving",
            Self::Dial => "connecting to",
            Self::Tls => "the TLS handshake with",
            Self::SignIn => "signing in to",
        })
    }
}

fn slot_name(slot: Option<u16>) -> String {
    match slot {
        Some(slot) => format!("slot {slot}"),
        None => "any slot".to_owned(),
    }
}

/// What Redis said to a sign-in, or to CLUSTER SLOTS. Servers repeat the arguments of commands they do not know, and redis-rs the answers it
/// does not expect: here stands neither.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refusal {
    code: Option<Box<str>>,
    words: Option<Box<str>>,
}

/// What stands for the words of a server that says nothing.
const SILENCE: &str = "no answer in time";

impl Refusal {
    /// The error's code as Redis writes it, such as `WRONGPASS`; `None` where Redis did not answer.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether Redis has as many connections as it allows, which says nothing of who asks.
    pub(crate) fn is_full(&self) -> bool {
        let words = self.words.as_deref().unwrap_or_default();
        words.contains("max number of clients")
    }

    /// Whether Redis did not answer in time.
    pub(crate) fn is_silence(&self) -> bool {
        self.code.is_none() && self.words.as_deref() == Some(SILENCE)
    }

    fn text(&self) -> String {
        match (&self.code, &self.words) {
            (Some(code), Some(words)) => format!("{code} {words}"),
            (Some(code), None) => code.to_string(),
            (None, Some(words)) => words.to_string(),
            (None, None) => "an answer that does not fit the question".to_owned(),
        }
    }
}

impl From<&RedisError> for Refusal {
    fn from(error: &RedisError) -> Self {
        let words = match (error.code(), error.detail()) {
            (Some(_), detail) => {
                detail.map(|detail| detail.split(", with args").next().unwrap_or(""))
            }
            (None, _) if error.is_timeout() => Some(SILENCE),
            (None, _) if error.is_connection_dropped() => Some("the connection ended"),
            (None, _) => None,
        };
        Self {
            code: error.code().map(Into::into),
            words: words.map(Into::into),
        }
    }
}

/// rustls and Azure meet in TLS 1.3 alone: Azure Managed Redis' TLS 1.2 suites are CBC, which rustls does not have.
fn tls_hint(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(
            Error::PeerIncompatible(_)
            | Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion,
            ),
        ) => " (TLS 1.3 is needed: is there a middlebox that allows only 1.2?)",
        _ => "",
    }
}

impl Error {
    /// What the end of a command that was sent means.
    pub(super) fn of(error: RedisError) -> Self {
        if error.is_timeout() {
            Self::TimedOut(error)
        } else if error.is_connection_dropped() || error.is_unrecoverable_error() {
            Self::OutcomeUnknown(error)
        } else {
            Self::Command(error)
        }
    }

    /// Whether the command was sent and may or may not have run.
    pub(super) fn may_have_run(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::OutcomeUnknown(_))
    }

    /// Whether Redis was reached and does not take the sign-in. Without a code it was not refused: it was not answered.
    #[cfg(feature = "service")]
    pub(crate) fn is_sign_in_refused(&self) -> bool {
        let Self::Unavailable(error) = self else {
            return false;
        };
        matches!(**error, ConnectError::SignIn { ref source, .. } if source.code().is_some() && !source.is_full())
    }

    /// The value of the `error_type` label: a closed set.
    pub(crate) fn label(&self) -> &'static str {
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

/// For callers who run commands on a [`super::Connection`] themselves: what the driver met is theirs as it is, and what
/// was never sent is an I/O error of the kind `NotConnected` with this error inside.
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

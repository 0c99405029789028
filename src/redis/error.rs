//! What can go wrong between a caller and Redis, in the words a caller needs to decide.

use std::{io, sync::Arc, time::Duration};

use redis::RedisError;

use super::connector::Step;
use crate::config::Endpoint;

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no live token to sign in with, and no connection that still lives on an earlier one.
    #[error("there is no live token to sign in with")]
    NoToken,
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
        /// The endpoint as configured.
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
    /// Redis refused the sign-in or the first commands.
    #[error("signing in to {endpoint} failed")]
    SignIn {
        /// The endpoint as configured.
        endpoint: Endpoint,
        /// Redis' own words.
        #[source]
        source: RedisError,
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
    /// The value of the `error_type` label: a closed set.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) => "outcome_unknown",
            Self::TimedOut(_) => "timeout",
            Self::Command(_) => "command",
            Self::Closed => "closed",
        }
    }
}

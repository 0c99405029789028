//! How do we reach Redis, signed in? A pool of few shared connections that keep themselves signed in.
//!
//! [`Pool`] is what callers use: [`Pool::get`] hands out a live connection, so that many callers share few sockets and
//! their commands travel together. Behind it stands a `node`, the cache's endpoint, with `REDIS_POOL_SIZE` connections
//! that deadpool owns through a manager of our own; each signs in again in place whenever `identity` publishes a token.
//! Where `policy` finds a cluster behind the endpoint, `cluster` keeps such a node for each master and sends commands
//! where their keys are; callers see no difference.
//!
//! What always holds: a refused AUTH never ends a connection, because the earlier sign-in stays in force; a connection
//! past the end of its own token is not used; nothing here retries a command whose fate is unknown unless the caller
//! said that it may run twice.
//!
//! What does not belong here: requests. Nobody below `http` knows of them.

mod builder;
mod cluster;
mod connection;
mod error;
mod node;
mod policy;
mod pool;
mod trace;

pub use self::{
    builder::{BuildError, Builder},
    connection::Connection,
    error::{ConnectError, Error, Refusal, Step},
    policy::Clustering,
    pool::{Answering, Pool, Status},
};

/// The steps of opening a connection one by one, for `diagnostics`.
pub(crate) use self::node::connector::{dial, resolve, shake_hands};

/// The driver whose commands, values and errors this module's interface uses; for callers whose own `redis` is another
/// version.
pub use ::redis as driver;

/// The instruments of this module; names are an interface.
pub(crate) mod instruments {
    #[cfg(feature = "service")]
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    pub(crate) const OPERATION_DURATION: &str = "db_client_operation_duration_seconds";
    pub(crate) const CONNECTION_COUNT: &str = "db_client_connection_count";
    pub(crate) const RETRIES: &str = "redis_operation_retries_total";
    pub(crate) const OPENED: &str = "redis_connections_opened_total";
    pub(crate) const CLOSED: &str = "redis_connections_closed_total";
    pub(crate) const AUTH: &str = "redis_auth_total";
    pub(crate) const EXPIRY: &str = "redis_connection_token_expiry_timestamp_seconds";

    /// Redis nearby answers within a fraction of a millisecond; the last buckets are the command time-out's and the
    /// request's.
    #[cfg(feature = "service")]
    pub(crate) const BUCKETS: &[(&str, &[f64])] = &[(
        OPERATION_DURATION,
        &[
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
            3.0,
        ],
    )];

    /// Gives the recorder the help texts. Called once, after a recorder is installed.
    #[cfg(feature = "service")]
    pub(crate) fn describe() {
        describe_histogram!(
            OPERATION_DURATION,
            Unit::Seconds,
            "How long commands took, waiting for a connection and retries included, by command and error"
        );
        describe_gauge!(
            CONNECTION_COUNT,
            "Connections that are open and signed in, by state; shared connections are always `used`"
        );
        describe_counter!(
            RETRIES,
            "Commands sent again: the connection was lost or refused them, or the cluster pointed elsewhere"
        );
        describe_counter!(OPENED, "Connections opened and signed in");
        describe_counter!(
            CLOSED,
            "Connections closed, by reason: lost, silent, refused (NOAUTH), expired or shutdown"
        );
        describe_counter!(
            AUTH,
            "Sign-ins by kind (connect or reauth) and outcome (success or failure)"
        );
        describe_gauge!(
            EXPIRY,
            Unit::Seconds,
            "Earliest end of the tokens that open connections are signed in with, in seconds since the epoch"
        );
    }
}

//! A pool of a few shared connections to Redis that stay authenticated.
//!
//! Callers use [`Pool`]: [`Pool::get`] returns a live connection, so that many callers share a few sockets and their commands
//! travel together. Behind it is a `node`, the cache's endpoint, with `REDIS_POOL_SIZE` connections that deadpool owns
//! through our own manager; each re-authenticates in place when `identity` publishes a token. If `policy` detects a cluster,
//! `cluster` keeps such a node for each primary and sends each command to the node of its keys; callers see no difference.
//!
//! # Invariants
//! - A refused AUTH never closes a connection: the earlier authentication stays in force.
//! - A connection is not used after its own token has expired.
//! - A command whose fate is unknown is sent again only if its caller marked it idempotent.
//!
//! HTTP requests do not belong here.

mod builder;
mod cluster;
mod connection;
mod error;
mod handle;
pub mod instruments;
mod measure;
mod node;
mod policy;
mod topology;
mod trace;

pub use self::{
    builder::{BuildError, Builder},
    connection::Connection,
    error::{ConnectError, ConnectStep, Error, Refusal},
    handle::{Answering, Pool, PoolStatus},
    policy::Clustering,
};

/// The steps of opening a connection one by one, for `diagnostics`.
pub(crate) use self::node::transport::{dial, handshake, resolve};

/// The driver whose commands, values and errors are part of this module's interface, for callers whose own `redis` is
/// another version.
pub use ::redis as driver;

//! The connection that callers hold, to one endpoint or to a cluster.

use std::{fmt, sync::Arc};

use redis::{Cmd, Pipeline, RedisFuture, Value, aio::ConnectionLike};

use super::{cluster::Cluster, node::connection::NodeConnection};

/// A connection to Redis that stays authenticated. Cloning it is cheap; all clones share the same sockets.
///
/// Callers need not know whether one endpoint or a cluster is behind it. In a cluster each command goes to the node that
/// serves its keys; MGET, MSET, DEL, EXISTS, UNLINK and TOUCH are split if their keys are on several nodes (and are then
/// not atomic), other commands and pipelines whose keys do not share a slot get Redis' own CROSSSLOT error.
///
/// Commands run at most once: a command is sent again only if Redis reported that it did not run it. A command that blocks
/// (`BLPOP`) delays every caller that shares the connection. Dropping a command's future does not recall what was sent.
#[derive(Clone)]
pub struct Connection(pub(super) Route);

#[derive(Clone)]
pub(super) enum Route {
    Node(NodeConnection),
    Cluster(Arc<Cluster>),
}

impl Connection {
    /// Returns true while the connection can be used; in a cluster, while any of its nodes can.
    pub fn is_open(&self) -> bool {
        match &self.0 {
            Route::Node(connection) => connection.is_open(),
            Route::Cluster(cluster) => cluster.is_open(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Route::Node(connection) => connection.fmt(f),
            Route::Cluster(cluster) => f
                .debug_struct("Connection")
                .field("open", &cluster.is_open())
                .field("nodes", &cluster.nodes().len())
                .finish_non_exhaustive(),
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Route::Node(connection) => Box::pin(connection.send(command)),
            Route::Cluster(cluster) => Box::pin(async { Ok(cluster.query(command).await?) }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Route::Node(connection) => Box::pin(connection.send_all(pipeline, offset, count)),
            Route::Cluster(cluster) => {
                Box::pin(async move { Ok(cluster.query_all(pipeline, offset, count).await?) })
            }
        }
    }

    /// Returns 0: Azure Managed Redis and clusters have one database.
    fn get_db(&self) -> i64 {
        0
    }
}

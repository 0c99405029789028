//! What callers hold: a connection that keeps itself signed in, to one node or to a cluster.

use std::{fmt, sync::Arc};

use redis::{Cmd, Pipeline, RedisFuture, Value, aio::ConnectionLike};

use super::{cluster::Cluster, node::connection::NodeConnection};

/// A connection to Redis that keeps itself signed in. Cloning it is cheap; all clones share the same sockets.
///
/// Callers need not know whether one endpoint or a cluster is behind it. To a cluster each command goes to the node that
/// serves its keys; MGET, MSET, DEL, EXISTS, UNLINK and TOUCH are split where their keys are on several (and are then
/// no transaction), other commands and pipelines whose keys do not share a slot get Redis' own CROSSSLOT error.
///
/// Commands run at most once: nothing is sent again but what Redis said it did not run. A command that blocks (`BLPOP`)
/// holds up everybody who shares the connection. Dropping a command's future does not take back what was sent.
#[derive(Clone)]
pub struct Connection(pub(super) Way);

#[derive(Clone)]
pub(super) enum Way {
    Node(NodeConnection),
    Cluster(Arc<Cluster>),
}

impl Connection {
    /// Whether it can still be used; with a cluster, whether any of its nodes can.
    pub fn is_open(&self) -> bool {
        match &self.0 {
            Way::Node(connection) => connection.is_open(),
            Way::Cluster(cluster) => cluster.is_open(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Node(connection) => connection.fmt(f),
            Way::Cluster(cluster) => f
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
            Way::Node(connection) => Box::pin(connection.send(command)),
            Way::Cluster(cluster) => Box::pin(async { Ok(cluster.query(command).await?) }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Way::Node(connection) => Box::pin(connection.send_all(pipeline, offset, count)),
            Way::Cluster(cluster) => {
                Box::pin(async move { Ok(cluster.query_all(pipeline, offset, count).await?) })
            }
        }
    }

    /// Always 0: Azure Managed Redis and clusters have one database.
    fn get_db(&self) -> i64 {
        0
    }
}

//! The manager for deadpool, which owns the connections: it opens them and rejects closed ones.
//!
//! Neither redis-rs' credentials provider nor deadpool-redis' manager is used: with the first, one refused AUTH ends the
//! re-authentication of its connection permanently; with the second, each `get` costs a PING. Here a connection knows
//! whether it is closed.

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};

use super::{super::error::ConnectError, connection::NodeConnection, connector::Connector};

pub(super) struct Manager(pub(super) Connector);

pub(super) type Object = managed::Object<Manager>;
pub(super) type Objects = managed::Pool<Manager>;

impl managed::Manager for Manager {
    type Type = NodeConnection;
    type Error = ConnectError;

    async fn create(&self) -> Result<NodeConnection, ConnectError> {
        self.0.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut NodeConnection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if connection.is_open() {
            Ok(())
        } else {
            Err(RecycleError::message("the connection is closed"))
        }
    }
}

//! Our manager for deadpool: it owns what is open, we say how one is opened and when one is done.
//!
//! Not redis-rs' credentials provider and not deadpool-redis' manager: there one refused AUTH ends re-authentication of
//! its connection for good, and each hand-out costs a PING. Here a connection knows when it is done.

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
        match connection.is_open() {
            true => Ok(()),
            false => Err(RecycleError::message("the connection is closed")),
        }
    }
}

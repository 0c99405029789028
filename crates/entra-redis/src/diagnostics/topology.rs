//! One endpoint or a cluster, and the state of its primaries.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Error, Fault};
use crate::{
    env::Endpoint,
    pool::{Clustering, Error as PoolError, Pool},
};

/// Interval between two looks at the state of a pool.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A primary of a cluster that does not reply to PING.
#[derive(Debug)]
#[non_exhaustive]
pub struct UnavailablePrimary {
    /// The address that the cluster announces.
    pub address: Endpoint,
    /// The reason.
    pub error: Error,
}

/// Waits until `pool` knows whether Redis is one endpoint or a cluster, at most `limit`.
///
/// # Errors
/// The configured policy and the server do not fit, the cluster has no primary, or the server does not decide the question
/// in time. Dropping the future leaves nothing behind.
pub async fn clustering(pool: &Pool, limit: Duration) -> Result<Clustering, Error> {
    let mut undecided = None;
    let decided = poll(limit, async || {
        if let Some(clustering) = pool.clustering() {
            return Some(Ok(clustering.clone()));
        }
        let Err(error @ PoolError::Unavailable(_)) = pool.get().await else {
            return None;
        };
        let error = Error::from(error);
        if let Fault::ClusteringUndecided { .. } = error.fault() {
            undecided = Some(error);
            return None;
        }
        Some(Err(error))
    })
    .await;
    match (decided, undecided) {
        (Some(result), _) => result,
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::no_reply("CLUSTER SLOTS", limit)),
    }
}

/// Waits until every primary of a cluster replies to PING, at most `limit`, and returns those that do not; none where Redis
/// is one endpoint. Dropping the future leaves nothing behind.
pub async fn unavailable_primaries(pool: &Pool, limit: Duration) -> Vec<UnavailablePrimary> {
    let mut unavailable = Vec::new();
    let _ = poll(limit, async || {
        unavailable = pool.unreachable_primaries().await;
        unavailable.is_empty().then_some(())
    })
    .await;
    let named = |(address, error): (Endpoint, PoolError)| UnavailablePrimary {
        address,
        error: error.into(),
    };
    unavailable.into_iter().map(named).collect()
}

/// Calls `look` until it returns a value; returns `None` after `limit`.
pub(super) async fn poll<T>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(limit, looking).await.ok()
}

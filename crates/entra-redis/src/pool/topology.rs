//! The destination of a pool's commands: one endpoint or a cluster, as detected.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tracing::info;

use super::{
    cluster::Cluster,
    error::ConnectError,
    node::{Node, NodeFactory},
    policy::{self, Clustering, Decision},
};
use crate::env::ClusteringPolicy;

/// The destination of commands, once it is known: one endpoint or a cluster.
pub(super) struct Topology {
    /// The cache's endpoint.
    pub(super) seed: Arc<Node>,
    pub(super) resolved: OnceLock<(Clustering, Option<Arc<Cluster>>)>,
    /// The reason why it is not resolved yet, if the server gives one. Changes when it is resolved.
    pub(super) unresolved: watch::Sender<Option<Arc<ConnectError>>>,
}

impl Topology {
    pub(super) fn new(seed: Arc<Node>) -> Self {
        Self {
            seed,
            resolved: OnceLock::new(),
            unresolved: watch::Sender::new(None),
        }
    }

    pub(super) fn resolve(&self, clustering: Clustering, cluster: Option<Arc<Cluster>>) {
        info!(redis.clustering = %clustering, "clustering policy detected");
        self.resolved.get_or_init(|| (clustering, cluster));
        self.unresolved.send_replace(None);
    }

    /// Detects the clustering policy; in a cluster, then refreshes the slot map until dropped.
    pub(super) async fn detect(self: Arc<Self>, policy: ClusteringPolicy, nodes: NodeFactory) {
        let report = |error| {
            self.unresolved.send_replace(error);
        };
        match policy::detect(policy, &self.seed, report).await {
            Decision::OneEndpoint(clustering) => {
                self.seed.grow(nodes.size);
                self.resolve(clustering, None);
            }
            Decision::Cluster(clustering, ranges) => {
                let cluster = Arc::new(Cluster::new(self.seed.clone(), nodes, &ranges));
                self.resolve(clustering, Some(cluster.clone()));
                match cluster.refresh_slots().await {}
            }
        }
    }
}

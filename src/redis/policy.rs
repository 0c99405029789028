//! One endpoint or a cluster? Azure's clustering policy, as configured or as the server says.
//!
//! Decided once in a pool's life, as soon as a connection to the endpoint is signed in, and only by an answer: slots mean
//! a cluster, a refusal means one endpoint, and where there is no answer, or one of the moment, the question is asked again.

use std::{fmt, sync::Arc, time::Duration};

use redis::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    cluster::{self, Ranges},
    error::{ConnectError, Refusal},
    node::Node,
};
use crate::{config::ClusteringPolicy, report::Chain};

/// Pause before the server is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The clustering policy a pool goes by, and on what ground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clustering {
    is_cluster: bool,
    ground: Ground,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ground {
    /// `REDIS_CLUSTERING_POLICY` says so.
    Configured(ClusteringPolicy),
    /// So many masters were named.
    Slots(usize),
    /// CLUSTER SLOTS was refused with this code.
    Refused(String),
    /// The answer to CLUSTER SLOTS was no list of slots.
    NoSlots,
}

/// What is decided.
pub(super) enum Decision {
    OneEndpoint(Clustering),
    Cluster(Clustering, Ranges),
}

impl Clustering {
    /// Whether commands go to the nodes of a cluster (`OSSCluster`); else they all go to the endpoint
    /// (`EnterpriseCluster`, `NoCluster`).
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Returns the error code with which the server refused CLUSTER SLOTS, where that decided the question.
    pub fn refusal_code(&self) -> Option<&str> {
        match &self.ground {
            Ground::Refused(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for Clustering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_cluster {
            true => "OSSCluster, ",
            false => "one endpoint, ",
        })?;
        match &self.ground {
            Ground::Configured(policy) => {
                write!(f, "because REDIS_CLUSTERING_POLICY is {policy}")
            }
            Ground::Slots(1) => f.write_str("because CLUSTER SLOTS named 1 master"),
            Ground::Slots(count) => write!(f, "because CLUSTER SLOTS named {count} masters"),
            Ground::Refused(code) => {
                write!(f, "because the server refuses CLUSTER SLOTS with {code}")
            }
            Ground::NoSlots => f.write_str("because CLUSTER SLOTS answered with no list of slots"),
        }
    }
}

/// What is decided without asking.
pub(super) fn configured(policy: ClusteringPolicy) -> Option<Clustering> {
    match policy {
        ClusteringPolicy::Auto | ClusteringPolicy::OssCluster => None,
        ClusteringPolicy::EnterpriseCluster | ClusteringPolicy::NoCluster => Some(Clustering {
            is_cluster: false,
            ground: Ground::Configured(policy),
        }),
    }
}

/// Asks `seed` until there is an answer; tells `trouble` why there is none yet.
pub(super) async fn decide(
    policy: ClusteringPolicy,
    seed: &Node,
    mut trouble: impl FnMut(Option<Arc<ConnectError>>),
) -> Decision {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let mut told = None;
    loop {
        if !seed.is_open() {
            trouble(None); // what is wrong now is said by the node
            seed.opened().await;
        }
        let Some(mut connection) = seed.pick() else {
            sleep(ASK_AGAIN_AFTER).await; // it has just ended
            continue;
        };
        let trouble_now = match connection.send(&command).await {
            Ok(Value::ServerError(error)) => {
                let refusal = Refusal::from(&error.into());
                match (policy, is_passing(&refusal)) {
                    (_, true) => Some(ConnectError::Undecided {
                        endpoint: seed.address.clone(),
                        source: refusal,
                    }),
                    (ClusteringPolicy::OssCluster, false) => Some(ConnectError::NotACluster {
                        endpoint: seed.address.clone(),
                        source: refusal,
                    }),
                    (_, false) => return Decision::OneEndpoint(refused(&refusal)),
                }
            }
            Ok(answer) => match cluster::read_slots(&answer, &seed.address) {
                Some(ranges) if ranges.is_empty() => Some(ConnectError::NoMaster {
                    endpoint: seed.address.clone(),
                    slot: None,
                }),
                Some(ranges) => return cluster(policy, ranges),
                None if policy == ClusteringPolicy::OssCluster => None,
                None => {
                    return Decision::OneEndpoint(Clustering {
                        is_cluster: false,
                        ground: Ground::NoSlots,
                    });
                }
            },
            Err(_) => None, // no answer decides nothing
        };
        if let Some(error) = &trouble_now {
            let text = Chain(error).to_string();
            if told.as_ref() != Some(&text) {
                warn!(error = text, "the clustering policy cannot be followed yet");
                told = Some(text);
            }
        }
        trouble(trouble_now.map(Arc::new));
        sleep(ASK_AGAIN_AFTER).await;
    }
}

/// Whether the server may answer otherwise in a moment.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(
        refusal.code(),
        Some("NOAUTH" | "LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN")
    )
}

fn refused(refusal: &Refusal) -> Clustering {
    let code = refusal.code().unwrap_or_default();
    if code == "NOPERM" {
        warn!(
            "this Redis user may not ask CLUSTER SLOTS, so that the cache is taken for one endpoint: if it is a cluster, \
             allow `+cluster|slots`"
        );
    } else {
        info!(error = %refusal, "the server refuses CLUSTER SLOTS");
    }
    Clustering {
        is_cluster: false,
        ground: Ground::Refused(code.to_owned()),
    }
}

fn cluster(policy: ClusteringPolicy, ranges: Ranges) -> Decision {
    let masters: std::collections::HashSet<_> = ranges.iter().map(|(_, master)| master).collect();
    let ground = match policy {
        ClusteringPolicy::Auto => Ground::Slots(masters.len()),
        configured => Ground::Configured(configured),
    };
    let clustering = Clustering {
        is_cluster: true,
        ground,
    };
    Decision::Cluster(clustering, ranges)
}

//! Detection of Azure's clustering policy: one endpoint or a cluster.
//!
//! # Invariants
//! - The policy is decided once in a pool's life, as soon as a connection to the endpoint is authenticated, and only by a
//!   reply: slots mean a cluster, a refusal means one endpoint. Without a reply, or after a temporary one, the server is
//!   asked again.
//! - [`judge`] decides and has no side effects; [`detect`] asks and leaves the decision to it.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use redis::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    cluster::{self, Ranges},
    error::{ConnectError, Refusal},
    node::Node,
};
use crate::{
    env::{ClusteringPolicy, Endpoint},
    error_chain::ErrorChain,
};

/// Pause before the server is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The clustering policy that a pool follows, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clustering {
    is_cluster: bool,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    /// `REDIS_CLUSTERING_POLICY`.
    Configured(ClusteringPolicy),
    /// The number of primaries in the slot map.
    Slots(usize),
    /// The error reply to CLUSTER SLOTS.
    Refused(Refusal),
    /// The reply to CLUSTER SLOTS is not a list of slots.
    NoSlots,
}

impl Clustering {
    /// Returns true if commands go to the nodes of a cluster (`OSSCluster`), false if all go to the endpoint
    /// (`EnterpriseCluster`, `NoCluster`).
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Returns the error code with which the server refused CLUSTER SLOTS, if that decided.
    pub fn refusal_code(&self) -> Option<&str> {
        match &self.reason {
            Reason::Refused(refusal) => refusal.code(),
            Reason::Configured(_) | Reason::Slots(_) | Reason::NoSlots => None,
        }
    }

    fn one_endpoint(reason: Reason) -> Self {
        Self {
            is_cluster: false,
            reason,
        }
    }
}

impl fmt::Display for Clustering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_cluster {
            "OSSCluster, "
        } else {
            "one endpoint, "
        })?;
        match &self.reason {
            Reason::Configured(policy) => write!(f, "because REDIS_CLUSTERING_POLICY is {policy}"),
            Reason::Slots(1) => f.write_str("because CLUSTER SLOTS returned 1 primary"),
            Reason::Slots(count) => write!(f, "because CLUSTER SLOTS returned {count} primaries"),
            Reason::Refused(refusal) => {
                let code = refusal.code().unwrap_or_default();
                write!(f, "because the server refuses CLUSTER SLOTS with {code}")
            }
            Reason::NoSlots => f.write_str("because CLUSTER SLOTS returned no list of slots"),
        }
    }
}

/// The decision of [`judge`].
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    OneEndpoint(Clustering),
    Cluster(Clustering, Ranges),
}

/// A reply that decides nothing.
#[derive(Debug)]
enum Undecided {
    /// The connection was lost, or the reply cannot be understood.
    NoReply,
    /// The reason, for callers and the log.
    Because(ConnectError),
}

/// Returns the decision that needs no reply from the server.
pub(super) fn configured(policy: ClusteringPolicy) -> Option<Clustering> {
    match policy {
        ClusteringPolicy::Auto | ClusteringPolicy::OssCluster => None,
        ClusteringPolicy::EnterpriseCluster | ClusteringPolicy::NoCluster => {
            Some(Clustering::one_endpoint(Reason::Configured(policy)))
        }
    }
}

/// Decides by the reply to CLUSTER SLOTS; `None`: there was no reply.
fn judge(
    policy: ClusteringPolicy,
    endpoint: &Endpoint,
    reply: Option<Value>,
) -> Result<Decision, Undecided> {
    let endpoint = endpoint.clone();
    let is_cluster = policy == ClusteringPolicy::OssCluster;
    match reply.ok_or(Undecided::NoReply)? {
        Value::ServerError(error) => {
            let source = Refusal::from(&error.into());
            if is_temporary(&source) {
                Err(Undecided::Because(ConnectError::Undecided {
                    endpoint,
                    source,
                }))
            } else if is_cluster {
                Err(Undecided::Because(ConnectError::NotACluster {
                    endpoint,
                    source,
                }))
            } else {
                let clustering = Clustering::one_endpoint(Reason::Refused(source));
                Ok(Decision::OneEndpoint(clustering))
            }
        }
        reply => match cluster::read_slots(&reply, &endpoint) {
            Some(ranges) if ranges.is_empty() => {
                let slot = None;
                Err(Undecided::Because(ConnectError::NoPrimary {
                    endpoint,
                    slot,
                }))
            }
            Some(ranges) => Ok(cluster_of(policy, ranges)),
            None if is_cluster => Err(Undecided::NoReply),
            None => {
                let clustering = Clustering::one_endpoint(Reason::NoSlots);
                Ok(Decision::OneEndpoint(clustering))
            }
        },
    }
}

fn cluster_of(policy: ClusteringPolicy, ranges: Ranges) -> Decision {
    let primaries: HashSet<_> = ranges.iter().map(|(_, primary)| primary).collect();
    let reason = match policy {
        ClusteringPolicy::Auto => Reason::Slots(primaries.len()),
        configured => Reason::Configured(configured),
    };
    let clustering = Clustering {
        is_cluster: true,
        reason,
    };
    Decision::Cluster(clustering, ranges)
}

/// Returns true if the server may reply differently in a moment.
fn is_temporary(refusal: &Refusal) -> bool {
    matches!(
        refusal.code(),
        Some("NOAUTH" | "LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN")
    )
}

/// Asks `seed` until a reply decides. Passes `report` the reason why none has yet, and `None` when there is none.
pub(super) async fn detect(
    policy: ClusteringPolicy,
    seed: &Node,
    mut report: impl FnMut(Option<Arc<ConnectError>>),
) -> Decision {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let mut last_reported = None;
    loop {
        if !seed.is_open() {
            report(None); // the node reports the reason
            seed.wait_connected().await;
        }
        let Some(mut connection) = seed.pick() else {
            sleep(ASK_AGAIN_AFTER).await; // it has just closed
            continue;
        };
        let reply = connection.send(&command).await.ok();
        let reason = match judge(policy, &seed.address, reply) {
            Ok(decision) => {
                log_refusal(&seed.address, &decision);
                return decision;
            }
            Err(Undecided::NoReply) => None,
            Err(Undecided::Because(error)) => Some(error),
        };
        if let Some(error) = &reason {
            let text = ErrorChain(error).to_string();
            if last_reported.as_ref() != Some(&text) {
                warn!(server.address = %seed.address, error = text, "clustering policy not usable yet");
                last_reported = Some(text);
            }
        }
        report(reason.map(Arc::new));
        sleep(ASK_AGAIN_AFTER).await;
    }
}

fn log_refusal(address: &Endpoint, decision: &Decision) {
    if let Decision::OneEndpoint(Clustering {
        reason: Reason::Refused(refusal),
        ..
    }) = decision
    {
        if refusal.code() == Some("NOPERM") {
            warn!(
                server.address = %address,
                error = %refusal,
                "CLUSTER SLOTS is not permitted; assuming one endpoint. If the cache is a cluster, allow `+cluster|slots`"
            );
        } else {
            info!(
                server.address = %address,
                error = %refusal,
                "CLUSTER SLOTS refused; assuming one endpoint"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(resp: &str) -> Option<Value> {
        Some(redis::parse_redis_value(resp.as_bytes()).expect("a RESP value"))
    }

    /// Returns a short text of the decision or the error.
    fn judged(policy: ClusteringPolicy, reply: Option<Value>) -> String {
        let endpoint = Endpoint::announced("name.region.redis.azure.net", 10000);
        match judge(policy, &endpoint, reply) {
            Ok(Decision::OneEndpoint(clustering)) => clustering.to_string(),
            Ok(Decision::Cluster(clustering, ranges)) => {
                format!("{clustering}; {} ranges", ranges.len())
            }
            Err(Undecided::NoReply) => "no reply".to_owned(),
            Err(Undecided::Because(ConnectError::Undecided { .. })) => "undecided".to_owned(),
            Err(Undecided::Because(ConnectError::NotACluster { .. })) => "not a cluster".to_owned(),
            Err(Undecided::Because(ConnectError::NoPrimary { .. })) => "no primary".to_owned(),
            Err(Undecided::Because(other)) => panic!("{other}"),
        }
    }

    #[test]
    fn a_decision_follows_from_the_policy_and_the_reply() {
        use ClusteringPolicy::{Auto, OssCluster};
        let two = "*2\r\n\
            *3\r\n:0\r\n:100\r\n*2\r\n$8\r\n10.0.0.4\r\n:8501\r\n\
            *3\r\n:101\r\n:16383\r\n*2\r\n$8\r\n10.0.0.5\r\n:8501\r\n";
        let noperm = "-NOPERM User has no permissions to run the 'cluster|slots' command\r\n";
        let disabled = "-ERR This instance has cluster support disabled\r\n";
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        let one = "*2\r\n\
            *3\r\n:0\r\n:100\r\n*2\r\n$8\r\n10.0.0.4\r\n:8501\r\n\
            *3\r\n:102\r\n:16383\r\n*2\r\n$8\r\n10.0.0.4\r\n:8501\r\n";
        for (policy, resp, expected) in [
            (
                Auto,
                two,
                "OSSCluster, because CLUSTER SLOTS returned 2 primaries; 2 ranges",
            ),
            (
                Auto,
                one,
                "OSSCluster, because CLUSTER SLOTS returned 1 primary; 2 ranges",
            ),
            (
                OssCluster,
                two,
                "OSSCluster, because REDIS_CLUSTERING_POLICY is OSSCluster; 2 ranges",
            ),
            (
                Auto,
                disabled,
                "one endpoint, because the server refuses CLUSTER SLOTS with ERR",
            ),
            (OssCluster, disabled, "not a cluster"),
            (
                Auto,
                noperm,
                "one endpoint, because the server refuses CLUSTER SLOTS with NOPERM",
            ),
            (OssCluster, noperm, "not a cluster"),
            (Auto, loading, "undecided"),
            (OssCluster, loading, "undecided"),
            (Auto, "-NOAUTH Authentication required.\r\n", "undecided"),
            (
                Auto,
                "-BUSY Redis is busy running a script.\r\n",
                "undecided",
            ),
            (Auto, "-CLUSTERDOWN The cluster is down\r\n", "undecided"),
            (
                Auto,
                "-MASTERDOWN Link with MASTER is down\r\n",
                "undecided",
            ),
            (Auto, "-TRYAGAIN Try again later\r\n", "undecided"),
            (Auto, "*0\r\n", "no primary"),
            (OssCluster, "*0\r\n", "no primary"),
            (
                Auto,
                "+OK\r\n",
                "one endpoint, because CLUSTER SLOTS returned no list of slots",
            ),
            (OssCluster, "+OK\r\n", "no reply"),
        ] {
            assert_eq!(judged(policy, reply(resp)), expected, "{policy} {resp}");
        }
        assert_eq!(judged(Auto, None), "no reply");
        assert_eq!(judged(OssCluster, None), "no reply");
    }

    #[test]
    fn a_refusal_keeps_its_code_and_its_text() {
        let endpoint = Endpoint::announced("name.region.redis.azure.net", 10000);
        let disabled = reply("-ERR This instance has cluster support disabled\r\n");
        match judge(ClusteringPolicy::Auto, &endpoint, disabled) {
            Ok(Decision::OneEndpoint(clustering)) => {
                assert_eq!(clustering.refusal_code(), Some("ERR"));
                let Reason::Refused(refusal) = clustering.reason else {
                    panic!("{clustering} has another reason");
                };
                let text = "ERR This instance has cluster support disabled";
                assert_eq!(refusal.to_string(), text);
            }
            other => panic!("{other:?} is another decision"),
        }
    }

    #[test]
    fn only_the_policies_of_one_endpoint_need_no_reply() {
        use ClusteringPolicy::{Auto, EnterpriseCluster, NoCluster, OssCluster};
        for policy in [Auto, OssCluster] {
            assert_eq!(configured(policy), None, "{policy}");
        }
        for policy in [EnterpriseCluster, NoCluster] {
            let clustering = configured(policy).expect("a decision");
            assert!(!clustering.is_cluster(), "{policy}");
            assert_eq!(clustering.refusal_code(), None, "{policy}");
        }
    }
}

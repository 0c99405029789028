//! The check of the clustering policy.

use serde::Serialize;
use utoipa::ToSchema;

use super::Check;
use crate::config::ClusteringPolicy;
use entra_redis::pool::{Clustering, ConnectError};

/// The clustering policy in use.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ClusteringCheck {
    #[serde(flatten)]
    pub(super) check: Check,
    /// The policy by Azure's name; absent while it is unknown, and where one endpoint was detected, which may be either of
    /// two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        pattern = "^(OSSCluster|EnterpriseCluster|NoCluster)$",
        example = "OSSCluster"
    )]
    policy: Option<String>,
    /// The reason for which it is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<ClusteringReason>,
}

/// The reason for which the clustering policy is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ClusteringReason {
    /// Redis answers CLUSTER SLOTS with an error that does not decide it.
    Undecided,
    /// `REDIS_CLUSTERING_POLICY` is `OSSCluster`, and Redis is not a cluster.
    NotACluster,
    /// The cluster reports no primary.
    NoPrimary,
    /// Redis has not been asked yet, or did not answer.
    NoAnswer,
}

pub(super) fn clustering(
    decided: Option<&Clustering>,
    configured: ClusteringPolicy,
    undecided: Option<&ConnectError>,
) -> ClusteringCheck {
    if let Some(clustering) = decided {
        return ClusteringCheck {
            check: Check::new(true, clustering.to_string()),
            policy: policy(clustering.is_cluster(), configured).map(|policy| policy.to_string()),
            reason: None,
        };
    }
    let (reason, why) = match undecided {
        Some(ConnectError::Undecided { source, .. }) => {
            let code = source.code().unwrap_or("an error");
            let why = format!("Redis answers CLUSTER SLOTS with {code}");
            (ClusteringReason::Undecided, why)
        }
        Some(ConnectError::NotACluster { .. }) => {
            let why = "REDIS_CLUSTERING_POLICY is OSSCluster, but Redis is not a cluster";
            (ClusteringReason::NotACluster, why.to_owned())
        }
        Some(ConnectError::NoPrimary { .. }) => {
            let why = "the cluster reports no primary";
            (ClusteringReason::NoPrimary, why.to_owned())
        }
        _ => {
            let why = "Redis has not replied yet";
            (ClusteringReason::NoAnswer, why.to_owned())
        }
    };
    ClusteringCheck {
        check: Check::new(false, format!("not known yet: {why}")),
        policy: None,
        reason: Some(reason),
    }
}

/// Returns the policy in use; `None` where one endpoint was detected, which may be either of two.
fn policy(is_cluster: bool, configured: ClusteringPolicy) -> Option<ClusteringPolicy> {
    if is_cluster {
        return Some(ClusteringPolicy::OssCluster);
    }
    match configured {
        ClusteringPolicy::EnterpriseCluster | ClusteringPolicy::NoCluster => Some(configured),
        ClusteringPolicy::Auto | ClusteringPolicy::OssCluster => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::PartialSchema;

    use super::{
        super::tests::{fields, words},
        *,
    };

    #[test]
    fn the_clustering_check_names_the_reason_for_which_no_policy_is_known() {
        let endpoint = || "localhost:1".parse().expect("an endpoint");
        let no_primary = ConnectError::NoPrimary {
            endpoint: endpoint(),
            slot: None,
        };
        let flapping = ConnectError::Flapping {
            endpoint: endpoint(),
        };
        for (error, reason) in [
            (Some(&no_primary), "no_primary"),
            (Some(&flapping), "no_answer"),
            (None, "no_answer"),
        ] {
            let check = clustering(None, ClusteringPolicy::Auto, error);
            let expected = json!({"status": "failed", "reason": reason});
            assert_eq!(fields(check), expected, "{error:?}");
        }
    }

    #[test]
    fn a_detected_endpoint_has_no_policy_by_name() {
        use ClusteringPolicy::{Auto, EnterpriseCluster, NoCluster, OssCluster};
        for (is_cluster, configured, expected) in [
            (true, Auto, Some(OssCluster)),
            (true, OssCluster, Some(OssCluster)),
            (false, Auto, None),
            (false, EnterpriseCluster, Some(EnterpriseCluster)),
            (false, NoCluster, Some(NoCluster)),
        ] {
            assert_eq!(policy(is_cluster, configured), expected, "{configured}");
        }
    }

    #[test]
    fn the_document_lists_the_policies() {
        let schema = serde_json::to_value(ClusteringCheck::schema()).expect("it is JSON");
        let policies = [
            ClusteringPolicy::OssCluster,
            ClusteringPolicy::EnterpriseCluster,
            ClusteringPolicy::NoCluster,
        ];
        let policies = policies.map(|policy| policy.to_string());
        assert_eq!(words(&schema, "policy"), policies);
    }
}

//! The checks of `/readyz` and of the status page: each with a status, a sentence for people and fields for programs.
//!
//! # Invariants
//! - Everything that the sentence tells a program could want is a field, so that nothing has to read the sentence.
//! - A field is absent while its value is unknown. Names and words are an interface.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, redis_check::RedisState};
use crate::{
    config::ClusteringPolicy,
    identity::{self, FailureKind},
    lifecycle::Phase,
    redis::{self, Answering, Clustering, ConnectError},
};

/// All checks. The replica is ready when none of them failed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checks {
    clustering: ClusteringCheck,
    lifecycle: LifecycleCheck,
    redis: RedisCheck,
    token: TokenCheck,
}

/// The result of one check.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Check {
    status: CheckStatus,
    /// The finding, for people; its words may change.
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CheckStatus {
    Passed,
    Failed,
    NotApplicable,
}

/// The clustering policy in use.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct ClusteringCheck {
    #[serde(flatten)]
    check: Check,
    /// The policy by Azure's name; absent while it is unknown, and where one endpoint was detected, which may be either of
    /// two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^(OSSCluster|EnterpriseCluster|NoCluster)$",
        example = "OSSCluster"
    )]
    policy: Option<String>,
    /// The reason for which it is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ClusteringReason>,
}

/// The reason for which the clustering policy is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ClusteringReason {
    /// Redis answers CLUSTER SLOTS with an error that decides nothing.
    Undecided,
    /// `REDIS_CLUSTERING_POLICY` is `OSSCluster`, and Redis is not a cluster.
    NotACluster,
    /// The cluster names no primary.
    NoPrimary,
    /// Redis was not asked yet, or did not answer.
    NoAnswer,
}

/// The phase of the process.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct LifecycleCheck {
    #[serde(flatten)]
    check: Check,
    /// The phase now; only `serving` passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
}

/// The connections to Redis, and whether it answers on them.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct RedisCheck {
    #[serde(flatten)]
    check: Check,
    /// Connections that are open and authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_open: Option<usize>,
    /// Connections that the pool keeps open.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_wanted: Option<usize>,
    /// Primaries of the cluster; 1 where Redis is one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    primaries: Option<usize>,
    /// Primaries that answered the latest check.
    #[serde(skip_serializing_if = "Option::is_none")]
    primaries_answering: Option<usize>,
    /// The reason for which the check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<RedisReason>,
}

/// The reason for which the check of Redis failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RedisReason {
    NoAnswer,
    AuthenticationRefused,
    NotAsked,
}

/// The token from Microsoft Entra ID.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct TokenCheck {
    #[serde(flatten)]
    check: Check,
    /// Time until the token expires; 0 once it has, absent before the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_seconds: Option<u64>,
    /// The kind of failure of the latest request for a token; absent when it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^(timeout|unavailable|refused|failed|unusable)$",
        example = "refused"
    )]
    last_failure: Option<&'static str>,
}

impl Check {
    fn new(passed: bool, detail: impl Into<String>) -> Self {
        Self {
            status: if passed {
                CheckStatus::Passed
            } else {
                CheckStatus::Failed
            },
            detail: detail.into(),
        }
    }
}

impl Checks {
    /// Reads the state of each part.
    pub(super) fn now(context: &Context) -> Self {
        let pool = &context.pool;
        Self {
            clustering: clustering(
                pool.clustering(),
                context.clustering_policy,
                pool.topology_error().as_deref(),
            ),
            lifecycle: lifecycle(context.lifecycle.phase()),
            redis: redis(context.redis.state(), pool.status()),
            token: token(pool.identity().as_ref().map(TokenState::now)),
        }
    }

    /// Returns whether traffic may come here.
    pub(super) fn is_ready(&self) -> bool {
        [
            &self.clustering.check,
            &self.lifecycle.check,
            &self.redis.check,
            &self.token.check,
        ]
        .iter()
        .all(|check| check.status != CheckStatus::Failed)
    }

    /// Returns the time until the token expires; `None` without a token.
    pub(super) fn token_expires_in_seconds(&self) -> Option<u64> {
        self.token.expires_in_seconds
    }
}

fn lifecycle(phase: Phase) -> LifecycleCheck {
    let detail = match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining: shutdown requested",
    };
    LifecycleCheck {
        check: Check::new(phase == Phase::Serving, detail),
        phase: Some(phase),
    }
}

/// The part of the credential's status that decides its check.
#[derive(Debug, Clone, Copy)]
struct TokenState {
    is_live: bool,
    expires_in: Option<Duration>,
    failure: Option<FailureKind>,
}

impl TokenState {
    fn now(status: &identity::TokenStatus) -> Self {
        let expires_in = status.token.as_ref().map(|token| {
            let left = token.expires_at.duration_since(SystemTime::now());
            left.unwrap_or_default()
        });
        Self {
            is_live: status.is_live(),
            expires_in,
            failure: status.failure,
        }
    }
}

/// `state` is `None` where the service authenticates without a token.
fn token(state: Option<TokenState>) -> TokenCheck {
    let Some(state) = state else {
        return TokenCheck {
            check: Check {
                status: CheckStatus::NotApplicable,
                detail: "the service authenticates without a token".to_owned(),
            },
            expires_in_seconds: None,
            last_failure: None,
        };
    };
    let seconds = state.expires_in.map(|left| left.as_secs());
    let mut detail = match seconds {
        Some(seconds) if state.is_live => format!("token expires in {seconds} s"),
        Some(_) => "token expired".to_owned(),
        None => "no token yet".to_owned(),
    };
    if let Some(kind) = state.failure {
        detail = format!("{detail}; latest request failed: {}", kind.description());
    }
    TokenCheck {
        check: Check::new(state.is_live, detail),
        expires_in_seconds: seconds,
        last_failure: state.failure.map(FailureKind::as_label),
    }
}

fn clustering(
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
            let why = "the cluster names no primary";
            (ClusteringReason::NoPrimary, why.to_owned())
        }
        _ => {
            let why = "Redis was not asked yet, or did not answer";
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

fn redis(state: Option<RedisState>, connections: redis::PoolStatus) -> RedisCheck {
    let redis::PoolStatus { open, size } = connections;
    let counted = format!("{open} of {size} connections are open");
    let (check, answering, reason) = match state {
        Some(RedisState::Answers(answering)) => {
            let (of, answered) = (answering.primaries, answering.primaries_answering);
            let detail = if of == 1 {
                format!("Redis answers; {counted}")
            } else {
                format!("{answered} of {of} primaries answer; {counted}")
            };
            (Check::new(true, detail), Some(answering), None)
        }
        Some(RedisState::NoAnswer) => {
            let check = Check::new(false, format!("Redis does not answer; {counted}"));
            (check, None, Some(RedisReason::NoAnswer))
        }
        Some(RedisState::AuthenticationRefused) => {
            let check = Check::new(false, format!("Redis refuses authentication; {counted}"));
            (check, None, Some(RedisReason::AuthenticationRefused))
        }
        None => {
            let check = Check::new(false, "Redis was not asked yet");
            (check, None, Some(RedisReason::NotAsked))
        }
    };
    RedisCheck {
        check,
        connections_open: Some(open),
        connections_wanted: Some(size),
        primaries: answering.map(|Answering { primaries, .. }| primaries),
        primaries_answering: answering.map(|answering| answering.primaries_answering),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The check as JSON without the sentence for people.
    fn fields(check: impl Serialize) -> Value {
        let mut check = serde_json::to_value(check).expect("it is JSON");
        let fields = check.as_object_mut().expect("it is an object");
        let detail = fields.remove("detail");
        assert!(detail.is_some_and(|detail| detail.is_string()));
        check
    }

    #[test]
    fn the_token_check_reports_expiry_and_the_latest_failure() {
        let state = |is_live, seconds: Option<u64>, failure| {
            let expires_in = seconds.map(Duration::from_secs);
            Some(TokenState {
                is_live,
                expires_in,
                failure,
            })
        };
        for (state, expected) in [
            (None, json!({"status": "not_applicable"})),
            (state(false, None, None), json!({"status": "failed"})),
            (
                state(false, None, Some(FailureKind::Refused)),
                json!({"status": "failed", "last_failure": "refused"}),
            ),
            (
                state(true, Some(60), None),
                json!({"status": "passed", "expires_in_seconds": 60}),
            ),
            (
                state(true, Some(60), Some(FailureKind::TimedOut)),
                json!({"status": "passed", "expires_in_seconds": 60, "last_failure": "timeout"}),
            ),
            (
                state(false, Some(0), Some(FailureKind::Failed)),
                json!({"status": "failed", "expires_in_seconds": 0, "last_failure": "failed"}),
            ),
        ] {
            assert_eq!(fields(token(state)), expected, "{state:?}");
        }
    }

    #[test]
    fn the_redis_check_counts_connections_and_primaries() {
        let answers = |primaries, primaries_answering| {
            Some(RedisState::Answers(Answering {
                primaries,
                primaries_answering,
            }))
        };
        for (state, status, rest) in [
            (None, "failed", json!({"reason": "not_asked"})),
            (
                Some(RedisState::NoAnswer),
                "failed",
                json!({"reason": "no_answer"}),
            ),
            (
                Some(RedisState::AuthenticationRefused),
                "failed",
                json!({"reason": "authentication_refused"}),
            ),
            (
                answers(1, 1),
                "passed",
                json!({"primaries": 1, "primaries_answering": 1}),
            ),
            (
                answers(3, 2),
                "passed",
                json!({"primaries": 3, "primaries_answering": 2}),
            ),
        ] {
            let mut expected =
                json!({"status": status, "connections_open": 1, "connections_wanted": 2});
            let rest = rest.as_object().expect("it is an object").clone();
            expected
                .as_object_mut()
                .expect("it is an object")
                .extend(rest);
            let check = redis(state, redis::PoolStatus { open: 1, size: 2 });
            assert_eq!(fields(check), expected, "{state:?}");
        }
    }

    #[test]
    fn the_lifecycle_check_names_the_phase() {
        for (phase, expected) in [
            (
                Phase::Starting,
                json!({"status": "failed", "phase": "starting"}),
            ),
            (
                Phase::Serving,
                json!({"status": "passed", "phase": "serving"}),
            ),
            (
                Phase::Draining,
                json!({"status": "failed", "phase": "draining"}),
            ),
        ] {
            assert_eq!(fields(lifecycle(phase)), expected);
        }
    }

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

    /// The document's patterns admit every word.
    #[test]
    fn the_words_are_those_of_the_document() {
        use utoipa::PartialSchema;
        let words = |schema: Value, field: &str| {
            let text = schema.to_string();
            let at = text.find(field).expect("the field is documented");
            let rest = text[at..].split("^(").nth(1).expect("it has a pattern");
            let words = rest.split(")$").next().expect("it has an end");
            words.split('|').map(str::to_owned).collect::<Vec<_>>()
        };
        let token = serde_json::to_value(TokenCheck::schema()).expect("it is JSON");
        let kinds = [
            FailureKind::TimedOut,
            FailureKind::Unavailable,
            FailureKind::Refused,
            FailureKind::Failed,
            FailureKind::Unusable,
        ];
        assert_eq!(
            words(token, "last_failure"),
            kinds.map(FailureKind::as_label)
        );
        let clustering = serde_json::to_value(ClusteringCheck::schema()).expect("it is JSON");
        let policies = [
            ClusteringPolicy::OssCluster,
            ClusteringPolicy::EnterpriseCluster,
            ClusteringPolicy::NoCluster,
        ];
        assert_eq!(
            words(clustering, "policy"),
            policies.map(|policy| policy.to_string())
        );
    }
}

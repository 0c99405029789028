//! The checks of `/readyz` and of the status page: each with a status, a sentence for people and fields for programs.
//!
//! # Invariants
//! - Every value in a sentence is a field too, so that no program parses the sentence.
//! - A field is absent while its value is unknown. Names and words are an interface.

mod clustering;
mod redis;
mod token;

use serde::Serialize;
use utoipa::ToSchema;

use self::{
    clustering::{ClusteringCheck, clustering},
    redis::{RedisCheck, redis},
    token::{TokenCheck, TokenState, token},
};
use super::Context;
use crate::lifecycle::Phase;

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

/// The phase of the process.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct LifecycleCheck {
    #[serde(flatten)]
    check: Check,
    /// The phase now; only `serving` passes.
    phase: Phase,
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

    /// Returns whether the replica can serve requests.
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
        phase,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The check as JSON without the sentence for people.
    pub(super) fn fields(check: impl Serialize) -> Value {
        let mut check = serde_json::to_value(check).expect("it is JSON");
        let fields = check.as_object_mut().expect("it is an object");
        let detail = fields.remove("detail");
        assert!(detail.is_some_and(|detail| detail.is_string()));
        check
    }

    /// The words that the pattern of a field in the document admits.
    pub(super) fn words(schema: &Value, field: &str) -> Vec<String> {
        let text = schema.to_string();
        let at = text.find(field).expect("the field is documented");
        let rest = text[at..].split("^(").nth(1).expect("it has a pattern");
        let words = rest.split(")$").next().expect("it has an end");
        words.split('|').map(str::to_owned).collect()
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
}

//! The check of Redis.

use serde::Serialize;
use utoipa::ToSchema;

use super::{super::redis_check::RedisState, Check};
use entra_redis::pool::{self, Answering};

/// The connections to Redis, and whether it answers on them.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct RedisCheck {
    #[serde(flatten)]
    pub(super) check: Check,
    /// Connections that are open and authenticated.
    connections_open: usize,
    /// Connections that the pool keeps open.
    connections_wanted: usize,
    /// Primaries of the cluster; 1 where Redis is one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    primaries: Option<usize>,
    /// Primaries that answered the latest check.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    primaries_answering: Option<usize>,
    /// The reason for which the check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
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

pub(super) fn redis(state: Option<RedisState>, connections: pool::PoolStatus) -> RedisCheck {
    let pool::PoolStatus { open, size } = connections;
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
            let check = Check::new(false, "Redis has not been checked yet");
            (check, None, Some(RedisReason::NotAsked))
        }
    };
    RedisCheck {
        check,
        connections_open: open,
        connections_wanted: size,
        primaries: answering.map(|Answering { primaries, .. }| primaries),
        primaries_answering: answering.map(|answering| answering.primaries_answering),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::fields, *};

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
            let check = redis(state, pool::PoolStatus { open: 1, size: 2 });
            assert_eq!(fields(check), expected, "{state:?}");
        }
    }
}

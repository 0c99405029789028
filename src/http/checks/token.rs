//! The check of the token.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Check, CheckStatus};
use entra_redis::identity::{self, FailureKind};

/// The token from Microsoft Entra ID.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct TokenCheck {
    #[serde(flatten)]
    pub(super) check: Check,
    /// Time until the token expires; 0 once it has, absent before the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) expires_in_seconds: Option<u64>,
    /// The kind of failure of the latest request for a token; absent when it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        pattern = "^(timeout|unavailable|refused|failed|unusable)$",
        example = "refused"
    )]
    last_failure: Option<&'static str>,
}

/// The part of the credential's status that decides its check.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenState {
    is_live: bool,
    expires_in: Option<Duration>,
    failure: Option<FailureKind>,
}

impl TokenState {
    pub(super) fn now(status: &identity::TokenStatus) -> Self {
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
pub(super) fn token(state: Option<TokenState>) -> TokenCheck {
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
        detail = format!("{detail}; {}", kind.description());
    }
    TokenCheck {
        check: Check::new(state.is_live, detail),
        expires_in_seconds: seconds,
        last_failure: state.failure.map(FailureKind::as_label),
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
    fn the_document_lists_the_kinds_of_failure() {
        let schema = serde_json::to_value(TokenCheck::schema()).expect("it is JSON");
        let kinds = [
            FailureKind::TimedOut,
            FailureKind::Unavailable,
            FailureKind::Refused,
            FailureKind::Failed,
            FailureKind::Unusable,
        ];
        assert_eq!(
            words(&schema, "last_failure"),
            kinds.map(FailureKind::as_label)
        );
    }
}

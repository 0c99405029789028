//! `GET /healthz` and `GET /readyz`, and the check of Redis that the second one reads.
//!
//! The two mean different things: `/healthz` says that the process turns and touches nothing else, since a restart does
//! not mend Redis; `/readyz` says that traffic may come here.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::{sync::watch, time::sleep, time::timeout};
use tracing::{info, warn};
use utoipa::ToSchema;

use super::Context;
use crate::{
    lifecycle::Phase,
    redis::{self, Answering, Pool},
};

/// How often Redis is asked while it answers.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// While it does not answer though connections are open, it is asked again after this.
const CHECK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// One check takes no longer than the time between two.
const CHECK_LIMIT: Duration = Duration::from_secs(2);
/// This many failures in a row make the replica not ready: one blip must not empty the Service.
const FAILURES_TOLERATED: u32 = 3;

/// The read side of [`RedisCheck`].
#[derive(Debug, Clone)]
pub(crate) struct Readiness(watch::Receiver<Option<Found>>);

/// What the latest check found, or the one before that where it was a blip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// At least one master answers: with a cluster, no replica serves the others' keys either, so that taking this one
    /// out of service would help nobody.
    Answers(Answering),
    Silence,
    SignInRefused,
}

impl Found {
    fn as_words(self) -> &'static str {
        match self {
            Self::Answers(_) => "answers",
            Self::Silence => "does not answer",
            Self::SignInRefused => "refuses the sign-in",
        }
    }
}

/// Asks Redis in the background whether it answers.
pub(crate) struct RedisCheck {
    pool: Pool,
    /// `None` before the first answer.
    answers: watch::Sender<Option<Found>>,
}

impl RedisCheck {
    /// Puts a check and its read side together; nothing is asked until it runs.
    pub(crate) fn new(pool: Pool) -> (Self, Readiness) {
        let (answers, reader) = watch::channel(None);
        (Self { pool, answers }, Readiness(reader))
    }

    /// Asks until dropped.
    pub(crate) async fn run(self) -> Infallible {
        let mut failures = 0_u32;
        loop {
            let answer = timeout(CHECK_LIMIT, self.pool.ping()).await;
            let was_good = matches!(*self.answers.borrow(), Some(Found::Answers(_)));
            if let Ok(Ok(answering)) = answer
                && answering.masters_answering > 0
            {
                failures = 0;
                if !was_good {
                    info!("Redis answers");
                }
                self.answers.send_replace(Some(Found::Answers(answering)));
                sleep(CHECK_EVERY).await;
                continue;
            }
            let found = match answer {
                Ok(Err(error)) if error.is_sign_in_refused() => Found::SignInRefused,
                _ => Found::Silence,
            };
            failures = failures.saturating_add(1);
            if was_good && failures < FAILURES_TOLERATED {
                sleep(CHECK_EVERY).await;
                continue;
            }
            if was_good {
                warn!(failures, "Redis {}", found.as_words());
            }
            self.answers.send_replace(Some(found));
            // Asked again as soon as there is a connection to ask on, so that traffic comes back soon.
            sleep(CHECK_AGAIN_AFTER).await;
            let _ = timeout(CHECK_EVERY, self.pool.opened()).await;
        }
    }
}

/// What `/readyz` found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Report {
    /// Whether traffic may come here.
    ready: bool,
    /// Each check by name.
    checks: BTreeMap<&'static str, Check>,
}

/// One check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Check {
    status: CheckStatus,
    /// What was found, for a person.
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CheckStatus {
    Passed,
    Failed,
    NotApplicable,
}

impl Check {
    fn new(passed: bool, detail: impl Into<String>) -> Self {
        Self {
            status: match passed {
                true => CheckStatus::Passed,
                false => CheckStatus::Failed,
            },
            detail: detail.into(),
        }
    }
}

/// Liveness
///
/// 200 while the process turns. It looks at nothing else.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "The process turns", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

/// Readiness
///
/// 200 when the replica is serving, holds a live token and Redis answers; the body names each check.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Traffic may come here", body = Report),
        (status = 503, description = "Traffic must not come here; the failed checks say why", body = Report)
    )
)]
pub(super) async fn readyz(State(context): State<Arc<Context>>) -> Response {
    let (ready, checks) = checks(&context);
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, Json(Report { ready, checks })).into_response()
}

/// Whether traffic may come here, and what each check found.
pub(super) fn checks(context: &Context) -> (bool, BTreeMap<&'static str, Check>) {
    let checks = BTreeMap::from([
        ("clustering", clustering(&context.pool)),
        ("lifecycle", lifecycle(context.lifecycle.phase())),
        ("redis", redis(context)),
        ("token", token(context.pool.identity())),
    ]);
    let failed = |check: &Check| check.status == CheckStatus::Failed;
    (!checks.values().any(failed), checks)
}

fn lifecycle(phase: Phase) -> Check {
    let detail = match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining: told to stop",
    };
    Check::new(phase == Phase::Serving, detail)
}

fn token(status: Option<crate::identity::Status>) -> Check {
    let Some(status) = status else {
        return Check {
            status: CheckStatus::NotApplicable,
            detail: "the service signs in without a token".to_owned(),
        };
    };
    let trouble = status.failure.map(|kind| format!("; {}", kind.as_str()));
    let trouble = trouble.unwrap_or_default();
    let left = status.held.as_ref().map(|held| {
        let left = held.expires_at.duration_since(SystemTime::now());
        left.unwrap_or_default().as_secs()
    });
    match left {
        Some(seconds) if status.is_live() => Check::new(
            true,
            format!("a token is held for another {seconds} s{trouble}"),
        ),
        Some(_) => Check::new(false, format!("the token held has ended{trouble}")),
        None => Check::new(false, format!("no token was had yet{trouble}")),
    }
}

fn clustering(pool: &redis::Pool) -> Check {
    if let Some(clustering) = pool.clustering() {
        return Check::new(true, clustering.to_string());
    }
    let why = match pool.undecided().as_deref() {
        Some(redis::ConnectError::Undecided { source, .. }) => format!(
            "Redis answers CLUSTER SLOTS with {}",
            source.code().unwrap_or("an error")
        ),
        Some(redis::ConnectError::NotACluster { .. }) => {
            "REDIS_CLUSTERING_POLICY is OSSCluster, and Redis is no cluster".to_owned()
        }
        Some(redis::ConnectError::NoMaster { .. }) => "the cluster names no master".to_owned(),
        _ => "Redis was not asked, or gave no answer".to_owned(),
    };
    Check::new(false, format!("not known yet: {why}"))
}

fn redis(context: &Context) -> Check {
    let redis::Status { open, size } = context.pool.status();
    let connections = format!("{open} of {size} connections are open");
    match *context.redis.0.borrow() {
        Some(Found::Answers(Answering {
            masters: 1,
            masters_answering: _,
        })) => Check::new(true, format!("Redis answers; {connections}")),
        Some(Found::Answers(answering)) => {
            let Answering {
                masters,
                masters_answering,
            } = answering;
            let detail = format!("{masters_answering} of {masters} masters answer; {connections}");
            Check::new(true, detail)
        }
        Some(found @ (Found::Silence | Found::SignInRefused)) => {
            Check::new(false, format!("Redis {}; {connections}", found.as_words()))
        }
        None => Check::new(false, "Redis was not asked yet"),
    }
}

//! Faults of authentication: refused, unanswered, or with a token that Redis does not accept yet.

use std::time::Duration;

use entra_redis_emulator::RedisFault;

use super::{ask, back_within_5_s, none_failed, under_load, wait_for_problem, with};
use crate::support::{Azure, MonitoredService, Service, eventually};

/// A service whose AUTH times out after half a second: to tokens of seconds, what 5 s are to those of an hour.
async fn with_short_timeouts(azure: &Azure) -> MonitoredService {
    let mut environment = azure.environment("WorkloadIdentityCredential");
    environment.extend(with([("REDIS_CONNECT_TIMEOUT", "500ms")]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    eventually("the pool is full", async || {
        service.metric("db_client_connection_count", &[]).await == 2.0
    })
    .await;
    service
}

async fn reauths(service: &Service, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    let labels = ["kind=\"reauth\"", &outcome];
    service.metric("redis_auth_total", &labels).await
}

async fn opened(service: &Service) -> f64 {
    service.metric("redis_connections_opened_total", &[]).await
}

/// In a cluster a log line about one connection is of no use without the address of its node.
fn names_the_node(service: &Service, message: &str) {
    let log = service.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(message)).collect();
    assert!(!lines.is_empty(), "{message:?} in {log}");
    for line in lines {
        assert!(line.contains(r#""server.address":"localhost:"#), "{line}");
    }
}

/// The earlier authentication stays in force: it is tried again, and no request fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_reauthentication_refused_for_a_time_costs_no_request_and_no_connection() {
    let azure = Azure::with_lifetime(8).await;
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    let load = under_load(&service, 8).await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    let refused = async || azure.controls.counts().auth_refused;
    eventually("refused again and again", async || refused().await >= 8).await;
    azure.controls.set_redis(RedisFault::None);
    eventually("both are re-authenticated", async || {
        reauths(&service, "success").await >= 2.0
    })
    .await;
    none_failed(load).await;
    assert_eq!(opened(&service).await, 2.0);
    names_the_node(&service, "re-authentication rejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authentication_refused_at_first_is_a_named_503_and_then_service() {
    let azure = Azure::with_lifetime(60).await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    let response = wait_for_problem(&service, 503, "authentication-refused").await;
    assert_eq!(response.retry_after.as_deref(), Some("5"));
    let refused = async || azure.controls.counts().auth_refused;
    eventually("refused again and again", async || refused().await >= 4).await;
    eventually("/readyz names the cause", async || {
        let (status, report) = service.readiness().await;
        status == 503 && report["checks"]["redis"]["reason"] == "authentication_refused"
    })
    .await;
    azure.controls.set_redis(RedisFault::None);
    back_within_5_s(&service).await;
    service.ready().await;
}

/// AUTH on an open connection is lost, and with it every reply after it. One connection tries at a time, and one without a
/// reply is replaced by one that is authenticated with the new token, before the next one tries.
#[tokio::test(flavor = "multi_thread")]
async fn a_reauthentication_that_is_never_answered_costs_no_request() {
    let azure = Azure::with_lifetime(12).await;
    let service = with_short_timeouts(&azure).await;
    let load = under_load(&service, 8).await;
    azure.controls.set_redis(RedisFault::HangReauth);
    eventually("both are replaced", async || opened(&service).await >= 4.0).await;
    azure.controls.set_redis(RedisFault::None);
    eventually("both with the new token", async || {
        let metrics = service.text("/metrics").await;
        let end = |name| crate::support::metric(&metrics, name, &[]);
        end("redis_connection_token_expiry_timestamp_seconds")
            == end("entra_token_expiry_timestamp_seconds")
    })
    .await;
    none_failed(load).await;
    assert_eq!(reauths(&service, "failure").await, 2.0);
    for message in [
        "Redis connection opened",
        "AUTH timed out",
        "Redis connection closed",
    ] {
        names_the_node(&service, message);
    }
}

/// No AUTH at all is answered: the first connection to try is lost, and cannot be replaced. The other keeps its earlier
/// authentication.
#[tokio::test(flavor = "multi_thread")]
async fn while_no_authentication_is_answered_the_earlier_ones_serve() {
    let azure = Azure::with_lifetime(12).await;
    let service = with_short_timeouts(&azure).await;
    let load = under_load(&service, 8).await;
    azure.controls.set_redis(RedisFault::HangAuth);
    eventually("one has tried, and a new one too", async || {
        // Lost during AUTH, or without a reply to it in time.
        let log = service.log();
        let failures = [
            "authentication with localhost",
            "authenticating with localhost",
        ];
        let has_new_failed = failures.iter().any(|failure| log.contains(failure));
        reauths(&service, "failure").await >= 1.0 && has_new_failed
    })
    .await;
    azure.controls.set_redis(RedisFault::None);
    eventually("both are there again", async || {
        service.metric("db_client_connection_count", &[]).await == 2.0
    })
    .await;
    none_failed(load).await;
}

/// As in Azure, which distributes a new token with a delay: refused at first, and then accepted.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_redis_accepts_late_cost_no_request_and_no_connection() {
    let azure = Azure::with_lifetime(11).await;
    azure
        .controls
        .set_redis(RedisFault::LateTokens(Duration::from_secs(1)));
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    assert_eq!(ask(&service).await.status, 503);
    service.ready().await;
    let refused_at_start = azure.controls.counts().auth_refused;
    assert!(refused_at_start >= 1, "the first token was late");
    let load = under_load(&service, 4).await;
    for reauthenticated in [2.0, 4.0] {
        eventually("a rotation", async || {
            reauths(&service, "success").await >= reauthenticated
        })
        .await;
    }
    none_failed(load).await;
    assert!(azure.controls.counts().auth_refused >= refused_at_start + 4);
    assert_eq!(opened(&service).await, 2.0);
}

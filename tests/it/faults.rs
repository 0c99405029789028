//! Responses to callers under faults: each fault between the caller and Redis, made for real, once.
//!
//! "Never drop a request" is defined here, fault by fault: either no request fails, or each failure is a named problem
//! document within the request's deadline, and service resumes within 5 s of the end of the fault, without a restart.
//! During all of it `/healthz` is 200 and nothing panics: [`MonitoredService`] checks that.
//!
//! Out of scope: rotation without a fault (`rotation`), a cluster's faults (`cluster`), start and stop.
//!
//! The faults, and where each is made:
//! - Redis stopped and started again: `redis`; from the start on: `start_stop::without_redis_at_start_…`.
//! - All connections killed: `network::connections_reset_…`; the library's part alone:
//!   `real_redis::connections_killed_under_load_fail_no_idempotent_command`.
//! - AUTH refused, unanswered, or with a token that Redis accepts late: `authentication`.
//! - Entra ID away for 90 % of a token's life: `rotation::entra_failing_for_most_of_a_tokens_life_costs_no_request`; past
//!   its expiry: `rotation::when_entra_stays_away_past_expiry_…`; away or hanging at start:
//!   `start_stop::without_a_token_at_start_…`, `start_stop::service_resumes_soon_after_entra_stopped_hanging`.
//! - Redis black-holed, sockets half open, connections forgotten by the network: `network`; the library's part alone:
//!   `real_redis::a_connection_that_falls_silent_is_replaced`.
//! - Slow Redis and slow networks: `redis`, `network`; one command: `bad_input::slow_redis_is_a_504_…`.
//! - The clock set while it runs: `clock`.
//! - Access keys disabled, `maxclients`, OOM, READONLY: `redis`.
//! - Thousands of clients, too many open files, slow clients: `callers`; shedding by the number:
//!   `bad_input::more_requests_than_allowed_are_shed_at_once_and_probes_are_not`.
//! - A reply cut off after the command ran: `outcome`; the connection killed:
//!   `real_redis::a_command_cut_off_is_outcome_unknown_…`.

mod authentication;
mod callers;
mod clock;
mod network;
mod outcome;
mod redis;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Load, MonitoredService, eventually};

/// A response as one caller got it.
#[derive(Debug)]
struct CallerResponse {
    status: u16,
    /// The last word of the problem's type; empty for a 200.
    problem: String,
    retry_after: Option<String>,
    took: Duration,
}

/// Requests `/sample` once. Every response carries an id.
async fn ask(service: &MonitoredService) -> CallerResponse {
    let asked = Instant::now();
    let answer = service.get("/sample").await;
    let status = answer.status().as_u16();
    let header = |name: &str| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().expect("it is text").to_owned())
    };
    assert!(header("x-request-id").is_some_and(|id| !id.is_empty()));
    let retry_after = header("retry-after");
    let is_problem = header("content-type").as_deref() == Some("application/problem+json");
    let body = answer.text().await.expect("the body is whole");
    let problem = if is_problem {
        let problem: Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(problem["status"], status, "{body}");
        let kind = problem["type"].as_str().expect("it is named");
        kind.rsplit(':').next().unwrap_or_default().to_owned()
    } else {
        String::new()
    };
    assert_eq!(status == 200, problem.is_empty(), "{body}");
    CallerResponse {
        status,
        problem,
        retry_after,
        took: asked.elapsed(),
    }
}

/// Waits for a response with this status and problem, and returns it.
async fn wait_for_problem(
    service: &MonitoredService,
    status: u16,
    problem: &str,
) -> CallerResponse {
    let mut last = None;
    eventually(&format!("{status} {problem}"), async || {
        let response = ask(service).await;
        let is_it = response.status == status && response.problem == problem;
        last = Some(response);
        is_it
    })
    .await;
    last.expect("it was asked")
}

/// The end of a fault was just now.
async fn back_within_5_s(service: &MonitoredService) {
    let end = Instant::now();
    eventually("service", async || ask(service).await.status == 200).await;
    let took = end.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "the promise is 5 s: {took:?}"
    );
}

/// Load that runs.
async fn under_load(service: &MonitoredService, workers: usize) -> Load {
    let load = Load::start(&service.url("/sample"), workers);
    more(&load, 50).await;
    load
}

/// Waits for this many further good answers.
async fn more(load: &Load, count: u64) {
    let before = load.good();
    eventually("good answers", async || load.good() >= before + count).await;
}

/// Stops the load once it had many answers: no request failed.
async fn none_failed(load: Load) {
    eventually("good answers", async || {
        load.good() > 100 || load.has_failed()
    })
    .await;
    let (_, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Each failure is one of these: a status, and the last word of a problem's type.
fn only(failures: &BTreeMap<String, u64>, known: &[(u16, &str)]) {
    for failure in failures.keys() {
        let is_known = known.iter().any(|(status, problem)| {
            failure.starts_with(&status.to_string())
                && failure.contains(&format!("problem:{problem}\""))
        });
        assert!(is_known, "{failure} of {failures:#?}");
    }
}

/// A service before a Redis in plain text that requires no authentication.
fn plain(address: impl Into<String>) -> Vec<(String, String)> {
    with([
        ("REDIS_ENDPOINT", address.into().as_str()),
        ("REDIS_AUTH", "none"),
        ("REDIS_TLS", "false"),
    ])
}

fn with<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

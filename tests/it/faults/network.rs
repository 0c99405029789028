//! Faults of what lies between: connections reset, swallowed, half open or forgotten, and a slow network.

use std::time::Duration;

use entra_redis_emulator::Options;
use tokio::time::sleep;

use super::{
    ask, back_within_5_s, more, none_failed, only, plain, under_load, wait_for_problem, with,
};
use crate::support::{Azure, Fault, MonitoredService, Proxy, RedisServer, eventually};

/// Redis behind a proxy, and a service that has its two connections through it.
async fn through_a_proxy<const N: usize>(
    more: [(&str, &str); N],
) -> (RedisServer, Proxy, MonitoredService) {
    let redis = RedisServer::start().await;
    let proxy = Proxy::before(&redis.address()).await;
    let mut environment = plain(format!("127.0.0.1:{}", proxy.port));
    environment.extend(with(more));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    full(&service).await;
    (redis, proxy, service)
}

async fn full(service: &MonitoredService) {
    eventually("the pool is full", async || {
        service.metric("db_client_connection_count", &[]).await == 2.0
    })
    .await;
}

/// By a firewall that forgot them, and by Redis itself.
#[tokio::test(flavor = "multi_thread")]
async fn connections_reset_or_killed_all_at_once_cost_no_request() {
    let redis = RedisServer::start().await;
    let azure = Azure::start(Options {
        redis: Some(redis.address()),
        ..Options::default()
    })
    .await;
    let endpoint = azure.variable("REDIS_ENDPOINT");
    let proxy = Proxy::before(endpoint).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    // Time to open a connection on a busy machine.
    environment.extend(with([
        ("REDIS_ENDPOINT", &format!("localhost:{}", proxy.port)),
        ("REDIS_COMMAND_TIMEOUT", "5s"),
        ("REQUEST_TIMEOUT", "15s"),
    ]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    let load = under_load(&service, 16).await;
    let mut admin = redis.admin().await;
    for round in 0..8 {
        full(&service).await;
        if round % 2 == 0 {
            // Whatever ends before it is 0.1 s old, twice in a row, is taken for an endpoint with nothing behind it.
            sleep(Duration::from_millis(300)).await;
        }
        if round % 2 == 0 {
            proxy.reset_all();
        } else {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg(&["TYPE", "normal", "SKIPME", "yes"]);
            let killed: u64 = kill.query_async(&mut admin).await.expect("KILL");
            assert!(killed >= 2, "there was something to kill: {killed}");
        }
        eventually("all are lost", async || {
            let lost = ["reason=\"lost\""];
            service
                .metric("redis_connections_closed_total", &lost)
                .await
                >= f64::from(2 * round + 2)
        })
        .await;
    }
    none_failed(load).await;
}

/// The one that should replace what was lost: while no other is open, callers wait for the next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reset_while_it_is_opened_costs_no_request() {
    let (_redis, proxy, service) = through_a_proxy([]).await;
    let load = under_load(&service, 8).await;
    for round in 1..=5 {
        // Whatever ends before it is 0.1 s old, twice in a row, is taken for an endpoint with nothing behind it.
        sleep(Duration::from_millis(300)).await;
        let accepted = proxy.accepted();
        proxy.reset_next();
        proxy.reset_all();
        eventually("one more than is open was tried", async || {
            proxy.accepted() >= accepted + 3
        })
        .await;
        full(&service).await;
        assert_eq!(
            service
                .metric("redis_connections_closed_total", &["reason=\"lost\""])
                .await,
            f64::from(2 * round)
        );
    }
    none_failed(load).await;
}

async fn swallowed_by(fault: Fault) {
    let (_redis, proxy, service) = through_a_proxy([
        ("REQUEST_TIMEOUT", "1s"),
        ("REDIS_COMMAND_TIMEOUT", "400ms"),
    ])
    .await;
    let load = under_load(&service, 4).await;
    proxy.set(fault);
    for _ in 0..3 {
        let response = wait_for_problem(&service, 504, "timed-out").await;
        assert!(response.took < Duration::from_secs(3), "{response:?}");
    }
    eventually("/readyz is 503", async || {
        service.readiness().await.0 == 503
    })
    .await;
    let response = ask(&service).await;
    assert!(response.took < Duration::from_secs(3), "{response:?}");
    proxy.set(Fault::None);
    back_within_5_s(&service).await;
    more(&load, 50).await;
    let (_, failures) = load.stop().await;
    only(
        &failures,
        &[
            (504, "timed-out"),
            (503, "redis-unavailable"),
            (503, "connection-lost"),
        ],
    );
    service.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_in_a_black_hole_is_a_504_within_the_deadline_and_service_when_it_closes() {
    swallowed_by(Fault::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_whose_answers_are_lost_is_a_504_within_the_deadline_and_service_when_they_come() {
    swallowed_by(Fault::HalfOpen).await;
}

/// Nothing ever closes them; a new one would be answered.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_forgotten_are_replaced_within_5_s() {
    let (_redis, proxy, service) = through_a_proxy([]).await;
    let load = under_load(&service, 8).await;
    proxy.forget(proxy.accepted());
    // All of them: no request can be answered before one is closed.
    back_within_5_s(&service).await;
    full(&service).await;
    more(&load, 50).await;
    let silent = ["reason=\"silent\""];
    let silent = service
        .metric("redis_connections_closed_total", &silent)
        .await;
    assert_eq!(silent, 2.0);
    let (_, failures) = load.stop().await;
    only(&failures, &[(504, "timed-out")]);
}

/// The others take over: a request that was on it goes to another within its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_that_was_forgotten_costs_no_request() {
    let (_redis, proxy, service) = through_a_proxy([]).await;
    let load = under_load(&service, 8).await;
    proxy.forget(proxy.accepted() - 1);
    eventually("it is given up", async || {
        let silent = ["reason=\"silent\""];
        service
            .metric("redis_connections_closed_total", &silent)
            .await
            >= 1.0
    })
    .await;
    full(&service).await;
    more(&load, 50).await;
    none_failed(load).await;
}

/// As slow as may be, and slower: a request that cannot be answered in time is a 504 in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_slow_answers_or_504s_within_the_deadline() {
    let (_redis, proxy, service) = through_a_proxy([]).await;
    let load = under_load(&service, 4).await;
    more(&load, 100).await;
    proxy.set(Fault::Delay(Duration::from_millis(150)));
    let slow = ask(&service).await;
    assert_eq!(slow.status, 200);
    assert!(slow.took >= Duration::from_millis(300));
    none_failed(load).await;

    // A command is about 90 bytes.
    proxy.set(Fault::Throttle(20));
    let response = wait_for_problem(&service, 504, "timed-out").await;
    assert!(response.took < Duration::from_secs(5), "{response:?}");
    proxy.set(Fault::None);
    back_within_5_s(&service).await;
}

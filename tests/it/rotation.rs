//! Tokens rotate under load without a failed request.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::{Azure, Load, MonitoredService, RedisServer, Service, eventually};

/// `dev --token-lifetime 5s` for a minute at 64 connections: the promise, as counts.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_and_no_connection_opens_while_tokens_rotate_for_a_minute() {
    let service = Service::start(
        &["dev", "--token-lifetime", "5s"],
        [("RUST_LOG", "warn,entra_redis_service::app=info")],
    )
    .await;
    service.ready().await;
    let load = Load::start(&service.url("/sample"), 64);
    sleep(Duration::from_secs(3)).await;
    let opened_at_first = service.metric("redis_connections_opened_total", &[]).await;
    sleep(Duration::from_secs(57)).await;
    let (good, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(good > 1000, "{good}");
    wait_stable(&service).await;

    let opened = service.metric("redis_connections_opened_total", &[]).await;
    assert_eq!((opened_at_first, opened), (2.0, 2.0));
    assert_eq!(
        service.metric("redis_connections_closed_total", &[]).await,
        0.0
    );
    let tokens = service
        .metric("entra_token_refresh_total", &["outcome=\"success\""])
        .await;
    let rotations = tokens - 1.0;
    assert!(
        rotations >= 12.0,
        "{rotations} rotations in a minute of 5 s tokens"
    );
    let wanted = opened * rotations;
    let authenticated = service
        .metric(
            "redis_auth_total",
            &["kind=\"reauth\"", "outcome=\"success\""],
        )
        .await;
    assert!(
        authenticated <= wanted && authenticated >= 0.99 * wanted,
        "{authenticated} of {wanted}"
    );
    println!(
        "{good} requests, 0 failures, {rotations} rotations, {authenticated} of {wanted} re-AUTHs, {opened} connections"
    );
}

/// Waits until each connection is authenticated with the newest token, which takes a stagger after each rotation.
async fn wait_stable(service: &Service) {
    let start = Instant::now();
    loop {
        let metrics = service.text("/metrics").await;
        let value = |name| crate::support::metric(&metrics, name, &[]);
        let token = value("entra_token_expiry_timestamp_seconds");
        let connections = value("redis_connection_token_expiry_timestamp_seconds");
        if token == connections {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{token} {connections}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// The same behind the proxy with a real redis-server: what Redis itself counts.
#[tokio::test(flavor = "multi_thread")]
async fn redis_itself_sees_no_more_connections_than_the_pool_has() {
    let redis = RedisServer::start().await;
    let arguments = ["dev", "--token-lifetime", "2s", "--redis", &redis.address()];
    let service = Service::start(&arguments, [("REDIS_POOL_SIZE", "3")]).await;
    service.ready().await;
    let load = Load::start(&service.url("/sample"), 16);
    sleep(Duration::from_secs(15)).await;
    let (good, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(good > 100, "{good}");
    let info: String = redis::cmd("INFO")
        .arg("clients")
        .query_async(&mut redis.admin().await)
        .await
        .expect("INFO");
    let clients = info
        .lines()
        .find_map(|line| line.strip_prefix("connected_clients:"));
    // Three of the pool and the one that counts; redis-server frees those of the start-up checks later.
    assert_eq!(clients, Some("4"), "{info}");
    assert_eq!(
        service.metric("redis_connections_opened_total", &[]).await,
        3.0
    );
}

/// The authentication of each connection expires with its token unless it was renewed: without a newer one, Redis refuses.
#[tokio::test]
async fn when_entra_stays_away_past_expiry_callers_get_a_named_503_and_service_resumes_with_it() {
    use entra_redis_emulator::EntraFault;
    let azure = Azure::with_lifetime(3).await;
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    azure.controls.set_entra(EntraFault::Status(500));
    eventually("no token is left", async || {
        service.get("/sample").await.status() == 503
    })
    .await;
    assert_eq!(service.get("/sample").await.headers()["retry-after"], "5");
    eventually("the reason is named", async || {
        service.text("/sample").await.contains("problem:no-token")
    })
    .await;
    let (status, report) = service.readiness().await;
    assert_eq!(status, 503);
    assert_eq!(report["checks"]["token"]["status"], "failed", "{report}");
    assert_eq!(service.get("/healthz").await.status(), 200);

    azure.controls.set_entra(EntraFault::None);
    let back = Instant::now();
    eventually("service resumes", async || {
        service.get("/sample").await.status() == 200
    })
    .await;
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "the promise is 5 s: {:?}",
        back.elapsed()
    );
    service.ready().await;
}

/// A brief failure of Entra ID, or the same token again, costs nothing while the current token lives.
#[tokio::test(flavor = "multi_thread")]
async fn entra_failing_for_most_of_a_tokens_life_costs_no_request() {
    use entra_redis_emulator::EntraFault;
    let azure = Azure::with_lifetime(8).await;
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    let load = Load::start(&service.url("/sample"), 8);
    for fault in [
        EntraFault::Status(500),
        EntraFault::SameToken,
        EntraFault::Garbage,
    ] {
        // A new token is asked for at 65 to 75 % of 8 s: the fault hits that request, and is gone before the token expires.
        let issued = async || azure.controls.counts().tokens_issued;
        let before = issued().await;
        eventually("a fresh token", async || issued().await > before).await;
        azure.controls.set_entra(fault);
        sleep(Duration::from_millis(7200)).await;
        azure.controls.set_entra(EntraFault::None);
    }
    let (good, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(good > 100, "{good}");
    let outcomes =
        ["success", "unchanged", "failure"].map(|outcome| format!("outcome=\"{outcome}\""));
    for outcome in outcomes {
        let count = service
            .metric("entra_token_refresh_total", &[&outcome])
            .await;
        assert!(count >= 1.0, "{outcome} was not counted");
    }
    assert_eq!(
        service.metric("redis_connections_opened_total", &[]).await,
        2.0
    );
}

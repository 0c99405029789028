//! Starting without what it needs, and stopping in order.

use std::time::Duration;

use entra_redis_emulator::{EntraFault, Options};
use tokio::time::{Instant, sleep};

use crate::support::{Azure, Load, MonitoredService, Port, RedisServer, Service, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_fails_no_accepted_request_and_exits_0() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    environment.push(("DRAIN_DELAY".to_owned(), "1s".to_owned()));
    let mut service = Service::start(&[], environment).await;
    service.ready().await;
    let load = Load::start(&service.url("/sample"), 32);
    eventually("load runs", async || load.good() > 200).await;
    load.server_may_end();
    service.signal("-TERM");
    let signalled = Instant::now();
    // Not ready immediately, while requests are still answered.
    eventually("not ready", async || service.readiness().await.0 == 503).await;
    let (_, report) = service.readiness().await;
    assert_eq!(report["checks"]["lifecycle"]["phase"], "draining");
    let at_drain = load.good();
    let status = service.end().await;
    assert_eq!(status.code(), Some(0), "{}", service.log());
    let (good, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(good > at_drain, "requests were answered while draining");
    assert!(
        signalled.elapsed() < Duration::from_secs(1 + 20 + 1 + 1),
        "{:?}",
        signalled.elapsed()
    );
    let log = service.log();
    assert!(log.contains("draining") && log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn while_draining_responses_make_clients_reconnect() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    environment.push(("DRAIN_DELAY".to_owned(), "3s".to_owned()));
    let mut service = Service::start(&[], environment).await;
    service.ready().await;
    assert!(
        !service
            .get("/sample")
            .await
            .headers()
            .contains_key("connection")
    );
    service.signal("-TERM");
    eventually("answers carry `Connection: close`", async || {
        service
            .get("/sample")
            .await
            .headers()
            .get("connection")
            .is_some_and(|v| v == "close")
    })
    .await;
    assert_eq!(service.get("/healthz").await.status(), 200);
    assert_eq!(service.end().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_before_a_token_was_ever_had_exits_0() {
    let azure = Azure::with_lifetime(60).await;
    azure.controls.set_entra(EntraFault::Hang);
    let mut service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    service.signal("-TERM");
    assert_eq!(service.end().await.code(), Some(0), "{}", service.log());
}

#[tokio::test]
async fn a_second_signal_stops_it_immediately() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    environment.push(("DRAIN_DELAY".to_owned(), "60s".to_owned()));
    let mut service = Service::start(&[], environment).await;
    service.signal("-INT");
    service.event("draining").await;
    service.signal("-INT");
    assert_eq!(service.end().await.code(), Some(1));
}

#[tokio::test]
async fn open_requests_are_finished_after_sigterm() {
    let redis = RedisServer::start().await;
    let environment = [
        ("REDIS_ENDPOINT", redis.address()),
        ("REDIS_AUTH", "none".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
        ("REDIS_COMMAND_TIMEOUT", "5s".to_owned()),
        ("REQUEST_TIMEOUT", "5s".to_owned()),
    ];
    let mut service = Service::start(&[], environment).await;
    service.ready().await;
    // Redis does not respond for a second, so the request is open when the signal comes.
    let mut admin = redis.admin().await;
    redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(1000)
        .query_async::<()>(&mut admin)
        .await
        .expect("PAUSE");
    let request = tokio::spawn(service.client.get(service.url("/sample")).send());
    sleep(Duration::from_millis(200)).await;
    service.signal("-TERM");
    let response = request.await.expect("no panic").expect("it is answered");
    assert_eq!(response.status(), 200);
    assert_eq!(service.end().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_token_at_start_it_stays_up_reports_it_and_recovers_by_itself() {
    let azure = Azure::with_lifetime(60).await;
    azure.controls.set_entra(EntraFault::Status(503));
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    eventually("the failure is known", async || {
        let (_, report) = service.readiness().await;
        report["checks"]["token"]["last_failure"] == "refused"
    })
    .await;
    let (status, report) = service.readiness().await;
    assert_eq!((status, &report["ready"]), (503, &false.into()));
    let token = &report["checks"]["token"];
    assert_eq!(token["detail"], "no token yet; the credential was refused");
    assert_eq!(token.get("expires_in_seconds"), None);
    assert_eq!(service.get("/healthz").await.status(), 200);
    let response = service.get("/sample").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert!(
        response
            .text()
            .await
            .expect("a complete body")
            .contains("problem:no-token")
    );
    let metrics = service.text("/metrics").await;
    assert!(
        !metrics.contains("\nentra_token_expiry_timestamp_seconds"),
        "absent, not 0:\n{metrics}"
    );

    azure.controls.set_entra(EntraFault::None);
    service.ready().await;
    assert_eq!(service.get("/sample").await.status(), 200);
}

#[tokio::test]
async fn with_an_unreachable_token_endpoint_it_stays_up_and_reports_it() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    let unused = Port::reserve();
    environment.push((
        "AZURE_AUTHORITY_HOST".to_owned(),
        format!("https://localhost:{unused}/"),
    ));
    let service = Service::start(&[], environment).await;
    eventually("the failure is known", async || {
        let (_, report) = service.readiness().await;
        report["checks"]["token"]["last_failure"] == "failed"
    })
    .await;
    assert_eq!(service.get("/healthz").await.status(), 200);
    assert_eq!(service.get("/sample").await.status(), 503);
}

#[tokio::test]
async fn without_redis_at_start_it_stays_up_reports_it_and_recovers_by_itself() {
    let port = Port::reserve();
    let environment = [
        ("REDIS_ENDPOINT", format!("localhost:{port}")),
        ("REDIS_AUTH", "none".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
    ];
    let service = MonitoredService::start(environment).await;
    eventually("the failure is known", async || {
        let (_, report) = service.readiness().await;
        report["checks"]["redis"]["reason"] == "no_answer"
    })
    .await;
    let (status, report) = service.readiness().await;
    assert_eq!(status, 503);
    let redis = &report["checks"]["redis"];
    assert_eq!(
        redis["detail"],
        "Redis does not answer; 0 of 1 connections are open"
    );
    assert_eq!(redis["connections_open"], 0);
    assert_eq!(redis["connections_wanted"], 1);
    assert_eq!(redis.get("primaries"), None);
    assert_eq!(report["checks"]["clustering"]["reason"], "no_answer");
    assert_eq!(report["checks"]["token"]["status"], "not_applicable");
    assert_eq!(service.get("/healthz").await.status(), 200);
    let response = service.get("/sample").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    assert!(
        response
            .text()
            .await
            .expect("a complete body")
            .contains("problem:redis-unavailable")
    );

    let mut redis = RedisServer::start_on(port).await;
    service.ready().await;
    assert_eq!(service.get("/sample").await.status(), 200);

    // The same while it runs: lost, reported, and back.
    redis.kill();
    eventually("not ready", async || service.readiness().await.0 == 503).await;
    assert_eq!(service.get("/sample").await.status(), 503);
    redis.restart().await;
    service.ready().await;
    assert_eq!(service.get("/sample").await.status(), 200);
}

#[tokio::test]
async fn redis_behind_the_proxy_down_at_start_is_the_same_case() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let azure = Azure::start(Options {
        redis: Some(redis.address()),
        ..Options::default()
    })
    .await;
    let service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    eventually("the token is there, Redis is not", async || {
        let (_, report) = service.readiness().await;
        report["checks"]["token"]["status"] == "passed"
            && report["checks"]["redis"]["status"] == "failed"
    })
    .await;
    assert_eq!(service.get("/sample").await.status(), 503);
    redis.restart().await;
    service.ready().await;
    assert_eq!(service.get("/sample").await.status(), 200);
}

/// An endpoint that swallows requests is left soon, so its return is found soon.
#[tokio::test]
async fn service_resumes_soon_after_entra_stopped_hanging() {
    let azure = Azure::with_lifetime(60).await;
    azure.controls.set_entra(EntraFault::Hang);
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    // The fourth attempt is given more time than service may then take to be back.
    eventually("three attempts failed", async || {
        let failure = ["outcome=\"failure\""];
        let failed = service.metric("entra_token_refresh_total", &failure).await;
        failed >= 3.0
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(service.get("/sample").await.status(), 503);
    azure.controls.set_entra(EntraFault::None);
    let back = Instant::now();
    service.ready().await;
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );
}

/// Access rules may leave out PING; the refusal is an answer.
#[tokio::test]
async fn without_permission_for_ping_the_service_is_ready() {
    let redis = RedisServer::start().await;
    let mut rules = redis::cmd("ACL");
    rules.arg("SETUSER").arg("default");
    rules.arg(&["resetpass", ">a test's key", "-@all", "+set", "+get", "~*"]);
    rules
        .query_async::<()>(&mut redis.admin().await)
        .await
        .expect("ACL");
    let environment = [
        ("REDIS_ENDPOINT", redis.address()),
        ("REDIS_AUTH", "key".to_owned()),
        ("REDIS_KEY", "a test's key".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
    ];
    let service = Service::start(&[], environment).await;
    service.ready().await;
    assert_eq!(service.get("/sample").await.status(), 200);
}

#[tokio::test]
async fn redis_that_accepts_and_does_not_respond_is_a_503_within_the_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let environment = [
        (
            "REDIS_ENDPOINT",
            silent.local_addr().expect("bound").to_string(),
        ),
        ("REDIS_AUTH", "none".to_owned()),
        ("REDIS_TLS", "false".to_owned()),
    ];
    let service = MonitoredService::start(environment).await;
    let response = service.get("/sample").await;
    assert_eq!(response.status(), 503);
    assert!(
        response
            .text()
            .await
            .expect("a complete body")
            .contains("problem:redis-unavailable")
    );
}

/// A reader of the log that stops reading, or goes away, must not stop the service.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_stops_neither_requests_nor_the_exit() {
    let redis = RedisServer::start().await;
    for is_closed in [false, true] {
        let port = Port::reserve();
        let mut child = crate::support::command(&[])
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("DRAIN_DELAY", "0s")
            .env("REDIS_ENDPOINT", redis.address())
            .env("REDIS_AUTH", "none")
            .env("REDIS_TLS", "false")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary was built");
        // Kept open and not read, so that the pipe fills; or closed.
        let mut unread = child.stdout.take();
        if is_closed {
            unread = None;
            child.stderr = None;
        }
        let client = crate::support::client();
        let status = async |path: &str| {
            let answer = client
                .get(format!("http://127.0.0.1:{port}{path}"))
                .send()
                .await;
            answer.map(|answer| answer.status().as_u16())
        };
        eventually("ready", async || matches!(status("/readyz").await, Ok(200))).await;
        // Each request logs more than 200 bytes; a pipe holds 64 KiB.
        for _ in 0..2000 {
            assert_eq!(status("/sample").await.expect("it answers"), 200);
        }
        assert_eq!(status("/healthz").await.expect("it answers"), 200);
        let id = child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status();
        assert!(sent.expect("kill is everywhere").success());
        let exited = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        assert_eq!(
            exited
                .expect("it exits in time")
                .expect("our child process")
                .code(),
            Some(0)
        );
        drop(unread);
    }
}

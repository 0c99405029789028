//! Faults of Redis itself: gone, full, out of memory, read-only, slow, or with authentication changed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use entra_redis::{
    identity::{AccessToken, Error, TokenSource},
    pool::{Error as PoolError, Pool},
    secret::Secret,
};

use entra_redis_emulator::Options;

use super::{
    ask, back_within_5_s, more, none_failed, only, plain, under_load, wait_for_problem, with,
};
use crate::support::{
    Azure, Certificates, IncrementLoad, MonitoredService, ReadLoad, RedisServer, eventually,
};

/// Runs an administrator's command.
async fn administer(redis: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let mut admin = redis.admin().await;
    let done = command.query_async::<redis::Value>(&mut admin);
    done.await
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stopped_is_a_named_503_and_its_return_is_service_within_5_s() {
    let mut redis = RedisServer::start().await;
    let azure = Azure::start(Options {
        redis: Some(redis.address()),
        ..Options::default()
    })
    .await;
    let service = MonitoredService::start(azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    let load = under_load(&service, 4).await;
    for _ in 0..2 {
        redis.kill();
        let response = wait_for_problem(&service, 503, "redis-unavailable").await;
        assert_eq!(response.retry_after.as_deref(), Some("5"));
        redis.restart().await;
        back_within_5_s(&service).await;
        more(&load, 50).await;
    }
    let (_, failures) = load.stop().await;
    only(
        &failures,
        &[(503, "redis-unavailable"), (503, "connection-lost")],
    );
    service.ready().await;
}

/// As when Azure disables access keys: every connection is dropped, and the key is no longer valid.
#[tokio::test(flavor = "multi_thread")]
async fn an_access_key_disabled_is_named_to_callers_and_by_readyz() {
    let redis = RedisServer::start().await;
    administer(&redis, &["CONFIG", "SET", "requirepass", "a test's key"]).await;
    let mut environment = plain(redis.address());
    environment.extend(with([("REDIS_AUTH", "key"), ("REDIS_KEY", "a test's key")]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    let url = format!("redis://:a%20test's%20key@{}", redis.address());
    let admin = redis::Client::open(url).expect("it is a URL");
    let admin = admin.get_multiplexed_async_connection().await;
    let mut admin = admin.expect("it answers");

    let mut disable = redis::pipe();
    disable
        .cmd("CONFIG")
        .arg(&["SET", "requirepass", "another"]);
    disable
        .cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let disabled = disable.query_async::<redis::Value>(&mut admin).await;
    disabled.expect("the administrator may");
    let response = wait_for_problem(&service, 503, "authentication-refused").await;
    assert_eq!(response.retry_after.as_deref(), Some("5"));
    eventually("/readyz names the cause", async || {
        let (status, report) = service.readiness().await;
        status == 503 && report["checks"]["redis"]["reason"] == "authentication_refused"
    })
    .await;

    let mut enable = redis::cmd("CONFIG");
    enable.arg(&["SET", "requirepass", "a test's key"]);
    let enabled = enable.query_async::<()>(&mut admin).await;
    enabled.expect("the administrator may");
    back_within_5_s(&service).await;
}

struct UnknownUser;

#[async_trait::async_trait]
impl TokenSource for UnknownUser {
    fn name(&self) -> &'static str {
        "UnknownUser"
    }

    async fn fetch(&self) -> Result<AccessToken, Error> {
        Ok(AccessToken {
            username: "unknown-user".to_owned(),
            secret: Secret::new("a test's token"),
            expires_at: SystemTime::now() + Duration::from_secs(3600),
        })
    }
}

/// Azure then drops every connection, theirs as well: idempotent commands succeed, the others run once or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn disabled_access_keys_cost_token_users_nothing() {
    let certificates = Certificates::for_name("localhost");
    let redis = RedisServer::with_tls(&certificates).await;
    let user = [
        "ACL",
        "SETUSER",
        "unknown-user",
        "on",
        ">a test's token",
        "+@all",
        "~*",
    ];
    administer(&redis, &user).await;
    let mut admin = redis.admin().await;
    let endpoint = format!("localhost:{}", redis.tls_port);
    let pool = Pool::builder(endpoint.parse().expect("a valid address"))
        .ca_file(certificates.path("ca.pem"))
        .token_source(Arc::new(UnknownUser))
        .build()
        .expect("the certificate is there");
    pool.wait_connected().await;
    let readers = ReadLoad::start(&pool, 4);
    let traffic = IncrementLoad::start(&pool, 4);
    eventually("traffic", async || traffic.good() > 50).await;
    let mut disable = redis::pipe();
    disable
        .cmd("ACL")
        .arg(&["SETUSER", "default", "off", "resetpass"]);
    disable
        .cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let disabled = disable.query_async::<(String, u64)>(&mut admin).await;
    let (_, killed) = disabled.expect("the administrator may");
    assert!(killed > 0, "there was something to drop");
    let before = traffic.good();
    eventually("more traffic", async || traffic.good() > before + 200).await;
    readers.stop().await;
    for failure in traffic.stop().await.failures {
        let error = failure.error;
        assert!(matches!(error, PoolError::OutcomeUnknown(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_connection_limit_open_connections_work_and_a_new_service_waits() {
    let redis = RedisServer::start().await;
    let service = MonitoredService::start(plain(redis.address())).await;
    service.ready().await;
    eventually("the pool is full", async || {
        service.metric("db_client_connection_count", &[]).await == 2.0
    })
    .await;
    let load = under_load(&service, 4).await;
    // The administrator's own connection is the third.
    let mut admin = redis.admin().await;
    let mut limit = async |count: u32| {
        let mut limit = redis::cmd("CONFIG");
        limit.arg("SET").arg("maxclients").arg(count);
        let limited = limit.query_async::<()>(&mut admin).await;
        limited.expect("the administrator may");
    };
    limit(3).await;
    for auth in ["none", "key"] {
        let mut environment = plain(redis.address());
        environment.extend(with([("REDIS_AUTH", auth)]));
        if auth == "key" {
            environment.extend(with([("REDIS_KEY", "a test's key")]));
        }
        let second = MonitoredService::start(environment).await;
        for _ in 0..5 {
            let response = ask(&second).await;
            let problem = (response.status, response.problem.as_str());
            assert_eq!(problem, (503, "redis-unavailable"), "{auth}");
            assert_eq!(response.retry_after.as_deref(), Some("5"));
        }
        if auth == "none" {
            limit(100).await;
            back_within_5_s(&second).await;
            second.ready().await;
            limit(3).await;
        }
    }
    none_failed(load).await;
    assert_eq!(
        service.metric("redis_connections_opened_total", &[]).await,
        2.0
    );
}

/// Redis refuses: reported immediately, asked once, and the connection is kept.
#[tokio::test(flavor = "multi_thread")]
async fn redis_without_memory_or_a_replica_refuses_and_is_served_again_when_fixed() {
    let redis = RedisServer::start().await;
    let service = MonitoredService::start(plain(redis.address())).await;
    service.ready().await;
    assert_eq!(ask(&service).await.status, 200);
    let faults: [(&str, &[&str], &[&str]); 2] = [
        (
            "OOM",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        (
            "READONLY",
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
    ];
    for (code, fault, fix) in faults {
        administer(&redis, fault).await;
        let response = ask(&service).await;
        assert_eq!(
            (response.status, response.problem.as_str()),
            (503, "redis-refused"),
            "{code}"
        );
        assert_eq!(response.retry_after.as_deref(), Some("5"));
        eventually("the log has Redis' error code", async || {
            service.log().contains(code)
        })
        .await;
        administer(&redis, fix).await;
        assert_eq!(ask(&service).await.status, 200, "{code}");
    }
    let metrics = service.text("/metrics").await;
    let metric = |name| crate::support::metric(&metrics, name, &[]);
    assert_eq!(metric("redis_operation_retries_total"), 0.0);
    assert_eq!(metric("redis_connections_closed_total"), 0.0);
}

/// Longer than a command, a request and a connection's `acquire_timeout`: the deadline holds from the first to the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_redis_is_a_504_within_the_deadline_and_service_once_it_resumes() {
    let redis = RedisServer::start().await;
    let mut environment = plain(redis.address());
    environment.extend(with([
        ("REQUEST_TIMEOUT", "1s"),
        ("REDIS_COMMAND_TIMEOUT", "400ms"),
    ]));
    let service = MonitoredService::start(environment).await;
    service.ready().await;
    let load = under_load(&service, 4).await;
    redis.pause();
    for _ in 0..6 {
        let response = ask(&service).await;
        assert_ne!(response.status, 200);
        assert!(response.took < Duration::from_secs(3), "{response:?}");
    }
    redis.resume();
    back_within_5_s(&service).await;
    let (_, failures) = load.stop().await;
    only(&failures, &[(504, "timed-out"), (503, "redis-unavailable")]);
    assert!(failures.keys().any(|failure| failure.contains("timed-out")));
}

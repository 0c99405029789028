//! Reports of common failures, each caused for real: the three that Microsoft's sample documents, and the fifteen that users
//! of Entra ID with Redis report most. The whole report is a snapshot in `reports/`, with the exit code; it must name the
//! fault and its fix.
//!
//! A report that changed on purpose is accepted with `INSTA_UPDATE=always`, and read before it is committed.

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use entra_redis::pool::Pool;
use entra_redis_emulator::{EntraFault, RedisFault};
use entra_redis_service::{
    app::{App, install_metrics},
    config::Config,
    http::Problem,
};
use tokio_util::sync::CancellationToken;

use super::{Variables, ask, before, beside, nothing_secret, plain, run, with};
use crate::support::{
    Azure, Fault, Port, Proxy, RedisServer, eventually, in_own_process, metric, write_program,
};

/// Patterns of values that differ from run to run, and their replacements.
const VARIES: [(&str, &str); 14] = [
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "GUID"),
    (r"\b[0-9a-f]{32}\b", "GUID-WITHOUT-DASHES"),
    (r"(localhost|127\.0\.0\.1):\d+", "${1}:PORT"),
    (r"/tmp/[^ :]+", "PATH"),
    (
        r"(expires|expires,|for another) in \d+ (s|min|days)",
        "$1 in N $2",
    ),
    (r"(for another|expires, in|valid for) \d+ s", "$1 N s"),
    (r"\b\d+(\.\d+)? (ms|min|times)\b", "N $2"),
    (r"\d+ PINGs", "N PINGs"),
    (r"\d+ connections were opened", "N connections were opened"),
    (r"\d+ stopped responding", "N stopped responding"),
    (r"Timestamp: [-0-9]+ [:0-9]+Z", "Timestamp: TIME"),
    // A connection that does not respond is closed after a while.
    (r"\d of 2 connections", "N of 2 connections"),
    // Redis writes this and closes the connection; which of the two the client notices first is a race.
    (
        r"(?m)(authentication with 127\.0\.0\.1:PORT failed: ).*$",
        "${1}CLOSED BY REDIS",
    ),
];

/// Compares the whole report with the snapshot of this name.
async fn reads(name: &str, variables: &Variables) {
    let output = run(variables, &[]).await;
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("it is text");
    nothing_secret(variables, &text);
    let code = output.status.code().expect("it was not killed");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("reports");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // The client id and the tenant matter where they appear: they get names of their own.
    for (name, stands) in [
        ("AZURE_CLIENT_ID", "CLIENT-ID"),
        ("AZURE_TENANT_ID", "TENANT-ID"),
    ] {
        if let Some((_, value)) = variables.iter().find(|(known, _)| known == name)
            && !value.is_empty()
        {
            settings.add_filter(value, stands);
        }
    }
    for (varies, stands) in VARIES {
        settings.add_filter(varies, stands);
    }
    settings.bind(|| insta::assert_snapshot!(name, format!("{text}exit code {code}")));
}

/// Starts a real Redis behind the emulator, with the variables that a service in Azure has.
async fn deployment() -> (RedisServer, Azure, Variables) {
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    let variables = azure.environment("WorkloadIdentityCredential");
    (redis, azure, variables)
}

fn variable<'a>(variables: &'a Variables, name: &str) -> &'a str {
    let found = variables.iter().find(|(known, _)| known == name);
    &found.expect("the emulator gives it").1
}

/// Microsoft's first: "No connection is available to service this operation".
#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_available() {
    let (_redis, _azure, variables) = deployment().await;
    let unused = Port::reserve();
    let wrong_port = format!("localhost:{unused}");
    let variables = with(variables, &[("REDIS_ENDPOINT", &wrong_port)]);
    reads("no-connection-is-available", &variables).await;
}

/// Microsoft's second, on a developer's machine: the Azure CLI is not logged in.
#[tokio::test(flavor = "multi_thread")]
async fn authentication_failed_because_the_cli_is_not_logged_in() {
    let (_redis, _azure, variables) = deployment().await;
    let directory = tempfile::tempdir().expect("there is room");
    let az = directory.path().join("az");
    let script = "#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n";
    write_program(&az, script);
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let more = [
        ("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential"),
        ("PATH", &path),
    ];
    reads("authentication-failed", &with(variables, &more)).await;
}

/// Microsoft's second, in Azure: the identity is not registered.
#[tokio::test(flavor = "multi_thread")]
async fn authentication_failed_because_the_identity_is_unknown() {
    let (_redis, _azure, variables) = deployment().await;
    let unknown = "00000000-0000-0000-0000-000000000009";
    let variables = with(variables, &[("AZURE_CLIENT_ID", unknown)]);
    reads("authentication-failed-not-registered", &variables).await;
}

/// Microsoft's third: "Unauthorized".
#[tokio::test(flavor = "multi_thread")]
async fn unauthorized() {
    let (_redis, azure, variables) = deployment().await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    reads("unauthorized", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_1_a_token_captured_at_start() {
    let (_redis, _azure, variables) = deployment().await;
    // As a start script requests one and passes it on.
    let url = format!(
        "{}?resource=https%3A%2F%2Fredis.azure.com&api-version=2019-08-01",
        variable(&variables, "IDENTITY_ENDPOINT")
    );
    let request = crate::support::client().get(url);
    let request = request.header("x-identity-header", variable(&variables, "IDENTITY_HEADER"));
    let answer = request.send().await.expect("it answers");
    let answer = answer.text().await.expect("the body is whole");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("it is JSON");
    let token = answer["access_token"].as_str().expect("there is one");
    let more = [("REDIS_AUTH", "key"), ("REDIS_KEY", token)];
    reads("1-token-captured-at-start", &with(variables, &more)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_2_tokens_no_longer_come() {
    let (_redis, azure, variables) = deployment().await;
    azure.controls.set_token_lifetime(Duration::from_secs(20));
    let (service, variables) = beside(variables).await;
    azure.controls.set_entra(EntraFault::Status(503));
    let failures = async || {
        let failed = service.metric("entra_token_refresh_total", &["outcome=\"failure\""]);
        failed.await
    };
    eventually("a request for a token failed", async || {
        failures().await > 0.0
    })
    .await;
    reads("2-tokens-no-longer-come", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_3_a_connection_keeps_the_old_token() {
    let (_redis, azure, variables) = deployment().await;
    azure.controls.set_token_lifetime(Duration::from_secs(20));
    let (service, variables) = beside(variables).await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    let refused = async || {
        let labels = ["kind=\"reauth\"", "outcome=\"failure\""];
        service.metric("redis_auth_total", &labels).await
    };
    eventually("Redis refused a new token", async || refused().await > 1.0).await;
    reads("3-a-connection-keeps-the-old-token", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_4_a_command_that_blocks_delays_re_authentication() {
    let test = "doctor::pains::pain_4_a_command_that_blocks_delays_re_authentication";
    if !in_own_process(test).await {
        return;
    }
    let (_redis, _azure, variables) = deployment().await;
    let more = [
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("DRAIN_DELAY", "0s"),
        ("REDIS_COMMAND_TIMEOUT", "200ms"),
    ];
    let variables = with(variables, &more);
    let config = Config::new(&variables.iter().cloned().collect()).expect("it is complete");
    let metrics = install_metrics(None).expect("the only recorder");
    let app = App::bind(config, metrics).await.expect("free ports");
    let wait = async |State(pool): State<Pool>| {
        let mut pop = redis::cmd("BLPOP");
        pop.arg("nothing").arg(0);
        let popped = pool.query::<redis::Value>(&pop).await;
        popped.map(drop).map_err(Problem::from)
    };
    let app = app.routes(Router::new().route("/wait", get(wait)));
    let address = app.public_address();
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(stop.clone().cancelled_owned()));
    let client = crate::support::client();
    let ask = async |path: &str| {
        let answer = client.get(format!("http://{address}{path}")).send().await;
        let answer = answer.expect("it answers");
        (answer.status(), answer.text().await.expect("it is whole"))
    };
    eventually("ready", async || ask("/readyz").await.0 == 200).await;
    eventually("many were opened", async || {
        ask("/wait").await;
        metric(
            &ask("/metrics").await.1,
            "redis_connections_opened_total",
            &[],
        ) > 9.0
    })
    .await;
    eventually("ready", async || ask("/readyz").await.0 == 200).await;
    let port = address.port().to_string();
    reads(
        "4-a-command-that-blocks",
        &with(variables, &[("PORT", &port)]),
    )
    .await;
    stop.cancel();
    running.await.expect("no panic").expect("an orderly stop");
}

/// The same for all connections at once.
#[tokio::test(flavor = "multi_thread")]
async fn pain_4_a_script_blocks_the_cache() {
    let redis = RedisServer::with_arguments(&["--busy-reply-threshold", "1"]).await;
    let mut admin = redis.admin().await;
    let script = tokio::spawn(async move {
        let mut eval = redis::cmd("EVAL");
        eval.arg("while true do end").arg(0);
        eval.query_async::<()>(&mut admin).await
    });
    eventually("the script runs", async || {
        let mut admin = redis.admin().await;
        let ping = redis::cmd("PING").query_async::<()>(&mut admin).await;
        ping.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    reads("4-a-script-blocks-the-cache", &plain(&redis.address())).await;
    script.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_5_a_connection_that_outlives_its_token() {
    let (redis, azure, variables) = deployment().await;
    azure.controls.set_token_lifetime(Duration::from_secs(6));
    let more = [("REDIS_COMMAND_TIMEOUT", "15s"), ("REQUEST_TIMEOUT", "20s")];
    let variables = with(variables, &more);
    // Redis replies late, after the token has expired, as a cache does while it is scaled.
    () = ask(&redis, &["CLIENT", "PAUSE", "9000", "WRITE"]).await;
    reads("5-a-connection-that-outlives-its-token", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_6_a_re_authentication_is_not_answered() {
    let (_redis, azure, variables) = deployment().await;
    azure.controls.set_redis(RedisFault::HangReauth);
    let variables = with(variables, &[("REDIS_CONNECT_TIMEOUT", "2s")]);
    reads("6-a-re-authentication-is-not-answered", &variables).await;
}

/// The result of a client that opens a connection for each token and closes none.
#[tokio::test(flavor = "multi_thread")]
async fn pain_7_connections_leak_with_each_token() {
    let redis = RedisServer::start().await;
    let mut leaked = Vec::new();
    for _ in 0..10 {
        leaked.push(redis.admin().await);
    }
    for (name, value) in [("requirepass", "of-the-test"), ("maxclients", "10")] {
        let mut set = redis::cmd("CONFIG");
        set.arg(&["SET", name, value]);
        () = set
            .query_async(&mut leaked[0])
            .await
            .expect("the administrator may");
    }
    let key = [("REDIS_AUTH", "key"), ("REDIS_KEY", "of-the-test")];
    reads(
        "7-connections-leak-with-each-token",
        &with(plain(&redis.address()), &key),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_8_connections_are_opened_again_and_again() {
    let redis = RedisServer::with_arguments(&["--timeout", "1"]).await;
    let (service, variables) = beside(plain(&redis.address())).await;
    eventually("connections were closed", async || {
        service.metric("redis_connections_opened_total", &[]).await > 12.0
    })
    .await;
    reads("8-connections-are-opened-again-and-again", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_9_the_certificate_is_for_no_address() {
    let (_redis, _azure, variables) = deployment().await;
    let address = variable(&variables, "REDIS_ENDPOINT").replace("localhost", "127.0.0.1");
    let variables = with(variables, &[("REDIS_ENDPOINT", &address)]);
    reads("9-the-certificate-is-for-no-address", &variables).await;
}

/// The fallback to the node's identity is tested in `tests/metadata-service`, which has a network of its own.
#[tokio::test(flavor = "multi_thread")]
async fn pain_10_workload_identity_hangs() {
    let (_redis, azure, variables) = deployment().await;
    azure.controls.set_entra(EntraFault::Hang);
    reads("10-workload-identity-hangs", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_11_a_pod_that_the_webhook_did_not_mutate() {
    let (_redis, _azure, mut variables) = deployment().await;
    variables.retain(|(name, _)| !name.starts_with("AZURE_") || name == "AZURE_TOKEN_CREDENTIALS");
    let variables = with(variables, &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    reads("11-a-pod-that-the-webhook-did-not-mutate", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_12_which_identity_on_container_apps() {
    let (_redis, _azure, variables) = deployment().await;
    let more = [
        ("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential"),
        ("AZURE_CLIENT_ID", ""),
    ];
    reads(
        "12-which-identity-on-container-apps",
        &with(variables, &more),
    )
    .await;
}

/// "Azure CLI not installed", inside a pod.
#[tokio::test(flavor = "multi_thread")]
async fn pain_13_a_developers_credential_in_a_pod() {
    let (_redis, _azure, variables) = deployment().await;
    let more = [
        ("AZURE_TOKEN_CREDENTIALS", "dev"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/nonexistent"),
    ];
    reads(
        "13-a-developers-credential-in-a-pod",
        &with(variables, &more),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_14_a_node_that_is_gone_does_not_respond() {
    let (_redis, azure, variables) = deployment().await;
    let endpoint = azure.variable("REDIS_ENDPOINT");
    let proxy = Proxy::before(&endpoint.replace("localhost", "127.0.0.1")).await;
    let way = format!("localhost:{}", proxy.port);
    let more = [
        ("REDIS_ENDPOINT", way.as_str()),
        ("REDIS_CONNECT_TIMEOUT", "2s"),
    ];
    let (service, variables) = beside(with(variables, &more)).await;
    proxy.set(Fault::BlackHole);
    eventually("it is not ready", async || {
        service.readiness().await.0 == 503
    })
    .await;
    reads("14-a-node-that-is-gone-does-not-respond", &variables).await;
}

/// The client id in place of the object id: Redis returns WRONGPASS and no more.
#[tokio::test(flavor = "multi_thread")]
async fn pain_15_the_client_id_instead_of_the_object_id() {
    let (_redis, _azure, variables) = deployment().await;
    let client_id = variable(&variables, "AZURE_CLIENT_ID").to_owned();
    let variables = with(variables, &[("REDIS_USERNAME", &client_id)]);
    reads("15-the-client-id-instead-of-the-object-id", &variables).await;
}

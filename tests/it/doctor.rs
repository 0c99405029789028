//! `entra-redis doctor`: each fault is caused for real, and the report names it and its fix.

mod cache;
mod identity;
mod network;
mod pains;

use std::{
    process::Output,
    time::{Duration, Instant},
};

use entra_redis_emulator::Options;
use serde_json::Value;

use crate::support::{Azure, LIMIT, Port, RedisServer, Service, command, eventually};

type Variables = Vec<(String, String)>;

/// Runs the doctor, again while its latency step warns: with many tests at once this machine is as slow as a cache in
/// another region.
async fn run(variables: &[(String, String)], arguments: &[&str]) -> Output {
    let started = Instant::now();
    loop {
        let mut command = command(&[&["doctor"], arguments].concat());
        // No service listens there: what else runs on this machine is not part of the test.
        command.env("PORT", "1").envs(variables.iter().cloned());
        let output = command.output().await.expect("the binary was built");
        let text = String::from_utf8_lossy(&output.stdout);
        let is_slow = text.contains("each request waits at least this long");
        if !is_slow || started.elapsed() > LIMIT {
            return output;
        }
    }
}

/// Returns the findings in the order of the steps, and true if the report is healthy.
async fn report(variables: &[(String, String)]) -> (Vec<Value>, bool) {
    let output = run(variables, &["--output", "json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let healthy = report["healthy"].as_bool().expect("a verdict");
    assert_eq!(output.status.code(), Some(i32::from(!healthy)), "{report}");
    assert!(output.stderr.is_empty(), "{output:?}");
    nothing_secret(variables, &report.to_string());
    let findings = report["findings"].as_array().expect("a list");
    (findings.clone(), healthy)
}

/// Checks that no secret is in a report.
fn nothing_secret(variables: &[(String, String)], text: &str) {
    for (name, value) in variables {
        let is_secret = ["SECRET", "HEADER", "REDIS_KEY"]
            .iter()
            .any(|part| name.contains(part));
        assert!(!is_secret || !text.contains(value), "{name} is in {text}");
    }
    assert!(!text.contains("eyJ"), "a token is in {text}");
}

/// Returns observation, cause and fix of the one step that did not pass; the steps that need it were skipped.
async fn the_fault(variables: &[(String, String)], step: &str, outcome: &str) -> String {
    let (findings, healthy) = report(variables).await;
    assert_eq!(healthy, outcome == "warned", "{findings:#?}");
    let faults = findings.iter().filter(|finding| {
        !matches!(
            finding["outcome"].as_str(),
            Some("passed" | "skipped" | "not_applicable")
        )
    });
    let faults: Vec<_> = faults.collect();
    let [fault] = faults[..] else {
        panic!("one fault was caused: {faults:#?}");
    };
    assert_eq!(
        (fault["step"].as_str(), fault["outcome"].as_str()),
        (Some(step), Some(outcome)),
        "{fault:#}"
    );
    let skipped = findings
        .iter()
        .any(|finding| finding["outcome"] == "skipped");
    assert_eq!(
        skipped,
        outcome == "failed" && step != "latency",
        "{findings:#?}"
    );
    let word = |name: &str| fault[name].as_str().expect("a text").to_owned();
    format!(
        "{}\ncause: {}\nfix: {}",
        word("observed"),
        word("cause"),
        word("fix")
    )
}

/// Checks that a report contains each of these.
#[track_caller]
fn contains_all(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "{part:?} is not in:\n{report}");
    }
}

fn with(mut variables: Variables, more: &[(&str, &str)]) -> Variables {
    for (name, value) in more {
        variables.retain(|(known, _)| known != name);
        variables.push(((*name).to_owned(), (*value).to_owned()));
    }
    variables
}

fn plain(address: &str) -> Variables {
    let pairs = [
        ("REDIS_ENDPOINT", address),
        ("REDIS_AUTH", "none"),
        ("REDIS_TLS", "false"),
    ];
    with(Vec::new(), &pairs)
}

async fn before(redis: &RedisServer) -> Azure {
    Azure::start(Options {
        token_lifetime: Duration::from_secs(60),
        redis: Some(redis.address()),
        ..Options::default()
    })
    .await
}

/// A service with these variables, ready, and the same with its port, for the doctor to find it.
async fn beside(variables: Variables) -> (Service, Variables) {
    let service = Service::start(&[], variables.clone()).await;
    service.ready().await;
    let port = service.public.rsplit(':').next().expect("it has a port");
    let with_port = with(variables, &[("HOST", "127.0.0.1"), ("PORT", port)]);
    (service, with_port)
}

async fn ask<T: redis::FromRedisValue>(redis: &RedisServer, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    let mut admin = redis.admin().await;
    let answer = command.arg(&words[1..]).query_async(&mut admin).await;
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_healthy_deployment_every_step_passes_and_redis_is_left_as_it_was() {
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    () = ask(&redis, &["SET", "PreviousVisitTime", "2026-01-30T14:23:45"]).await;
    for credential in [
        "EnvironmentCredential",
        "WorkloadIdentityCredential",
        "ManagedIdentityCredential",
    ] {
        let (_service, variables) = beside(azure.environment(credential)).await;
        let (findings, healthy) = report(&variables).await;
        assert!(healthy, "{findings:#?}");
        assert_eq!(findings.len(), 12);
        assert!(
            findings
                .iter()
                .all(|finding| finding["outcome"] == "passed"),
            "{findings:#?}"
        );
        let output = run(&variables, &[]).await;
        let text = String::from_utf8(output.stdout).expect("it is text");
        nothing_secret(&variables, &text);
        assert!(
            output.status.success() && text.ends_with("\n12 passed\n"),
            "{text}"
        );
        assert!(
            !text.contains('\u{1b}'),
            "colours are for terminals: {text}"
        );
    }
    let visit: String = ask(&redis, &["GET", "PreviousVisitTime"]).await;
    assert_eq!(visit, "2026-01-30T14:23:45");
    assert_eq!(ask::<usize>(&redis, &["DBSIZE"]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_their_steps_do_not_apply() {
    let redis = RedisServer::start().await;
    let (findings, healthy) = report(&plain(&redis.address())).await;
    assert!(healthy, "{findings:#?}");
    let apart = findings
        .iter()
        .filter(|finding| finding["outcome"] == "not_applicable");
    let apart: Vec<_> = apart
        .map(|finding| finding["step"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        apart,
        [
            "tls",
            "identity_environment",
            "token",
            "claims",
            "local_service"
        ]
    );
}

/// The report as a person reads it, whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_reads_like_this() {
    let port = Port::reserve();
    let output = run(&plain(&format!("127.0.0.1:{port}")), &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert_eq!(
        text.replace(&port.to_string(), "PORT"),
        "\
✔ configuration          127.0.0.1:PORT, no authentication
✔ DNS                    127.0.0.1 resolves to 127.0.0.1 (this machine)
✘ TCP                    cannot connect to 127.0.0.1:PORT: Connection refused (os error 111)
                  cause: the host is up, but nothing listens on that port
                    fix: check the port in REDIS_ENDPOINT: Azure Managed Redis uses 10000, Azure Cache for Redis 6380
- TLS                    skipped: TCP failed
· identity environment   REDIS_AUTH is not entra: no token is used
· token                  REDIS_AUTH is not entra: no token is used
· claims                 REDIS_AUTH is not entra: no token is used
- authentication         skipped: TCP failed
- clustering policy      skipped: TCP failed
- commands               skipped: TCP failed
- latency                skipped: TCP failed
· local service          no service listens on 127.0.0.1:1

2 passed, 1 failed, 5 skipped
"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_configuration_is_reported() {
    let unset = the_fault(&Vec::new(), "configuration", "failed").await;
    contains_all(
        &unset,
        &[
            "REDIS_ENDPOINT: not set",
            "NAME.REGION.redis.azure.net",
            "entra-redis config",
        ],
    );
    let wrong = with(
        plain("localhost:1"),
        &[("REDIS_POOL_SIZE", "many"), ("REDIS_TLS", "perhaps")],
    );
    let both = the_fault(&wrong, "configuration", "failed").await;
    contains_all(
        &both,
        &[
            "REDIS_POOL_SIZE: invalid value `many`",
            "REDIS_TLS: invalid value `perhaps`",
        ],
    );

    // A pod that the webhook did not mutate.
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    let mut bare = azure.environment("WorkloadIdentityCredential");
    bare.retain(|(name, _)| !name.starts_with("AZURE_") || name == "AZURE_TOKEN_CREDENTIALS");
    let passed_by = the_fault(&bare, "configuration", "failed").await;
    contains_all(
        &passed_by,
        &[
            "AZURE_FEDERATED_TOKEN_FILE: not set",
            "azure.workload.identity/use: \"true\"",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_repeats_the_examination_until_it_is_stopped() {
    let redis = RedisServer::start().await;
    let mut child = command(&["doctor", "--watch", "--output", "json"])
        .envs(plain(&redis.address()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let id = child.id().expect("it runs").to_string();
    let output = child.stdout.take().expect("it is piped");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(output));
    for _ in 0..2 {
        let line = lines
            .next_line()
            .await
            .expect("it is text")
            .expect("one more");
        let report: Value = serde_json::from_str(&line).expect("one document a line");
        assert_eq!(report["healthy"], true);
    }
    let stopped = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(stopped.expect("kill is everywhere").success());
    let mut status = None;
    eventually("it exits", async || {
        status = child.try_wait().expect("it is ours");
        status.is_some()
    })
    .await;
    assert!(status.expect("it has exited").success());
}

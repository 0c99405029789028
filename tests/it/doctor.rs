//! `entra-redis doctor`: each fault is caused for real, and the report names it and its fix.

mod pains;

use std::{
    process::Output,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entra_redis::emulator::{self, EntraFault, Options, RedisFault};
use serde_json::Value;

use crate::support::{
    Azure, Certificates, RedisCluster, RedisServer, Service, command, eventually, free_port,
};

type Variables = Vec<(String, String)>;

async fn run(variables: &[(String, String)], arguments: &[&str]) -> Output {
    let mut command = command(&[&["doctor"], arguments].concat());
    // No service listens there: what else runs on this machine is not part of the test.
    command
        .env("PORT", "1")
        .envs(variables.iter().cloned())
        .output()
        .await
        .expect("the binary was built")
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
    let port = free_port();
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
        &["REDIS_POOL_SIZE: met `many`", "REDIS_TLS: met `perhaps`"],
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
async fn a_network_fault_is_reported_by_its_step() {
    let unknown = the_fault(&plain("nowhere.invalid:10000"), "dns", "failed").await;
    contains_all(
        &unknown,
        &["nowhere.invalid", "privatelink.redis.azure.net"],
    );

    // A full queue takes no further connection, as a firewall lets none through.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("sockets are to be had");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    full.bind(&any.into())
        .and_then(|()| full.listen(0))
        .expect("loopback has free ports");
    let address = full
        .local_addr()
        .expect("it is bound")
        .as_socket()
        .expect("it is IPv4");
    let _first = std::net::TcpStream::connect(address).expect("the queue has one place");
    let unreachable = with(
        plain(&address.to_string()),
        &[("REDIS_CONNECT_TIMEOUT", "500ms")],
    );
    let unreachable = the_fault(&unreachable, "tcp", "failed").await;
    contains_all(
        &unreachable,
        &[&address.to_string(), "0.5s", "firewall", "private endpoint"],
    );

    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    let no_tls = with(
        azure.environment("EnvironmentCredential"),
        &[("REDIS_ENDPOINT", &format!("localhost:{}", redis.port))],
    );
    let no_tls = the_fault(&no_tls, "tls", "failed").await;
    contains_all(&no_tls, &["check the port in REDIS_ENDPOINT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_refused_with_its_fault() {
    let good = Certificates::for_name("localhost");
    for (certificates, parts) in [
        (
            good.another("elsewhere.example"),
            [
                "elsewhere.example",
                "the certificate is for another name",
                "REDIS_ENDPOINT",
            ],
        ),
        (
            Certificates::for_name("elsewhere.example").another("localhost"),
            ["UnknownIssuer", "does not trust", "REDIS_CA_FILE"],
        ),
        (
            good.expired("localhost"),
            ["expired", "has expired", "clock"],
        ),
        (
            good.but("localhost", |it| {
                it.not_before = rcgen::date_time_ymd(2090, 1, 1)
            }),
            [
                "not valid yet",
                "or this machine's clock",
                "clock is behind",
            ],
        ),
    ] {
        let redis = RedisServer::start_on(free_port(), Some(&certificates)).await;
        let variables = trusting(&redis, &good);
        contains_all(&the_fault(&variables, "tls", "failed").await, &parts);
    }

    // One that expires soon is valid, with a warning.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later than 1970");
    let soon = good.but("localhost", |it| {
        it.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3 * 24 * 3600);
    });
    let redis = RedisServer::start_on(free_port(), Some(&soon)).await;
    let soon = trusting(&redis, &good);
    let (findings, _) = report(&soon).await;
    let tls = findings.iter().find(|finding| finding["step"] == "tls");
    let tls = tls.expect("it was taken");
    assert_eq!(tls["outcome"], "warned", "{tls:#}");
    contains_all(
        &tls.to_string(),
        &[
            "certificate for localhost, issued by CN=authority for localhost",
            "to 20",
            "in 2 days",
            "is renewed",
        ],
    );

    // Azure's cipher suites of TLS 1.2 are not supported here.
    let only_old = [
        "--tls-protocols",
        "TLSv1.2",
        "--tls-ciphers",
        "ECDHE-ECDSA-AES128-SHA",
    ];
    let redis = RedisServer::start_with(free_port(), Some(&good), &only_old).await;
    let old = the_fault(&trusting(&redis, &good), "tls", "failed").await;
    contains_all(&old, &["TLS 1.3", "middlebox"]);
}

/// Returns the variables of a service that trusts the authority of this server's certificate.
fn trusting(redis: &RedisServer, authority: &Certificates) -> Variables {
    let endpoint = format!("localhost:{}", redis.tls_port);
    let authority = authority.path("ca.pem").display().to_string();
    let pairs = [
        ("REDIS_ENDPOINT", endpoint.as_str()),
        ("REDIS_AUTH", "none"),
        ("REDIS_CA_FILE", &authority),
    ];
    with(Vec::new(), &pairs)
}

/// Writes a federated token file with these claims, without a signature: it is read before it is sent.
fn assertion(directory: &tempfile::TempDir, claims: &str) -> String {
    let path = directory.path().join("azure-identity-token");
    let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
    std::fs::write(&path, token).expect("there is room");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_identity_is_reported_with_the_label() {
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    let directory = tempfile::tempdir().expect("there is room");
    let missing = directory.path().join("missing").display().to_string();
    let expired = assertion(
        &directory,
        r#"{"exp":1,"sub":"s","aud":"api://AzureADTokenExchange"}"#,
    );
    for (file, parts) in [
        (
            missing,
            [
                "cannot read the federated token file",
                "no service account token",
                "azure.workload.identity/use",
            ],
        ),
        (expired, ["has expired", "AADSTS700024", "kubelet"]),
    ] {
        let variables = with(
            azure.environment("WorkloadIdentityCredential"),
            &[("AZURE_FEDERATED_TOKEN_FILE", &file)],
        );
        contains_all(
            &the_fault(&variables, "identity_environment", "failed").await,
            &parts,
        );
    }
    let other = assertion(
        &directory,
        r#"{"exp":9999999999,"sub":"s","aud":["https://kubernetes.default.svc"]}"#,
    );
    let variables = with(
        azure.environment("WorkloadIdentityCredential"),
        &[("AZURE_FEDERATED_TOKEN_FILE", &other)],
    );
    let other = the_fault(&variables, "identity_environment", "failed").await;
    contains_all(
        &other,
        &[
            "https://kubernetes.default.svc",
            "AADSTS700212",
            "api://AzureADTokenExchange",
        ],
    );

    // Container Apps with a user-assigned identity whose client id is missing.
    let mut forgotten = azure.environment("ManagedIdentityCredential");
    forgotten.retain(|(name, _)| name != "AZURE_CLIENT_ID");
    let (findings, _) = report(&forgotten).await;
    let finding = findings
        .iter()
        .find(|finding| finding["step"] == "identity_environment");
    let finding = finding.expect("it was taken");
    assert_eq!(finding["outcome"], "warned", "{finding:#}");
    contains_all(
        &finding["fix"].to_string(),
        &["AZURE_CLIENT_ID", "az identity show"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_entra_id_is_explained() {
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    const OTHER: &str = "00000000-0000-0000-0000-000000000009";
    for (credential, more, parts) in [
        (
            "WorkloadIdentityCredential",
            ("AZURE_CLIENT_ID", OTHER),
            ["AADSTS700016", "not the object id"],
        ),
        (
            "EnvironmentCredential",
            ("AZURE_CLIENT_SECRET", "of-no-use"),
            ["AADSTS7000215", "AZURE_CLIENT_SECRET"],
        ),
        (
            "EnvironmentCredential",
            ("AZURE_TENANT_ID", OTHER),
            ["AADSTS90002", "AZURE_TENANT_ID"],
        ),
        (
            "EnvironmentCredential",
            ("REDIS_SCOPE", "https://elsewhere.example/.default"),
            ["AADSTS500011", "REDIS_SCOPE"],
        ),
        (
            "ManagedIdentityCredential",
            ("AZURE_CLIENT_ID", OTHER),
            ["status 400", "assign it"],
        ),
        (
            "ManagedIdentityCredential",
            ("IDENTITY_HEADER", "of-no-use"),
            ["status 401", "IDENTITY_HEADER"],
        ),
    ] {
        let variables = with(azure.environment(credential), &[more]);
        contains_all(&the_fault(&variables, "token", "failed").await, &parts);
    }
    // The assertion of a cluster that no federated credential names.
    let file = azure.variable("AZURE_FEDERATED_TOKEN_FILE");
    let real = std::fs::read_to_string(file).expect("the emulator wrote it");
    let parts: Vec<_> = real.trim().split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).expect("it is a JWT");
    let mut claims: Value = serde_json::from_slice(&claims).expect("it is a JWT");
    claims["iss"] = "https://elsewhere.example/".into();
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("elsewhere");
    let elsewhere = format!("{}.{claims}.{}", parts[0], parts[2]);
    std::fs::write(&path, elsewhere).expect("there is room");
    let elsewhere = with(
        azure.environment("WorkloadIdentityCredential"),
        &[("AZURE_FEDERATED_TOKEN_FILE", &path.display().to_string())],
    );
    contains_all(
        &the_fault(&elsewhere, "token", "failed").await,
        &["AADSTS700211", "oidcIssuerProfile.issuerUrl"],
    );
    azure.controls.set_entra(EntraFault::Status(503));
    let busy = the_fault(
        &azure.environment("EnvironmentCredential"),
        "token",
        "failed",
    )
    .await;
    contains_all(&busy, &["status 503"]);
    azure.controls.set_entra(EntraFault::Garbage);
    let garbage = the_fault(
        &azure.environment("EnvironmentCredential"),
        "token",
        "failed",
    )
    .await;
    contains_all(&garbage, &["got no token", "port 443"]);
    azure.controls.set_entra(EntraFault::None);
    let away = with(
        azure.environment("EnvironmentCredential"),
        &[(
            "AZURE_AUTHORITY_HOST",
            &format!("https://localhost:{}/", free_port()),
        )],
    );
    contains_all(
        &the_fault(&away, "token", "failed").await,
        &["port 443", "AZURE_AUTHORITY_HOST"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_redis_does_not_have_is_reported_with_the_command_that_adds_it() {
    let redis = RedisServer::start().await;
    let azure = before(&redis).await;
    azure.controls.set_redis(RedisFault::RefuseAuth);
    let variables = azure.environment("ManagedIdentityCredential");
    let (findings, _) = report(&variables).await;
    let claims = findings.iter().find(|finding| finding["step"] == "claims");
    let claims = claims.expect("it was taken")["observed"].to_string();
    let object_id = claims.split([' ', ',']).nth(2).expect("it is there");
    let refused = the_fault(&variables, "authentication", "failed").await;
    let command = format!(
        "--cluster-name localhost --database-name default --access-policy-assignment-name {} --access-policy-name default --object-id {object_id}",
        object_id.replace('-', "")
    );
    contains_all(
        &refused,
        &[
            "WRONGPASS",
            "az redisenterprise database access-policy-assignment create",
            &command,
        ],
    );

    azure.controls.set_redis(RedisFault::HangAuth);
    let silent = with(variables, &[("REDIS_CONNECT_TIMEOUT", "2s")]);
    contains_all(
        &the_fault(&silent, "authentication", "failed").await,
        &["localhost:", "does not respond", "resourceState"],
    );

    () = ask(&redis, &["CONFIG", "SET", "requirepass", "the-right-one"]).await;
    let key = |key| {
        with(
            plain(&redis.address()),
            &[("REDIS_AUTH", "key"), ("REDIS_KEY", key)],
        )
    };
    let unauthenticated = the_fault(&plain(&redis.address()), "authentication", "failed").await;
    contains_all(
        &unauthenticated,
        &["NOAUTH", "REDIS_AUTH=none", "unset REDIS_AUTH"],
    );
    let wrong = the_fault(&key("of-no-use"), "authentication", "failed").await;
    contains_all(&wrong, &["WRONGPASS", "REDIS_KEY", "REDIS_AUTH=entra"]);
    assert!(report(&key("the-right-one")).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_match_and_an_unavailable_primary_are_named() {
    let single = RedisServer::start().await;
    let forced = with(
        plain(&single.address()),
        &[("REDIS_CLUSTERING_POLICY", "OSSCluster")],
    );
    let forced = the_fault(&forced, "clustering", "failed").await;
    contains_all(&forced, &["is no cluster", "unset REDIS_CLUSTERING_POLICY"]);

    let azure = Azure::start(Options {
        redis: Some(single.address()),
        clustering_policy: emulator::ClusteringPolicy::EnterpriseCluster,
        ..Options::default()
    })
    .await;
    assert!(report(&azure.environment("EnvironmentCredential")).await.1);

    () = ask(&single, &["ACL", "SETUSER", "default", "-cluster"]).await;
    let not_allowed = the_fault(&plain(&single.address()), "clustering", "warned").await;
    contains_all(&not_allowed, &["NOPERM", "+cluster|slots"]);

    let mut cluster = RedisCluster::start(3, 0).await;
    let address = cluster.address(0);
    let (findings, healthy) = report(&plain(&address)).await;
    assert!(healthy, "{findings:#?}");
    contains_all(
        &findings[8]["observed"].to_string(),
        &["CLUSTER SLOTS", "3 ", "; all primaries respond"],
    );
    // As in Azure: nodes by address, with a certificate for the endpoint's name alone, each with its own authentication.
    let azure = Azure::start(Options {
        redis: Some(cluster.address(0)),
        ..Options::default()
    })
    .await;
    let variables = azure.environment("WorkloadIdentityCredential");
    let (findings, healthy) = report(&variables).await;
    assert!(healthy, "{findings:#?}");
    contains_all(
        &findings[8]["observed"].to_string(),
        &["3 ", "; all primaries respond"],
    );

    cluster.pause(1);
    let variables = with(plain(&address), &[("REDIS_CONNECT_TIMEOUT", "2s")]);
    let silent = the_fault(&variables, "clustering", "failed").await;
    contains_all(
        &silent,
        &[&format!("127.0.0.1:{}: ", cluster.port(1)), "8500 to 8599"],
    );
    assert!(
        !silent.contains(&format!(":{}: ", cluster.port(2))),
        "{silent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_is_reported_with_the_missing_rule() {
    let redis = RedisServer::start().await;
    let variables = plain(&redis.address());
    for (rules, outcome, parts) in [
        (
            &["-set"][..],
            "failed",
            &["SET: ", "NOPERM", "+set and", "~PreviousVisitTime*"][..],
        ),
        (&["-del"], "warned", &["DEL: ", "NOPERM", "+del and"]),
        (&["-get"], "warned", &["GET: ", "NOPERM", "+get and"]),
        (&["-ping"], "warned", &["PING: ", "NOPERM", "+ping and"]),
        // As a user with read access only.
        (
            &["-ping", "-set", "-del"],
            "failed",
            &["PING: ", "SET: ", "DEL: ", "+ping +set +del and"],
        ),
        (
            &["resetkeys", "~of-another:*"],
            "failed",
            &["SET: NOPERM", "GET: NOPERM", "~PreviousVisitTime*"],
        ),
    ] {
        let rules = [&["ACL", "SETUSER", "default"], rules].concat();
        () = ask(&redis, &rules).await;
        let fault = the_fault(&variables, "commands", outcome).await;
        () = ask(&redis, &["ACL", "SETUSER", "default", "+@all", "allkeys"]).await;
        contains_all(&fault, parts);
        // The key is removed again, where that is allowed.
        let left: usize = ask(&redis, &["DBSIZE"]).await;
        assert_eq!(
            left,
            usize::from(rules.ends_with(&["-del"]) && outcome == "warned")
        );
        () = ask(&redis, &["FLUSHALL"]).await;
    }
    () = ask(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
    contains_all(
        &the_fault(&variables, "commands", "failed").await,
        &["OOM", "the cache is full"],
    );
    () = ask(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    () = ask(
        &redis,
        &["REPLICAOF", "127.0.0.1", &free_port().to_string()],
    )
    .await;
    contains_all(
        &the_fault(&variables, "commands", "failed").await,
        &["READONLY", "replica"],
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

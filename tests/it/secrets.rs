//! No token, key or assertion in anything that leaves the process, at any level, in any spelling.
//!
//! Every command is run with secrets in its environment, every endpoint is requested, and every export is read: a secret
//! may travel to where it authenticates and nowhere else.

use std::{fmt::Write, process::Output, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use entra_redis_emulator::{EntraFault, Options, RedisFault};
use serde_json::Value;

use crate::support::{Azure, Collector, RedisServer, Service, command, eventually, metric};

const KEY: &str = "k3y+of/the=cache & 'more'";
const PASSWORD: &str = "opens+the/certificate=%";
const EXPORT_KEY: &str = "sent+with/each=export";

/// A credential of these tests alone: the others are Azure's names.
const CERTIFICATE: &str = "a client certificate";

/// The secrets that must not be seen, in the encodings in which they could be.
struct Secrets(Vec<(String, Vec<String>)>);

impl Secrets {
    fn new() -> Self {
        let mut secrets = Self(Vec::new());
        secrets.0.push(("a token".into(), vec!["eyJ".into()])); // how every JWT begins
        secrets.add("the access key", KEY);
        secrets.add("the certificate's password", PASSWORD);
        secrets.add("the collector's key", EXPORT_KEY);
        secrets
    }

    fn add(&mut self, what: &str, secret: &str) {
        assert!(
            secret.len() >= 12,
            "{what}: shorter ones are found anywhere"
        );
        self.0.push((what.to_owned(), spellings(secret)));
    }

    /// Those of an emulated Azure: its credentials, and how its tokens and assertions begin.
    async fn add_of(&mut self, azure: &Azure) {
        self.add("the client secret", azure.variable("AZURE_CLIENT_SECRET"));
        self.add("the identity header", azure.variable("IDENTITY_HEADER"));
        let assertion = std::fs::read_to_string(azure.variable("AZURE_FEDERATED_TOKEN_FILE"));
        self.add_token("the federated assertion", &assertion.expect("it is there"));
        let asked = crate::support::client()
            .get(format!(
                "{}?resource=https%3A%2F%2Fredis.azure.com&api-version=2019-08-01",
                azure.variable("IDENTITY_ENDPOINT")
            ))
            .header("x-identity-header", azure.variable("IDENTITY_HEADER"));
        let answer = asked.send().await.expect("it answers").text().await;
        let answer: Value = serde_json::from_str(&answer.expect("it is whole")).expect("JSON");
        let token = answer["access_token"].as_str().expect("it has one");
        self.add_token("an access token", token);
    }

    /// Every token has its own signature, and all of one signer begin alike.
    fn add_token(&mut self, what: &str, token: &str) {
        self.add(&format!("{what}'s beginning"), &token[..24]);
        let signature = token.rsplit('.').next().expect("three parts");
        self.add(&format!("{what}'s signature"), &signature[..24]);
    }

    #[track_caller]
    fn are_not_in(&self, place: &str, text: &str) {
        for (what, spellings) in &self.0 {
            for secret in spellings {
                if let Some(line) = text.lines().find(|line| line.contains(secret.as_str())) {
                    panic!("{what} is shown by {place}, as {secret}:\n{line}");
                }
            }
        }
    }
}

/// As it is, escaped as in JSON and by `Debug`, percent-encoded, in hexadecimal, in base64 at each alignment, and as a list
/// of bytes.
fn spellings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut hexadecimal = String::new();
    let mut percent = String::new();
    let mut all_percent = String::new();
    for byte in bytes {
        let _ = write!(hexadecimal, "{byte:02x}");
        let _ = write!(all_percent, "%{byte:02X}");
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            percent.push(char::from(*byte));
        } else {
            _ = write!(percent, "%{byte:02X}");
        }
    }
    let mut found = vec![
        secret.to_owned(),
        secret.escape_debug().to_string(),
        serde_json::to_string(secret).expect("text")[1..=secret.len()].to_owned(),
        percent.replace("%20", "+"),
        percent.to_lowercase(),
        percent,
        all_percent,
        hexadecimal.to_uppercase(),
        hexadecimal,
        format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
    ];
    for engine in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            let text = engine.encode([&vec![0; before], bytes].concat());
            // Characters that share bits with the bytes before and behind are left out.
            let whole = (before + bytes.len()) / 3 * 4;
            found.push(text[(before * 8).div_ceil(6)..whole].to_owned());
        }
    }
    found
}

#[test]
fn a_secret_is_found_however_it_is_spelt() {
    let secrets = Secrets::new();
    let seen = |text: &str| {
        let text = format!("level=TRACE {text} and more");
        std::panic::catch_unwind(|| secrets.are_not_in("a test", &text)).is_err()
    };
    assert!(!seen("nothing at all"));
    let basic = STANDARD.encode(format!("default:{KEY}"));
    let hexadecimal: String = KEY.bytes().map(|byte| format!("{byte:02X}")).collect();
    let bytes = format!("{:?}", format!("AUTH {KEY}").as_bytes());
    let json = serde_json::to_string(KEY).expect("text");
    for text in [KEY, &basic, &hexadecimal, &bytes, &json] {
        assert!(seen(text), "{text}");
    }
    assert!(seen("key=k3y%2Bof%2Fthe%3Dcache%20%26%20%27more%27"));
}

/// Status, headers and body of whatever there is, on both ports.
async fn everything_that_is_answered(service: &Service) -> String {
    let mut seen = String::new();
    let mut ask = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.expect("it answers");
        let _ = writeln!(seen, "{answer:?}");
        seen += &answer.text().await.expect("the body is whole");
    };
    let output = command(&["openapi"]).output().await.expect("it was built");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let documented = document["paths"].as_object().expect("paths").keys();
    let paths = ["/", "/swagger", "/openapi.json", "/nothing", "/SAMPLE"];
    let paths: Vec<&str> = documented.map(String::as_str).chain(paths).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for base in [&service.public, service.admin.as_ref().expect("it has one")] {
        for path in &paths {
            let url = format!("{base}{path}");
            ask(service.client.get(&url)).await;
            ask(service.client.post(&url).body("nothing")).await;
        }
        let level = |body: &'static str| {
            let url = format!("{base}/log-level");
            service.client.put(url).body(body)
        };
        ask(level("no[such")).await;
        ask(level("trace")).await;
        let json = service.client.get(format!("{base}/sample"));
        ask(json.header("accept", "application/json")).await;
    }
    seen
}

/// Variables that a deployment could have in its environment beside those it uses.
fn other_secrets(environment: &mut Vec<(String, String)>, collector: &Collector) {
    for (name, value) in [
        ("RUST_LOG", "trace"),
        ("ADMIN_PORT", "0"),
        ("REDIS_KEY", KEY),
        ("AZURE_CLIENT_CERTIFICATE_PASSWORD", PASSWORD),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint()),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_EXPORTER_OTLP_HEADERS", &format!("x-key={EXPORT_KEY}")),
    ] {
        environment.retain(|(known, _)| known != name);
        environment.push((name.to_owned(), value.to_owned()));
    }
}

/// Everything received by OTLP, but for the headers that authenticate to the collector.
fn exported(collector: &Collector) -> String {
    let mut got = collector.got();
    let opened = got.headers.iter().any(|one| one["x-key"] == EXPORT_KEY);
    assert!(opened, "the collector's key travelled where it should");
    got.headers.clear();
    format!("{got:#?}")
}

/// A certificate whose key is locked with [`PASSWORD`]: the public part, and both in one file.
fn locked_certificate(directory: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (public, both) = (directory.join("public.pem"), directory.join("both.pem"));
    let done = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-days", "2"])
        .args(["-subj", "/CN=application", "-keyout"])
        .arg(&both)
        .arg("-out")
        .arg(&public)
        .args(["-passout", &format!("pass:{PASSWORD}")])
        .output()
        .expect("openssl is installed; `tests/run` sees to it");
    assert!(done.status.success(), "{done:?}");
    let [key, certificate] =
        [&both, &public].map(|path| std::fs::read_to_string(path).expect("it is there"));
    std::fs::write(&both, key + &certificate).expect("there is room");
    (public, both)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_shown_at_trace_by_workload_identity() {
    nothing_secret_is_shown_at_trace("WorkloadIdentityCredential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_shown_at_trace_by_managed_identity() {
    nothing_secret_is_shown_at_trace("ManagedIdentityCredential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_shown_at_trace_by_a_client_secret() {
    nothing_secret_is_shown_at_trace("EnvironmentCredential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_shown_at_trace_by_a_client_certificate() {
    nothing_secret_is_shown_at_trace(CERTIFICATE).await;
}

/// In its log, its answers and its exports, while tokens rotate and while they fail.
async fn nothing_secret_is_shown_at_trace(credential: &str) {
    let directory = tempfile::tempdir().expect("there is room");
    let (public, both) = locked_certificate(directory.path());
    let azure = Azure::start(Options {
        token_lifetime: Duration::from_secs(2),
        client_certificate: Some(public),
        ..Options::default()
    })
    .await;
    let collector = Collector::start().await;
    let mut secrets = Secrets::new();
    secrets.add_of(&azure).await;
    let mut environment = azure.environment(credential);
    other_secrets(&mut environment, &collector);
    if credential == CERTIFICATE {
        environment.retain(|(name, _)| {
            !["AZURE_CLIENT_SECRET", "AZURE_TOKEN_CREDENTIALS"].contains(&name.as_str())
        });
        let path = both.display().to_string();
        environment.push(("AZURE_CLIENT_CERTIFICATE_PATH".to_owned(), path));
    }
    let mut service = Service::start(&[], environment).await;
    service.ready_at_admin().await;
    let mut answers = everything_that_is_answered(&service).await;
    let admin = service.admin.clone().expect("it has one");
    eventually("a rotation", async || {
        let (_, metrics) = service.at(&format!("{admin}/metrics")).await;
        metric(&metrics, "redis_auth_total", &["reauth", "success"]) >= 2.0
    })
    .await;
    // Failures have texts of their own: bad answers, refused requests, refused authentication.
    let failed = |service: &Service| service.log().matches("token refresh failed").count();
    for fault in [
        EntraFault::Garbage,
        EntraFault::Status(401),
        EntraFault::Status(500),
    ] {
        azure.controls.set_entra(fault);
        // The first that fails may have been on its way before.
        let before = failed(&service);
        eventually("a request hits the fault", async || {
            failed(&service) > before + 1
        })
        .await;
    }
    answers += &everything_that_is_answered(&service).await;
    azure.controls.set_entra(EntraFault::None);
    azure.controls.set_redis(RedisFault::RefuseAuth);
    azure.controls.disconnect_all();
    eventually("authentication is refused", async || {
        service.log().contains("WRONGPASS")
    })
    .await;
    answers += &everything_that_is_answered(&service).await;
    service.signal("-TERM");
    service.end().await;
    let log = service.log();
    assert!(log.contains("\"level\":\"TRACE\""), "the level is in force");
    secrets.are_not_in("an answer", &answers);
    secrets.are_not_in("the log", &log);
    let exported = exported(&collector);
    for what in [
        "get token",
        "AUTH",
        "redis_auth",
        "received shutdown signal",
    ] {
        assert!(exported.contains(what), "{what} was exported");
    }
    secrets.are_not_in("OTLP", &exported);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_key_is_shown_nowhere() {
    let redis = RedisServer::start().await;
    let mut admin = redis.admin().await;
    let set = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", KEY])
        .query_async::<()>(&mut admin)
        .await;
    set.expect("it is set");
    let collector = Collector::start().await;
    let mut environment: Vec<_> = [
        ("REDIS_ENDPOINT", redis.address().as_str()),
        ("REDIS_AUTH", "key"),
        ("REDIS_TLS", "false"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    other_secrets(&mut environment, &collector);
    let secrets = Secrets::new();
    let mut service = Service::start(&[], environment.clone()).await;
    service.ready_at_admin().await;
    let mut answers = everything_that_is_answered(&service).await;
    let output = run(&["doctor"], &environment).await;
    assert!(output.status.success(), "{output:?}");
    answers += &format!("{output:?}");
    // The key is another now: refusals have texts of their own.
    let set = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "another"])
        .query_async::<()>(&mut admin)
        .await;
    set.expect("it is set");
    let kill = redis::cmd("CLIENT")
        .arg(&["KILL", "SKIPME", "yes"])
        .query_async::<()>(&mut admin)
        .await;
    kill.expect("they are closed");
    eventually("authentication is refused", async || {
        service.log().contains("WRONGPASS")
    })
    .await;
    answers += &everything_that_is_answered(&service).await;
    answers += &format!("{:?}", run(&["doctor"], &environment).await);
    service.signal("-TERM");
    service.end().await;
    secrets.are_not_in("an answer or doctor", &answers);
    secrets.are_not_in("the log", &service.log());
    secrets.are_not_in("OTLP", &exported(&collector));
}

/// A command that exits by itself; nothing listens on its port.
async fn run(arguments: &[&str], environment: &[(String, String)]) -> Output {
    let mut command = command(arguments);
    command.envs(environment.iter().cloned());
    let output = command.env("PORT", "1").output().await;
    output.expect("the binary was built")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_a_secret() {
    let azure = Azure::with_lifetime(60).await;
    let collector = Collector::start().await;
    let mut secrets = Secrets::new();
    secrets.add_of(&azure).await;
    let mut environment = azure.environment("WorkloadIdentityCredential");
    other_secrets(&mut environment, &collector);
    let with = |more: &[(&str, &str)]| {
        let mut environment = environment.clone();
        for (name, value) in more {
            environment.retain(|(known, _)| known != name);
            environment.push(((*name).to_owned(), (*value).to_owned()));
        }
        environment
    };
    let connection_string = format!("cache.redis.azure.net:10000,password={KEY},ssl=True");
    let token = std::fs::read_to_string(azure.variable("AZURE_FEDERATED_TOKEN_FILE"));
    let token = token.expect("it is there");
    // Good ones, and values at places where people put secrets by mistake.
    let environments = [
        environment.clone(),
        with(&[("REDIS_ENDPOINT", &connection_string)]),
        with(&[("REDIS_ENDPOINT", &format!("rediss://default:{KEY}@host:1"))]),
        with(&[("REDIS_USERNAME", &token), ("PORT", KEY)]),
        with(&[("REDIS_AUTH", "key"), ("REDIS_KEY", &token)]),
        with(&[("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")]),
        with(&[("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")]),
    ];
    for environment in &environments {
        for arguments in [
            &["config"][..],
            &["doctor"],
            &["doctor", "--output", "json"],
            &["openapi"],
            &["completions", "bash"],
            &["healthcheck"],
            &["--help"],
            &["serve", "--nonsense"],
        ] {
            let output = run(arguments, environment).await;
            let place = format!("`{}`", arguments.join(" "));
            for stream in [&output.stdout, &output.stderr] {
                secrets.are_not_in(&place, &String::from_utf8_lossy(stream));
            }
        }
    }
    for environment in &environments[1..4] {
        let output = run(&["serve"], environment).await;
        assert!(!output.status.success(), "{output:?}");
        for stream in [&output.stdout, &output.stderr] {
            secrets.are_not_in("`serve`", &String::from_utf8_lossy(stream));
        }
    }

    // `dev` authenticates with its own credentials; those of its environment are not used.
    let mut dev = Service::start(&["dev", "--token-lifetime", "2s"], environment.clone()).await;
    dev.ready_at_admin().await;
    let answers = everything_that_is_answered(&dev).await;
    eventually("a rotation", async || {
        dev.log().matches("token refreshed").count() > 2
    })
    .await;
    dev.signal("-INT");
    assert_eq!(dev.end().await.code(), Some(0));
    assert!(dev.log().contains("TRACE"), "the level is in force");
    secrets.are_not_in("an answer of `dev`", &answers);
    secrets.are_not_in("`dev`", &dev.log());
}

/// It must print what clients need: its own secrets, each once, made up for it alone. Nothing of its environment, nor what
/// it signs.
#[tokio::test(flavor = "multi_thread")]
async fn emulate_prints_its_own_secrets_as_variables_and_nothing_else() {
    use std::process::Stdio;
    let azure = Azure::with_lifetime(60).await;
    let collector = Collector::start().await;
    let mut others = azure.environment("EnvironmentCredential");
    other_secrets(&mut others, &collector);
    let mut secrets = Secrets::new();
    secrets.add_of(&azure).await;
    let directory = tempfile::tempdir().expect("there is room");
    let file = directory.path().join("output");
    let open = std::fs::File::create(&file).expect("there is room");
    let mut emulate = command(&["emulate"])
        .envs(others)
        .env("PORT", "0")
        .stdout(Stdio::from(open.try_clone().expect("it is open")))
        .stderr(Stdio::from(open))
        .kill_on_drop(true)
        .spawn()
        .expect("the binary was built");
    let printed = || std::fs::read_to_string(&file).expect("it is there");
    eventually("the variables", async || printed().lines().count() >= 12).await;
    let variables: Vec<(String, String)> = printed()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for credential in [
        "WorkloadIdentityCredential",
        "EnvironmentCredential",
        "ManagedIdentityCredential",
    ] {
        let mut doctor = variables.clone();
        doctor.push(("AZURE_TOKEN_CREDENTIALS".to_owned(), credential.to_owned()));
        let output = run(&["doctor"], &doctor).await;
        assert!(output.status.success(), "{output:?}");
    }
    emulate.kill().await.expect("it is our child");
    secrets.are_not_in("`emulate`", &printed());
    for name in ["AZURE_CLIENT_SECRET", "IDENTITY_HEADER"] {
        let (_, value) = variables
            .iter()
            .find(|(known, _)| known == name)
            .expect("it is printed");
        assert_eq!(printed().matches(value.as_str()).count(), 1, "{name}");
    }
}

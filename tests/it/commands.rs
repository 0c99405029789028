//! The other commands, and the README's account of them.

use std::process::Stdio;

use entra_redis_service::config::Config;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Port, Service, client_trusting, command, repository};

#[tokio::test]
async fn config_prints_every_variable_and_hides_secrets() {
    let mut with = command(&["config"]);
    with.env("REDIS_ENDPOINT", "cache.westeurope.redis.azure.net")
        .env("AZURE_CLIENT_SECRET", "hush-hush");
    let output = with.output().await.expect("the binary was built");
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    for variable in Config::variables() {
        assert!(
            table.contains(&format!("{} ", variable.name)),
            "{} in\n{table}",
            variable.name
        );
        assert!(table.contains(variable.meaning), "{}", variable.name);
    }
    assert!(
        table.contains("cache.westeurope.redis.azure.net") && table.contains("(hidden)"),
        "{table}"
    );
    assert!(!table.contains("hush-hush"), "{table}");

    let output = command(&["config"])
        .output()
        .await
        .expect("the binary was built");
    assert_eq!(output.status.code(), Some(64), "REDIS_ENDPOINT is missing");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("REDIS_ENDPOINT: not set"));
}

/// The cells of each row of a table in the README, by the title of its section.
fn table(section: &str) -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("there is one");
    let (_, section) = readme
        .split_once(&format!("\n## {section}\n"))
        .expect("there is such a section");
    let section = section.split("\n## ").next().expect("it ends");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| {
        let row = row
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix(" |"));
        let cells = row.expect("a row").split(" | ");
        cells.map(str::to_owned).collect()
    };
    rows.map(cells).collect()
}

#[test]
fn the_readme_lists_every_variable_as_config_does_and_no_other() {
    let known = Config::variables().iter().map(|variable| {
        let default = variable.default.map(|default| format!("`{default}`"));
        vec![
            format!("`{}`", variable.name),
            default.unwrap_or_else(|| "–".to_owned()),
            variable.meaning.to_owned(),
        ]
    });
    let known: Vec<_> = known.collect();
    let listed = table("Variables");
    for (listed, known) in listed.iter().zip(&known) {
        assert_eq!(listed, known);
    }
    assert_eq!(listed.len(), known.len());
}

/// The routes that are served beside the document: the status page, and the document itself.
const NOT_IN_THE_DOCUMENT: [&str; 3] = ["GET /", "GET /swagger", "GET /openapi.json"];

#[tokio::test]
async fn the_readme_lists_every_endpoint_on_its_port() {
    let service = Service::start(&["dev"], [("ADMIN_PORT", "0")]).await;
    let admin = service.admin.clone().expect("it has one");
    let bases = [service.public.clone(), admin];
    let mut listed = Vec::new();
    for row in table("Endpoints") {
        let [paths, port, _] = &row[..] else {
            panic!("path, port, answer: {row:?}");
        };
        let ports = match port.as_str() {
            "`PORT`" => [true, false],
            "`ADMIN_PORT`" => [false, true],
            "both" => [true, true],
            _ => panic!("which port is {port}?"),
        };
        for endpoint in paths.split('`').skip(1).step_by(2) {
            let (method, path) = endpoint.split_once(' ').expect("a method and a path");
            let method: reqwest::Method = method.parse().expect("a method");
            for (base, is_there) in bases.iter().zip(ports) {
                let request = service
                    .client
                    .request(method.clone(), format!("{base}{path}"));
                let answer = request.body("info").send().await.expect("it answers");
                let answered = !matches!(answer.status().as_u16(), 403..=405);
                assert_eq!(answered, is_there, "{endpoint} of {base}: {answer:?}");
            }
            listed.push(endpoint.to_owned());
        }
    }
    let output = command(&["openapi"]).output().await;
    let output = output.expect("the binary was built");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let documented = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("by method").keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    let mut served: Vec<String> = documented.collect();
    served.extend(NOT_IN_THE_DOCUMENT.map(str::to_owned));
    served.sort();
    listed.sort();
    assert_eq!(listed, served);
}

#[tokio::test]
async fn openapi_prints_the_document_that_is_served() {
    let output = command(&["openapi"])
        .output()
        .await
        .expect("the binary was built");
    assert!(output.status.success());
    let mut printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // On the admin port alone, which `dev` has not.
    let paths = printed["paths"].as_object_mut().expect("paths");
    assert!(
        paths
            .remove("/log-level")
            .is_some_and(|path| path["put"].is_object())
    );
    let service = Service::start(&["dev"], [("", ""); 0]).await;
    let served: serde_json::Value =
        serde_json::from_str(&service.text("/openapi.json").await).expect("JSON");
    assert_eq!(printed, served);
}

#[tokio::test]
async fn healthcheck_asks_the_running_service() {
    let reserved = [Port::reserve(), Port::reserve()];
    let [port, admin] = reserved.each_ref().map(Port::to_string);
    let ports = [("PORT", port.as_str()), ("ADMIN_PORT", admin.as_str())];
    let healthcheck = async || {
        let mut healthcheck = command(&["healthcheck"]);
        // It asks over http: certificate authorities do not matter.
        healthcheck.env("SSL_CERT_FILE", "/missing");
        healthcheck
            .envs(ports)
            .output()
            .await
            .expect("the binary was built")
    };
    let without = healthcheck().await;
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("/healthz"));
    let _service = Service::start(&["dev"], ports).await;
    assert_eq!(healthcheck().await.status.code(), Some(0));
}

#[tokio::test]
async fn emulate_prints_the_variables_a_service_needs_and_takes_fixed_ports() {
    let reserved = Port::reserve();
    let port = reserved.to_string();
    let mut emulate = command(&["emulate", "--redis-port", &port, "--token-lifetime", "30s"]);
    let mut child = emulate
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary was built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut pairs = Vec::new();
    while pairs.len() < 12 {
        let line = lines
            .next_line()
            .await
            .expect("readable")
            .expect("it keeps running");
        let (name, value) = line.split_once('=').expect("NAME=value");
        pairs.push((name.to_owned(), value.to_owned()));
    }
    assert!(
        pairs.contains(&("REDIS_ENDPOINT".to_owned(), format!("localhost:{port}"))),
        "{pairs:?}"
    );
    // As they are: the service chooses among the credentials they configure.
    let service = Service::start(&[], pairs).await;
    service.ready().await;
    assert_eq!(service.text("/sample").await, "Previous visit was at: ");
}

/// Clients on other machines reach it by a name, and trust it by the certificate that it serves.
#[tokio::test]
async fn emulate_is_reached_by_the_name_it_is_given() {
    let name = "emulator.elsewhere.example";
    let mut child = command(&["emulate", "--host-name", name])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary was built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut pairs = std::collections::HashMap::new();
    while pairs.len() < 12 {
        let line = lines.next_line().await.expect("readable");
        let line = line.expect("it keeps running");
        let (name, value) = line.split_once('=').expect("NAME=value");
        pairs.insert(name.to_owned(), value.to_owned());
    }
    let port = |variable: &str| {
        let value = pairs[variable].trim_end_matches('/');
        let (before, after) = value.split_once(name).expect("it has the name");
        assert!(before.is_empty() || before.ends_with("//"), "{value}");
        let port = after.trim_start_matches(':').split('/').next();
        port.expect("a port").parse::<u16>().expect("a number")
    };
    let here = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let client = client_trusting(&[]);
    let client = client
        .resolve(name, here(port("IDENTITY_ENDPOINT")))
        .build();
    let ask = client.expect("nothing is special");
    let ask = ask.get(format!(
        "http://{name}:{}/ca.pem",
        port("IDENTITY_ENDPOINT")
    ));
    let pem = ask.send().await.expect("it answers").bytes().await;
    let pem = pem.expect("the body is whole");

    for variable in ["AZURE_AUTHORITY_HOST", "REDIS_ENDPOINT"] {
        let client = client_trusting(&pem)
            .resolve(name, here(port(variable)))
            .build()
            .expect("nothing is special");
        let asked = client.get(format!("https://{name}:{}/", port(variable)));
        // Redis speaks no HTTP, but only after a good handshake.
        match asked.send().await {
            Ok(answer) => assert_eq!(answer.status(), 404),
            Err(error) => assert!(!error.is_connect(), "{variable}: {error:?}"),
        }
    }
    let refused = command(&["emulate", "--host-name", "http://x"])
        .output()
        .await;
    let refused = refused.expect("the binary was built");
    assert_eq!(refused.status.code(), Some(64));
}

/// For a person, `dev` prints each token refresh and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_each_rotation_in_one_line() {
    let mut child = command(&["dev", "--token-lifetime", "2s"])
        .env("PORT", "0")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary was built");
    let output = child.stdout.take().expect("it is piped");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(output));
    let mut rotations = Vec::new();
    while rotations.len() < 3 {
        let line = lines.next_line().await.expect("it is text");
        let line = line.expect("it runs");
        assert!(
            !line.contains('\u{1b}'),
            "colours are for terminals: {line}"
        );
        assert!(!line.contains("INFO"), "{line}");
        if line.starts_with("token ") {
            rotations.push(line);
        }
    }
    assert_eq!(
        rotations[0],
        "token 1 valid for 2 s: 2 authentications, 2 connections opened"
    );
    assert!(
        rotations[2].ends_with(" 0 connections opened"),
        "{rotations:?}"
    );
}

#[tokio::test]
async fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = command(&["completions", shell]).output().await;
        let output = output.expect("the binary was built");
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).expect("it is text");
        for name in ["serve", "dev", "emulate", "doctor", "healthcheck"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

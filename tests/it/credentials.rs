//! Each credential gets a token and authenticates, through azure_identity and over real HTTP.

use crate::support::{Azure, Load, Service, eventually, example, write_program};

async fn authenticates(azure: &Azure, credential: &str, more: &[(&str, &str)]) {
    let mut environment = azure.environment(credential);
    environment.extend(more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    let service = Service::start(&[], environment).await;
    service.ready().await;
    assert_eq!(service.get("/sample").await.status(), 200, "{credential}");
    let source = format!("source=\"{credential}\"");
    let fetched = service
        .metric(
            "entra_token_refresh_total",
            &[&source, "outcome=\"success\""],
        )
        .await;
    assert!(fetched >= 1.0, "{credential}");
}

#[tokio::test]
async fn workload_identity_client_secret_and_managed_identity_authenticate() {
    let azure = Azure::with_lifetime(60).await;
    for credential in [
        "WorkloadIdentityCredential",
        "EnvironmentCredential",
        "ManagedIdentityCredential",
    ] {
        authenticates(&azure, credential, &[]).await;
    }
    // System-assigned: no client id.
    authenticates(
        &azure,
        "ManagedIdentityCredential",
        &[("AZURE_CLIENT_ID", "")],
    )
    .await;
}

/// The command-line tools are stood in for by scripts that print what they print, with a token of the emulator's.
#[tokio::test]
async fn azure_cli_and_azure_developer_cli_authenticate() {
    let azure = Azure::with_lifetime(60).await;
    let endpoint = azure.variable("IDENTITY_ENDPOINT");
    let request = crate::support::client()
        .get(format!(
            "{endpoint}?resource=https%3A%2F%2Fredis.azure.com&api-version=2019-08-01"
        ))
        .header("x-identity-header", azure.variable("IDENTITY_HEADER"));
    let answer = request
        .send()
        .await
        .expect("it answers")
        .text()
        .await
        .expect("a complete body");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let token = answer["access_token"].as_str().expect("a token");
    let expires_on = answer["expires_on"]
        .as_str()
        .expect("seconds since the epoch");

    let directory = tempfile::tempdir().expect("there is room");
    let date = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{expires_on}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .expect("date is everywhere");
    let date = String::from_utf8(date.stdout).expect("ASCII");
    let scripts = [
        (
            "az",
            format!(
                r#"{{"accessToken":"{token}","expires_on":{expires_on},"tokenType":"Bearer"}}"#
            ),
        ),
        (
            "azd",
            format!(r#"{{"token":"{token}","expiresOn":"{}"}}"#, date.trim()),
        ),
    ];
    for (name, answer) in scripts {
        let path = directory.path().join(name);
        write_program(&path, &format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\n"));
    }
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    for credential in ["AzureCliCredential", "AzureDeveloperCliCredential"] {
        authenticates(&azure, credential, &[("PATH", &path)]).await;
    }
}

/// A configured credential that fails is retried, never skipped for the next.
#[tokio::test]
async fn a_refused_credential_is_named_and_no_other_is_tried() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("");
    environment.push(("AZURE_CLIENT_SECRET".to_owned(), "wrong".to_owned()));
    let mut service = Service::start(&[], environment).await;
    let failed = service.event("token refresh failed").await;
    assert_eq!(failed["credential.name"], "EnvironmentCredential");
    let error = failed["error"].as_str().expect("a text");
    assert!(
        error.contains("status 401") && error.contains("AADSTS7000215"),
        "{error}"
    );
    assert_eq!(azure.controls.counts().tokens_issued, 0);
}

/// Whatever Entra ID answers, the loop continues, the current token serves, and outcomes are counted.
#[tokio::test(flavor = "multi_thread")]
async fn every_bad_answer_is_survived_and_counted() {
    use entra_redis_emulator::EntraFault;
    use std::time::Duration;
    let azure = Azure::with_lifetime(8).await;
    let service = Service::start(&[], azure.environment("WorkloadIdentityCredential")).await;
    service.ready().await;
    let load = Load::start(&service.url("/sample"), 4);
    let faults = [
        EntraFault::RetryAfter(429, Duration::from_secs(60)),
        EntraFault::Status(500),
        EntraFault::Status(400),
        EntraFault::Garbage,
        EntraFault::CutOff,
        EntraFault::Slow(Duration::from_millis(700)),
    ];
    for fault in faults {
        let issued = async || azure.controls.counts().tokens_issued;
        let before = issued().await;
        eventually("a fresh token", async || issued().await > before).await;
        azure.controls.set_entra(fault);
        // The next one is requested at 65 to 75 % of 8 s, and once more well before expiry.
        tokio::time::sleep(Duration::from_millis(6500)).await;
        azure.controls.set_entra(EntraFault::None);
    }
    let (good, failures) = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(good > 100, "{good}");
    let count = async |outcome: &str| {
        let labels = ["source=\"WorkloadIdentityCredential\"", outcome];
        service.metric("entra_token_refresh_total", &labels).await
    };
    assert!(count("outcome=\"failure\"").await >= 5.0);
    assert!(count("outcome=\"success\"").await >= 6.0);
    let log = service.log();
    assert!(log.contains("refused with status 429"), "{log}");
    assert_eq!(
        service.metric("redis_connections_opened_total", &[]).await,
        2.0
    );
}

/// With the exchange failing and a managed identity at hand, no token is taken from it: a pod must not become its node.
#[tokio::test]
async fn a_failing_credential_is_never_replaced_by_another() {
    use entra_redis_emulator::EntraFault;
    let exchange = Azure::with_lifetime(60).await;
    let platform = Azure::with_lifetime(60).await;
    exchange.controls.set_entra(EntraFault::Status(500));
    let mut environment = exchange.environment("");
    for name in ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"] {
        environment.push((name.to_owned(), platform.variable(name).to_owned()));
    }
    environment.push(("AZURE_CLIENT_SECRET".to_owned(), String::new()));
    let mut service = Service::start(&[], environment).await;
    let failed = "token refresh failed";
    assert_eq!(
        service.event(failed).await["credential.name"],
        "WorkloadIdentityCredential"
    );
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(platform.controls.counts().tokens_issued, 0);
    exchange.controls.set_entra(EntraFault::None);
    service.ready().await;
    assert_eq!(platform.controls.counts().tokens_issued, 0);
}

/// One line has the credential in use and the reason against each other one.
#[tokio::test]
async fn the_choice_is_explained_in_one_line() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("");
    environment.push(("AZURE_CLIENT_SECRET".to_owned(), String::new()));
    let service = Service::start(&[], environment).await;
    service.ready().await;
    let log = service.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("credential selected"))
        .collect();
    let [line] = lines[..] else {
        panic!("one line, once: {lines:?}");
    };
    for part in [
        "\"credential.name\":\"WorkloadIdentityCredential\"",
        "EnvironmentCredential: not set: AZURE_CLIENT_SECRET",
        "ManagedIdentityCredential: WorkloadIdentityCredential takes precedence",
        "AzureCliCredential: WorkloadIdentityCredential takes precedence",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

/// Without any credential, each is named with its reason and the fix. (With managed identity in the list the
/// metadata service's address is asked, which `tests/metadata-service` does in a network of its own.)
#[tokio::test]
async fn when_no_credential_is_there_each_is_named_with_what_to_do() {
    let azure = Azure::with_lifetime(60).await;
    let environment = [
        ("AZURE_TOKEN_CREDENTIALS", "dev"),
        ("REDIS_ENDPOINT", azure.variable("REDIS_ENDPOINT")),
        ("REDIS_CA_FILE", azure.variable("REDIS_CA_FILE")),
        ("PATH", "/nonexistent"),
    ];
    let mut service = Service::start(&[], environment).await;
    let failed = service.event("token refresh failed").await;
    let error = failed["error"].as_str().expect("a text");
    for part in [
        "no credential is available: EnvironmentCredential: AZURE_TOKEN_CREDENTIALS excludes it",
        "AzureCliCredential:",
        "`az login`",
        "AzureDeveloperCliCredential:",
        "`azd auth login`",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    service.signal("-TERM");
    assert_eq!(service.end().await.code(), Some(0));
}

/// Entra's code is explained, and a wrong client id of a managed identity too.
#[tokio::test]
async fn refusals_contain_the_fix() {
    let azure = Azure::with_lifetime(60).await;
    let unknown = "00000000-0000-0000-0000-000000000001";
    let cases = [
        (
            "EnvironmentCredential",
            "AZURE_CLIENT_SECRET",
            "wrong",
            "the secret's value, not its id",
        ),
        (
            "EnvironmentCredential",
            "AZURE_CLIENT_ID",
            unknown,
            "check AZURE_CLIENT_ID",
        ),
        (
            "EnvironmentCredential",
            "AZURE_TENANT_ID",
            unknown,
            "check AZURE_TENANT_ID",
        ),
        (
            "EnvironmentCredential",
            "REDIS_SCOPE",
            "https://vault.azure.net/.default",
            "check REDIS_SCOPE",
        ),
        (
            "ManagedIdentityCredential",
            "AZURE_CLIENT_ID",
            unknown,
            "is not assigned",
        ),
        (
            "ManagedIdentityCredential",
            "IDENTITY_HEADER",
            "wrong",
            "IDENTITY_HEADER",
        ),
    ];
    for (credential, name, value, fix) in cases {
        let mut environment = azure.environment(credential);
        environment.push((name.to_owned(), value.to_owned()));
        let mut service = Service::start(&[], environment).await;
        let failed = service.event("token refresh failed").await;
        let error = failed["error"].as_str().expect("a text");
        assert!(
            error.contains(fix),
            "{credential} with a wrong {name}: {error}"
        );
        assert!(
            service
                .text("/readyz")
                .await
                .contains("the credential was refused")
        );
    }
}

/// The service principal's certificate, in each form it comes in; made by OpenSSL's command line, as people make them.
#[tokio::test]
async fn a_client_certificate_authenticates_as_pem_and_as_pfx() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let openssl = |arguments: &str| {
        let done = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory.path())
            .output()
            .expect("openssl is installed; `tests/run` sees to it");
        assert!(
            done.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=application -keyout key.pem -out certificate.pem",
    );
    openssl("pkcs8 -topk8 -v2 aes-256-cbc -in key.pem -passout pass:opens-it -out locked-key.pem");
    openssl("pkcs8 -topk8 -v2 des3 -in key.pem -passout pass:opens-it -out des3-key.pem"); // what `req` does
    openssl(
        "pkcs8 -topk8 -v2 camellia-256-cbc -in key.pem -passout pass:opens-it -out camellia-key.pem",
    );
    openssl("rsa -traditional -in key.pem -out old-key.pem");
    openssl(
        "pkcs12 -export -inkey key.pem -in certificate.pem -passout pass:opens-it -out new.pfx",
    );
    openssl("pkcs12 -export -inkey key.pem -in certificate.pem -passout pass: -out open.pfx");
    openssl("ecparam -name prime256v1 -genkey -noout -out ec-key.pem");
    let read = |name: &str| std::fs::read_to_string(path(name)).expect("openssl wrote it");
    let write = |name: &str, parts: &[&str]| {
        let text: String = parts.iter().map(|part| read(part)).collect();
        std::fs::write(path(name), text).expect("there is room");
    };
    write("plain.pem", &["certificate.pem", "key.pem"]);
    write("reversed.pem", &["old-key.pem", "certificate.pem"]);
    write("locked.pem", &["certificate.pem", "locked-key.pem"]);
    write("des3.pem", &["certificate.pem", "des3-key.pem"]);
    write("camellia.pem", &["certificate.pem", "camellia-key.pem"]);
    write("keyless.pem", &["certificate.pem"]);
    write("certificateless.pem", &["key.pem"]);
    write("elliptic.pem", &["certificate.pem", "ec-key.pem"]);
    std::fs::write(path("garbage.pfx"), [0x30, 0x82, 1, 2]).expect("there is room");

    let azure = Azure::start(entra_redis_emulator::Options {
        client_certificate: Some(directory.path().join("certificate.pem")),
        ..Default::default()
    })
    .await;
    let good = [
        ("plain.pem", ""),
        ("reversed.pem", ""),
        ("locked.pem", "opens-it"),
        ("des3.pem", "opens-it"),
        ("new.pfx", "opens-it"),
        ("open.pfx", ""),
    ];
    for (file, password) in good {
        let more = [
            ("AZURE_CLIENT_SECRET", ""),
            ("AZURE_CLIENT_CERTIFICATE_PATH", &path(file)),
            ("AZURE_CLIENT_CERTIFICATE_PASSWORD", password),
        ];
        authenticates(&azure, "EnvironmentCredential", &more).await;
    }
    let bad = [
        ("keyless.pem", "", "no private key"),
        ("certificateless.pem", "", "no certificate"),
        ("elliptic.pem", "", "not an RSA key"),
        ("locked.pem", "", "AZURE_CLIENT_CERTIFICATE_PASSWORD"),
        ("locked.pem", "wrong", "AZURE_CLIENT_CERTIFICATE_PASSWORD"),
        ("camellia.pem", "opens-it", "unsupported cipher"),
        ("new.pfx", "wrong", "AZURE_CLIENT_CERTIFICATE_PASSWORD"),
        ("garbage.pfx", "", "neither PEM nor PFX"),
        ("absent.pem", "", "cannot read the file"),
    ];
    for (file, password, expected) in bad {
        let mut command = crate::support::command(&[]);
        command.envs(azure.environment("EnvironmentCredential"));
        command
            .env("PORT", "0")
            .env("AZURE_CLIENT_SECRET", "")
            .env("AZURE_CLIENT_CERTIFICATE_PATH", path(file))
            .env("AZURE_CLIENT_CERTIFICATE_PASSWORD", password);
        let output = command.output().await.expect("the binary was built");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{file}: {stderr}");
        assert!(stderr.contains(expected), "{file}: {stderr}");
    }
}

/// By client id and by object id, through the library; a resource id is refused where the platform has no parameter for it.
/// (Virtual machines take all three: `tests/metadata-service`.)
#[tokio::test]
async fn a_managed_identity_is_named_in_each_way_the_platform_allows() {
    let azure = Azure::with_lifetime(60).await;
    let example = example("managed_identity");
    let run = async |kind: &str, id: &str| {
        let mut command = tokio::process::Command::new(&example);
        command
            .args([kind, id])
            .env_clear()
            .envs(azure.environment("ManagedIdentityCredential"));
        let output = command.output().await.expect("it was built");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (good, by_client_id, stderr) = run("client-id", azure.variable("AZURE_CLIENT_ID")).await;
    assert!(good, "{stderr}");
    let object_id = by_client_id.split(' ').next().expect("an object id");
    let (good, by_object_id, stderr) = run("object-id", object_id).await;
    assert!(good, "{stderr}");
    assert!(by_object_id.starts_with(object_id), "{by_object_id}");
    let (good, _, stderr) = run("resource-id", "/subscriptions/0/resourcegroups/x").await;
    assert!(!good && stderr.contains("ResourceId"), "{stderr}");
}

/// The platform replaces the federated token file; its content at the time of each exchange counts.
#[tokio::test]
async fn the_federated_token_file_is_read_for_each_exchange() {
    let azure = Azure::with_lifetime(60).await;
    let directory = tempfile::tempdir().expect("there is room");
    let file = directory.path().join("anywhere");
    let mut environment = azure.environment("WorkloadIdentityCredential");
    environment.push((
        "AZURE_FEDERATED_TOKEN_FILE".to_owned(),
        file.display().to_string(),
    ));
    let mut service = Service::start(&[], environment).await;
    let failed = "token refresh failed";
    service.event(failed).await; // it is not there
    std::fs::write(&file, "not an assertion").expect("there is room");
    eventually("it is refused", async || {
        service.log().contains("refused with status")
    })
    .await;
    std::fs::copy(azure.variable("AZURE_FEDERATED_TOKEN_FILE"), &file).expect("there is room");
    service.ready().await;
}

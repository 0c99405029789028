//! The service on Azure Container Apps: exactly the variables that the platform and the managed OpenTelemetry agent give
//! it, beside those of deploy/container-apps.

use serde_json::Value;

use crate::support::{Azure, Collector, Service, attribute, eventually};

const REPLICA: &str = "entra-redis--0000001-7d9f6c8b5-x2x4z";

#[tokio::test(flavor = "multi_thread")]
async fn the_user_assigned_identity_authenticates_and_the_agent_learns_which_replica_it_is() {
    let azure = Azure::with_lifetime(60).await;
    let agent = Collector::start().await;
    let given = |name: &'static str| (name, azure.variable(name).to_owned());
    let mut service = Service::start(
        &[],
        [
            // deploy/container-apps
            given("AZURE_CLIENT_ID"),
            given("REDIS_ENDPOINT"),
            ("ADMIN_PORT", "0".to_owned()),
            (
                "AZURE_TOKEN_CREDENTIALS",
                "ManagedIdentityCredential".to_owned(),
            ),
            ("OTEL_LOGS_EXPORTER", "otlp".to_owned()),
            // The platform
            given("IDENTITY_ENDPOINT"),
            given("IDENTITY_HEADER"),
            ("CONTAINER_APP_NAME", "entra-redis".to_owned()),
            ("CONTAINER_APP_REVISION", "entra-redis--0000001".to_owned()),
            ("CONTAINER_APP_REPLICA_NAME", REPLICA.to_owned()),
            ("CONTAINER_APP_PORT", "8080".to_owned()),
            ("HOSTNAME", "another".to_owned()),
            // The agent
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("{}/", agent.endpoint()),
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
            // The emulator's certificate
            given("REDIS_CA_FILE"),
        ],
    )
    .await;
    service.ready_at_admin().await;
    assert_eq!(service.get("/sample").await.status(), 200);

    // It is the user-assigned identity, not the system's: the emulator has both.
    let admin = service.admin.clone().expect("it has one");
    let (_, status) = service.at(&format!("{admin}/status.json")).await;
    let status: Value = serde_json::from_str(&status).expect("it is JSON");
    assert_eq!(status["objectId"], user_assigned(&azure).await);

    service.signal("-TERM");
    assert!(service.end().await.success());
    let selected = r#""credential.name":"ManagedIdentityCredential""#;
    let log = service.log();
    assert!(
        log.lines()
            .any(|line| line.contains("credential selected") && line.contains(selected)),
        "{log}"
    );
    // Log Analytics takes each line as text: every line is one JSON object with these.
    for line in service.log().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for name in ["timestamp", "level", "target", "message"] {
            assert!(event[name].is_string(), "{name} in {line}");
        }
    }

    eventually("the agent has records", async || {
        !agent.got().records().is_empty()
    })
    .await;
    let origin = agent.got().origin().attributes;
    for (name, value) in [
        ("service.name", "entra-redis"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", REPLICA),
        ("cloud.provider", "azure"),
        ("cloud.platform", "azure.container_apps"),
    ] {
        assert_eq!(attribute(&origin, name).as_deref(), Some(value), "{name}");
    }
}

/// The object id of the identity that AZURE_CLIENT_ID names, as its token has it.
async fn user_assigned(azure: &Azure) -> String {
    let ask = crate::support::client().get(format!(
        "{}?api-version=2019-08-01&resource=https://redis.azure.com&client_id={}",
        azure.variable("IDENTITY_ENDPOINT"),
        azure.variable("AZURE_CLIENT_ID"),
    ));
    let ask = ask.header("x-identity-header", azure.variable("IDENTITY_HEADER"));
    let answer = ask.send().await.expect("it answers");
    let answer = answer.text().await.expect("the body is whole");
    let answer: Value = serde_json::from_str(&answer).expect("it is JSON");
    let token = answer["access_token"].as_str().expect("a token");
    let claims = token.split('.').nth(1).expect("a token has three parts");
    let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims);
    let claims: Value = serde_json::from_slice(&claims.expect("base64")).expect("it is JSON");
    claims["oid"].as_str().expect("it has one").to_owned()
}

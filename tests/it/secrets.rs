//! No token, key or assertion in anything that leaves the process, at any level.

use std::time::Duration;

use entra_redis::emulator::EntraFault;

use crate::support::{Azure, Service};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_shown_or_measured_at_trace() {
    for credential in [
        "WorkloadIdentityCredential",
        "EnvironmentCredential",
        "ManagedIdentityCredential",
    ] {
        let azure = Azure::with_lifetime(2).await;
        let mut environment = azure.environment(credential);
        environment.push(("RUST_LOG".to_owned(), "trace".to_owned()));
        environment.push(("REDIS_KEY".to_owned(), "hush-hush".to_owned()));
        let mut service = Service::start(&[], environment).await;
        service.ready().await;
        let mut seen = String::new();
        for path in [
            "/sample",
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/nothing",
        ] {
            seen += &service.text(path).await;
        }
        tokio::time::sleep(Duration::from_secs(4)).await; // rotations
        // Failures have texts of their own: bad answers, refused requests, refused sign-ins.
        for fault in [
            EntraFault::Garbage,
            EntraFault::Status(401),
            EntraFault::Status(500),
        ] {
            azure.controls.set_entra(fault);
            tokio::time::sleep(Duration::from_secs(2)).await;
            seen += &service.text("/sample").await;
            seen += &service.text("/readyz").await;
        }
        service.signal("-TERM");
        service.end().await;
        let log = service.log();
        assert!(log.contains("\"level\":\"TRACE\""), "the level is in force");
        assert!(
            log.contains("getting a token failed"),
            "the faults were met"
        );
        seen += &log;

        let assertion = std::fs::read_to_string(azure.variable("AZURE_FEDERATED_TOKEN_FILE"))
            .expect("it is there");
        let secrets = [
            ("a token", "eyJ"), // how every JWT begins
            ("the federated assertion", &assertion[..40]),
            ("the client secret", azure.variable("AZURE_CLIENT_SECRET")),
            ("the identity header", azure.variable("IDENTITY_HEADER")),
            ("the access key", "hush-hush"),
        ];
        for (what, secret) in secrets {
            if let Some(line) = seen.lines().find(|line| line.contains(secret)) {
                panic!("{what} is shown with {credential}:\n{line}");
            }
        }
    }
}

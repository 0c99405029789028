//! Each credential signs in, through azure_identity and over real HTTP.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Azure, Service};

async fn signs_in(azure: &Azure, credential: &str, more: &[(&str, &str)]) {
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
async fn workload_identity_client_secret_and_managed_identity_sign_in() {
    let azure = Azure::with_lifetime(60).await;
    for credential in [
        "WorkloadIdentityCredential",
        "EnvironmentCredential",
        "ManagedIdentityCredential",
    ] {
        signs_in(&azure, credential, &[]).await;
    }
    // System-assigned: no client id.
    signs_in(
        &azure,
        "ManagedIdentityCredential",
        &[("AZURE_CLIENT_ID", "")],
    )
    .await;
}

/// The command-line tools are stood in for by scripts that print what they print, with a token of the emulator's.
#[tokio::test]
async fn azure_cli_and_azure_developer_cli_sign_in() {
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
        .expect("whole");
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
        std::fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\n"))
            .expect("there is room");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("it is ours");
    }
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    for credential in ["AzureCliCredential", "AzureDeveloperCliCredential"] {
        signs_in(&azure, credential, &[("PATH", &path)]).await;
    }
}

/// A configured credential that fails is asked again, never skipped for the next.
#[tokio::test]
async fn a_refused_credential_is_named_and_no_other_is_tried() {
    let azure = Azure::with_lifetime(60).await;
    let mut environment = azure.environment("");
    environment.push(("AZURE_CLIENT_SECRET".to_owned(), "wrong".to_owned()));
    let mut service = Service::start(&[], environment).await;
    let failed = service
        .event("getting a token failed, there is none to serve with")
        .await;
    assert_eq!(failed["entra.credential"], "EnvironmentCredential");
    let error = failed["error"].as_str().expect("a text");
    assert!(
        error.contains("status 401") && error.contains("AADSTS7000215"),
        "{error}"
    );
    assert_eq!(azure.controls.counts().tokens_issued, 0);
}

//! Faults of the identity: variables, assertions, and refusals by Entra ID.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entra_redis_emulator::EntraFault;
use serde_json::Value;

use super::{before, contains_all, report, the_fault, with};
use crate::support::{Port, RedisServer};

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
    let finding = finding.expect("the step was run");
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
    contains_all(&garbage, &["could not get a token", "port 443"]);
    azure.controls.set_entra(EntraFault::None);
    let unused = Port::reserve();
    let away = with(
        azure.environment("EnvironmentCredential"),
        &[(
            "AZURE_AUTHORITY_HOST",
            &format!("https://localhost:{unused}/"),
        )],
    );
    contains_all(
        &the_fault(&away, "token", "failed").await,
        &["port 443", "AZURE_AUTHORITY_HOST"],
    );
}

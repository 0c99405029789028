//! The identity that the platform gives the process: variables and files.

use super::{
    assertion,
    examination::{Checked, Failed, Passed},
};
use crate::config::{
    Config, CredentialChoice, CredentialName, Environment, Identity, IdentityEndpoint,
};
use entra_redis::{error_chain::ErrorChain, identity::AzureCredential};

pub(super) const LABEL_THE_POD: &str = "give the pod the label azure.workload.identity/use: \"true\" and its service account the annotation azure.workload.identity/client-id, then recreate the pod: the webhook only mutates new pods";

/// Determines the credentials that are configured, and checks the files that they need.
pub(super) fn check(environment: &Environment, config: &Config) -> Checked<AzureCredential> {
    let identity = &config.identity;
    let credential = AzureCredential::new(identity.clone()).map_err(|error| {
        Failed::new(
            ErrorChain(&error),
            "the configured credential cannot be set up",
            "correct the file or the variable that is named",
        )
    })?;
    match credential.candidates() {
        [] => Err(none(environment, &credential)),
        [CredentialName::WorkloadIdentityCredential] => workload(identity, credential),
        candidates
            if is_in_azure(environment)
                && identity.choice != CredentialChoice::Any
                && candidates.iter().all(is_of_developers) =>
        {
            Ok(developers_in_azure(credential))
        }
        [only] => {
            let only = *only;
            Ok(one(environment, identity, credential, only))
        }
        _ => Ok(several(environment, credential)),
    }
}

/// No credential is configured.
fn none(environment: &Environment, credential: &AzureCredential) -> Failed {
    let reasons: Vec<_> = CredentialName::ALL
        .iter()
        .filter_map(|name| reason(credential, *name))
        .collect();
    let observed = format!("no credential is available\n{}", reasons.join("\n"));
    if is_in_kubernetes(environment) {
        return Failed::new(
            observed,
            "this pod was not given an identity",
            LABEL_THE_POD,
        );
    }
    Failed::new(
        observed,
        "no identity is configured",
        "set the variables of one credential, or correct AZURE_TOKEN_CREDENTIALS",
    )
}

/// Workload identity alone is configured.
fn workload(identity: &Identity, credential: AzureCredential) -> Checked<AzureCredential> {
    let observed = match &identity.federated_token_file {
        Some(path) => assertion::check(path)?,
        None => CredentialName::WorkloadIdentityCredential
            .as_str()
            .to_owned(),
    };
    Ok(Passed::new(observed, credential))
}

/// Only the credentials of a developer's machine are configured, and the process runs in Azure.
fn developers_in_azure(credential: AzureCredential) -> Passed<AzureCredential> {
    let reason = reason(&credential, CredentialName::ManagedIdentityCredential);
    Passed::warned(
        format!(
            "tried in this order: {}\n{}",
            names(&credential),
            reason.unwrap_or_default()
        ),
        "these credentials use a developer's login, and there is none here",
        "unset AZURE_TOKEN_CREDENTIALS, or set it to prod: the platform provides the identity",
        credential,
    )
}

/// One credential, not workload identity, is configured.
fn one(
    environment: &Environment,
    identity: &Identity,
    credential: AzureCredential,
    only: CredentialName,
) -> Passed<AzureCredential> {
    let has_endpoint = identity.identity_endpoint == IdentityEndpoint::Complete;
    if only == CredentialName::ManagedIdentityCredential
        && has_endpoint
        && identity.client_id.is_none()
    {
        return Passed::warned(
            "ManagedIdentityCredential is configured",
            "without AZURE_CLIENT_ID the system-assigned identity is requested, which may not exist",
            "for a user-assigned identity set AZURE_CLIENT_ID to its client id: `az identity show --name NAME --resource-group RESOURCE_GROUP --query clientId`",
            credential,
        );
    }
    let is_configured = matches!(identity.choice, CredentialChoice::Only(_))
        || only == CredentialName::EnvironmentCredential
        || has_endpoint;
    if !is_configured {
        return several(environment, credential);
    }
    let client = match &identity.client_id {
        Some(client_id) => format!(" for the client id {client_id}"),
        None => String::new(),
    };
    let observed = format!("{} is configured{client}", only.as_str());
    Passed::new(observed, credential)
}

/// No variable selects a credential: they are tried one after the other.
fn several(environment: &Environment, credential: AzureCredential) -> Passed<AzureCredential> {
    let observed = format!(
        "no variable selects a credential; tried in this order: {}",
        names(&credential)
    );
    let reason = reason(&credential, CredentialName::WorkloadIdentityCredential);
    match reason {
        Some(reason) if is_in_kubernetes(environment) => Passed::warned(
            format!("{observed}\n{reason}"),
            "the workload identity webhook did not give this pod an identity: it would use that of its node",
            LABEL_THE_POD,
            credential,
        ),
        _ => Passed::new(observed, credential),
    }
}

fn names(credential: &AzureCredential) -> String {
    let candidates = credential.candidates().iter();
    let names: Vec<_> = candidates.map(|name| name.as_str()).collect();
    names.join(", ")
}

/// Returns the reason why this credential is not tried.
fn reason(credential: &AzureCredential, name: CredentialName) -> Option<String> {
    let mut skipped = credential.skipped().iter();
    let (_, reason) = skipped.find(|(one, _)| *one == name)?;
    Some(format!("{}: {reason}", name.as_str()))
}

fn is_of_developers(name: &CredentialName) -> bool {
    use CredentialName::*;
    matches!(name, AzureCliCredential | AzureDeveloperCliCredential)
}

/// Kubernetes sets this for every container ("Discovering services").
fn is_in_kubernetes(environment: &Environment) -> bool {
    environment.value("KUBERNETES_SERVICE_HOST").is_some()
}

/// Container Apps sets this for every container ("Manage environment variables on Azure Container Apps").
fn is_in_azure(environment: &Environment) -> bool {
    is_in_kubernetes(environment) || environment.value("CONTAINER_APP_NAME").is_some()
}

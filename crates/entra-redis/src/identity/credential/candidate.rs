//! A candidate that only asking can tell of: whether it is there, and the reason why it is passed over.

use std::time::Duration;

use crate::{config::CredentialName, identity::source::Error};

/// IMDS answers in milliseconds where it exists; elsewhere its address swallows packets. The limit is the one that the
/// Azure SDKs' own DefaultAzureCredential probes with.
const IMDS_PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const IMDS_PROBE_URL: &str =
    "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01";

/// Whether the Azure Instance Metadata Service answers. It refuses requests without its header with 400 (Azure page
/// "Azure Instance Metadata Service"); a proxy that answers for the whole network does not.
pub(super) async fn probe_imds(client: &reqwest::Client) -> Result<(), &'static str> {
    let answer = client
        .get(IMDS_PROBE_URL)
        .timeout(IMDS_PROBE_TIMEOUT)
        .send();
    match answer.await {
        Ok(answer) if answer.status() == reqwest::StatusCode::BAD_REQUEST => Ok(()),
        Ok(_) => Err(
            "not set: IDENTITY_ENDPOINT, and what answers at 169.254.169.254 is not Azure's metadata service",
        ),
        Err(_) => Err(
            "not set: IDENTITY_ENDPOINT, and nothing answers at 169.254.169.254; in Azure, is an identity assigned to this app?",
        ),
    }
}

/// Why a candidate was passed over, and what to do.
pub(super) fn reason(name: CredentialName, error: &Error) -> String {
    let words = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    match name {
        CredentialName::AzureCliCredential => format!("{words} (sign in with `az login`)"),
        CredentialName::AzureDeveloperCliCredential => {
            format!("{words} (sign in with `azd auth login`)")
        }
        _ => words,
    }
}

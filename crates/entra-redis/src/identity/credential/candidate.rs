//! Candidates that no variable configures: the probe of the metadata service, and the reasons for skipping one.

use std::time::Duration;

use crate::{env::CredentialName, identity::source::Error};

/// The timeout of the probe. IMDS answers in milliseconds where it exists; elsewhere its address drops packets. The value
/// is that of the Azure SDKs' own DefaultAzureCredential.
const IMDS_PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const IMDS_PROBE_URL: &str =
    "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01";

/// Checks that the Azure Instance Metadata Service answers. It refuses requests without its header with 400 (Azure page
/// "Azure Instance Metadata Service"), which distinguishes it from a proxy that answers for the whole network.
pub(super) async fn probe_imds(client: &reqwest::Client) -> Result<(), &'static str> {
    let request = client
        .get(IMDS_PROBE_URL)
        .timeout(IMDS_PROBE_TIMEOUT)
        .send();
    match request.await {
        Ok(answer) if answer.status() == reqwest::StatusCode::BAD_REQUEST => Ok(()),
        Ok(_) => {
            Err("not set: IDENTITY_ENDPOINT, and 169.254.169.254 is not Azure's metadata service")
        }
        Err(_) => Err(
            "not set: IDENTITY_ENDPOINT, and nothing responds at 169.254.169.254; in Azure, check that an identity is assigned to this app",
        ),
    }
}

/// Returns the reason for skipping a candidate that failed, and how to fix it.
pub(super) fn reason(name: CredentialName, error: &Error) -> String {
    let cause = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    match name {
        CredentialName::AzureCliCredential => format!("{cause} (log in with `az login`)"),
        CredentialName::AzureDeveloperCliCredential => {
            format!("{cause} (log in with `azd auth login`)")
        }
        _ => cause,
    }
}

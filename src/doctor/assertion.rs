//! The service account's token, which is exchanged for one of Entra ID's.

use std::path::Path;

use super::{claims::expiry, examination::Failed, identity::LABEL_THE_POD};
use entra_redis::diagnostics::Claims;

/// The audience that Entra ID requires of an assertion (Azure page "Workload identity federation").
const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Reads the federated token file and returns its description.
pub(super) fn check(path: &Path) -> Result<String, Failed> {
    let shown = path.display();
    let claims = Claims::of_file(path).map_err(|error| {
        Failed::new(
            format!("cannot read the federated token file {shown}: {error}"),
            "the pod has no service account token to exchange",
            LABEL_THE_POD,
        )
    })?;
    let claims = claims.ok_or_else(|| {
        Failed::new(
            format!("the federated token file {shown} does not contain a JWT"),
            "its content cannot be exchanged for an access token",
            "set AZURE_FEDERATED_TOKEN_FILE to the projected service account token; on AKS the webhook does so",
        )
    })?;
    let observed = format!(
        "{shown} has subject {}, issuer {}, audience {}, {}",
        claims.subject.as_deref().unwrap_or("none"),
        claims.issuer.as_deref().unwrap_or("none"),
        claims.audiences.join(", "),
        expiry(&claims)
    );
    if claims.expires_in().is_none() {
        return Err(Failed::new(
            observed,
            "Entra ID refuses an expired assertion (AADSTS700024)",
            "the kubelet renews the file: check that it is mounted as a projected volume, and check this machine's clock",
        ));
    }
    if !claims.audiences.iter().any(|one| one == EXCHANGE_AUDIENCE) {
        return Err(Failed::new(
            observed,
            "Entra ID refuses an assertion for another audience (AADSTS700212)",
            format!("project the service account token with the audience {EXCHANGE_AUDIENCE}"),
        ));
    }
    Ok(observed)
}

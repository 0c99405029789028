//! A token from Entra ID.

use std::time::SystemTime;

use tokio::time::{Instant, timeout};

use super::{
    duration::in_words,
    examination::{Checked, Failed, Passed},
};
use crate::config::{Config, CredentialChoice};
use entra_redis::{
    error_chain::ErrorChain,
    identity::{AccessToken, AzureCredential, Error, FailureKind, TokenSource},
};

/// Requests a token as the service does.
pub(super) async fn check(config: &Config, credential: &AzureCredential) -> Checked<AccessToken> {
    let limit = credential.attempt_timeout();
    let started = Instant::now();
    let result = timeout(limit, credential.fetch())
        .await
        .unwrap_or(Err(Error::TimedOut(limit)));
    let token = result.map_err(|error| {
        let cause = format!(
            "{}; the service cannot authenticate without a token",
            cause(error.kind())
        );
        Failed::new(observed(&error), cause, fix(&error, config))
    })?;
    let remaining = token.expires_at.duration_since(SystemTime::now());
    let observed = format!(
        "from {} after {} ms, expires in {}",
        credential.name(),
        started.elapsed().as_millis(),
        in_words(remaining.unwrap_or_default())
    );
    Ok(Passed::new(observed, token))
}

/// Returns what a failure of this kind means.
pub(super) fn cause(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::TimedOut => "the token request timed out",
        FailureKind::Unavailable => "no credential is available",
        FailureKind::Refused => "the token request was refused",
        FailureKind::Unusable => "the token that was received cannot be used",
        _ => "the token request failed",
    }
}

fn observed(error: &Error) -> String {
    match error {
        // Without the advice, which is the finding's fix.
        Error::Refused {
            credential,
            status,
            source,
            ..
        } => format!("{credential} was refused with status {status}: {source}"),
        other => ErrorChain(other).to_string(),
    }
}

fn fix(error: &Error, config: &Config) -> &'static str {
    match error {
        Error::Refused { fix, .. } => fix.unwrap_or(
            "read the response above; check AZURE_TENANT_ID, AZURE_CLIENT_ID and the identity in the portal",
        ),
        Error::Failed { credential: "AzureCliCredential", .. } => {
            "log in with `az login`; in Azure itself use the identity of the platform: see AZURE_TOKEN_CREDENTIALS"
        }
        Error::Failed { credential: "AzureDeveloperCliCredential", .. } => {
            "log in with `azd auth login`; in Azure itself use the identity of the platform: see AZURE_TOKEN_CREDENTIALS"
        }
        Error::TimedOut(_) | Error::Failed { .. } => {
            "allow outbound traffic to port 443 of the token endpoint (with managed identity the endpoint is on this machine), and check AZURE_AUTHORITY_HOST"
        }
        Error::Unavailable(_) if config.identity.choice == CredentialChoice::Development => {
            "log in with `az login`; in Azure itself unset AZURE_TOKEN_CREDENTIALS, or set it to prod: the platform provides the identity"
        }
        Error::Unavailable(_) => {
            "set the variables of one credential; on AKS label the pod, on Container Apps assign an identity"
        }
        Error::NotAJwt | Error::NoObjectId => "set REDIS_USERNAME to the object id of the identity",
        _ => "check this machine's clock, and read the error above",
    }
}

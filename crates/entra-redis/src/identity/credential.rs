//! Azure's credential chain as one token source.
//!
//! # Invariants
//! - The choice (see `selection`) is made once and never changes, so that a brief failure of Entra ID cannot make a pod
//!   authenticate as its node.
//! - A configured credential that fails is retried, never skipped.

mod candidate;
mod request;
#[cfg(test)]
mod tests;

#[cfg(feature = "client-certificate")]
use std::sync::Arc;
use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use azure_core::credentials::AccessToken as AzureToken;
use azure_identity::UserAssignedId;
use tracing::{info, warn};

use self::candidate::{probe_imds, reason};
use super::{
    claims,
    selection::{self, Selection},
    source::{AccessToken, Error, Skipped, TokenSource},
};
use crate::{
    env::{CredentialName, Identity, IdentityEndpoint},
    secret::Secret,
    tls,
};

/// Timeouts of one HTTP request for a token. The connection is to an address nearby or to Entra ID's front door.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The HTTP client's own timeout, above the caller's: the caller's must fire first, because its error is shorter.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(11);

/// The timeout of Azure CLI and Azure Developer CLI, which need seconds to start.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest clock skew without a warning: Kerberos' customary tolerance, which Entra ID shares.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The credential that the environment configures, with requests through azure_identity.
#[derive(Debug)]
pub struct AzureCredential {
    identity: Identity,
    managed_identity: Option<ManagedIdentity>,
    #[cfg(feature = "client-certificate")]
    certificate: Option<Arc<super::certificate::ClientCertificate>>,
    /// For Entra ID: the system's proxy settings apply.
    entra: reqwest::Client,
    /// For the managed identity endpoints, which are on this machine and never behind a proxy.
    local: reqwest::Client,
    selection: Selection,
    /// The credential chosen for the rest of the process.
    chosen: OnceLock<CredentialName>,
}

/// The name of a user-assigned managed identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedIdentity {
    /// The client id, as in `AZURE_CLIENT_ID`.
    ClientId(String),
    /// The object id, also called principal id.
    ObjectId(String),
    /// The ARM resource id. Not on Container Apps and App Service: azure_identity does not support it there.
    ResourceId(String),
}

impl ManagedIdentity {
    fn into_user_assigned_id(self) -> UserAssignedId {
        match self {
            Self::ClientId(id) => UserAssignedId::ClientId(id),
            Self::ObjectId(id) => UserAssignedId::ObjectId(id),
            Self::ResourceId(id) => UserAssignedId::ResourceId(id),
        }
    }
}

impl AzureCredential {
    /// Selects the credential that `identity` configures, and reads its files. Sends no request yet.
    ///
    /// # Errors
    /// TLS for the token endpoint cannot be set up, or the client certificate cannot be read.
    pub fn new(identity: Identity) -> Result<Self, Error> {
        let tls = tls::client_config(&identity.roots, None)?;
        let client = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(CLIENT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
        };
        let credential = Self {
            managed_identity: identity.client_id.clone().map(ManagedIdentity::ClientId),
            #[cfg(feature = "client-certificate")]
            certificate: read_certificate(&identity)?,
            entra: if is_on_this_machine(&identity.authority_host) {
                client().no_proxy()
            } else {
                client()
            }
            .build()
            .map_err(|source| Error::HttpClient(source.into()))?,
            local: client()
                .no_proxy()
                .build()
                .map_err(|source| Error::HttpClient(source.into()))?,
            selection: selection::select(&identity),
            identity,
            chosen: OnceLock::new(),
        };
        if let [only] = credential.selection.candidates[..] {
            credential.keep(only, &Skipped::default());
        }
        Ok(credential)
    }

    /// Uses this managed identity instead of the one that `AZURE_CLIENT_ID` names.
    ///
    /// # Errors
    /// A resource id on a platform where azure_identity does not support one.
    pub fn managed_identity(mut self, identity: ManagedIdentity) -> Result<Self, Error> {
        if let (ManagedIdentity::ResourceId(_), IdentityEndpoint::Complete) =
            (&identity, self.identity.identity_endpoint)
        {
            return Err(Error::ResourceId);
        }
        self.managed_identity = Some(identity);
        Ok(self)
    }

    /// Returns the credentials that are tried: one where variables decide.
    pub fn candidates(&self) -> &[CredentialName] {
        &self.selection.candidates
    }

    /// Returns the credentials that are not tried, each with the reason.
    pub fn skipped(&self) -> &[(CredentialName, String)] {
        &self.selection.skipped
    }

    /// Tries one candidate after the other and keeps the first that returns a token.
    async fn choose(&self) -> Result<AzureToken, Error> {
        let mut skipped = Skipped::default();
        for &name in &self.selection.candidates {
            if name == CredentialName::ManagedIdentityCredential {
                if let Err(reason) = probe_imds(&self.local).await {
                    skipped.push(name, reason.to_owned());
                    continue;
                }
                // It exists, so it is configured: from here on a failure is retried, not skipped.
                self.keep(name, &skipped);
                return self.request(name).await;
            }
            match self.request(name).await {
                Ok(token) => {
                    self.keep(name, &skipped);
                    return Ok(token);
                }
                Err(error) => skipped.push(name, reason(name, &error)),
            }
        }
        Err(Error::Unavailable(self.all_reasons(skipped)))
    }

    /// Adds the credentials that were never tried, with their reasons.
    fn all_reasons(&self, mut skipped: Skipped) -> Skipped {
        for (name, reason) in &self.selection.skipped {
            skipped.push(*name, reason.clone());
        }
        skipped.in_order()
    }

    /// Makes the choice, and logs it once.
    fn keep(&self, name: CredentialName, skipped: &Skipped) {
        self.chosen.get_or_init(|| {
            info!(
                credential.name = name.as_str(),
                credential.skipped = %self.all_reasons(skipped.clone()),
                "credential selected"
            );
            name
        });
    }
}

#[async_trait]
impl TokenSource for AzureCredential {
    fn name(&self) -> &'static str {
        match self.chosen.get() {
            Some(name) => name.as_str(),
            None => "undecided",
        }
    }

    fn attempt_timeout(&self) -> Duration {
        match self.chosen.get() {
            None
            | Some(
                CredentialName::AzureCliCredential | CredentialName::AzureDeveloperCliCredential,
            ) => COMMAND_TIMEOUT,
            Some(_) => REQUEST_TIMEOUT,
        }
    }

    async fn fetch(&self) -> Result<AccessToken, Error> {
        let token = match self.chosen.get() {
            Some(&name) => self.request(name).await?,
            None => self.choose().await?,
        };
        let secret = Secret::new(token.token.secret());
        let expires_at = token.expires_on.into();
        if let Some(skew) = claims::skew(secret.expose(), expires_at, SystemTime::now())
            && skew.by > MAX_CLOCK_SKEW
        {
            // Only reported: token lifetimes are measured on the monotonic clock.
            warn!(clock.skew_s = skew.seconds(), "clock skew detected");
        }
        match &self.identity.username {
            Some(username) => Ok(AccessToken {
                username: username.clone(),
                secret,
                expires_at,
            }),
            None => AccessToken::from_jwt(secret, expires_at),
        }
    }
}

/// Returns whether the authority is an emulated Entra ID, which no proxy can reach.
fn is_on_this_machine(authority: &str) -> bool {
    let url = azure_core::http::Url::parse(authority).ok();
    let host = url.as_ref().and_then(|url| url.host_str());
    host.is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// Reads the client certificate, where one is configured and no secret takes precedence.
#[cfg(feature = "client-certificate")]
fn read_certificate(
    identity: &Identity,
) -> Result<Option<Arc<super::certificate::ClientCertificate>>, Error> {
    match (&identity.client_certificate, &identity.client_secret) {
        (Some(path), None) => {
            let password = identity.client_certificate_password.as_ref();
            let certificate = super::certificate::ClientCertificate::read(path, password);
            let certificate = certificate.map_err(|source| Error::Certificate {
                path: path.clone(),
                source,
            })?;
            Ok(Some(Arc::new(certificate)))
        }
        _ => Ok(None),
    }
}

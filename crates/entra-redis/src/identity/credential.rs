//! Azure's credentials as one token source: how each is asked, and how its refusal is explained.
//!
//! What always holds: the choice (see `chain`) is made once and never changes, so that a hiccup of Entra ID cannot sign a
//! pod in as its node; a configured credential that fails is asked again, never skipped. Each request is made by a fresh
//! credential object, because azure_identity hands out its cached token until 300 s before expiry and keeps a federated
//! token file for 10 minutes, and with the SDK's own retries off, because they can hold a call for more than a minute.

mod candidate;
mod request;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use azure_core::credentials::AccessToken as AzureToken;
use azure_identity::UserAssignedId;
use tracing::{info, warn};

use self::candidate::{probe_imds, reason};
use super::{
    chain::{self, Selection},
    claims,
    source::{AccessToken, Error, Skipped, TokenSource},
};
use crate::{
    config::{CredentialName, Identity, IdentityEndpoint},
    secret::Secret,
    tls,
};

/// Limits of one HTTP request for a token. Connecting is to an address nearby or to Entra ID's front door.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the caller's own limit is the same, it is to end the request first: it says so in fewer words.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(11);

/// Azure CLI and Azure Developer CLI need seconds to start.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Kerberos' customary tolerance, which Entra ID shares: a larger difference between clocks is worth a warning.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The credential that the environment configures, asked through azure_identity.
#[derive(Debug)]
pub struct AzureCredential {
    identity: Identity,
    managed_identity: Option<ManagedIdentity>,
    #[cfg(feature = "client-certificate")]
    certificate: Option<Arc<super::certificate::ClientCertificate>>,
    /// Reaches Entra ID: the system's proxy settings apply.
    entra: reqwest::Client,
    /// Reaches the managed identity endpoints, which are on this machine and never behind a proxy.
    local: reqwest::Client,
    selection: Selection,
    /// The one that is used from now on.
    chosen: OnceLock<CredentialName>,
}

/// Names a user-assigned managed identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedIdentity {
    /// By the client id, as `AZURE_CLIENT_ID` does.
    ClientId(String),
    /// By the object id, also called principal id.
    ObjectId(String),
    /// By the ARM resource id. Not on Container Apps and App Service: azure_identity refuses it there.
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
    /// Reads from `identity` which credential is configured, and its files. Nothing is asked yet.
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
            entra: match is_on_this_machine(&identity.authority_host) {
                true => client().no_proxy(),
                false => client(),
            }
            .build()
            .map_err(|source| Error::HttpClient(source.into()))?,
            local: client()
                .no_proxy()
                .build()
                .map_err(|source| Error::HttpClient(source.into()))?,
            selection: chain::select(&identity),
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
    /// A resource id where the platform's protocol cannot carry one.
    pub fn managed_identity(mut self, identity: ManagedIdentity) -> Result<Self, Error> {
        if let (ManagedIdentity::ResourceId(_), IdentityEndpoint::Complete) =
            (&identity, self.identity.identity_endpoint)
        {
            return Err(Error::ResourceId);
        }
        self.managed_identity = Some(identity);
        Ok(self)
    }

    /// What may be asked for tokens: one where variables decide.
    pub fn candidates(&self) -> &[CredentialName] {
        &self.selection.candidates
    }

    /// Those that are not asked, each with the reason.
    pub fn skipped(&self) -> &[(CredentialName, String)] {
        &self.selection.skipped
    }

    /// Asks one candidate after the other; the first that answers is kept.
    async fn choose(&self) -> Result<AzureToken, Error> {
        let mut skipped = Skipped::default();
        for &name in &self.selection.candidates {
            let answer = match name {
                CredentialName::ManagedIdentityCredential => match probe_imds(&self.local).await {
                    Ok(()) => {
                        // It is there, so it is configured: from here on a failure is retried, not skipped.
                        self.keep(name, &skipped);
                        return self.ask(name).await;
                    }
                    Err(reason) => Err(reason.to_owned()),
                },
                _ => self.ask(name).await.map_err(|error| reason(name, &error)),
            };
            match answer {
                Ok(token) => {
                    self.keep(name, &skipped);
                    return Ok(token);
                }
                Err(reason) => skipped.push(name, reason),
            }
        }
        Err(Error::Unavailable(self.all_reasons(skipped)))
    }

    /// Why each one that was not asked was not, and what those that were said.
    fn all_reasons(&self, mut skipped: Skipped) -> Skipped {
        for (name, reason) in &self.selection.skipped {
            skipped.push(*name, reason.clone());
        }
        skipped.in_order()
    }

    fn keep(&self, name: CredentialName, skipped: &Skipped) {
        self.chosen.get_or_init(|| {
            let others = self.all_reasons(skipped.clone());
            info!(
                entra.credential = name.as_str(),
                entra.others = %others,
                "{} is used; the others are not: {others}",
                name.as_str()
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
            Some(&name) => self.ask(name).await?,
            None => self.choose().await?,
        };
        let secret = Secret::new(token.token.secret());
        let expires_at = token.expires_on.into();
        if let Some(skew) = claims::skew(secret.expose(), expires_at, SystemTime::now())
            && skew.by > MAX_CLOCK_SKEW
        {
            warn!(
                clock.skew_s = skew.by.as_secs(),
                "this machine's clock is {skew} by the token that came: tokens are counted on the time since they came, but fix the clock"
            );
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

/// An emulated Entra ID, which no proxy can reach.
fn is_on_this_machine(authority: &str) -> bool {
    let url = azure_core::http::Url::parse(authority).ok();
    let host = url.as_ref().and_then(|url| url.host_str());
    host.is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// The client certificate, where one is configured and no secret comes before it.
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

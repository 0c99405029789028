//! Azure's credentials as one token source: which one is used, and how each is asked.
//!
//! What always holds: the choice is made once and never changes, so that a hiccup of Entra ID cannot sign a pod in as
//! its node; a configured credential that fails is asked again, never skipped. Each request is made by a fresh
//! credential object, because azure_identity hands out its cached token until 300 s before expiry, and with the SDK's
//! own retries off, because they can hold a call for more than a minute.

use std::{sync::Arc, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use azure_core::{
    cloud::CustomConfiguration,
    credentials::{AccessToken as AzureToken, Secret as AzureSecret, TokenCredential},
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use tracing::info;

use super::source::{AccessToken, Error, Sanitised, TokenSource, Tried};
use crate::{
    config::{CredentialChoice, CredentialName, Identity},
    secret::Secret,
    tls,
};

/// Limits of one HTTP request for a token. Connecting is to an address nearby or to Entra ID's front door.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Azure CLI and Azure Developer CLI need seconds to start.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// IMDS answers in milliseconds where it exists; elsewhere its address swallows packets. The limit is the one that the
/// Azure SDKs' own DefaultAzureCredential probes with.
const IMDS_PROBE_LIMIT: Duration = Duration::from_secs(1);
const IMDS_ADDRESS: &str = "169.254.169.254:80";

/// The credential that the environment configures, asked through azure_identity.
#[derive(Debug)]
pub struct AzureCredential {
    identity: Identity,
    /// Reaches Entra ID: the system's proxy settings apply.
    entra: reqwest::Client,
    /// Reaches the managed identity endpoints, which are on this machine and never behind a proxy.
    local: reqwest::Client,
    /// The credentials that may be asked, in order: one where the choice is clear from the environment.
    candidates: Vec<CredentialName>,
    /// The one that is used from now on.
    chosen: OnceLock<CredentialName>,
}

impl AzureCredential {
    /// Reads from `identity` which credential is configured. Nothing is asked yet.
    ///
    /// # Errors
    /// TLS for the token endpoint cannot be set up.
    pub fn new(identity: Identity) -> Result<Self, Error> {
        let tls = tls::client_config(&identity.roots, None)?;
        let client = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(CONNECT_LIMIT)
                .timeout(REQUEST_LIMIT)
                .redirect(reqwest::redirect::Policy::none())
        };
        let candidates = candidates(&identity);
        let chosen = OnceLock::new();
        if let [only] = candidates[..] {
            chosen.get_or_init(|| only);
        }
        Ok(Self {
            entra: client().build().map_err(Error::HttpClient)?,
            local: client().no_proxy().build().map_err(Error::HttpClient)?,
            identity,
            candidates,
            chosen,
        })
    }

    /// Asks one candidate after the other; the first that answers is kept.
    async fn choose(&self) -> Result<AzureToken, Error> {
        let mut tried = Tried::default();
        for &name in &self.candidates {
            let answer = match name {
                CredentialName::ManagedIdentityCredential => match probe_imds().await {
                    Ok(()) => {
                        // It is there, so it is configured: from here on a failure is retried, not skipped.
                        self.keep(name, &tried);
                        return self.ask(name).await;
                    }
                    Err(reason) => Err(reason.to_owned()),
                },
                _ => self.ask(name).await.map_err(|error| reason(&error)),
            };
            match answer {
                Ok(token) => {
                    self.keep(name, &tried);
                    return Ok(token);
                }
                Err(reason) => tried.0.push((name.as_str(), reason)),
            }
        }
        Err(Error::Unavailable(tried))
    }

    fn keep(&self, name: CredentialName, tried: &Tried) {
        self.chosen.get_or_init(|| {
            info!(
                entra.credential = name.as_str(),
                entra.passed_over = %tried,
                "this credential is used from now on"
            );
            name
        });
    }

    async fn ask(&self, name: CredentialName) -> Result<AzureToken, Error> {
        let scopes = [self.identity.scope.as_str()];
        let answer = match self.credential(name) {
            Ok(credential) => credential.get_token(&scopes, None).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| failure(name, &error))
    }

    /// A fresh credential object, made without asking anything.
    fn credential(&self, name: CredentialName) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let identity = &self.identity;
        Ok(match name {
            CredentialName::EnvironmentCredential => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                let secret = identity.client_secret.as_ref().map_or("", Secret::expose);
                ClientSecretCredential::new(
                    &text(&identity.tenant_id),
                    text(&identity.client_id),
                    AzureSecret::new(secret.to_owned()),
                    Some(ClientSecretCredentialOptions {
                        client_options: self.options(&self.entra),
                    }),
                )?
            }
            CredentialName::WorkloadIdentityCredential => {
                WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions {
                        client_options: self.options(&self.entra),
                    },
                    client_id: identity.client_id.clone(),
                    tenant_id: identity.tenant_id.clone(),
                    token_file_path: identity.federated_token_file.clone(),
                }))?
            }
            CredentialName::ManagedIdentityCredential => {
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: identity.client_id.clone().map(UserAssignedId::ClientId),
                    client_options: self.options(&self.local),
                }))?
            }
            CredentialName::AzureCliCredential => AzureCliCredential::new(None)?,
            CredentialName::AzureDeveloperCliCredential => AzureDeveloperCliCredential::new(None)?,
        })
    }

    fn options(&self, client: &reqwest::Client) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = self.identity.authority_host.clone();
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(client.clone()))),
            cloud: Some(Arc::new(cloud.into())),
            ..Default::default()
        }
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

    fn attempt_limit(&self) -> Duration {
        match self.chosen.get() {
            None
            | Some(
                CredentialName::AzureCliCredential | CredentialName::AzureDeveloperCliCredential,
            ) => COMMAND_LIMIT,
            Some(_) => REQUEST_LIMIT,
        }
    }

    async fn fetch(&self) -> Result<AccessToken, Error> {
        let token = match self.chosen.get() {
            Some(&name) => self.ask(name).await?,
            None => self.choose().await?,
        };
        let secret = Secret::new(token.token.secret());
        let expires_at = token.expires_on.into();
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

/// The credentials that `identity` allows and configures. Where one is configured by variables it stands alone: only
/// "not configured" moves on to the next.
fn candidates(identity: &Identity) -> Vec<CredentialName> {
    use CredentialName::*;
    let allowed: &[CredentialName] = match &identity.choice {
        CredentialChoice::Any => &CredentialName::ALL,
        CredentialChoice::Production => &CredentialName::ALL[..3],
        CredentialChoice::Development => &CredentialName::ALL[3..],
        CredentialChoice::Only(name) => std::slice::from_ref(name),
    };
    let application = identity.tenant_id.is_some() && identity.client_id.is_some();
    let by_variables = |name: &CredentialName| match name {
        EnvironmentCredential => application && identity.client_secret.is_some(),
        WorkloadIdentityCredential => application && identity.federated_token_file.is_some(),
        ManagedIdentityCredential => identity.has_identity_endpoint,
        AzureCliCredential | AzureDeveloperCliCredential => false,
    };
    let found_by_asking = |name: &&CredentialName| {
        matches!(
            name,
            ManagedIdentityCredential | AzureCliCredential | AzureDeveloperCliCredential
        )
    };
    match allowed.iter().find(|name| by_variables(name)) {
        Some(name) => vec![*name],
        None => allowed.iter().filter(found_by_asking).copied().collect(),
    }
}

/// Whether something listens at the address of the Azure Instance Metadata Service.
async fn probe_imds() -> Result<(), &'static str> {
    let connect = tokio::net::TcpStream::connect(IMDS_ADDRESS);
    match tokio::time::timeout(IMDS_PROBE_LIMIT, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => {
            Err("IDENTITY_ENDPOINT is not set and nothing answers at 169.254.169.254")
        }
    }
}

/// Sorts the SDK's error by whether the other side answered, and takes its words without its secrets.
fn failure(name: CredentialName, error: &azure_core::Error) -> Error {
    let credential = name.as_str();
    let source = Sanitised::new(error);
    // The SDK wraps the HTTP error into one of its own kind, so the status is in the sources.
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = inner {
        let status = current
            .downcast_ref::<azure_core::Error>()
            .and_then(|error| error.http_status());
        if let Some(status) = status {
            return Error::Refused {
                credential,
                status: status.into(),
                source,
            };
        }
        inner = current.source();
    }
    Error::Failed { credential, source }
}

/// Why a candidate was passed over, in its own words.
fn reason(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn candidates_of(pairs: &[(&str, &str)]) -> Vec<&'static str> {
        let mut environment: Environment = pairs.iter().copied().collect();
        environment.set("REDIS_ENDPOINT", "localhost:6379");
        let config = Config::new(&environment).expect("the pairs are valid");
        candidates(&config.identity)
            .iter()
            .map(|name| name.as_str())
            .collect()
    }

    #[test]
    fn what_the_variables_configure_stands_alone() {
        let application = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
        let with = |more: &[(&'static str, &'static str)]| {
            candidates_of(&[&application[..], more].concat())
        };
        let file = ("AZURE_FEDERATED_TOKEN_FILE", "/f");
        let secret = ("AZURE_CLIENT_SECRET", "s");
        let endpoint = [("IDENTITY_ENDPOINT", "http://e"), ("IDENTITY_HEADER", "h")];
        assert_eq!(with(&[secret, file]), ["EnvironmentCredential"]);
        assert_eq!(
            with(&[file, endpoint[0], endpoint[1]]),
            ["WorkloadIdentityCredential"]
        );
        assert_eq!(with(&endpoint), ["ManagedIdentityCredential"]);
        assert_eq!(
            with(&[
                file,
                ("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
            ]),
            ["ManagedIdentityCredential"]
        );
    }

    #[test]
    fn what_no_variable_announces_is_found_by_asking_in_order() {
        let asked = [
            "ManagedIdentityCredential",
            "AzureCliCredential",
            "AzureDeveloperCliCredential",
        ];
        assert_eq!(candidates_of(&[]), asked);
        // A secret without its application configures nothing; so does half an identity endpoint.
        assert_eq!(
            candidates_of(&[("AZURE_CLIENT_SECRET", "s"), ("IDENTITY_ENDPOINT", "e")]),
            asked
        );
        assert_eq!(
            candidates_of(&[("AZURE_TOKEN_CREDENTIALS", "dev")]),
            &asked[1..]
        );
        assert_eq!(
            candidates_of(&[("AZURE_TOKEN_CREDENTIALS", "prod")]),
            &asked[..1]
        );
    }
}

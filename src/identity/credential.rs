//! Azure's credentials as one token source: how each is asked, and how its refusal is explained.
//!
//! What always holds: the choice (see `chain`) is made once and never changes, so that a hiccup of Entra ID cannot sign a
//! pod in as its node; a configured credential that fails is asked again, never skipped. Each request is made by a fresh
//! credential object, because azure_identity hands out its cached token until 300 s before expiry and keeps a federated
//! token file for 10 minutes, and with the SDK's own retries off, because they can hold a call for more than a minute.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use azure_core::{
    cloud::CustomConfiguration,
    credentials::{AccessToken as AzureToken, Secret as AzureSecret, TokenCredential},
    error::ErrorKind,
    http::{ClientOptions, RetryOptions, Transport, headers::RETRY_AFTER},
};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use tracing::{info, warn};

use super::{
    chain::{self, Selection},
    claims, explain,
    source::{AccessToken, Error, Sanitised, TokenSource, Tried},
};
use crate::{
    config::{CredentialName, Identity, IdentityEndpoint},
    secret::Secret,
    tls,
};

/// Limits of one HTTP request for a token. Connecting is to an address nearby or to Entra ID's front door.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Where the caller's own limit is the same, it is to end the request first: it says so in fewer words.
const CLIENT_LIMIT: Duration = Duration::from_secs(11);

/// Azure CLI and Azure Developer CLI need seconds to start.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// IMDS answers in milliseconds where it exists; elsewhere its address swallows packets. The limit is the one that the
/// Azure SDKs' own DefaultAzureCredential probes with.
const IMDS_PROBE_LIMIT: Duration = Duration::from_secs(1);
const IMDS_PROBE: &str =
    "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01";

/// Kerberos' customary tolerance, which Entra ID shares: a larger difference between clocks is worth a warning.
pub(crate) const SKEW_TOLERATED: Duration = Duration::from_secs(5 * 60);

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

impl From<ManagedIdentity> for UserAssignedId {
    fn from(identity: ManagedIdentity) -> Self {
        match identity {
            ManagedIdentity::ClientId(id) => Self::ClientId(id),
            ManagedIdentity::ObjectId(id) => Self::ObjectId(id),
            ManagedIdentity::ResourceId(id) => Self::ResourceId(id),
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
                .connect_timeout(CONNECT_LIMIT)
                .timeout(CLIENT_LIMIT)
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
            .map_err(Error::HttpClient)?,
            local: client().no_proxy().build().map_err(Error::HttpClient)?,
            selection: chain::select(&identity),
            identity,
            chosen: OnceLock::new(),
        };
        if let [only] = credential.selection.candidates[..] {
            credential.keep(only, &Tried::default());
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
    pub fn passed_over(&self) -> &[(CredentialName, String)] {
        &self.selection.passed_over
    }

    /// Asks one candidate after the other; the first that answers is kept.
    async fn choose(&self) -> Result<AzureToken, Error> {
        let mut tried = Tried::default();
        for &name in &self.selection.candidates {
            let answer = match name {
                CredentialName::ManagedIdentityCredential => match probe_imds(&self.local).await {
                    Ok(()) => {
                        // It is there, so it is configured: from here on a failure is retried, not skipped.
                        self.keep(name, &tried);
                        return self.ask(name).await;
                    }
                    Err(reason) => Err(reason.to_owned()),
                },
                _ => self.ask(name).await.map_err(|error| reason(name, &error)),
            };
            match answer {
                Ok(token) => {
                    self.keep(name, &tried);
                    return Ok(token);
                }
                Err(reason) => tried.push(name, reason),
            }
        }
        Err(Error::Unavailable(self.all_reasons(tried)))
    }

    /// Why each one that was not asked was not, and what those that were said.
    fn all_reasons(&self, mut tried: Tried) -> Tried {
        for (name, reason) in &self.selection.passed_over {
            tried.push(*name, reason.clone());
        }
        tried.in_order()
    }

    fn keep(&self, name: CredentialName, tried: &Tried) {
        self.chosen.get_or_init(|| {
            let others = self.all_reasons(tried.clone());
            info!(
                entra.credential = name.as_str(),
                entra.others = %others,
                "{} is used; the others are not: {others}",
                name.as_str()
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
            CredentialName::EnvironmentCredential => return self.service_principal(),
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
                    user_assigned_id: self.managed_identity.clone().map(Into::into),
                    client_options: self.options(&self.local),
                }))?
            }
            CredentialName::AzureCliCredential => AzureCliCredential::new(None)?,
            CredentialName::AzureDeveloperCliCredential => AzureDeveloperCliCredential::new(None)?,
        })
    }

    /// By secret where there is one, else by certificate, as EnvironmentCredential does in every SDK.
    fn service_principal(&self) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let identity = &self.identity;
        let tenant_id = identity.tenant_id.clone().unwrap_or_default();
        let client_id = identity.client_id.clone().unwrap_or_default();
        #[cfg(feature = "client-certificate")]
        if let (None, Some(certificate)) = (&identity.client_secret, &self.certificate) {
            let authority = identity.authority_host.trim_end_matches('/');
            let assertion = super::certificate::CertificateAssertion {
                certificate: certificate.clone(),
                client_id: client_id.clone(),
                audience: format!("{authority}/{tenant_id}/oauth2/v2.0/token"),
            };
            let options = ClientAssertionCredentialOptions {
                client_options: self.options(&self.entra),
            };
            return Ok(azure_identity::ClientAssertionCredential::new(
                tenant_id,
                client_id,
                assertion,
                Some(options),
            )?);
        }
        let secret = identity.client_secret.as_ref().map_or("", Secret::expose);
        Ok(ClientSecretCredential::new(
            &tenant_id,
            client_id,
            AzureSecret::new(secret.to_owned()),
            Some(ClientSecretCredentialOptions {
                client_options: self.options(&self.entra),
            }),
        )?)
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
        if let Some(skew) = claims::skew(secret.expose(), expires_at, SystemTime::now())
            && skew.by > SKEW_TOLERATED
        {
            warn!(
                clock.skew_s = skew.by.as_secs(),
                "this machine's clock is {skew} by the token that came: tokens are counted on the time since they came, but mend the clock"
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

/// Whether the Azure Instance Metadata Service answers. It refuses requests without its header with 400 (Azure page
/// "Azure Instance Metadata Service"); a proxy that answers for the whole network does not.
async fn probe_imds(client: &reqwest::Client) -> Result<(), &'static str> {
    let answer = client.get(IMDS_PROBE).timeout(IMDS_PROBE_LIMIT).send();
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

/// Sorts the SDK's error by whether the other side answered, explains it, and takes its words without its secrets.
fn failure(name: CredentialName, error: &azure_core::Error) -> Error {
    let credential = name.as_str();
    let source = Sanitised::new(error);
    // The SDK wraps the HTTP error into one of its own kind, so the answer is in the sources.
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = inner {
        let kind = current
            .downcast_ref::<azure_core::Error>()
            .map(azure_core::Error::kind);
        if let Some(ErrorKind::HttpResponse {
            status,
            raw_response,
            ..
        }) = kind
        {
            let status = u16::from(*status);
            let retry_after = raw_response.as_ref().and_then(|response| {
                let seconds = response.headers().get_optional_str(&RETRY_AFTER)?;
                Some(Duration::from_secs(seconds.trim().parse().ok()?))
            });
            let mend = match name {
                CredentialName::ManagedIdentityCredential => explain::managed_identity(status),
                _ => explain::code(&source.to_string()).and_then(explain::aadsts),
            };
            return Error::Refused {
                credential,
                status,
                mend,
                retry_after,
                source,
            };
        }
        inner = current.source();
    }
    Error::Failed { credential, source }
}

/// Why a candidate was passed over, and what to do.
fn reason(name: CredentialName, error: &Error) -> String {
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

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        config::{Config, Environment},
        emulator::{Emulator, Options},
    };

    /// The metadata service's requests as azure_identity makes them, led to the emulator by a client that rewrites where
    /// they go.
    #[tokio::test]
    async fn the_metadata_service_is_asked_as_documented() {
        let emulator = Emulator::bind(Options::default())
            .await
            .expect("free ports");
        let variables: std::collections::HashMap<_, _> = emulator.variables().into_iter().collect();
        let stop = CancellationToken::new();
        let running = tokio::spawn(emulator.run(stop.clone()));
        let pairs = [
            ("AZURE_TOKEN_CREDENTIALS", "prod"),
            ("AZURE_CLIENT_ID", variables["AZURE_CLIENT_ID"].as_str()),
            ("REDIS_ENDPOINT", "localhost:1"),
        ];
        let environment: Environment = pairs.into_iter().collect();
        let config = Config::new(&environment).expect("the pairs are valid");
        let mut credential = AzureCredential::new(config.identity).expect("it can be set up");
        let endpoint = variables["IDENTITY_ENDPOINT"].trim_end_matches("/msi/token");
        let proxy = reqwest::Proxy::http(endpoint).expect("it is a URL");
        let tls = tls::client_config(&Default::default(), None).expect("the system has roots");
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .proxy(proxy);
        credential.local = client.build().expect("nothing to go wrong");

        let token = credential
            .fetch()
            .await
            .expect("it is there and issues one");
        assert_eq!(credential.name(), "ManagedIdentityCredential");
        assert_eq!(token.username.len(), 36, "an object id");

        // By its other two names: one is the user name, the other stands in the token.
        let claims = token.secret.expose().split('.').nth(1).expect("a JWT");
        let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        let resource_id = claims["xms_mirid"].as_str().expect("its resource id");
        for identity in [
            ManagedIdentity::ObjectId(token.username.clone()),
            ManagedIdentity::ResourceId(resource_id.to_owned()),
        ] {
            credential = credential
                .managed_identity(identity)
                .expect("no App Service");
            let again = credential.fetch().await.expect("it issues one");
            assert_eq!(again.username, token.username);
        }
        let unknown = ManagedIdentity::ResourceId("/subscriptions/0".to_owned());
        credential = credential
            .managed_identity(unknown)
            .expect("no App Service");
        let error = credential.fetch().await.expect_err("nobody's");
        assert!(error.to_string().contains("is not assigned"), "{error}");
        stop.cancel();
        running.await.expect("it ends well");
    }
}

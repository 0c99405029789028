//! One request for a token: the azure_identity credential that sends it, and the conversion of its errors.
//!
//! Each request is made by a new credential object, because azure_identity returns its cached token until 300 s before
//! expiry and caches a federated token file for 10 minutes, and without the SDK's own retries, because they can take more
//! than a minute.

use std::{sync::Arc, time::Duration};

use azure_core::{
    cloud::CustomConfiguration,
    credentials::{AccessToken as AzureToken, Secret as AzureSecret, TokenCredential},
    error::ErrorKind,
    http::{ClientOptions, RetryOptions, Transport, headers::RETRY_AFTER},
};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};

use super::{AzureCredential, ManagedIdentity};
use crate::{
    env::CredentialName,
    identity::{
        explain,
        source::{Error, Sanitised},
    },
    secret::Secret,
};

impl AzureCredential {
    /// Requests a token with this credential.
    pub(super) async fn request(&self, name: CredentialName) -> Result<AzureToken, Error> {
        let scopes = [self.identity.scope.as_str()];
        let result = match self.credential(name) {
            Ok(credential) => credential.get_token(&scopes, None).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| failure(name, &error))
    }

    /// Returns a new credential object; sends nothing.
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
                    user_assigned_id: self
                        .managed_identity
                        .clone()
                        .map(ManagedIdentity::into_user_assigned_id),
                    client_options: self.options(&self.local),
                }))?
            }
            CredentialName::AzureCliCredential => AzureCliCredential::new(None)?,
            CredentialName::AzureDeveloperCliCredential => AzureDeveloperCliCredential::new(None)?,
        })
    }

    /// Returns a credential with the secret if there is one, else with the certificate, like EnvironmentCredential in every SDK.
    fn service_principal(&self) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let identity = &self.identity;
        let tenant_id = identity.tenant_id.clone().unwrap_or_default();
        let client_id = identity.client_id.clone().unwrap_or_default();
        #[cfg(feature = "client-certificate")]
        if let (None, Some(certificate)) = (&identity.client_secret, &self.certificate) {
            let authority = identity.authority_host.trim_end_matches('/');
            let assertion = crate::identity::certificate::CertificateAssertion {
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

/// Converts the SDK's error: refused if there was an answer, with its explanation, and without its secrets.
fn failure(name: CredentialName, error: &azure_core::Error) -> Error {
    let credential = name.as_str();
    let source = Sanitised::new(error);
    // The SDK wraps the HTTP error into one of its own kind, so the response is among the sources.
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
            let fix = match name {
                CredentialName::ManagedIdentityCredential => explain::managed_identity(status),
                _ => explain::code(&source.to_string()).and_then(explain::aadsts),
            };
            return Error::Refused {
                credential,
                status,
                fix,
                retry_after,
                source,
            };
        }
        inner = current.source();
    }
    Error::Failed { credential, source }
}
